"""Rows of a tensor that are known at run time, on a CPU without copies.

An `IndexRouting` copies the activations of subnets into one tensor and out of it, which
a GPU does without the host. On a CPU the host can read the few indices and name the
rows instead.

Shapes: ``S`` rows of a tensor, ``n`` rows that are taken or added.
"""

import collections
import dataclasses

import torch

_aten = torch.ops.aten


@dataclasses.dataclass
class _RowOperation:
    rows: object  # slot of the n indices
    result: object

    function = None  # none of PyTorch's
    writes = ()
    has_effect = False

    def source(self, names, known):
        """Return lines of Python, the indices read where they are not yet known."""
        lines = []
        if self.rows not in known:
            known.add(self.rows)
            lines.append(f"{self._indices} = {self.rows}.tolist()")
        return lines + self._lines(names)

    @property
    def _indices(self):
        return f"rows_of_{self.rows}"


@dataclasses.dataclass
class TakeRows(_RowOperation):
    """``x.index_select(0, rows).unbind()`` as views of ``x`` [S, ...]."""

    x: object

    def __post_init__(self):
        self.reads, self.makes, self.shares = [self.x, self.rows], self.result, [self.x]

    def _lines(self, names):
        names["unbind"] = _aten.unbind.int._op
        picks = [f"parts[{self._indices}[{i}]]" for i in range(len(self.result))]
        targets = ", ".join(map(repr, self.result))
        return [f"parts = unbind({self.x})", f"[{targets}] = {', '.join(picks)},"]


@dataclasses.dataclass
class SumRows(_RowOperation):
    """``zeros.index_add(0, rows, stack(tensors))`` without the stack."""

    zeros: object
    tensors: list

    def __post_init__(self):
        self.reads = [self.zeros, *self.tensors, self.rows]
        self.makes, self.shares = [self.result], [self.zeros]

    def _lines(self, names):
        names["unbind"], names["add_"] = _aten.unbind.int._op, _aten.add_.Tensor._op
        lines = [f"{self.result} = {self.zeros}", f"parts = unbind({self.result})"]
        return lines + [
            f"add_(parts[{self._indices}[{i}]], {tensor})"
            for i, tensor in enumerate(self.tensors)
        ]


def name_rows(operations, written):
    """Return the operations with those of rows replaced by ones that copy nothing.

    Args:
        operations: List of operations in their order.
        written: Set of the slots whose memory some operation writes.
    """
    users, makers = collections.Counter(), {}
    for operation in operations:
        users.update(operation.reads)
        makers.update(dict.fromkeys(operation.makes, operation))
    replaced = {}  # id of an operation -> what takes its place
    for operation in operations:
        found = None
        if operation.function is _aten.unbind.int:
            found = _taken(operation, makers, users, written)
        elif operation.function is _aten.index_add.default:
            found = _summed(operation, makers, users)
        if found is not None:
            row_operation, others = found
            replaced[id(operation)] = row_operation
            replaced.update(others)
    kept = [replaced.get(id(operation), operation) for operation in operations]
    return [operation for operation in kept if operation is not None]


def _taken(unbind, makers, users, written):
    picked = unbind.args[0]
    inner = makers.get(picked)
    if inner is None or inner.function is not _aten.index_select.default:
        return None
    x, dim, rows = inner.args
    several = users[picked] > 1 or dim != 0 or unbind.args[1:] not in ((), (0,))
    # What shares the memory of x must not see that it is written, nor write it.
    if several or written.intersection([x, *unbind.result]):
        return None
    return TakeRows(rows, list(unbind.result), x), {id(inner): None}


def _summed(index_add, makers, users):
    zeros, dim, rows, stacked = index_add.args
    inner, made = makers.get(stacked), makers.get(zeros)
    if inner is None or inner.function is not _aten.stack.default:
        return None
    is_new = made is not None and made.function is _aten.new_zeros.default
    if not is_new or users[zeros] > 1 or index_add.kwargs:
        return None
    if dim != 0 or inner.args[1:] not in ((), (0,)):
        return None
    if users[stacked] > 1 + (made.args[0] == stacked):
        return None
    tensors = list(inner.args[0])
    like = dataclasses.replace(made, args=(tensors[0], *made.args[1:]))
    return SumRows(rows, index_add.result, zeros, tensors), {
        id(inner): None,
        id(made): like,
    }
