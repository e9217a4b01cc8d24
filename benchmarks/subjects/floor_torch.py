"""The floor on PyTorch: eager functions and their autograd."""

import contextlib
import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.subjects.floor import Tensors, Unit, run_pass

EPSILON = 1e-5


def forward(unit: Unit, x: torch.Tensor, weights: tuple) -> tuple[Any, tuple]:
    """Return a unit's output and what its backward needs."""
    # A leaf of its own: gradients of tensors that units share are not summed.
    x = x.detach().requires_grad_(unit.input_gradient)
    if unit.kind == "pool":
        padding = 1 if unit.kernel == 3 else 0
        y = F.avg_pool2d(x, unit.kernel, unit.stride, padding, count_include_pad=False)
        return y.detach(), (y, x)
    kernel, scale, offset = weights
    y = x
    if unit.kind == "conv":
        y = F.conv2d(x, kernel, None, unit.stride, unit.kernel // 2)
    if unit.batch_norm:
        y = F.batch_norm(y, None, None, scale, offset, True, 0.1, EPSILON)
    return y.detach(), (y, x, kernel, scale, offset)


def backward(unit: Unit, state: tuple, gradient: torch.Tensor) -> list[Any]:
    """Return the gradients of input, kernel, scale and offset."""
    y, x, *weights = state
    leaves = [leaf for leaf in weights if leaf is not None]
    if not unit.input_gradient:
        return [None, *torch.autograd.grad(y, leaves, gradient)]
    return list(torch.autograd.grad(y, [x, *leaves], gradient))


def after(outputs: list[Any]) -> Any:
    """Return a context for what runs after ``outputs``: eager code is in order."""
    del outputs
    return contextlib.nullcontext()


def make_step(
    passes: list[list[Unit]], batch: int, dtype: str, channels_last: bool = False
) -> Any:
    """Return a function that runs the floor of one step."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    target = getattr(torch, dtype)

    def convert(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array).permute(0, 3, 1, 2).to(target)
        return tensor.contiguous(memory_format=layout)

    def weights(unit: Unit) -> tuple:
        kernel, scale, offset = tensors.weights(unit)
        if kernel is not None:
            kernel = torch.from_numpy(kernel).permute(3, 2, 0, 1).to(target)
            kernel = kernel.contiguous(memory_format=layout).requires_grad_()
        scale, offset = (
            None if value is None else torch.from_numpy(value).requires_grad_()
            for value in (scale, offset)
        )
        return kernel, scale, offset

    tensors = Tensors(passes, batch, convert)
    values = [[weights(unit) for unit in units] for units in passes]
    this = sys.modules[__name__]

    def step() -> float:
        for units, value in zip(passes, values, strict=True):
            run_pass(this, units, value, tensors)
        return 0.0

    return step
