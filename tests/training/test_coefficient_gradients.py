"""Shares of the coefficients' gradient against what they were made of."""

import numpy as np
import pytest
from keras import ops
from supernet_reference import tiny_batch, tiny_supernet, to_numpy

from keras_khyper.training import CoefficientGradients
from keras_khyper.training.coefficient_gradients import gradient_shares


@pytest.mark.one_backend
def test_shares_of_gradients_made_of_known_parts():
    """Common, specific and noise of variances 4, 2 and 10 per entry."""
    rng = np.random.default_rng(0)
    archs, entries = 400, 300
    common = rng.normal(0, 2, entries)
    specific = rng.normal(0, np.sqrt(2), (archs, 1, entries))
    noise = rng.normal(0, np.sqrt(10), (archs, 2, entries))
    shares = gradient_shares(common + specific + noise)
    assert shares["common_gradient"] == pytest.approx(4 / 16, abs=0.03)
    assert shares["specific_gradient"] == pytest.approx(2 / 16, abs=0.01)


@pytest.mark.one_backend
def test_few_architectures_do_not_bias_the_common_share():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        specific = rng.normal(0, 1, (3, 1, 50))
        found.append(gradient_shares(specific + rng.normal(0, 1, (3, 2, 50))))
    common = np.mean([one["common_gradient"] for one in found])
    specific = np.mean([one["specific_gradient"] for one in found])
    assert abs(common) < 0.02
    assert specific == pytest.approx(0.5, abs=0.03)


def test_a_gradient_is_the_losses_slope():
    """By central differences in each coefficient, on the subnet's own loss."""
    supernet = tiny_supernet()
    x, y = tiny_batch(size=8)
    callback = CoefficientGradients(x, y, num_archs=2)
    callback.set_model(supernet)
    arch = [2, 2, 2]
    gradient = callback._gradient(arch, x, y)
    encode = supernet.encode
    slopes = []
    for index in range(len(gradient)):
        losses = []
        for step in (-5e-3, 5e-3):

            def shifted(encoding, index=index, step=step):
                features, coefficients = encode(encoding)
                shift = np.zeros(coefficients.shape, "float32")
                shift[..., index] = step
                return features, coefficients + ops.convert_to_tensor(shift)

            supernet.encode = shifted
            logits = to_numpy(supernet(x, arch=arch, training=True))
            losses.append(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(8), y]))
        slopes.append((losses[1] - losses[0]) / 1e-2)
    np.testing.assert_allclose(gradient, slopes, rtol=0.1, atol=1e-3)
    assert np.abs(slopes).max() > 5e-3
    logs = {}
    supernet.encode = encode
    callback.on_epoch_end(0, logs)
    assert set(logs) == {"common_gradient", "specific_gradient"}


@pytest.mark.one_backend
def test_too_few_are_refused():
    with pytest.raises(ValueError, match="Received: num_archs=1"):
        CoefficientGradients(np.zeros((4, 2)), np.zeros(4), num_archs=1)
