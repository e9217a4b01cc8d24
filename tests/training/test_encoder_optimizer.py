"""An optimizer for the encoder alone; steps with one are compared in test_step.py."""

import keras
import numpy as np
import pytest
from keras import ops
from supernet_reference import tiny_batch, tiny_supernet, to_numpy

from keras_khyper.training import Algorithm1, EncoderOptimizer
from keras_khyper.training.step import supernet_step

pytestmark = pytest.mark.one_backend


def pair(**options):
    return EncoderOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.01), **options
    )


def test_each_variable_has_one_optimizer():
    """The updates are those of two plain optimizers, also of a part of the weights."""
    start = np.arange(4.0)
    ours, theirs = ([keras.Variable(start) for _ in range(3)] for _ in range(2))
    both = pair(encoder_variables=lambda: ours[1:2])
    both.build(ours)
    sgd, adam = keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.01)
    gradient = ops.ones(4)
    for _ in range(2):
        both.apply([gradient] * 3, ours)
        both.apply([gradient], ours[2:])
        sgd.apply([gradient] * 2, [theirs[0], theirs[2]])
        sgd.apply([gradient], theirs[2:])
        adam.apply([gradient], theirs[1:2])
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert int(both.iterations) == 4 and int(both.encoder_optimizer.iterations) == 2
    both.learning_rate = 0.5
    assert float(both.main_optimizer.learning_rate) == 0.5
    assert float(both.encoder_optimizer.learning_rate) == pytest.approx(0.01)


def test_it_is_serialisable():
    config = keras.optimizers.serialize(pair())
    again = keras.optimizers.deserialize(config)
    assert keras.optimizers.serialize(again) == config
    with pytest.raises(ValueError, match="Received: encoder_variables=None"):
        again.build([keras.Variable(np.zeros(2))])


def test_loading_restores_both_states(tmp_path):
    """The next step is the same as without saving."""
    algorithm = Algorithm1(encoder_optimizer=keras.optimizers.Adam(0.01, clipnorm=1.0))
    supernet = tiny_supernet()
    supernet.compile(keras.optimizers.SGD(0.05, momentum=0.9), algorithm=algorithm)
    data = tuple(ops.convert_to_tensor(part) for part in tiny_batch())
    supernet_step(supernet, data)
    supernet.optimizer.encoder_optimizer.learning_rate = 0.02
    supernet.save(tmp_path / "supernet.keras")
    loaded = keras.models.load_model(tmp_path / "supernet.keras")
    assert loaded.algorithm == supernet.algorithm
    assert len(loaded.optimizer.variables) == len(supernet.optimizer.variables)
    for model in (supernet, loaded):
        supernet_step(model, data)
    ours, theirs = (m.weights + m.optimizer.variables for m in (supernet, loaded))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other), one.path)
    # The algorithm's own optimizer is never trained.
    assert not algorithm.encoder_optimizer.built


def test_without_an_encoder_the_compiled_optimizer_trains_all():
    supernet = tiny_supernet(generator="shared")
    algorithm = Algorithm1(encoder_optimizer=keras.optimizers.Adam(0.01))
    supernet.compile("sgd", algorithm=algorithm)
    assert not isinstance(supernet.optimizer, EncoderOptimizer)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 1e-4},
        {"gradient_accumulation_steps": 2},
        {"use_ema": True, "ema_overwrite_frequency": 2},
        {"loss_scale_factor": 2.0},
    ],
    ids=lambda options: list(options)[-1],
)
def test_options_that_two_updates_cannot_serve_are_refused(options):
    """Gradient accumulation once left beta untrained without a word."""
    optimizer = keras.optimizers.SGD(0.1, **options)
    name = list(options)[-1]
    with pytest.raises(ValueError, match=rf"Received: optimizer\.{name}="):
        tiny_supernet().compile(optimizer)
    with pytest.raises(ValueError, match=rf"Received: encoder_optimizer\.{name}="):
        Algorithm1(encoder_optimizer=optimizer)


def test_what_else_is_refused():
    with pytest.raises(ValueError, match="Received: optimizer="):
        tiny_supernet().compile(keras.optimizers.LossScaleOptimizer(pair()))
    with pytest.raises(TypeError, match="Received: encoder_optimizer='adam'"):
        Algorithm1(encoder_optimizer="adam")
    with pytest.raises(ValueError, match="must keep its default"):
        Algorithm1(
            encoder_optimizer=keras.optimizers.Adam(),
            encoder_learning_rate_multiplier=0.1,
        )
