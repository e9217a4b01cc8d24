"""NAS-Bench-201's strings and topologies, checked against the benchmark's table."""

import csv

import numpy as np
import pytest

from keras_khyper.spaces import NASBench201


@pytest.fixture(scope="module")
def rows(shared_dir):
    path = shared_dir / "data" / "nas_bench_201" / "accuracies.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_official_order():
    space = NASBench201()
    assert space.operations == (
        "none",
        "skip_connect",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
    )
    assert space.edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert space.num_nodes == 4
    assert space.decision_names[3] == "edge03"
    assert len(space) == 15625


def test_string_of_a_published_cell():
    # Number 13714 of the benchmark, one of its two optima on CIFAR-10 (94.37%).
    # Node 1: 3x3 from 0; node 2: 3x3 from 0 and 1; node 3: skip from 0, 1x1 from
    # 1, 3x3 from 2.
    string = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
        "+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    space = NASBench201()
    np.testing.assert_array_equal(space.from_string(string), [3, 3, 3, 1, 2, 3])
    assert space.to_string([3, 3, 3, 1, 2, 3]) == string


@pytest.mark.shared
def test_strings_of_the_whole_benchmark(rows):
    space = NASBench201()
    archs = np.array([space.from_string(row["arch_str"]) for row in rows])
    assert len(set(space.to_index(archs).tolist())) == 15625
    for arch, row in zip(archs, rows, strict=True):
        assert space.to_string(arch) == row["arch_str"]


@pytest.mark.shared
def test_parsed_operations_explain_the_recorded_params_and_flops(rows):
    space = NASBench201()
    archs = np.array([space.from_string(row["arch_str"]) for row in rows])
    num_1x1 = (archs == space.operations.index("nor_conv_1x1")).sum(axis=1)
    num_3x3 = (archs == space.operations.index("nor_conv_3x3")).sum(axis=1)
    params = 73306 + 28000 * num_1x1 + 243040 * num_3x3
    flops = 7.78305 + 3.93216 * num_1x1 + 35.38944 * num_3x3
    recorded = np.array([(float(r["params_M"]), float(r["flops_M"])) for r in rows])
    np.testing.assert_allclose(params / 1e6, recorded[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(flops, recorded[:, 1], rtol=0, atol=1e-9)


@pytest.mark.shared
def test_every_isomorphism_class_equals_the_benchmarks(rows):
    space = NASBench201()
    archs = np.array([space.from_string(row["arch_str"]) for row in rows])
    expected: dict[str, set[int]] = {}
    for row, index in zip(rows, space.to_index(archs), strict=True):
        expected.setdefault(row["isomorph_rep_index"], set()).add(int(index))

    classes = [
        frozenset(space.to_index(members).tolist())
        for members in space.isomorphism_classes()
    ]
    assert len(classes) == 6466
    assert set(classes) == {frozenset(members) for members in expected.values()}
    representatives = space.isomorphism_class(archs)
    for row, representative in zip(rows, representatives, strict=True):
        assert representative == min(expected[row["isomorph_rep_index"]])


def test_isomorphism_classes_partition_the_space():
    space = NASBench201()
    classes = space.isomorphism_classes()
    assert len(classes) == 6466  # published in the NAS-Bench-201 paper
    indices = [space.to_index(members) for members in classes]
    assert sorted(np.concatenate(indices)) == list(range(15625))
    for members, index in zip(classes, indices, strict=True):
        assert (space.isomorphism_class(members) == index.min()).all()


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("|none~0|", "must have the form"),
        ("none", "must have the form"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~1|", "must have the form"),
        ("|none~0|+|none~0|none~1|none~0|none~1|none~2|", "must have the form"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "must have the form"),
        (
            "|nor_conv_7x7~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "Unknown operation 'nor_conv_7x7'; the operations are none, skip_connect",
        ),
    ],
)
def test_bad_strings(string, message):
    with pytest.raises(ValueError, match=message) as error:
        NASBench201().from_string(string)
    assert str(error.value).endswith(f"Received: string={string!r}")


def test_string_of_wrong_type():
    with pytest.raises(TypeError, match="Received: string=3"):
        NASBench201().from_string(3)
    with pytest.raises(ValueError, match="single architecture"):
        NASBench201().to_string(np.zeros((2, 6), int))
