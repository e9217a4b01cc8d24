"""The ImageNet space: its size, and what architectures mean, against plain Python."""

import itertools
import json

import numpy as np
import pytest

from keras_khyper.spaces import (
    SpaceLike,
    StagedSpace,
    UIBBlock,
    UIBOperation,
    UIBSpace,
    UIBStage,
)

STRUCTURES = ("ExtraDW", "IB", "ConvNext", "FFN")
# Table 8: channels and depths of stages 1 to 7.
TABLE = [
    ([16, 24], [1, 2]),
    ([24, 32], [2, 3]),
    ([40, 48], [2, 3]),
    ([80, 88], [2, 3, 4]),
    ([112, 128], [2, 3, 4, 5, 6]),
    ([192, 216], [2, 3, 4, 5, 6]),
    ([320, 352], [1, 2]),
]


@pytest.fixture
def space():
    return UIBSpace()


@pytest.fixture
def small():
    return UIBSpace(
        [UIBStage([4, 8], [1, 2]), UIBStage([8], [1, 3], strides=2)],
        kernel_sizes=[3],
        stem_channels=4,
        head_channels=(8, 16),
    )


def every_string(space):
    """All architectures of a space as strings, with loops over its stages."""
    stages = []
    for stage in space.stages:
        stages.append(
            [
                f"{channels}:{','.join(names)}"
                for channels in stage.channels
                for depth in stage.depths
                for names in itertools.product(space.operations, repeat=depth)
            ]
        )
    return ["|".join(parts) for parts in itertools.product(*stages)]


def test_the_papers_table_and_size(space):
    assert [(list(s.channels), list(s.depths)) for s in space.stages] == TABLE
    assert space.size == 1_792_222_337_546_807_413_927_680_000
    assert space.num_decisions == 7 + 7 + (2 + 3 + 3 + 4 + 6 + 6 + 2)
    assert [len(space.operations), len(set(space.operations))] == [9, 9]
    assert isinstance(space, SpaceLike)
    with pytest.raises(OverflowError, match="space.size"):
        len(space)


def test_indices_strings_and_size_of_a_small_space(small):
    # 2 * (4 + 16) and 1 * (4 + 64) networks of the stages, counted one by one.
    strings = every_string(small)
    assert len(small) == len(strings) == 40 * 68
    archs = small.from_index(np.arange(small.size))
    written = [small.to_string(arch) for arch in archs]
    assert sorted(written) == sorted(strings)
    read = np.stack([small.from_string(string) for string in written])
    np.testing.assert_array_equal(read, archs)
    np.testing.assert_array_equal(small.validate(archs), archs)
    # Stage by stage: its channels, its depth, its blocks.
    keys = archs[:, [2, 0, 4, 5, 3, 1, 6, 7, 8]].tolist()
    assert keys == sorted(keys)


def test_one_architecture_in_every_detail(small):
    arch = small.from_string("8: IB_k3, FFN |\n 8: ExtraDW_k3_k3, ConvNext_k3, FFN")
    assert arch.tolist() == [1, 1, 1, 0, 1, 3, 0, 2, 3]
    assert small.depths(arch).tolist() == [2, 3]
    assert small.widths(arch).tolist() == [8, 8]
    assert [tuple(block) for block in small.blocks(arch)] == [
        ((None, 3), 6, 8, 1, "stage1_block1"),
        ((None, None), 6, 8, 1, "stage1_block2"),
        ((3, 3), 6, 8, 2, "stage2_block1"),
        ((3, None), 6, 8, 1, "stage2_block2"),
        ((None, None), 6, 8, 1, "stage2_block3"),
    ]
    shallow = small.from_string("4:FFN|8:IB_k3")
    assert shallow.tolist() == [0, 0, 0, 0, 3, 0, 1, 0, 0]
    assert small.present(shallow).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    "operation, ratio, expected",
    [
        ((5, 3), 6, ["start 5 16 16 1", "expand 1 16 96 1", "middle 3 96 96 2"]),
        ((None, 3), 6, ["expand 1 16 96 1", "middle 3 96 96 2"]),
        ((None, 3), 1, ["middle 3 16 16 2"]),
        ((5, None), 1, ["start 5 16 16 2", "expand 1 16 16 1"]),
        ((None, None), 1, ["expand 1 16 16 2"]),
    ],
)
def test_the_convolutions_of_a_block(operation, ratio, expected):
    """Kernel size, channels in and out, stride: as MobileNetV4 and Table 8 say."""
    block = UIBBlock(UIBOperation(*operation), ratio, 24, 2, "block")
    convs = block.convolutions(16)
    written = [
        f"{c.name} {c.kernel_size} {c.in_channels} {c.filters} {c.strides}"
        for c in convs
    ]
    assert written == [*expected, f"project 1 {16 * ratio} 24 1"]
    depthwise = {c.name for c in convs if c.depthwise}
    assert depthwise == {"start", "middle"} & {c.name for c in convs}


