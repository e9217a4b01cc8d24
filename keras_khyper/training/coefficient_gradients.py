"""Whether the gradient asks for coefficients that depend on the architecture.

Shapes: ``A`` architectures, ``B`` images, ``N`` shots.
"""

import keras
import numpy as np
from keras import ops

from keras_khyper import backend
from keras_khyper.routes import BatchStatistics, PathRoute


class CoefficientGradients(keras.callbacks.Callback):
    """Add to the epoch's logs what the subnets' loss wants of the coefficients.

    The gradient of a subnet's loss by its N coefficients has a part that all
    architectures share and one of the architecture. Both are estimated without the
    noise of the batch, by products of the gradients of two disjoint batches:

    - ``common_gradient``: ``<g1, g2> / |g|^2`` for g, the mean over architectures;
    - ``specific_gradient``: the mean over architectures of the same product for
      what is left of their gradients.

    Both are shares of the mean squared length ``|g|^2`` of an architecture's
    gradient, most of which is the batch's noise. Where the specific share is zero,
    coefficients that depend on the architecture have nothing to learn.

    Args:
        images: Normalized images [B, H, W, channels], augmented as in training.
        labels: Integers [B].
        num_archs: A, architectures drawn at random, at least two.
        seed: Seed of their draw.

    Raises:
        ValueError: There are fewer than two images or architectures.

    Example:
    >>> few = images[:8], labels[:8]
    >>> callbacks = [kk.training.CoefficientGradients(*few, num_archs=4)]
    """

    def __init__(self, images, labels, num_archs=16, seed=0):
        super().__init__()
        if num_archs < 2 or len(images) < 2:
            raise ValueError(
                "There must be two architectures and two images at the least. "
                f"Received: {num_archs=}, number of images={len(images)}"
            )
        half = len(images) // 2
        self.batches = [
            (images[:half], labels[:half]),
            (images[half : 2 * half], labels[half : 2 * half]),
        ]
        self.num_archs = num_archs
        self.seed = seed

    def on_epoch_end(self, epoch, logs=None):
        """Write the two shares into ``logs``."""
        del epoch
        if logs is None or self.model.encoder is None:
            return
        archs = self.model.space.sample(self.num_archs, seed=self.seed)
        gradients = np.array(
            [
                [self._gradient(arch, *batch) for batch in self.batches]
                for arch in archs.tolist()
            ]
        )  # [A, 2, N]
        logs.update(gradient_shares(gradients))

    def _gradient(self, arch, images, labels):
        # Of the subnet's loss by its own coefficients, through an offset of zero.
        model = self.model
        archs = ops.convert_to_tensor(arch, "int32")[None]
        features, coefficients = model.encode(model.architectures.encode(archs))
        offset = keras.Variable(np.zeros(coefficients.shape, "float32"))
        x = ops.cast(ops.convert_to_tensor(images), model.compute_dtype)

        def loss_fn():
            route = PathRoute(
                model.architectures.choices(arch),
                features=features,
                coefficients=coefficients + ops.convert_to_tensor(offset),
                statistics=BatchStatistics(record=False),
                sizes=model.architectures.sizes(archs),
            )
            logits = ops.cast(model.body(x, route), "float32")
            losses = keras.losses.sparse_categorical_crossentropy(
                ops.convert_to_tensor(labels), logits, from_logits=True
            )
            return ops.mean(losses), []

        state = [*model.variables, offset]
        _, (gradient,) = backend.value_and_grad(loss_fn, [offset], state)
        return ops.convert_to_numpy(gradient)[0]


def gradient_shares(gradients):
    """Return the shares of a gradient that are common to and specific of groups.

    Args:
        gradients: Array [A, 2, N]: of A architectures on two disjoint batches.

    Returns:
        Dictionary of ``common_gradient`` and ``specific_gradient``, see
        `CoefficientGradients`. Their expectations have no part of the batch's noise.
    """
    gradients = np.asarray(gradients, "float64")
    count = len(gradients)
    total = np.square(gradients).sum(axis=2).mean()
    if not total:
        return {"common_gradient": 0.0, "specific_gradient": 0.0}
    mean = gradients.mean(axis=0)  # [2, N]
    rest = gradients - mean
    specific = (rest[:, 0] * rest[:, 1]).sum() / (count - 1)
    # The mean has 1 / A of each architecture's own part.
    common = mean[0] @ mean[1] - specific / count
    return {
        "common_gradient": float(common / total),
        "specific_gradient": float(specific / total),
    }
