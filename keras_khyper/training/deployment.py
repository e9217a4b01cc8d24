"""Subnets as plain Keras models, with kernels and statistics filled in.

Shapes: ``k`` kernel size, ``I O`` channels in and out, ``D`` decisions, ``S``
subnets, ``C`` channels.
"""

import itertools

import keras
import numpy as np
from keras import ops

from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.profiling import macs, trainable_params
from keras_khyper.routes import DeployRoute
from keras_khyper.training.recalibration import check_recalibrator


def lay_out(supernet, arch, image_shape):
    """Run a supernet's body on a symbolic image, for one architecture.

    Args:
        supernet: A built `Supernet`.
        arch: D integers.
        image_shape: (H, W, channels).

    Returns:
        What `Supernet.static_network` and `Supernet.deployed_layers` return.
    """
    arch = supernet.space.validate(arch)
    route = DeployRoute(
        supernet.architectures.choices(arch.tolist()),
        sizes=supernet.architectures.sizes(ops.convert_to_tensor(arch[None], "int32")),
    )
    image = keras.Input(image_shape, name="image")
    traced = keras.Model(image, supernet.body(image, route))
    sources = dict(route.sources)

    def copy(operation):
        # A layer that the route did not make, such as the classifier, is the
        # supernet's, and the model must not share it.
        config = operation.get_config()
        if isinstance(operation, keras.Layer) and operation.name not in route.sources:
            if "dtype" in config:
                config["dtype"] = keras.config.dtype_policy().name
            if operation.weights:
                sources[operation.name] = [operation]
        return type(operation).from_config(config)

    network = keras.models.clone_model(traced, clone_function=copy)
    # Nor may the supernet's layers keep the model alive.
    for node in itertools.chain(*traced._nodes_by_depth.values()):
        node.operation._inbound_nodes.remove(node)
    # Those of a block that this architecture lacks lead nowhere.
    there = {layer.name for layer in network.layers}
    return network, {name: sources[name] for name in sources if name in there}


def fill_in(network, sources, supernet, arch, recalibrator):
    """Give a static network its generated kernels and recalibrated statistics.

    Args:
        network: The plain Keras model of `lay_out`.
        sources: Its dictionary.
        supernet: The `Supernet`.
        arch: D integers.
        recalibrator: A `Recalibrator` of the supernet.
    """
    check_recalibrator(supernet, recalibrator)
    archs = supernet.space.validate(arch)[None]
    # The subnet is the first row of a fair set.
    statistics = recalibrator.statistics(supernet.space.pack(archs).archs[0])
    encodings = supernet.encode(supernet.architectures.encode(archs))
    for name, layers in sources.items():
        weights = [
            np.asarray(ops.convert_to_numpy(weight))
            for layer in layers
            for weight in _weights_of(layer, encodings, statistics)
        ]
        target = network.get_layer(name)
        shapes = [tuple(weight.shape) for weight in target.weights]
        target.set_weights([_cut(*pair) for pair in zip(weights, shapes, strict=True)])


def count_subnets(supernet, archs, known):
    """Count subnets as deployed: parameters and MACs of their static networks.

    Args:
        supernet: A built `Supernet`.
        archs: Integers [..., D].
        known: Dictionary that remembers the counts of architectures.

    Returns:
        int64 [..., 2].
    """
    archs = supernet.space.validate(archs)
    rows = [tuple(arch) for arch in archs.reshape(-1, archs.shape[-1]).tolist()]
    for arch in rows:
        if arch not in known:
            network = supernet.static_network(arch)
            known[arch] = trainable_params(network), macs(network)
    counts = np.array([known[arch] for arch in rows], np.int64)
    return counts.reshape(*archs.shape[:-1], 2)


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
