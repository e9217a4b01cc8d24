"""The cell search space of NAS-Bench-201 (Dong and Yang, ICLR 2020)."""

import functools

import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.spaces.search_space import SearchSpace


class NASBench201(SearchSpace):
    """The 15,625 cells of NAS-Bench-201, the paper's topology search space.

    A cell is a DAG of four nodes; each of its six edges carries one of five
    operations. The order of edges and operations is the benchmark's.

    Example:
        >>> space = kk.spaces.NASBench201()
        >>> len(space), space.operations[3], space.edges[2]
        (15625, 'nor_conv_3x3', (1, 2))
        >>> space.to_string([3, 0, 1, 4, 2, 3])
        '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|'
    """

    num_nodes = 4
    edges = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

    def __init__(self) -> None:
        super().__init__(
            num_decisions=len(self.edges),
            operations=(
                "none",
                "skip_connect",
                "nor_conv_1x1",
                "nor_conv_3x3",
                "avg_pool_3x3",
            ),
            decision_names=[f"edge{source}{target}" for source, target in self.edges],
        )

    def __repr__(self) -> str:
        return "NASBench201()"

    def to_string(self, arch: ArrayLike) -> str:
        """Write an architecture as the benchmark's string.

        Args:
            arch: integers `[6]`.

        Returns:
            `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`; the number after `~` is the node
            from which the edge comes.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `arch` is invalid or not a single architecture.

        Example:
            >>> kk.spaces.NASBench201().to_string([0] * 6)
            '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
        """
        arch = self._validate_one(arch, "arch")
        nodes = ["|" for _ in range(1, self.num_nodes)]
        for (source, target), operation in zip(self.edges, arch, strict=True):
            nodes[target - 1] += f"{self.operations[operation]}~{source}|"
        return "+".join(nodes)

    def from_string(self, string: str) -> np.ndarray:
        """Read the benchmark's architecture string.

        Args:
            string: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

        Returns:
            int64 `[6]`.

        Raises:
            TypeError: if `string` is no string.
            ValueError: if it has another form or names an unknown operation.

        Example:
            >>> space = kk.spaces.NASBench201()
            >>> space.from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
            array([0, 0, 0, 0, 0, 0])
        """
        if not isinstance(string, str):
            raise TypeError(
                f"An architecture string must be a `str`. Received: string={string!r}"
            )
        nodes = [node.strip("|").split("|") for node in string.strip().split("+")]
        tokens = [token.partition("~") for node in nodes for token in node]
        operations = [operation for operation, _, _ in tokens]
        # Compared as a whole, so that nothing but the exact form passes.
        form = "+".join(
            "|" + "|".join(f"{{}}~{source}" for source in range(target)) + "|"
            for target in range(1, self.num_nodes)
        )
        if (
            len(operations) != self.num_decisions
            or form.format(*operations) != string.strip()
        ):
            raise ValueError(
                "An architecture string must have the form "
                f"{form.format(*['op'] * self.num_decisions)}. "
                f"Received: string={string!r}"
            )
        unknown = [name for name in operations if name not in self.operations]
        if unknown:
            raise ValueError(
                f"Unknown operation {unknown[0]!r}; the operations are "
                f"{', '.join(self.operations)}. Received: string={string!r}"
            )
        return np.array([self.operations.index(name) for name in operations], np.int64)

    def isomorphism_class(self, archs: ArrayLike) -> np.ndarray:
        """Names the unique topology of architectures.

        Two architectures share a topology if the benchmark's own reduction writes
        them alike: skip connections repeat their node, the order of summands does
        not count, zero edges are marked. It is kept as it is, although it misses
        some equal pairs (a sum of two zeros is not taken for zero). Isomorphic
        architectures have different encodings, hence different kernels in a
        supernet: use the classes to report, never to merge results.

        Args:
            archs: integers `[..., 6]`.

        Returns:
            int64 `[...]`, the lowest `to_index` of the class.

        Raises:
            TypeError: if the entries are not integers.
            ValueError: if `archs` is invalid.

        Example:
            >>> space = kk.spaces.NASBench201()
            >>> archs = [[1, 3, 2, 0, 0, 1], [1, 2, 3, 0, 0, 1]]  # summands swapped
            >>> len(set(space.isomorphism_class(archs).tolist()))
            1
        """
        return _representatives()[self.to_index(archs)]

    def isomorphism_classes(self) -> list[np.ndarray]:
        """Split the space into its 6,466 unique topologies.

        Returns:
            One int64 array `[m, 6]` for each class, ordered by their lowest
            `to_index`; so are the members.

        Example:
            >>> len(kk.spaces.NASBench201().isomorphism_classes())
            6466
        """
        representatives = _representatives()
        order = np.argsort(representatives, kind="stable")
        starts = np.flatnonzero(np.diff(representatives[order])) + 1
        return np.split(self.from_index(order), starts)


@functools.cache
def _representatives() -> np.ndarray:
    """Lowest index with the same topology, for every index: int64 `[15625]`."""
    space = NASBench201()
    lowest: dict[str, int] = {}
    archs = space.from_index(np.arange(space.size))
    representatives = np.array(
        [
            lowest.setdefault(_topology(space, arch), index)
            for index, arch in enumerate(archs.tolist())
        ],
        np.int64,
    )
    representatives.setflags(write=False)
    return representatives


def _topology(space: NASBench201, arch: list[int]) -> str:
    """Return the benchmark's canonical string of the last node's expression."""
    names = ["0"]
    for target in range(1, space.num_nodes):
        terms = []
        for (source, end), choice in zip(space.edges, arch, strict=True):
            if end != target:
                continue
            operation = space.operations[choice]
            if operation == "none" or names[source] == "#":
                terms.append("#")
            elif operation == "skip_connect":
                terms.append(names[source])
            else:
                terms.append(f"({names[source]})@{operation}")
        names.append("+".join(sorted(terms)))
    return names[-1]
