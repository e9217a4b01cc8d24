"""Subject: the convolutions, BatchNorms and pools of one step, and nothing else.

What a step needs at least: each of these operations forward and backward (with
respect to input and kernel), at the step's shapes, by the backend's fastest
primitives; no ReLU, no sums, no generated kernels, no optimizer. Data are
random; the backward of a pass starts when its forward is through, so that
activations have to be kept as in training.

Shapes: ``B`` batch, ``H`` height and width, ``I O`` channels in and out, ``k``
kernel size, ``C`` channels of the first stage.
"""

import dataclasses
import importlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NUM_SOURCES = 3
NUM_STAGES = 3
NUM_SUBNETS = 5
IMAGE_CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class Unit:
    """A convolution with or without BatchNorm, a BatchNorm alone, or a pool.

    Attributes:
        part: ``"stem"``, ``"cell"``, ``"reduction"`` or ``"head"``.
        kind: ``"conv"``, ``"bn"`` or ``"pool"``.
        size: H of the input.
        inputs: I.
        outputs: O.
        kernel: k.
        stride: 1 or 2.
        batch_norm: Whether a BatchNorm follows the convolution.
        source: Which of the tensors of the input's shape it reads.
        chained: It reads the newest output of that shape instead, so that no
            two pools of a graph are the same and could be merged.
        input_gradient: Whether its input needs a gradient.
    """

    part: str
    kind: str
    size: int
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    batch_norm: bool = True
    source: int = 0
    chained: bool = False
    input_gradient: bool = True

    @property
    def out_size(self) -> int:
        """H of the output."""
        return self.size // self.stride

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution, forward, for one image."""
        if self.kind != "conv":
            return 0
        return self.kernel**2 * self.inputs * self.outputs * self.out_size**2

    @property
    def params(self) -> int:
        """Kernel values, and scale and offset of the BatchNorm."""
        kernel = self.kernel**2 * self.inputs * self.outputs
        values = kernel if self.kind == "conv" else 0
        return values + 2 * self.outputs * self.batch_norm


def teacher_units(
    channels: int, num_cells: int, image_size: int, joined: bool = False
) -> list[Unit]:
    """Return the units of the teacher's pass: every operation of every edge.

    Args:
        channels: C.
        num_cells: Cells per stage.
        image_size: Height and width in pixels.
        joined: Edges that leave one node share their input: one pool, and one
            wider convolution of each kind.
    """
    cell = _joined_cell if joined else _cell
    return list(_network(channels, num_cells, image_size, 1, cell))


def subnet_units(
    channels: int, num_cells: int, image_size: int, joined: bool = False
) -> list[Unit]:
    """Return the units of the subnets' pass.

    Each operation of each edge belongs to one of the five subnets, so it runs
    once; stem, reductions and head run for every subnet.

    Args:
        channels: C.
        num_cells: Cells per stage.
        image_size: Height and width in pixels.
        joined: The five stems share their input: one wider convolution.
    """
    units = list(_network(channels, num_cells, image_size, NUM_SUBNETS, _cell))
    if not joined:
        return units
    wide = dataclasses.replace(units[0], outputs=NUM_SUBNETS * channels)
    return [wide, *(unit for unit in units if unit.part != "stem")]


def _network(
    channels: int, num_cells: int, image_size: int, repeats: int, cell: Any
) -> Iterator[Unit]:
    size, width = image_size, channels
    # Not those of the teacher, or its pools could be merged with the subnets'.
    sources = [NUM_SUBNETS] if repeats == 1 else range(repeats)
    stem = Unit("stem", "conv", size, IMAGE_CHANNELS, width, 3, input_gradient=False)
    yield from [stem] * repeats
    for stage in range(NUM_STAGES):
        if stage:
            for source in sources:
                yield from _reduction(size, width, source)
            size, width = size // 2, 2 * width
        for index in range(num_cells):
            yield from cell(size, width, index * NUM_SOURCES)
    for source in sources:
        yield Unit("head", "bn", size, width, width, source=source)


def _cell(size: int, width: int, first_source: int) -> Iterator[Unit]:
    for node, _ in EDGES:
        yield from _operations(size, width, width, first_source + node)


def _joined_cell(size: int, width: int, first_source: int) -> Iterator[Unit]:
    for node in range(NUM_SOURCES):
        edges = sum(source == node for source, _ in EDGES)
        yield from _operations(size, width, edges * width, first_source + node)


def _operations(size: int, inputs: int, outputs: int, source: int) -> Iterator[Unit]:
    yield Unit("cell", "pool", size, inputs, inputs, 3, batch_norm=False, chained=True)
    for kernel in (1, 3):
        yield Unit("cell", "conv", size, inputs, outputs, kernel, source=source)


def _reduction(size: int, width: int, source: int) -> Iterator[Unit]:
    part, wide, half = "reduction", 2 * width, size // 2
    yield Unit(part, "conv", size, width, wide, 3, stride=2, source=source)
    yield Unit(part, "conv", half, wide, wide, 3, source=source)
    yield Unit(part, "pool", size, width, width, 2, 2, False, source)
    yield Unit(part, "conv", half, width, wide, 1, batch_norm=False, chained=True)


class Tensors:
    """The random data that a backend's floor computes with.

    Args:
        passes: Units of the teacher's and of the subnets' pass.
        batch: B.
        convert: Makes a backend's activation of an array [B, H, H, I].
    """

    def __init__(self, passes: list[list[Unit]], batch: int, convert: Any) -> None:
        self._rng = np.random.default_rng(0)
        self.inputs: dict[tuple, Any] = {}
        self.gradients: dict[tuple, Any] = {}
        for unit in (unit for units in passes for unit in units):
            for tensors, size, channels in (
                (self.inputs, unit.size, unit.inputs),
                (self.gradients, unit.out_size, unit.outputs),
            ):
                key = (size, channels, unit.source)
                if key not in tensors:
                    tensors[key] = convert(self.normal((batch, size, size, channels)))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return standard normal float32 values."""
        return self._rng.standard_normal(shape, "float32")

    def weights(self, unit: Unit) -> tuple[np.ndarray | None, ...]:
        """Return kernel [k, k, I, O], scale [O] and offset [O], None where absent."""
        kernel = scale = offset = None
        if unit.kind == "conv":
            shape = (unit.kernel, unit.kernel, unit.inputs, unit.outputs)
            kernel = self.normal(shape) / math.sqrt(unit.kernel**2 * unit.inputs)
        if unit.batch_norm:
            scale = np.ones(unit.outputs, "float32")
            offset = np.zeros(unit.outputs, "float32")
        return kernel, scale, offset


