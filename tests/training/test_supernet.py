"""The base class as users meet it: fit, save, load, and what it refuses."""

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import (
    EDGES,
    IMAGE_SHAPE,
    TinySupernet,
    tiny_batch,
    tiny_supernet,
    to_numpy,
)

from keras_khyper import Supernet
from keras_khyper.routes import Route
from keras_khyper.spaces import SearchSpace
from keras_khyper.training import SPOS, Algorithm1, Distillation, FocusFair
from keras_khyper.training.step import sample_archs, supernet_step

ALGORITHM = Algorithm1(
    sampler=FocusFair(0.7),
    weight_decay=0.01,
    distillation=Distillation(2.0, weight=0.5),
    train_arch_logits=False,
    fair_sets_per_step=2,
    gradient_scaling="mean",
    encoder_learning_rate_multiplier=0.25,
)


@pytest.fixture(scope="module")
def batch():
    return tiny_batch()


def tensors(batch):
    return tuple(ops.convert_to_tensor(part) for part in batch)


@pytest.fixture(scope="module")
def trained(batch):
    supernet = tiny_supernet()
    supernet.compile(keras.optimizers.SGD(0.05, momentum=0.9), algorithm=ALGORITHM)
    supernet_step(supernet, tensors(batch))
    return supernet


@pytest.fixture(scope="module")
def loaded(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "supernet.keras"
    trained.save(path)
    return keras.models.load_model(path)


def test_a_users_subclass_trains_in_fit(batch):
    """Through the trainer's own compiled step, on its own search space."""
    supernet = tiny_supernet()
    supernet.compile(
        keras.optimizers.SGD(0.05),
        metrics=["accuracy"],
        algorithm=Algorithm1(encoder_learning_rate_multiplier=1.0),
    )
    before = [to_numpy(v) for v in supernet.trainable_variables]
    history = supernet.fit(*batch, batch_size=4, epochs=2, verbose=0).history
    assert set(history) == {"loss", "accuracy", "subnet_loss", "subnet_accuracy"}
    assert all(np.isfinite(v).all() for v in history.values())
    assert int(supernet.optimizer.iterations) == 2 * 2 * 2
    still = {
        variable.name
        for old, variable in zip(before, supernet.trainable_variables, strict=True)
        if np.array_equal(old, to_numpy(variable))
    }
    assert still <= {"beta", "bias"}  # offsets that a later norm removes
    # evaluate and predict without arch mean the teacher.
    teacher = to_numpy(supernet(batch[0]))
    np.testing.assert_allclose(
        supernet.predict(batch[0], verbose=0), teacher, atol=1e-5
    )
    results = supernet.evaluate(*batch, verbose=0, return_dict=True)
    shares = np.exp(teacher) / np.exp(teacher).sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(len(batch[1])), batch[1]]).mean()
    assert results["loss"] == pytest.approx(expected, rel=1e-4)


def test_loading_restores_weights_optimizer_and_algorithm(trained, loaded):
    assert type(loaded) is TinySupernet
    for a, b in zip(trained.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b), err_msg=a.path)
    ours, theirs = loaded.optimizer.variables, trained.optimizer.variables
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b), err_msg=a.path)
    assert int(loaded.optimizer.iterations) == 2
    assert any(np.abs(to_numpy(v)).max() > 0 for v in ours if "momentum" in v.path)
    assert loaded.algorithm == trained.algorithm == ALGORITHM


def test_loading_restores_the_random_state(trained, loaded, batch):
    """The next subnets and the whole next step are the same."""
    ours = [to_numpy(sample_archs(loaded)) for _ in range(3)]
    theirs = [to_numpy(sample_archs(trained)) for _ in range(3)]
    np.testing.assert_array_equal(ours, theirs)
    assert (theirs[0] != theirs[1]).any()
    fresh = tiny_supernet()
    fresh.compile(algorithm=ALGORITHM)
    assert any((to_numpy(sample_archs(fresh)) != draw).any() for draw in ours)
    for supernet in (trained, loaded):
        supernet_step(supernet, tensors(batch))
    for a, b in zip(trained.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-6, err_msg=a.path)


def test_saved_weights_hold_the_random_state(trained, tmp_path):
    path = tmp_path / "supernet.weights.h5"
    trained.save_weights(path)
    expected = to_numpy(sample_archs(trained))
    copy = tiny_supernet(seed=99)
    copy.compile(keras.optimizers.SGD(0.05, momentum=0.9), algorithm=ALGORITHM)
    copy.optimizer.build(copy.trainable_variables)
    copy.load_weights(path)
    np.testing.assert_array_equal(to_numpy(sample_archs(copy)), expected)


def test_an_algorithm_must_be_one():
    with pytest.raises(TypeError, match="Received: algorithm='focus_fair'"):
        TinySupernet().compile(algorithm="focus_fair")


def test_float16_is_refused():
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        TinySupernet(dtype="mixed_float16").compile()


def test_mixed_bfloat16_trains_with_a_float32_loss(batch):
    supernet = TinySupernet(dtype="mixed_bfloat16")
    supernet.build((None, *IMAGE_SHAPE))
    supernet.compile(keras.optimizers.SGD(0.01))
    logs = supernet_step(supernet, tensors(batch))
    assert np.isfinite([float(value) for value in logs.values()]).all()
    assert {v.dtype for v in supernet.trainable_variables} == {"float32"}


@pytest.mark.parametrize(
    "arch", [[0, 1], [0, 1, 2, 0], [0, 1, 3], [0, -1, 2], [0.5, 1, 2]]
)
def test_bad_architectures(trained, batch, arch):
    with pytest.raises((ValueError, TypeError), match="Received"):
        trained(batch[0], arch=arch)


def test_wrong_image_channels(trained):
    with pytest.raises(ValueError, match="expected axis -1"):
        trained(np.zeros((2, *IMAGE_SHAPE[:2], 5), "float32"))


def test_a_subclass_must_say_its_body():
    class Bare(Supernet):
        pass

    bare = Bare(SearchSpace(2, ("a", "b")), "shared")
    with pytest.raises(TypeError, match="must define body"):
        bare.body(None, Route(None, None, None))


def test_a_shared_generator_has_no_encoder():
    supernet = tiny_supernet(generator="shared")
    assert supernet.encoder is None
    assert supernet.encode(None) == (None, None)


def test_spos_samples_need_no_fairness(batch):
    supernet = tiny_supernet()
    supernet.compile(keras.optimizers.SGD(0.01), algorithm=Algorithm1(sampler=SPOS(2)))
    logs = supernet_step(supernet, tensors(batch))
    assert np.isfinite(float(logs["subnet_loss"]))
    assert to_numpy(sample_archs(supernet)).shape == (1, 1, 2, len(EDGES))
