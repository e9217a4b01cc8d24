"""Fair sets of a `StagedSpace`: structures do not clash, sizes are free.

Shapes: `n` architectures, `m` of one set, `D` decisions, `K` structures
(docs/symbols.md).
"""

from typing import TYPE_CHECKING

import numpy as np

from keras_khyper.spaces.packing import FairSets, pack

if TYPE_CHECKING:
    from keras_khyper.spaces.staged_space import StagedSpace


def pack_structures(space: "StagedSpace", archs: np.ndarray) -> FairSets:
    """Pack architectures into fair sets; see `StagedSpace.pack`.

    Args:
        space: the space.
        archs: int `[n, D]`, valid.

    Returns:
        The `FairSets`.
    """
    # A block that an architecture lacks clashes with none: a number of its own.
    own = -1 - np.arange(len(archs))[:, None]
    columns = np.where(space.present(archs), space.structures(archs), own)
    num_structures = int(space.operation_structures.max()) + 1
    return pack(archs, num_structures, columns, lambda group: _complete(space, group))


def _complete(space: "StagedSpace", group: np.ndarray) -> np.ndarray:
    """Add fillers of the smallest size to `[m, D]`, m <= K."""
    # The first operation of each structure; a filler's kernel sizes do not matter.
    operations = np.unique(space.operation_structures, return_index=True)[1]  # [K]
    fillers = np.zeros((len(operations) - len(group), space.num_decisions), np.int64)
    present, structures = space.present(group), space.structures(group)
    for block in np.flatnonzero(space.present(np.zeros(space.num_decisions, np.int64))):
        used = structures[present[:, block], block]
        left = np.setdiff1d(np.arange(len(operations)), used)
        fillers[:, 2 * space.num_stages + block] = operations[left[: len(fillers)]]
    return np.concatenate([group, fillers])
