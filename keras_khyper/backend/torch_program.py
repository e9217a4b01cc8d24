"""A list of PyTorch operations, made smaller and turned into one Python function."""

import dataclasses
import math

import torch

from keras_khyper.backend.torch_multi_tensor import join
from keras_khyper.backend.torch_rows import name_rows

# Larger constants are made anew in each step, as the eager step makes them.
_LARGEST_CONSTANT = 1 << 16
# Without autograd they return what they are given.
_NOTHING = frozenset({"alias", "detach", "lift_fresh"})
# They do so where the shape stays.
_RESHAPING = frozenset({"_unsafe_view", "expand", "view"})
# Arguments that operations write without saying so in their schema.
_WRITTEN_STATISTICS = ("running_mean", "running_var")


@dataclasses.dataclass(frozen=True, order=True)
class Slot:
    """A place for one tensor of a program.

    Args:
        number: Which one.
        shape: Of the tensor.
        dtype: Of the tensor.
    """

    number: int
    shape: tuple = dataclasses.field(compare=False)
    dtype: torch.dtype = dataclasses.field(compare=False)

    @property
    def numel(self):
        """Number of elements."""
        return math.prod(self.shape)

    def __repr__(self):
        return f"v{self.number}"


@dataclasses.dataclass
class _Operation:
    function: object
    args: tuple
    kwargs: dict
    result: object  # a slot, or a list or tuple of slots and None

    def __post_init__(self):
        self.reads = slots_in((self.args, self.kwargs))
        self.makes = [s for s in slots_in(self.result) if s not in set(self.reads)]
        self.writes, self.shares = _effects(self)

    @property
    def is_random(self):
        return torch.Tag.nondeterministic_seeded in self.function.tags

    @property
    def has_effect(self):
        return bool(self.writes) or self.is_random


