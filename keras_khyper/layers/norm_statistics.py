"""By which statistics the BatchNorm layers of a supernet normalise.

Shapes: ``S`` subnets, ``B`` batch, ``H W`` space, ``C`` channels.
"""

from keras import ops

from keras_khyper.layers.batch_normalization import normalize_joined


class Statistics:
    """Base of the objects that say by which statistics BatchNorm normalises.

    Attributes:
        regularizes: Whether dropout is active: in the teacher's training alone.
    """

    regularizes = False

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C] of the subnet in ``slot``, or None."""
        raise TypeError(
            "Statistics must define normalize(layer, x, slot). "
            f"Received: statistics={type(self).__name__}"
        )

    def normalize_joined(self, layers, x, weights):
        """Normalise the channels of n layers side by side, and weight them.

        Args:
            layers: n BatchNorm layers of C channels.
            x: Tensor [B, H, W, n*C].
            weights: n scalar tensors.

        Returns:
            Tensor [B, H, W, n*C].
        """
        parts = zip(layers, ops.split(x, len(layers), axis=-1), weights, strict=True)
        return ops.concatenate(
            [
                ops.cast(weight, x.dtype) * self.normalize(layer, part, None)
                for layer, part, weight in parts
            ],
            axis=-1,
        )


class BatchStatistics(Statistics):
    """Normalise by each subnet's own batch statistics and record them.

    ``recorded`` maps the name of a BatchNorm layer to its mean and variance,
    each [C], or [S, C] where the layer served S subnets.

    Args:
        record: Whether to record. Not where a layer runs in a branch of its own,
            as on a `SwitchRoute`: its tensors must not leave the branch.
    """

    def __init__(self, record=True):
        self.record = record
        self.recorded = {}

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C] of the subnet in ``slot``."""
        y, mean, variance = layer.normalize_batch(x)
        if self.record:
            self.recorded.setdefault(layer.name, {})[slot] = (mean, variance)
        return y

    def collect(self):
        """Return name -> (mean, variance), stacked where subnets differ."""
        collected = {}
        for name, by_slot in self.recorded.items():
            pairs = list(by_slot.values())
            if None in by_slot:
                collected[name] = pairs[0]
            else:
                means, variances = zip(*pairs, strict=True)
                collected[name] = (ops.stack(means), ops.stack(variances))
        return collected


class GivenStatistics(Statistics):
    """Normalise by statistics from an earlier recalibration.

    Args:
        statistics: name -> (mean, variance), as `BatchStatistics.collect` made.
    """

    def __init__(self, statistics):
        self.statistics = statistics

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C] of the subnet in ``slot``."""
        mean, variance = self.statistics[layer.name]
        if slot is not None:
            mean, variance = mean[slot], variance[slot]
        return layer.normalize(x, mean, variance)


class TeacherStatistics(Statistics):
    """Normalise as the teacher: batch statistics and moving averages."""

    def __init__(self, training):
        self.training = self.regularizes = training

    def normalize(self, layer, x, slot):
        """Normalise ``x`` [B, H, W, C]."""
        del slot
        return layer.call(x, training=self.training)

    def normalize_joined(self, layers, x, weights):
        """Normalise as one wide layer; see `Statistics.normalize_joined`."""
        return normalize_joined(layers, x, weights, self.training)