def run_pass(backend: Any, units: list[Unit], weights: list, tensors: Tensors) -> list:
    """Run one pass forward, then backward; returns all results but activations.

    Args:
        backend: Module with ``forward(unit, x, weights) -> (output, state)``,
            ``backward(unit, state, gradient) -> [input gradient or None, ...]``
            and ``after(results, states)``, which orders the two.
        units: In the order of the forward pass.
        weights: Of each unit, as the backend wants them.
        tensors: Inputs and gradients.
    """
    newest: dict[tuple[int, int], Any] = {}
    outputs, states = [], []
    for unit, weight in zip(units, weights, strict=True):
        x = tensors.inputs[unit.size, unit.inputs, unit.source]
        if unit.chained:
            x = newest.get((unit.size, unit.inputs), x)
        output, state = backend.forward(unit, x, weight)
        newest[unit.out_size, unit.outputs] = output
        outputs.append(output)
        states.append(state)
    results = list(outputs)
    newest = {}
    with backend.after(outputs):
        for unit, state in zip(reversed(units), reversed(states), strict=True):
            gradient = tensors.gradients[unit.out_size, unit.outputs, unit.source]
            if unit.kind == "pool":
                gradient = newest.get((unit.out_size, unit.outputs), gradient)
            gradients = backend.backward(unit, state, gradient)
            if gradients[0] is not None:
                newest[unit.size, unit.inputs] = gradients[0]
            results += [gradient for gradient in gradients if gradient is not None]
    return results


def build(
    batch: int,
    channels: int,
    num_cells: int,
    image_size: int,
    dtype: str = "float32",
    joined: bool = False,
    **options: Any,
):
    """Return ``run(steps)`` on the backend that KERAS_BACKEND names.

    Args:
        batch: B.
        channels: C.
        num_cells: Cells per stage.
        image_size: Height and width in pixels.
        dtype: ``"float32"`` or ``"bfloat16"``.
        joined: See `teacher_units` and `subnet_units`.
        **options: Of the backend: ``channels_last`` for torch.
    """
    sizes = (channels, num_cells, image_size, joined)
    passes = [teacher_units(*sizes), subnet_units(*sizes)]
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    backend = importlib.import_module(f"benchmarks.subjects.floor_{name}")
    step = backend.make_step(passes, batch, dtype, **options)

    def run(steps: int) -> float:
        for _ in range(steps):
            value = step()
        return value

    return run
