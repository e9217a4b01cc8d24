"""Architectures of a `StagedSpace` as strings.

Shapes: `D` decisions (docs/symbols.md).
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_khyper.spaces.staged_layout import StagedLayout


def write(space: "StagedLayout", arch: np.ndarray) -> str:
    """Write a valid architecture `[D]`; see `StagedSpace.to_string`."""
    names = np.array(space.operations)[arch[2 * space.num_stages :]]
    present = space.present(arch)
    return "|".join(
        f"{width}:{','.join(names[present & (space.block_stages == stage)])}"
        for stage, width in enumerate(space.widths(arch))
    )


def read(space: "StagedLayout", string: str) -> np.ndarray:
    """Read an architecture, int64 `[D]`; see `StagedSpace.from_string`."""
    if not isinstance(string, str):
        raise TypeError(
            f"An architecture string must be a `str`. Received: string={string!r}"
        )
    parts = "".join(string.split()).split("|")
    if len(parts) != space.num_stages:
        raise ValueError(
            f"An architecture string must have {space.num_stages} stages, separated "
            f"by |. Received: string={string!r}"
        )
    arch = np.zeros(space.num_decisions, np.int64)
    candidates = zip(parts, space.depth_candidates, space.width_candidates, strict=True)
    for stage, (part, depths, widths) in enumerate(candidates):
        width, _, names = part.partition(":")
        chosen = names.split(",")
        known = set(chosen) <= set(space.operations)
        sizes = [str(size) for size in widths]
        if width not in sizes or len(chosen) not in depths or not known:
            raise ValueError(
                f"Stage {stage + 1} must have the form width:operation,... with a "
                f"width from {list(widths)}, {list(depths)} operations, each from "
                f"{', '.join(space.operations)}. Received: {part!r} in "
                f"string={string!r}"
            )
        arch[stage] = depths.index(len(chosen))
        arch[space.num_stages + stage] = sizes.index(width)
        first = 2 * space.num_stages + int(np.searchsorted(space.block_stages, stage))
        arch[first : first + len(chosen)] = [
            space.operations.index(name) for name in chosen
        ]
    return arch
