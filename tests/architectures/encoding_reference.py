"""Encodings of architectures once more, in NumPy: the oracle of `Architectures`.

Shapes: `S` subnets, `D` decisions, `K` candidates, `G` stages, `L` blocks, `Q`
candidates of a size at most.
"""

import numpy as np

from keras_khyper.spaces import STRUCTURES


def encode_candidates(archs, num_candidates):
    """One-hot rows [..., D, K] of the candidate chosen at each decision."""
    archs = np.asarray(archs)
    encoding = np.zeros((*archs.shape, num_candidates), "float32")
    for index in np.ndindex(archs.shape):
        encoding[(*index, archs[index])] = 1
    return encoding


def encode_topology(space, archs):
    """One-hot structure of each block [S, L, 4], zeros where it is absent."""
    topology = np.zeros((len(archs), space.num_blocks, len(STRUCTURES)), "float32")
    for subnet, arch in enumerate(archs):
        for place, operation in _operations(space, arch):
            topology[subnet, place, STRUCTURES.index(operation.structure)] = 1
    return topology


def encode_size(space, archs):
    """One-hot depth and channels of each stage, kernel sizes of each block.

    Returns [S, 2G + 2L, Q]: rows for depths, channels, start kernels and middle
    kernels; zeros where there is no such convolution.
    """
    stages, blocks, kernels = space.num_stages, space.num_blocks, space.kernel_sizes
    candidates = [len(stage.depths) for stage in space.stages]
    candidates += [len(stage.channels) for stage in space.stages]
    rows = np.zeros(
        (len(archs), 2 * stages + 2 * blocks, max(*candidates, len(kernels))), "float32"
    )
    for subnet, arch in enumerate(archs):
        rows[subnet, np.arange(2 * stages), arch[: 2 * stages]] = 1
        for place, operation in _operations(space, arch):
            for kind, kernel in enumerate(operation):
                if kernel is not None:
                    row = 2 * stages + kind * blocks + place
                    rows[subnet, row, kernels.index(kernel)] = 1
    return rows


def encode_uib(space, archs):
    """Topology and size one above the other, in columns of their own."""
    topology, sizes = encode_topology(space, archs), encode_size(space, archs)
    return join(topology, sizes)


def join(topology, sizes):
    """Join [..., L, 4] and [..., n, Q] to [..., L + n, 4 + Q]."""
    columns = topology.shape[-1]
    encoding = np.zeros(
        (
            *topology.shape[:-2],
            topology.shape[-2] + sizes.shape[-2],
            columns + sizes.shape[-1],
        ),
        "float32",
    )
    encoding[..., : topology.shape[-2], :columns] = topology
    encoding[..., topology.shape[-2] :, columns:] = sizes
    return encoding


def _operations(space, arch):
    # Pairs of a place and an operation, of the blocks within their stages' depths.
    place = 0
    for stage, depth in zip(space.stages, arch, strict=False):
        for block in range(stage.max_depth):
            if block < stage.depths[depth]:
                chosen = arch[2 * space.num_stages + place]
                yield place, space.block_operations[chosen]
            place += 1