class Program:
    """Operations in their order, recorded one by one."""

    def __init__(self):
        self._count = 0
        self._arguments = []
        self._constants = {}  # slot -> tensor
        self._operations = []
        self._same = {}  # slot -> the slot that it is another name of

    def new_slot(self, tensor):
        """Return a new `Slot` for such a tensor."""
        self._count += 1
        return Slot(self._count, tuple(tensor.shape), tensor.dtype)

    def add_argument(self, tensor):
        """Return the slot of a further argument, such a tensor."""
        self._arguments.append(self.new_slot(tensor))
        return self._arguments[-1]

    def add_constant(self, tensor):
        """Return the slot of a tensor that exists already."""
        slot = self.new_slot(tensor)
        self._constants[slot] = tensor
        return slot

    def add(self, function, given, result):
        """Add an operation.

        Args:
            function: A `torch._ops.OpOverload`.
            given: Its positional arguments and its keyword arguments, with slots in
                place of tensors.
            result: The slots of its results.

        Returns:
            What was added.
        """
        args, kwargs = _map_slots(lambda s: self._same.get(s, s), given)
        operation = _Operation(function, args, kwargs, result)
        name = function.overloadpacket.__name__
        same = name in _NOTHING or (
            name in _RESHAPING
            and (result.shape, result.dtype) == (args[0].shape, args[0].dtype)
        )
        if not same:
            self._operations.append(operation)
        elif result != args[0]:
            self._same[result] = args[0]
        return operation

    def finish(self, result, on_host):
        """Leave out and join operations, when all are added.

        Args:
            result: The slot that is returned.
            on_host: Whether the program may read indices on the host.
        """
        self._result = self._same.get(result, result)
        self._fold_constants()
        self._drop_unused()
        if on_host:
            self._operations = name_rows(self._operations, self._written())
        self._operations = join(self._operations, _Operation)

    def _fold_constants(self):
        # Tensors made of Python numbers are copies from the host, which a CUDA
        # graph cannot hold.
        written = self._written()
        kept = []
        for operation in self._operations:
            if not self._fold(operation, written):
                kept.append(operation)
        self._operations = kept

    def _fold(self, operation, written):
        known = all(s in self._constants and s not in written for s in operation.reads)
        if not known or operation.has_effect or written.intersection(operation.makes):
            return False
        args, kwargs = _map_slots(
            self._constants.__getitem__, (operation.args, operation.kwargs)
        )
        with torch.no_grad():
            value = operation.function(*args, **kwargs)
        values = value if isinstance(value, list | tuple) else [value]
        values = [tensor for tensor in values if tensor is not None]
        if sum(tensor.numel() for tensor in values) > _LARGEST_CONSTANT:
            return False
        slots = slots_in(operation.result)
        self._constants.update(zip(slots, values, strict=True))
        return True

    def _written(self):
        # Slots whose memory is written by an operation, whatever their name is.
        written = set()
        for operation in reversed(self._operations):
            written.update(operation.writes)
            if written.intersection(operation.makes):
                written.update(operation.shares)
        return written

    def _drop_unused(self):
        used, kept = {self._result}, []
        for operation in reversed(self._operations):
            if operation.has_effect or used.intersection(operation.makes):
                used.update(operation.reads)
                kept.append(operation)
        self._operations = kept[::-1]
        self._constants = {s: t for s, t in self._constants.items() if s in used}

    def compile(self):
        """Return a function of the list of arguments that returns the result."""
        names = {f"v{slot.number}": t for slot, t in self._constants.items()}
        arguments = ", ".join(map(repr, self._arguments))
        lines = ["def run(arguments):", f"    ({arguments},) = arguments"]
        known = set()  # slots of indices that the host has read
        for operation, done in zip(self._operations, self._last_uses(), strict=True):
            if isinstance(operation, _Operation):
                lines.append("    " + _source(operation, names))
            else:
                lines += [f"    {line}" for line in operation.source(names, known)]
            if done:
                lines.append("    del " + ", ".join(map(repr, done)))
        lines.append(f"    return {self._result!r}")
        exec(compile("\n".join(lines), "<traced step>", "exec"), names)
        return names["run"]

    def _last_uses(self):
        # For each operation the slots that no later one uses.
        seen, last = {self._result, *self._constants}, []
        for operation in reversed(self._operations):
            slots = {*operation.reads, *operation.makes} - seen
            seen |= slots
            last.append(sorted(slots))
        return last[::-1]


def slots_in(value):
    """Return the slots in nested lists, tuples and dictionaries."""
    if isinstance(value, Slot):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [slot for part in value for slot in slots_in(part)]
    return []


def _map_slots(function, value):
    if isinstance(value, Slot):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([_map_slots(function, part) for part in value])
    if isinstance(value, dict):
        return {key: _map_slots(function, part) for key, part in value.items()}
    return value


def _effects(operation):
    # The slots that an operation writes, and those whose memory its results share.
    schema = operation.function._schema
    writes, shares = [], []
    for position, argument in enumerate(schema.arguments):
        value = operation.kwargs.get(argument.name)
        if position < len(operation.args):
            value = operation.args[position]
        alias = argument.alias_info
        if alias is not None:
            (writes if alias.is_write else shares).extend(slots_in(value))
        elif argument.name in _WRITTEN_STATISTICS:
            writes.extend(slots_in(value))
    return writes, shares


def _source(operation, names):
    # One line of Python, its functions and odd values under names.
    def name(value, prefix):
        key = f"{prefix}_{id(value):x}"
        names[key] = value
        return key

    def expression(value):
        if isinstance(value, Slot | bool | int | None):
            return repr(value)
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(expression, value)) + "]"
        return name(value, "c")

    parts = list(map(expression, operation.args))
    parts += [f"{key}={expression(v)}" for key, v in operation.kwargs.items()]
    call = f"{name(operation.function._op, 'f')}({', '.join(parts)})"
    if not operation.makes:
        return call
    result = operation.result
    if isinstance(result, Slot):
        return f"{result!r} = {call}"
    targets = [repr(s) if isinstance(s, Slot) else "_" for s in result]
    return f"[{', '.join(targets)}] = {call}"
