"""Many small operations of one kind as one operation on lists of tensors.

A step moves each statistic, scales each gradient and decays each weight by operations
of its own, which take longer to launch than to compute.
"""

import collections

import torch

_aten = torch.ops.aten
# Larger results are worth a launch of their own, and should not wait in memory.
_LARGEST = 1 << 20
# Operation -> that on lists whose other argument is a list, a number, a [] tensor.
_BINARY = {
    _aten.add.Tensor: (_aten._foreach_add.List, _aten._foreach_add.Scalar, None),
    _aten.sub.Tensor: (_aten._foreach_sub.List, _aten._foreach_sub.Scalar, None),
    _aten.mul.Tensor: (
        _aten._foreach_mul.List,
        _aten._foreach_mul.Scalar,
        _aten._foreach_mul.Tensor,
    ),
    _aten.div.Tensor: (_aten._foreach_div.List, _aten._foreach_div.Scalar, None),
    _aten.pow.Tensor_Scalar: (None, _aten._foreach_pow.Scalar, None),
    _aten.clamp_min.default: (None, _aten._foreach_clamp_min.Scalar, None),
    _aten.copy_.default: (_aten._foreach_copy_.default, None, None),
}


def join(operations, make):
    """Return the operations with those joined that do not depend on each other.

    Args:
        operations: List of operations in their order.
        make: Function of (function, args, kwargs, result) that makes an operation.
    """
    return _Scheduler(make).schedule(operations)


class _Scheduler:
    # Operations that can be joined wait until another one needs what they make.

    def __init__(self, make):
        self._make = make
        self._done = []
        self._memory = {}  # slot -> a slot that stands for the memory of both
        self._waiting = {}  # index -> (operation, key), in their order
        self._needs = {}  # index of a waiting one -> those that come before it
        self._writers = {}  # memory -> index of the waiting one that writes it
        self._readers = collections.defaultdict(set)  # memory -> waiting ones

    def schedule(self, operations):
        for index, operation in enumerate(operations):
            for slot in operation.makes if operation.shares else ():
                self._memory[slot] = self._memory_of(operation.shares[0])
            needs, key = self._depends_on(operation), _key(operation)
            if needs and operation.shares and not operation.writes:
                key = index  # it costs nothing and can wait, too
            if key is None:
                self._flush(needs)
                self._done.append(operation)
            else:
                self._wait(index, operation, key, needs)
        self._flush(set(self._waiting))
        return self._done

    def _memory_of(self, slot):
        return self._memory.get(slot, slot)

    def _depends_on(self, operation):
        needs = set()
        for slot in operation.reads:
            needs.add(self._writers.get(self._memory_of(slot)))
        for slot in operation.writes:
            needs.update(self._readers.get(self._memory_of(slot), ()))
        return needs - {None}

    def _wait(self, index, operation, key, needs):
        self._waiting[index] = operation, key
        self._needs[index] = needs
        for slot in operation.reads:
            self._readers[self._memory_of(slot)].add(index)
        for slot in (*operation.makes, *operation.writes):
            self._writers[self._memory_of(slot)] = index

    def _flush(self, wanted):
        # With all that they need, level by level.
        stack, found = list(wanted), set()
        while stack:
            index = stack.pop()
            if index in self._waiting and index not in found:
                found.add(index)
                stack.extend(self._needs[index])
        levels, groups = {}, collections.defaultdict(list)
        for index in sorted(found):
            before = [levels[other] for other in self._needs[index] if other in found]
            levels[index] = 1 + max(before, default=0)
            operation, key = self._waiting[index]
            groups[levels[index], key].append(operation)
        for index in found:
            self._forget(index)
        for level, key in sorted(groups, key=lambda pair: pair[0]):
            self._done.extend(self._joined(key, groups[level, key]))

    def _forget(self, index):
        operation, _ = self._waiting.pop(index)
        del self._needs[index]
        for slot in operation.reads:
            self._readers[self._memory_of(slot)].discard(index)
        for slot in (*operation.makes, *operation.writes):
            memory = self._memory_of(slot)
            if self._writers.get(memory) == index:
                del self._writers[memory]

    def _joined(self, key, group):
        if len(group) == 1:
            return group
        function, _, other = key
        pairs = [operation.args[:2] for operation in group]
        if other is None:
            given = [list(parts) for parts in zip(*pairs, strict=True)]
        else:
            given = [[b if a is other else a for a, b in pairs], other]
        results = [operation.result for operation in group]
        return [self._make(function, tuple(given), {}, results)]


def _key(operation):
    # What operations have in common that can be joined; None for others.
    functions = _BINARY.get(operation.function)
    if functions is None or operation.kwargs:
        return None
    of_lists, of_number, of_scalar = functions
    first, second = operation.args[:2]
    slots = {*operation.reads, *operation.makes}
    if len(operation.args) > 2 or len({slot.dtype for slot in slots}) > 1:
        return None
    if not slots or max(slot.numel for slot in slots) > _LARGEST:
        return None
    swaps = operation.function is _aten.mul.Tensor and first.shape == ()
    if swaps and not isinstance(second, int | float):
        first, second = second, first
    dtype = first.dtype
    if not dtype.is_floating_point:
        return None
    if isinstance(second, int | float):
        return None if of_number is None else (of_number, dtype, second)
    if first.shape == second.shape:
        return None if of_lists is None else (of_lists, dtype, None)
    if of_scalar is not None and second.shape == ():
        return of_scalar, dtype, second
    return None
