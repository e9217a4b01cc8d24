"""What architectures mean where each decision chooses one candidate."""

import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops

from keras_khyper import architectures
from keras_khyper.spaces import NASBench201, UIBSpace


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x))


def test_encoding_is_one_hot():
    space = NASBench201()
    meaning, archs = architectures.get(space), space.sample(7, seed=0)
    assert meaning.arch_logits_shape == meaning.encoding_shape == (6, 5)
    for given in (archs, ops.convert_to_tensor(archs, "int32")):
        np.testing.assert_array_equal(
            to_numpy(meaning.encode(given)), encode_candidates(archs, 5)
        )


def test_choices_are_the_architecture():
    meaning = architectures.get(NASBench201())
    archs = ops.convert_to_tensor(meaning.space.sample(3, seed=0), "int32")
    np.testing.assert_array_equal(to_numpy(meaning.choices(archs)), to_numpy(archs))
    assert meaning.choices((0, 1, 2, 3, 4, 0)) == (0, 1, 2, 3, 4, 0)
    assert to_numpy(meaning.present(archs)).all()
    assert meaning.sizes(archs) is None


@pytest.mark.one_backend
def test_a_space_brings_its_own_class():
    class Cells(NASBench201):
        pass

    class MoreCells(Cells):
        pass

    assert type(architectures.get(Cells())) is architectures.Architectures

    @architectures.register(Cells)
    class CellArchitectures(architectures.Architectures):
        pass

    for space_class in (Cells, MoreCells):
        assert type(architectures.get(space_class())) is CellArchitectures
    assert type(architectures.get(NASBench201())) is architectures.Architectures
    assert type(architectures.get(UIBSpace())) is architectures.UIBArchitectures
