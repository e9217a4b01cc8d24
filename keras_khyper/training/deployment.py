"""Subnets as plain Keras models, with kernels and statistics filled in.

Shapes: ``k`` kernel size, ``I O`` channels in and out, ``D`` decisions, ``S``
subnets, ``C`` channels.
"""

import numpy as np
from keras import ops

from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.training.recalibration import check_recalibrator


def materialize(supernet, arch, recalibrator):
    """Turn one subnet into a plain Keras model; see `Supernet.materialize`."""
    check_recalibrator(supernet, recalibrator)
    archs = supernet.space.validate(arch)[None]
    # The subnet is the first row of a fair set.
    statistics = recalibrator.statistics(supernet.space.pack(archs).archs[0])
    network = supernet.static_network(archs[0])
    encodings = supernet.encode(supernet.architectures.encode(archs))
    for name, layers in supernet.deployed_layers(archs[0]).items():
        weights = [
            np.asarray(ops.convert_to_numpy(weight))
            for layer in (layers if isinstance(layers, list) else [layers])
            for weight in _weights_of(layer, encodings, statistics)
        ]
        target = network.get_layer(name)
        shapes = [tuple(weight.shape) for weight in target.weights]
        target.set_weights([_cut(*pair) for pair in zip(weights, shapes, strict=True)])
    return network


def _weights_of(layer, encodings, statistics):
    if isinstance(layer, GeneratedConv2D):
        return [layer.kernels(*encodings)[0]]
    if isinstance(layer, SubnetBatchNormalization):
        mean, variance = statistics[layer.name]
        if len(mean.shape) == 2:  # the layer served all S subnets: [S, C]
            mean, variance = mean[0], variance[0]
        return [layer.gamma, layer.beta, mean, variance]
    return layer.weights


def _cut(weight, shape):
    """Return the first channels and the centre of a kernel's height and width."""
    starts = [0] * len(shape)
    if len(shape) == 4:
        starts[:2] = [(weight.shape[axis] - shape[axis]) // 2 for axis in (0, 1)]
    cut = weight[tuple(slice(i, i + n) for i, n in zip(starts, shape, strict=True))]
    if cut.shape != shape:
        raise ValueError(
            "A deployed layer must not be larger than the supernet's. Received: "
            f"{shape} of {weight.shape}"
        )
    return cut