def test_smallest_and_largest(space):
    smallest, largest = space.smallest(), space.largest()
    assert space.depths(smallest).tolist() == [depths[0] for _, depths in TABLE]
    assert space.widths(smallest).tolist() == [widths[0] for widths, _ in TABLE]
    assert {block.operation.name for block in space.blocks(smallest)} == {"FFN"}
    assert space.depths(largest).tolist() == [depths[-1] for _, depths in TABLE]
    assert space.widths(largest).tolist() == [widths[-1] for widths, _ in TABLE]
    names = {block.operation.name for block in space.blocks(largest)}
    assert names == {"ExtraDW_k5_k5"}
    names = {block.operation.name for block in space.blocks(space.largest("IB_k3"))}
    assert names == {"IB_k3"}


def test_sampling_is_uniform_per_decision(space):
    archs = space.validate(space.sample(4000, seed=0))
    np.testing.assert_array_equal(archs, space.sample(4000, seed=0))
    assert len(np.unique(archs, axis=0)) == 4000
    for depth in range(5):  # stage 5, and its last block
        assert abs((archs[:, 4] == depth).mean() - 1 / 5) < 0.03
    last = archs[:, 14 + 17]
    assert (last[archs[:, 4] < 4] == 0).all()
    counts = np.bincount(last[archs[:, 4] == 4], minlength=9)
    assert abs(counts / counts.sum() - 1 / 9).max() < 0.04


def test_sampling_without_replacement_from_a_small_space(small):
    archs = small.sample(small.size, seed=1)
    assert len(np.unique(archs, axis=0)) == small.size
    # Depth 1 of stage 1 in half of the draws, though few architectures have it.
    assert abs((small.sample(200, seed=2)[:, 0] == 0).mean() - 0.5) < 0.12
    assert len(small.sample(3 * small.size, seed=0, unique=False)) == 3 * small.size


def test_neighbors_differ_in_one_change(small):
    arch = small.from_string("4:IB_k3|8:FFN")
    found = sorted(small.to_string(neighbor) for neighbor in small.neighbors(arch))
    others = [name for name in small.operations if name != "IB_k3"]
    expected = ["8:IB_k3|8:FFN"]
    expected += [f"4:{name}|8:FFN" for name in others]
    expected += [f"4:IB_k3|8:{name}" for name in small.operations if name != "FFN"]
    expected += [f"4:IB_k3,{name}|8:FFN" for name in small.operations]
    expected += [f"4:IB_k3|8:FFN,{name},{name}" for name in small.operations]
    assert found == sorted(expected)
    deeper = small.from_string("4:IB_k3|8:FFN,FFN,FFN")
    assert "4:IB_k3|8:FFN" in map(small.to_string, small.neighbors(deeper))


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_mutation(space, probability):
    arch = space.sample(1, seed=3)[0]
    rng = np.random.default_rng(0)
    children = np.stack([space.mutate(arch, rng, probability) for _ in range(500)])
    space.validate(children)
    assert (children != arch).any(-1).all()
    changed = (children != arch)[:, :14]
    if probability == 0.0:  # one change, of any decision that is there
        assert changed.sum() > 0 and (changed.sum(-1) <= 1).all()
    if probability == 0.1:
        assert abs(changed.mean() - 0.1) < 0.02
    if probability == 1.0:
        assert changed.all()


