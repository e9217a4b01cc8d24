"""The benchmark's tables, read back value by value and checked by closed forms."""

import csv
import math
import os

import numpy as np
import pytest

from keras_khyper.evaluation.table import NASBench201Table
from keras_khyper.spaces import NASBench201

HEADER = "arch_index,arch_str,cifar10_test,cifar100_test,params_M,flops_M"
ROWS = (
    "41,|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,10.0,1.0,0.073306,7.78305",
    "7,|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|,"
    "83.5,51.25,0.073306,7.78305",
)
NONE, SKIP = [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]


def write(folder, *rows, header=HEADER, name="accuracies.csv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "data" / "nas_bench_201"


@pytest.fixture(scope="module")
def table(folder):
    return NASBench201Table.load(folder)


def read(folder, name):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.shared
def test_every_value_is_the_files(folder, table):
    rows = read(folder, "accuracies.csv")
    archs = np.array([NASBench201().from_string(row["arch_str"]) for row in rows])
    order = np.random.default_rng(0).permutation(len(rows))
    for name, values in (
        ("arch_index", table.index(archs[order])),
        ("cifar10_test", table.accuracy(archs[order])),
        ("cifar100_test", table.accuracy(archs[order], "cifar100")),
        ("params_M", table.params(archs[order])),
        ("flops_M", table.flops(archs[order])),
    ):
        expected = [float(rows[row][name]) for row in order]
        np.testing.assert_array_equal(values, expected, err_msg=name)


@pytest.mark.shared
def test_every_latency_is_the_files(folder, table):
    rows = {int(row["arch_index"]): row for row in read(folder, "hardware.csv")}
    archs = table.space.sample(1000, seed=0)
    assert table.devices == (
        "raspi4",
        "pixel3",
        "eyeriss",
        "fpga",
        "edgegpu",
        "edgetpu",
    )
    for device in table.devices:
        texts = [
            rows[int(index)][f"{device}_latency_ms"] for index in table.index(archs)
        ]
        expected = [float(text) if text else math.nan for text in texts]
        np.testing.assert_array_equal(table.latency(archs, device), expected)
    assert np.isnan(table.latency(table.archs, "edgetpu")).sum() == 6518
    assert not np.isnan(table.latency(table.archs, "raspi4")).any()


@pytest.mark.shared
def test_published_means_and_maxima(table):
    # Published with the benchmark; DESIGN section 3.
    for dataset, mean, maximum in (
        ("cifar10", 87.06, 94.37),
        ("cifar100", 61.41, 73.51),
    ):
        accuracy = table.accuracy(table.archs, dataset)
        assert accuracy.mean() == pytest.approx(mean, abs=0.005)
        assert accuracy.max() == pytest.approx(maximum, abs=0.005)
    assert (table.accuracy(table.archs) <= 10.0).sum() == 341


@pytest.mark.shared
def test_params_and_flops_follow_the_closed_form(table):
    archs = table.space.from_index(np.arange(15625))
    num_1x1, num_3x3 = (archs == 2).sum(axis=1), (archs == 3).sum(axis=1)
    np.testing.assert_allclose(
        table.params(archs),
        (73306 + 28000 * num_1x1 + 243040 * num_3x3) / 1e6,
        rtol=0,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        table.flops(archs),
        7.78305 + 3.93216 * num_1x1 + 35.38944 * num_3x3,
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.shared
def test_folder_and_file_give_the_same(folder, table):
    again = NASBench201Table.load(os.fspath(folder / "accuracies.csv"))
    np.testing.assert_array_equal(again.archs, table.archs)
    assert again.devices == table.devices


def test_shapes_follow_the_architectures(tmp_path):
    table = NASBench201Table.load(write(tmp_path, *ROWS))
    np.testing.assert_array_equal(table.accuracy([[NONE], [SKIP]]), [[10.0], [83.5]])
    assert table.accuracy(SKIP, "cifar100") == 51.25
    np.testing.assert_array_equal(table.index([SKIP, NONE, SKIP]), [7, 41, 7])
    assert len(table) == 2
    assert "2 of 15,625 architectures" in repr(table)
    assert table.splits == {
        "cifar10": "all 10,000 test images",
        "cifar100": "x-test, 5,000 of the 10,000 test images",
    }


def test_imagenet16_120_is_an_optional_column(tmp_path):
    rows = [f"{row},{value}" for row, value in zip(ROWS, (0.8, 33.5), strict=True)]
    path = write(tmp_path, *rows, header=f"{HEADER},imagenet16_120_test")
    table = NASBench201Table.load(path)
    np.testing.assert_array_equal(
        table.accuracy([SKIP, NONE], "imagenet16-120"), [33.5, 0.8]
    )


def test_latencies_are_matched_by_index_and_blank_is_nan(tmp_path):
    write(tmp_path, *ROWS)
    write(
        tmp_path,
        "7,,2.5",
        "1000,9,9",
        "41,1.5,",
        header="arch_index,phone_latency_ms,board_latency_ms",
        name="hardware.csv",
    )
    table = NASBench201Table.load(tmp_path)
    assert table.devices == ("phone", "board")
    archs = [SKIP, NONE]
    np.testing.assert_array_equal(table.latency(archs, "phone"), [math.nan, 1.5])
    np.testing.assert_array_equal(table.latency(archs, "board"), [2.5, math.nan])


def test_unknown_names(tmp_path):
    table = NASBench201Table.load(write(tmp_path, *ROWS))
    with pytest.raises(
        ValueError, match="'cifar10', 'cifar100'. Received: dataset='imagenet'"
    ):
        table.accuracy(NONE, "imagenet")
    with pytest.raises(ValueError, match="known are none.*Received: device='phone'"):
        table.latency(NONE, "phone")


def test_bad_architectures(tmp_path):
    table = NASBench201Table.load(write(tmp_path, *ROWS))
    with pytest.raises(ValueError, match=r"among the 2.*\|avg_pool_3x3~0\|\+"):
        table.accuracy([NONE, [4, 0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match="Received: archs containing 5"):
        table.flops([5, 0, 0, 0, 0, 0])


def test_missing_table(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "accuracies.csv"):
        with pytest.raises(
            ValueError, match=f"`path` must be.*Received: path='{path}'"
        ):
            NASBench201Table.load(path)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            HEADER.replace("params_M", "size"),
            ROWS,
            "it lacks params_M. Received: path=",
        ),
        ("", (), "it lacks arch_index, arch_str"),
        (HEADER, ("1,2,3",), "line 2 has 3. Received: path="),
        (HEADER, (ROWS[0].replace("10.0", ""),), "line 2 has ''. Received: path="),
        (HEADER, (ROWS[0].replace("10.0", "nan"),), "finite number, line 2 has 'nan'"),
        (HEADER, (*ROWS, ROWS[0].replace("41", "-1")), "line 4 has '-1'"),
        (HEADER, (ROWS[0].replace("none~0", "conv_5x5~0"),), "operation 'conv_5x5'"),
        (HEADER, (*ROWS, ROWS[0]), "must have one row. Received: archs with"),
    ],
)
def test_bad_tables(tmp_path, header, rows, message):
    path = write(tmp_path, *rows, header=header)
    with pytest.raises(ValueError, match=message):
        NASBench201Table.load(path)


def test_binary_file(tmp_path):
    path = tmp_path / "accuracies.csv"
    path.write_bytes(b"\xff\xfe\x00\x9d")
    with pytest.raises(ValueError, match="must be a CSV text file. Received: path="):
        NASBench201Table.load(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("41,fast",), "phone_latency_ms must hold a number, line 2 has 'fast'"),
        (("41,1", "41,2"), "must occur once"),
    ],
)
def test_bad_latencies(tmp_path, rows, message):
    write(tmp_path, *ROWS)
    header = "arch_index,phone_latency_ms"
    write(tmp_path, *rows, header=header, name="hardware.csv")
    with pytest.raises(ValueError, match=message):
        NASBench201Table.load(tmp_path)


def test_columns_of_unequal_length():
    with pytest.raises(ValueError, match=r"Received: params.shape=\(2,\)"):
        NASBench201Table([NONE], [0], {"cifar10": [10.0]}, [1, 2], [3])
    with pytest.raises(ValueError, match=r"Received: accuracies\['cifar10'\].shape"):
        NASBench201Table([NONE], [0], {"cifar10": [1, 2]}, [1], [3])
