"""BatchNorm recalibration of subnets (paper appendix A.1, after Yu et al., 2018).

Shapes: ``n`` images, ``S`` subnets, ``D`` decisions, ``C`` channels.
"""

import math

import numpy as np
from keras import ops

from keras_khyper import backend
from keras_khyper.checks import check_integer
from keras_khyper.routes import BatchStatistics, Statistics


class LayerwiseStatistics(Statistics):
    """Normalise known layers by given statistics, the others by the batch's.

    Args:
        known: Layer name -> whether its given statistics count, a scalar.
        given: Layer name -> (mean, variance).
    """

    def __init__(self, known, given):
        self.known = known
        self.given = given
        self.recorded = {}

    def normalize(self, layer, x, slot=None, mask=None):
        """Normalize; see `Statistics.normalize`."""
        key = _key(layer.name, slot)
        y, mean, variance = layer.normalize_batch(x, mask)
        self.recorded[key] = (mean, variance)
        if key not in self.given:
            return y
        return ops.where(self.known[key], layer.normalize(x, *self.given[key], mask), y)


def _key(name, slot):
    return name if slot is None else f"{name}/{slot}"


class Recalibrator:
    """Compute the BatchNorm statistics of fair sets of subnets.

    The statistics are those of one forward over all images, in which every
    layer normalises by its own batch statistics. Averaging the variances of
    minibatches would not give them: a layer's input depends on the statistics
    of the layers before it. So where one forward does not fit into memory, the
    layers are done one after the other, each over all minibatches.

    Args:
        supernet: A built `Supernet`.
        images: Normalised training images [n, H, W, channels]; the paper takes
            2,048.
        batch_size: None for one forward; else images per minibatch, at the
            price of one pass over the images per BatchNorm layer.

    Raises:
        TypeError: ``images`` are no numbers, or ``batch_size`` is no integer.
        ValueError: ``images`` is not a batch of finite images of the supernet's
            shape.

    Example:
    >>> recalibrator = kk.training.Recalibrator(supernet, images)
    >>> evaluator = kk.evaluation.SubnetEvaluator(
    ...     supernet, recalibrator, (images, labels), verbose=0
    ... )
    >>> subnet = supernet.materialize(archs[0], recalibrator)
    """

    def __init__(self, supernet, images, batch_size=None):
        images = check_images("images", images, supernet.image_shape)
        if batch_size is not None:
            check_integer("batch_size", batch_size, minimum=1)
        self.supernet = supernet
        self.images = images
        self.batch_size = batch_size
        self.num_traces = 0
        one_forward = batch_size is None or batch_size >= len(images)
        self._in_one_forward = one_forward
        self._layer_order = []

        def whole(images, archs):
            self.num_traces += 1
            statistics = BatchStatistics()
            supernet.call_subnets(images, archs, statistics)
            return statistics.collect()

        def part(images, archs, known, given):
            self.num_traces += 1
            statistics = LayerwiseStatistics(known, given)
            supernet.call_subnets(images, archs, statistics)
            # Noted while tracing: a compiled function may sort its outputs.
            self._layer_order = list(statistics.recorded)
            return statistics.recorded

        self._forward = backend.stateless_function(
            supernet, whole if one_forward else part
        )

    def statistics(self, archs):
        """Return layer name -> (mean, variance) for a fair set [S, D].

        Each is a tensor [C], or [S, C] for layers that serve all S subnets.
        """
        archs = ops.convert_to_tensor(archs, "int32")
        if self._in_one_forward:
            return self._forward(ops.convert_to_tensor(self.images), archs)
        return _group(self._layer_by_layer(archs))

    def _layer_by_layer(self, archs):
        count = math.ceil(len(self.images) / self.batch_size)
        batches = [
            ops.convert_to_tensor(batch) for batch in np.array_split(self.images, count)
        ]
        given = self._forward(batches[0], archs, {}, {})
        known = dict.fromkeys(self._layer_order, False)
        for name in self._layer_order:
            flags = {key: ops.convert_to_tensor(value) for key, value in known.items()}
            parts = [
                (len(batch), *self._forward(batch, archs, flags, given)[name])
                for batch in batches
            ]
            given[name] = _merge(parts)
            known[name] = True
        return given


def check_recalibrator(supernet, recalibrator):
    """Refuse what is not a `Recalibrator` of this supernet.

    Raises:
        TypeError: It is something else, images for instance.
        ValueError: It is another supernet's.
    """
    if not isinstance(recalibrator, Recalibrator):
        raise TypeError(
            "recalibrator must be a keras_khyper.training.Recalibrator(supernet, "
            f"images). Received: recalibrator of type {type(recalibrator).__name__}"
        )
    if recalibrator.supernet is not supernet:
        raise ValueError(
            "The recalibrator must be made of the same supernet. Received: "
            f"recalibrator.supernet={recalibrator.supernet.name!r}, "
            f"supernet={supernet.name!r}, two objects"
        )


def check_images(name, images, image_shape):
    """Return images as an array, refused unless a supernet can read them.

    Args:
        name: Name of the argument, for the message.
        images: What was given.
        image_shape: Height, width and channels that the supernet was built for.

    Raises:
        TypeError: They are no numbers.
        ValueError: They are not [n, H, W, C] with n > 0 and the supernet's shape, or
            not finite.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "fiu" and images.dtype.name != "bfloat16":
        raise TypeError(
            f"{name} must be normalized images, numbers. Received: "
            f"{name}.dtype={images.dtype}"
        )
    if images.ndim != 4 or not len(images):
        raise ValueError(
            f"{name} must be an array [n, height, width, channels] with n > 0. "
            f"Received: {name}.shape={images.shape}"
        )
    built_for = image_shape or (None, None, None)
    pairs = zip(images.shape[1:], built_for, strict=True)
    if any(expected not in (None, size) for size, expected in pairs):
        raise ValueError(
            f"{name} must have the height, width and channels that the supernet was "
            f"built for, {tuple(built_for)}. Received: {name}.shape={images.shape}"
        )
    if not np.isfinite(images).all():
        raise ValueError(
            f"{name} must be finite. Received: {name} with "
            f"{np.count_nonzero(~np.isfinite(images))} values that are NaN or infinite"
        )
    return images


def _merge(parts):
    # Chan's formula: equal image sizes, so images weigh as positions would.
    counts = np.array([count for count, _, _ in parts], "float64")
    weights = (counts / counts.sum())[:, None]
    means = np.stack([ops.convert_to_numpy(mean) for _, mean, _ in parts])
    variances = np.stack([ops.convert_to_numpy(value) for _, _, value in parts])
    mean = (weights * means.astype("float64")).sum(axis=0)
    spread = np.square(means - mean) + variances
    variance = (weights * spread).sum(axis=0)
    return tuple(ops.convert_to_tensor(v.astype("float32")) for v in (mean, variance))


def _group(statistics):
    by_layer = {}
    for key, pair in statistics.items():
        name, _, slot = key.partition("/")
        by_layer.setdefault(name, {})[slot] = pair
    return {
        name: pairs[""]
        if "" in pairs
        else tuple(ops.stack(column) for column in zip(*pairs.values(), strict=True))
        for name, pairs in by_layer.items()
    }
