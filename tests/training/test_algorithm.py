"""`Algorithm1` and `Distillation` as objects: what they take, refuse and save."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_khyper.training import SPOS, Algorithm1, Distillation, FocusFair, Sampler

pytestmark = pytest.mark.one_backend

# None of them the default; an optimizer excludes the multiplier and has its own tests.
EVERY_OPTION = {
    "sampler": FocusFair(0.7),
    "weight_decay": 0.01,
    "distillation": Distillation(2.0, weight=0.5),
    "train_arch_logits": False,
    "fair_sets_per_step": 2,
    "accumulate": True,
    "gradient_scaling": "mean",
    "encoder_learning_rate_multiplier": 0.25,
}


def test_every_option_survives_json():
    algorithm, default = Algorithm1(**EVERY_OPTION), Algorithm1()
    fields = {field.name for field in dataclasses.fields(Algorithm1)}
    assert fields == {*EVERY_OPTION, "encoder_optimizer"}
    for name, value in EVERY_OPTION.items():
        assert getattr(algorithm, name) == value != getattr(default, name)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(algorithm)))
    loaded = keras.saving.deserialize_keras_object(config)
    assert loaded == algorithm != default
    assert loaded.sampler.sampling_temperature == 0.7
    assert loaded.distillation == EVERY_OPTION["distillation"]
    without = Algorithm1(distillation=None)
    assert Algorithm1.from_config(without.get_config()) == without != default


def test_names_and_numpy_numbers_become_what_they_stand_for():
    algorithm = Algorithm1(
        sampler="spos", weight_decay=np.float64(0.5), fair_sets_per_step=np.int64(2)
    )
    assert isinstance(algorithm.sampler, SPOS)
    assert json.dumps(algorithm.get_config())


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Algorithm1().weight_decay = 0.1


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("sampler", "darts", ValueError),
        ("sampler", Sampler, TypeError),
        ("weight_decay", float("nan"), ValueError),
        ("weight_decay", float("inf"), ValueError),
        ("weight_decay", -0.1, ValueError),
        ("weight_decay", "0.1", TypeError),
        ("weight_decay", True, TypeError),
        ("distillation", True, TypeError),
        ("train_arch_logits", 1, TypeError),
        ("fair_sets_per_step", 1.5, TypeError),
        ("fair_sets_per_step", True, TypeError),
        ("fair_sets_per_step", 0, ValueError),
        ("accumulate", "no", TypeError),
        ("gradient_scaling", "user", ValueError),
        ("encoder_learning_rate_multiplier", float("nan"), ValueError),
    ],
)
def test_bad_options(name, value, error):
    with pytest.raises(error, match=rf"Received: {name}="):
        Algorithm1(**{name: value})


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("temperature", 0, ValueError),
        ("temperature", float("inf"), ValueError),
        ("temperature", None, TypeError),
        ("weight", 1.5, ValueError),
        ("weight", float("nan"), ValueError),
        ("weight", False, TypeError),
    ],
)
def test_bad_distillation(name, value, error):
    with pytest.raises(error, match=rf"Received: {name}="):
        Distillation(**{name: value})
