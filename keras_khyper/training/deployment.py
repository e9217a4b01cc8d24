"""Subnets as plain Keras models, with kernels and statistics filled in.

Shapes: ``k`` kernel size, ``I O`` channels in and out, ``D`` decisions.
"""

import numpy as np
from keras import ops

from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.training.recalibration import Recalibrator


def materialize(supernet, arch, calibration_data, batch_size=None):
    """Turn one subnet into a plain Keras model; see `Supernet.materialize`."""
    arch = supernet.space.validate(arch)
    # The subnet is the first row of its coset, a fair set.
    recalibrator = Recalibrator(supernet, calibration_data, batch_size)
    statistics = recalibrator.statistics(supernet.space.coset(arch))
    network = supernet.static_network(arch)
    features, coefficients = supernet.encode(supernet.space.encode(arch)[None])
    for name, layer in supernet.deployed_layers(arch).items():
        if isinstance(layer, GeneratedConv2D):
            weights = [layer.kernels(features, coefficients)[0]]
        elif isinstance(layer, SubnetBatchNormalization):
            mean, variance = statistics[layer.name]
            if len(mean.shape) == 2:
                mean, variance = mean[0], variance[0]
            weights = [layer.gamma, layer.beta, mean, variance]
        else:
            weights = layer.weights
        network.get_layer(name).set_weights(
            [np.asarray(ops.convert_to_numpy(weight)) for weight in weights]
        )
    return network