def test_added_blocks_are_drawn_uniformly(small):
    arch = small.from_string("4:IB_k3|8:FFN")
    rng = np.random.default_rng(0)
    children = np.stack([small.mutate(arch, rng, 1.0) for _ in range(800)])
    assert (children[:, 0] == 1).all()
    counts = np.bincount(children[:, 5], minlength=4)
    assert abs(counts / 800 - 0.25).max() < 0.05


def test_crossover_takes_blocks_from_a_parent_that_has_them(small):
    first = small.from_string("4:IB_k3|8:FFN")
    second = small.from_string("8:FFN,ConvNext_k3|8:IB_k3,IB_k3,ConvNext_k3")
    children, mirrored = (
        {small.to_string(small.crossover(*pair, seed)) for seed in range(400)}
        for pair in ((first, second), (second, first))
    )
    stage1 = {f"{c}:{b}" for c in "48" for b in ("IB_k3", "FFN")}
    stage1 |= {f"{part},ConvNext_k3" for part in stage1}
    stage2 = {f"8:{b}{rest}" for b in ("FFN", "IB_k3") for rest in ("", ",IB_k3,ConvNext_k3")}  # fmt: skip # noqa: E501
    assert children == mirrored == {f"{a}|{b}" for a in stage1 for b in stage2}


def fits(space, first, second):
    """Whether no block that both have gets one structure: from their strings."""
    for part, other in zip(
        space.to_string(first).split("|"), space.to_string(second).split("|"),
        strict=True,
    ):  # fmt: skip
        names = (p.split(":")[1].split(",") for p in (part, other))
        pairs = zip(*names, strict=False)
        if any(a.split("_")[0] == b.split("_")[0] for a, b in pairs):
            return False
    return True


@pytest.mark.parametrize("num", [1, 2, 60])
def test_packed_sets_are_fair_and_hold_every_architecture(small, space, num):
    for one in (small, space):
        archs = one.sample(num, seed=0, unique=False)
        sets = one.pack(archs)
        one.validate(sets.archs)
        assert sets.archs.shape[1:] == (4, one.num_decisions)
        for members in sets.archs:
            for first, second in itertools.combinations(members, 2):
                assert fits(one, first, second)
        np.testing.assert_array_equal(sets.unpack(sets.archs), archs)
        assert (sets.positions[:, 0] >= 0).all()


def test_sizes_are_free_in_a_set(small):
    """Four architectures of other structures fill one set, whatever their sizes."""
    strings = (
        "4:FFN|8:IB_k3",
        "8:IB_k3,FFN|8:FFN,IB_k3,IB_k3",
        "4:ConvNext_k3,IB_k3|8:ExtraDW_k3_k3",
        "8:ExtraDW_k3_k3|8:ConvNext_k3,FFN,FFN",
    )
    archs = [small.from_string(string) for string in strings]
    assert small.pack(archs).num_sets == 1
    # A second FFN in a block that another one has needs a second set.
    archs[0] = small.from_string("4:ExtraDW_k3_k3|8:IB_k3")
    assert small.pack(archs).num_sets == 2


def test_structures(space):
    arch = space.from_string(
        "16:IB_k3,FFN|24:FFN,FFN|40:FFN,ConvNext_k5|80:FFN,FFN|112:FFN,FFN|192:"
        "FFN,FFN|320:ExtraDW_k3_k5"
    )
    chosen = space.structures(arch)[space.present(arch)]
    assert chosen.tolist() == [1, 3, 3, 3, 3, 2, 3, 3, 3, 3, 3, 3, 0]


def test_config_round_trip(space, small):
    for one in (space, small):
        config = json.loads(json.dumps(one.get_config()))
        again = UIBSpace.from_config(config)
        assert again == one and hash(again) == hash(one)
        assert again.num_decisions == one.num_decisions
    assert space != small


