"""What stands for some PyTorch functions while a step is traced.

A traced step is a fixed list of operations on the device. So it cannot read a value
on the host, and random numbers come into it as inputs.
"""

import contextlib
import contextvars
import dataclasses
import traceback
import unittest.mock
import weakref

import keras
import torch
from keras.src.backend.torch import random as keras_random
from torch.overrides import TorchFunctionMode

_TRACING = contextvars.ContextVar("keras_khyper_tracing", default=False)

# Methods that hand a value to Python, some without an operation that is dispatched.
_READING_METHODS = {
    getattr(torch.Tensor, name)
    for name in (
        "__array__",
        "__bool__",
        "__complex__",
        "__float__",
        "__index__",
        "__int__",
        "item",
        "numpy",
        "tolist",
    )
}


class HostReadError(RuntimeError):
    """A step needs on the host what is known on the device only."""


def tracing():
    """Whether a step is being traced, so that nothing may be read on the host."""
    return _TRACING.get()


@dataclasses.dataclass(frozen=True)
class Draw:
    """One call of a random function, to be made before each step.

    Args:
        function: Such as ``torch.rand``.
        seed: What Keras was given: a `keras.random.SeedGenerator`, int or None.
        args: Positional arguments.
        kwargs: Keyword arguments, without the generator.
    """

    function: object
    seed: object
    args: tuple
    kwargs: dict

    def __call__(self):
        """Return new random numbers, as Keras would draw them."""
        generator = _seed_generator(self.seed)
        return self.function(*self.args, generator=generator, **self.kwargs)


# Seed generator -> its state, the version of the state, and both values of it.
_KNOWN_SEEDS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _seed_generator(seed):
    """Return the generator that Keras would make, without reading what is known.

    Keras reads a seed's state for each draw, on CUDA after all that runs there.
    """
    if not isinstance(seed, keras.random.SeedGenerator):
        return keras_random.torch_seed_generator(seed)
    state = seed.state._value
    known, version, values = _KNOWN_SEEDS.get(seed, (None, None, None))
    if known is not state or version != state._version:
        values = state.tolist()
    with torch.no_grad():
        seed.next()
    first, second = values
    _KNOWN_SEEDS[seed] = state, state._version, (first, second + 1)
    generator = torch.Generator(device=keras_random.get_device())
    return generator.manual_seed((first + second) & 0xFFFFFFFF)


class TracedFunctions(TorchFunctionMode):
    """Context in which nothing is read on the host and draws are noted.

    Args:
        is_constant: Function of a tensor that says whether it is the same in every
            step.
        on_draw: Function of a `Draw` and of a function that makes its numbers, which
            it returns.
    """

    def __init__(self, is_constant, on_draw):
        super().__init__()
        self._is_constant = is_constant
        self._on_draw = on_draw
        self._seeds = {}  # id of a generator -> the generator, Keras' seed

    def __enter__(self):
        """Trace from here on."""
        self._exit = contextlib.ExitStack()
        token = _TRACING.set(True)
        self._exit.callback(_TRACING.reset, token)
        self._exit.enter_context(
            unittest.mock.patch.object(
                keras_random, "torch_seed_generator", self._generator
            )
        )
        return super().__enter__()

    def __exit__(self, *error):
        """Trace no longer."""
        super().__exit__(*error)
        self._exit.close()

    def _generator(self, seed):
        # Keras would read its seed on the host.
        generator = torch.Generator(device=keras_random.get_device())
        self._seeds[id(generator)] = generator, seed
        return generator

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call ``function``, or what stands for it."""
        kwargs = kwargs or {}
        if function in _READING_METHODS and not self._is_constant(args[0]):
            raise HostReadError(f"Tensor.{function.__name__} {caller()}")
        if function is torch.nn.functional.one_hot:
            return _one_hot(*args, **kwargs)
        if id(kwargs.get("generator")) in self._seeds:
            return self._draw(function, args, dict(kwargs))
        return function(*args, **kwargs)

    def _draw(self, function, args, kwargs):
        generator, seed = self._seeds[id(kwargs.pop("generator"))]
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor) and not self._is_constant(value):
                raise HostReadError(
                    "random numbers whose distribution the step computes " + caller()
                )
        return self._on_draw(
            Draw(function, seed, args, kwargs),
            lambda: function(*args, generator=generator, **kwargs),
        )


def _one_hot(indices, num_classes):
    # PyTorch's own checks the range of its indices on the host.
    numbers = torch.arange(num_classes, device=indices.device)
    return (indices[..., None] == numbers).to(torch.long)


def caller():
    """Return where the code outside of PyTorch is that called a function of it."""
    frames = [
        frame
        for frame in traceback.extract_stack()
        if "/site-packages/torch/" not in frame.filename
        and "/keras_khyper/backend/torch_" not in frame.filename
    ]
    frame = frames[-1]
    return f"in {frame.name} ({frame.filename}, line {frame.lineno})"
