"""Fair sets of the ImageNet space: structures do not clash, sizes are free.

Shapes: `n` architectures, `m` of one set, `B` blocks, `D` decisions.
"""

from typing import TYPE_CHECKING

import numpy as np

from keras_khyper.spaces.packing import FairSets, pack
from keras_khyper.spaces.uib_blocks import STRUCTURES

if TYPE_CHECKING:
    from keras_khyper.spaces.uib import UIBSpace


def pack_structures(space: "UIBSpace", archs: np.ndarray) -> FairSets:
    """Packs architectures into fair sets; see `UIBSpace.pack`.

    Args:
        space: the space.
        archs: int `[n, D]`, valid.

    Returns:
        The `FairSets`.
    """
    # A block that an architecture lacks clashes with none: a number of its own.
    own = -1 - np.arange(len(archs))[:, None]
    columns = np.where(space.present(archs), space.structures(archs), own)
    return pack(archs, len(STRUCTURES), columns, lambda group: _complete(space, group))


def _complete(space: "UIBSpace", group: np.ndarray) -> np.ndarray:
    """Add fillers of the smallest size to `[m, D]`, m <= 4."""
    num_fillers = len(STRUCTURES) - len(group)
    fillers = np.tile(space.smallest(), (num_fillers, 1))
    present, structures = space.present(group), space.structures(group)
    kernels = min(space.kernel_sizes)
    names = [f"ExtraDW_k{kernels}_k{kernels}", f"IB_k{kernels}"]
    names += [f"ConvNext_k{kernels}", "FFN"]  # in the order of `STRUCTURES`
    operations = np.array([space.operations.index(name) for name in names])
    for block in np.flatnonzero(space.present(space.smallest())):
        used = structures[present[:, block], block]
        left = np.setdiff1d(np.arange(len(STRUCTURES)), used)
        fillers[:, 2 * space.num_stages + block] = operations[left[:num_fillers]]
    return np.concatenate([group, fillers])