def test_staged_space_of_other_operations():
    space = StagedSpace([[1, 2], [2, 4]], [[8, 16], [8, 12, 16]], ["a", "b"])
    assert space.size == len(space) == 2 * (2 + 4) * 3 * (4 + 16)
    archs = space.from_index(np.arange(space.size))
    assert len(np.unique(space.validate(archs), axis=0)) == space.size
    np.testing.assert_array_equal(space.to_index(archs), np.arange(space.size))
    strings = [space.to_string(arch) for arch in archs]
    assert len(set(strings)) == space.size and "16:b|12:a,b" in strings
    np.testing.assert_array_equal([space.from_string(s) for s in strings], archs)
    config = json.loads(json.dumps(space.get_config()))
    assert StagedSpace.from_config(config) == space != StagedSpace([[1]], [[8]], ["a"])
    sets = space.pack(archs[::7])
    np.testing.assert_array_equal(sets.unpack(sets.archs), archs[::7])
    for members in space.validate(sets.archs):
        present = space.present(members)
        assert not (present[0] & present[1] & (members[0] == members[1])[4:]).any()


def test_index_is_the_inverse_of_from_index(small):
    indices = np.arange(small.size).reshape(2, -1)
    np.testing.assert_array_equal(small.to_index(small.from_index(indices)), indices)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.validate([0] * 39), ValueError, r"shape=\(39,\)"),
        (lambda s: s.validate([0.0] * 40), TypeError, "float64"),
        (lambda s: s.validate([2] + [0] * 39), ValueError, "Decision 0 .* 2 there"),
        (lambda s: s.validate([0] * 39 + [-1]), ValueError, "Decision 39"),
        (lambda s: s.validate([0] * 39 + [5]), ValueError, "must be 0. Received: .* 5"),
        (lambda s: s.blocks(np.zeros((2, 40), int)), ValueError, r"\(2, 40\)"),
        (lambda s: s.largest("SE"), ValueError, "operation='SE'"),
        (lambda s: s.from_string(3), TypeError, "string=3"),
        (lambda s: s.from_string("16:FFN"), ValueError, "7 stages"),
        (lambda s: s.sample(-1), ValueError, "num=-1"),
        (lambda s: s.sample(1.5), TypeError, "num=1.5"),
        (lambda s: s.from_index(0), ValueError, "64-bit index"),
        (lambda s: s.to_index([0] * 40), ValueError, "64-bit index"),
        (lambda s: s.mutate([0] * 40, 0, 2.0), ValueError, "probability=2.0"),
        (lambda s: UIBSpace([]), ValueError, "needs a stage"),
        (lambda s: UIBSpace([([8], [1])]), TypeError, "UIBStage"),
        (lambda s: UIBSpace(kernel_sizes=[3, 4]), ValueError, r"\[3, 4\]"),
        (lambda s: UIBSpace(kernel_sizes=[3, 3]), ValueError, r"\[3, 3\]"),
        (lambda s: UIBSpace(head_channels=[960]), ValueError, "two sizes"),
        (lambda s: UIBSpace(stem_channels=0), ValueError, "stem_channels"),
        (lambda s: UIBSpace(stem_strides=3), ValueError, "stem_strides=3"),
        (lambda s: s.pack([0] * 40), ValueError, r"shape=\(40,\)"),
        (lambda s: UIBStage([24, 16], [1]), ValueError, "ascending"),
        (lambda s: UIBStage([16], []), ValueError, "depths"),
        (lambda s: UIBStage([16], [1.0]), TypeError, "depths"),
        (lambda s: UIBStage([16], [1], strides=3), ValueError, "strides=3"),
    ],
)
def test_bad_input(space, call, error, message):
    with pytest.raises(error, match=message):
        call(space)


@pytest.mark.parametrize(
    "part", ["17:FFN", "16:FFN,FFN,FFN", "16:", "16:SE", "16", "FFN,FFN"]
)
def test_bad_stage_in_a_string(space, part):
    string = space.to_string(space.smallest()).replace("16:FFN", part, 1)
    with pytest.raises(ValueError, match="Stage 1"):
        space.from_string(string)


def test_bad_index(small):
    with pytest.raises(ValueError, match=f"containing {small.size}"):
        small.from_index([0, small.size])
    with pytest.raises(TypeError, match="float64"):
        small.from_index(0.5)
