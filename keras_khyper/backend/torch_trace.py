"""One training step of PyTorch as a fixed list of operations.

`trace` runs a step once and records what PyTorch does in it, the backward passes
included. What comes out has no Keras, no autograd and no choice in it.
"""

import dataclasses

import keras
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from keras_khyper.backend.torch_functions import (
    HostReadError,
    TracedFunctions,
    caller,
)
from keras_khyper.backend.torch_program import Program, slots_in

# Operations that read a value on the host, or whose result has a shape that depends
# on values.
_READING_OPERATIONS = frozenset(
    {
        "_local_scalar_dense",
        "_unique2",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
    }
)


@dataclasses.dataclass(frozen=True)
class Trace:
    """A traced step.

    Args:
        function: Of a list of tensors: those of the state, the data and the draws. It
            updates the state in place and returns the n metrics, float32 [n].
        draws: The `Draw` objects whose results are the last tensors.
        names: Of the n metrics.
    """

    function: object
    draws: list
    names: list


def trace(step, state, inputs, on_host=False):
    """Record the operations of a step; the state is as before afterwards.

    Args:
        step: Function of a list of tensors that returns a dictionary of metrics.
        state: List of the tensors that the step reads and writes in place.
        inputs: List of the tensors of one batch.
        on_host: Whether the trace may read indices on the host, for nothing on a CPU
            that runs its operations one by one.

    Returns:
        A `Trace`.

    Raises:
        HostReadError: The step reads a value on the host.
    """
    recorder = _Recorder([*state, *inputs])
    functions = TracedFunctions(recorder.is_constant, recorder.add_draw)
    # Autograd's own threads would not see what records the operations.
    one_thread = torch.autograd.set_multithreading_enabled(False)
    with kept(state), torch.no_grad(), one_thread, functions, recorder:
        logs = step(inputs)
        values = [keras.ops.convert_to_tensor(value) for value in logs.values()]
        result = torch.stack([value.to(torch.float32) for value in values])
    program = recorder.finish(result, on_host)
    return Trace(program.compile(), recorder.draws, list(logs))


class kept:
    """Context that leaves tensors and PyTorch's random states as they were.

    Args:
        tensors: List of tensors.
    """

    def __init__(self, tensors):
        self._tensors = tensors

    def __enter__(self):
        """Copy the tensors."""
        self._copies = [tensor.detach().clone() for tensor in self._tensors]
        devices = {t.device.index for t in self._tensors if t.device.type == "cuda"}
        self._random = torch.random.fork_rng(sorted(devices))
        self._random.__enter__()

    def __exit__(self, *error):
        """Write the copies back."""
        self._random.__exit__(*error)
        with torch.no_grad():
            for tensor, copy in zip(self._tensors, self._copies, strict=True):
                tensor.copy_(copy)


class _Recorder(TorchDispatchMode):
    # Records every operation, those of autograd included.

    def __init__(self, arguments):
        super().__init__()
        self.draws = []
        self._is_drawing = False
        self._program = Program()
        self._slots = WeakTensorKeyDictionary()  # tensor -> its slot
        self._constant = set()  # slots whose value is the same in every step
        for tensor in arguments:
            self._slots[tensor] = self._program.add_argument(tensor)

    def add_draw(self, draw, make):
        # Its numbers come from outside, as if they were an argument.
        self.draws.append(draw)
        self._is_drawing = True
        drawn = make()
        self._is_drawing = False
        self._slots[drawn] = self._program.add_argument(drawn)
        return drawn

    def is_constant(self, tensor):
        return self._slots.get(tensor) in self._constant

    def finish(self, result, on_host):
        self._program.finish(self._slots[result], on_host)
        return self._program

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if self._is_drawing:
            return function(*args, **kwargs)
        if name == "lift_fresh" and args[0] not in self._slots:
            return self._add_fresh(function(*args), args[0].clone())
        given = _map_tensors(self._slot, (args, kwargs))
        if name in _READING_OPERATIONS or _indexes_by_mask(name, args):
            if set(slots_in(given)) <= self._constant:
                return function(*args, **kwargs)
            raise HostReadError(f"aten.{name} {caller()}")
        result = function(*args, **kwargs)
        slots = _map_tensors(self._result_slot, result)
        operation = self._program.add(function, given, slots)
        if set(operation.reads) <= self._constant and not operation.is_random:
            self._constant.update(slots_in(slots))
        else:
            self._constant.difference_update(operation.writes)
        return result

    def _add_fresh(self, tensor, value):
        # What a step makes of Python numbers, and may write into.
        constant = self._program.add_constant(value)
        slot = self._slots[tensor] = self._program.new_slot(tensor)
        self._program.add(torch.ops.aten.clone.default, ((constant,), {}), slot)
        self._constant.update((constant, slot))
        return tensor

    def _slot(self, tensor):
        # A tensor that no operation made and no argument is stays what it is.
        slot = self._slots.get(tensor)
        if slot is None:
            slot = self._slots[tensor] = self._program.add_constant(tensor)
        return slot

    def _result_slot(self, tensor):
        slot = self._slots.get(tensor)
        if slot is None:
            slot = self._slots[tensor] = self._program.new_slot(tensor)
        return slot


def _indexes_by_mask(name, args):
    if name not in ("index", "index_put", "index_put_"):
        return False
    masks = (torch.bool, torch.uint8)
    return any(index is not None and index.dtype in masks for index in args[1])


def _map_tensors(function, value):
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([_map_tensors(function, part) for part in value])
    if isinstance(value, dict):
        return {key: _map_tensors(function, part) for key, part in value.items()}
    return value
