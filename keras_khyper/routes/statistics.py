"""The statistics that BatchNorm layers of a supernet normalize by.

Shapes: ``S`` subnets, ``B`` batch, ``H W`` space, ``C`` channels.
"""

from keras import ops

from keras_khyper.layers.batch_normalization import normalize_joined


class Statistics:
    """Base of the objects that say which statistics BatchNorm normalizes by.

    Attributes:
        regularizes: Whether dropout is active: in the teacher's training alone.
        by_name: Whether they tell layers apart by their names.
    """

    regularizes = False
    by_name = True

    def normalize(self, layer, x, slot=None, mask=None):
        """Return normalized images.

        Args:
            layer: A `SubnetBatchNormalization`.
            x: Tensor [B, H, W, C].
            slot: Which of S subnets it belongs to; None where they share it, or for
                a single one.
            mask: What the outputs are multiplied by, [C] or a scalar; None for
                nothing.
        """
        raise TypeError(
            "Statistics must define normalize(layer, x, slot, mask). "
            f"Received: statistics={type(self).__name__}"
        )

    def normalize_joined(self, layers, x, weights):
        """Normalize the channels of n layers side by side, and weight them.

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
                ops.cast(weight, x.dtype) * self.normalize(layer, part)
                for layer, part, weight in parts
            ],
            axis=-1,
        )


class BatchStatistics(Statistics):
    """Normalize by each subnet's own batch statistics and record them.

    ``recorded`` maps the name of a BatchNorm layer to its mean and variance,
    each [C], or [S, C] where the layer served S subnets.

    Args:
        record: Whether to record. Not where a layer runs in a branch of its own,
            as on a `SwitchRoute`: its tensors must not leave the branch.
    """

    def __init__(self, record=True):
        self.record = self.by_name = record
        self.recorded = {}

    def normalize(self, layer, x, slot=None, mask=None):
        """Normalize by the images' own statistics; see `Statistics.normalize`."""
        y, mean, variance = layer.normalize_batch(x, mask)
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


class SlotStatistics(Statistics):
    """Normalize on a route of one subnet as for its slot in a set of S.

    Args:
        statistics: The `Statistics` of the set.
        slot: Which of S subnets.
    """

    def __init__(self, statistics, slot):
        self.statistics = statistics
        self.slot = slot
        self.regularizes = statistics.regularizes

    def normalize(self, layer, x, slot=None, mask=None):
        """Normalize as the subnet of the set; see `Statistics.normalize`."""
        del slot
        return self.statistics.normalize(layer, x, self.slot, mask)


class GivenStatistics(Statistics):
    """Normalize by statistics from an earlier recalibration.

    Args:
        statistics: name -> (mean, variance), as `BatchStatistics.collect` made.
    """

    def __init__(self, statistics):
        self.statistics = statistics

    def normalize(self, layer, x, slot=None, mask=None):
        """Normalize by the given statistics; see `Statistics.normalize`."""
        mean, variance = self.statistics[layer.name]
        if slot is not None:
            mean, variance = mean[slot], variance[slot]
        return layer.normalize(x, mean, variance, mask)


class TeacherStatistics(Statistics):
    """Normalize as the teacher: batch statistics and moving averages."""

    by_name = False

    def __init__(self, training):
        self.training = self.regularizes = training

    def normalize(self, layer, x, slot=None, mask=None):
        """Normalize as the teacher; see `Statistics.normalize`."""
        del slot
        return layer.call(x, training=self.training, mask=mask)

    def normalize_joined(self, layers, x, weights):
        """Normalize as one wide layer; see `Statistics.normalize_joined`."""
        return normalize_joined(layers, x, weights, self.training)
