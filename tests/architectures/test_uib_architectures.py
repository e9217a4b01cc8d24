"""What architectures mean in tensors, against the space's own NumPy."""

import keras
import numpy as np
import pytest
from encoding_reference import encode_uib
from keras import ops

from keras_khyper.architectures import UIBArchitectures
from keras_khyper.spaces import STRUCTURES, UIBSpace, UIBStage

SPACES = {
    "paper": UIBSpace(),
    "one kernel": UIBSpace([UIBStage([4, 6, 8], [1, 3])], kernel_sizes=[3]),
    "unsorted kernels": UIBSpace(
        [UIBStage([4], [1]), UIBStage([6], [1, 2], strides=2)], kernel_sizes=[5, 3, 7]
    ),
}


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def archs_of(space, num=40):
    archs = space.sample(num, seed=0, unique=False)
    return np.concatenate([archs, [space.smallest(), space.largest()]])


def tensor(archs):
    return ops.convert_to_tensor(archs, "int32")


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x))


def test_structures_and_depths(space):
    archs, meaning = archs_of(space), UIBArchitectures(space)
    np.testing.assert_array_equal(
        to_numpy(meaning.choices(tensor(archs))), space.structures(archs)
    )
    np.testing.assert_array_equal(
        to_numpy(meaning.present(tensor(archs))), space.present(archs)
    )


def test_sizes_are_those_of_the_spaces_blocks(space):
    archs, meaning = archs_of(space), UIBArchitectures(space)
    sizes = to_numpy(meaning.sizes(tensor(archs)))
    for arch, found in zip(archs, sizes, strict=True):
        width = space.stem_channels
        blocks = iter(space.blocks(arch))
        for there, row in zip(space.present(arch), found, strict=True):
            assert bool(row[4]) == there
            if there:
                block = next(blocks)
                kernels = [size or 0 for size in block.operation]
                assert row[:4].tolist() == [width, block.channels, *kernels]
                width = block.channels


def test_encoding_holds_topology_and_size(space):
    archs, meaning = archs_of(space), UIBArchitectures(space)
    encoding = to_numpy(meaning.encode(tensor(archs)))
    assert encoding.shape[1:] == meaning.encoding_shape
    np.testing.assert_array_equal(encoding, encode_uib(space, archs))


def test_the_teachers_encoding_of_one_structure_is_that_of_the_largest_subnet(space):
    meaning, kernel = UIBArchitectures(space), max(space.kernel_sizes)
    for index, name in enumerate(
        [f"ExtraDW_k{kernel}_k{kernel}", f"IB_k{kernel}", f"ConvNext_k{kernel}", "FFN"]
    ):
        weights = np.tile(np.eye(4, dtype="float32")[index], (space.num_blocks, 1))
        expected = meaning.encode(tensor(space.largest(name)[None]))[0]
        np.testing.assert_allclose(
            to_numpy(meaning.encode_teacher(ops.convert_to_tensor(weights))),
            to_numpy(expected),
            atol=1e-6,
        )


def test_fair_choices_complete_each_set(space):
    meaning = UIBArchitectures(space)
    for archs in space.pack(archs_of(space)).archs:
        found = to_numpy(meaning.fair_choices(tensor(archs)))
        np.testing.assert_array_equal(
            np.sort(found, axis=0), np.tile(np.arange(4)[:, None], len(found[0]))
        )
        there = space.present(archs)
        np.testing.assert_array_equal(found[there], space.structures(archs)[there])


def test_architectures_of_structures_and_sizes(space):
    """By way of names: what was put in is what the space reads out."""
    meaning, rng = UIBArchitectures(space), np.random.default_rng(0)
    counts = meaning.num_size_candidates()
    structures = rng.integers(0, 4, (30, space.num_blocks))
    sizes = rng.integers(0, counts, (30, len(counts)))
    archs = to_numpy(meaning.combine(tensor(structures), tensor(sizes)))
    for arch, chosen, indices in zip(
        space.validate(archs), structures, sizes, strict=True
    ):
        stages = space.num_stages
        np.testing.assert_array_equal(arch[: 2 * stages], indices[: 2 * stages])
        start, middle = np.split(indices[2 * stages :], 2)
        there = np.flatnonzero(space.present(arch))
        for block, place in zip(space.blocks(arch), there, strict=True):
            operation = block.operation
            assert operation.structure == STRUCTURES[chosen[place]]
            for size, index in zip(
                operation, (start[place], middle[place]), strict=True
            ):
                assert size in (None, space.kernel_sizes[index])


def test_extreme_sizes_make_smallest_and_largest(space):
    meaning = UIBArchitectures(space)
    sizes = tensor(meaning.extreme_sizes())
    extra = ops.zeros((2, space.num_blocks), "int32")
    archs = to_numpy(meaning.combine(extra, sizes))
    smallest = min(space.kernel_sizes)
    expected = [space.smallest(f"ExtraDW_k{smallest}_k{smallest}"), space.largest()]
    np.testing.assert_array_equal(archs, expected)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow's graphs"
)
def test_inside_a_traced_graph():
    import tensorflow as tf

    space = SPACES["paper"]
    meaning, archs = UIBArchitectures(space), archs_of(space)[:4]
    for method in (meaning.encode, meaning.sizes, meaning.fair_choices):
        compiled = tf.function(method, autograph=False)
        np.testing.assert_array_equal(
            to_numpy(compiled(tensor(archs))), to_numpy(method(tensor(archs)))
        )
