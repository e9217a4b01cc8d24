"""How large is the program of a training step on JAX, and how long does XLA compile it?

    python -m benchmarks.jax_program
    python -m benchmarks.jax_program --num-cells 5 --channels 16 --batch 256 --compile
    python -m benchmarks.jax_program --smoke

Prints, for each number of cells, the operations of the StableHLO program before any
optimization, its convolutions, products and scatters, and of how many different shapes
they are. XLA tunes each shape once on a GPU, and compiles each operation.
`--compile` compiles it as well, for the device at hand.
"""

import collections
import dataclasses
import os
import pathlib
import re
import time
from typing import Any, Literal

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import tyro

import keras_khyper as kk
from benchmarks.harness.report import provenance, replace_sections
from keras_khyper.backend.jax_stacks import SWITCH

# Where these have a region, it is the arithmetic of two scalars.
_WITH_REDUCER = {"reduce", "reduce_window", "scatter", "select_and_scatter", "sort"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the programs."""

    num_cells: tuple[int, ...] = (1, 3, 5)
    """Cells per stage, a program each."""
    channels: int = 4
    image_size: int = 8
    batch: int = 8
    rank: int = 4
    num_shots: int = 4
    dtype: str = "float32"
    cells: Literal["loop", "one_by_one"] = "loop"
    """How the cells of a stage run: in a loop, as on a GPU, or as on a CPU."""
    compile: bool = False
    """Compile each program as well."""
    smoke: bool = False
    """The smallest supernet only."""
    output: pathlib.Path | None = None
    """Result file; None prints only. results/benchmarks/jax_program.json is the
    committed one."""


@dataclasses.dataclass(frozen=True)
class ProgramSize:
    """What a StableHLO program consists of."""

    operations: int
    convolutions: int
    distinct_convolutions: int
    products: int
    distinct_products: int
    scatters: int
    constants: int


def lowered_step(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Return the lowered training step of a compiled supernet.

    Args:
        model: A built and compiled `Supernet`.
        x: Images of a batch.
        y: Their labels.
    """
    model._symbolic_build(data_batch=(x[:2], y[:2]))
    state = model._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    return jax.jit(model.train_step, donate_argnums=0).lower(state, (x, y))


def program_size(lowered: Any) -> ProgramSize:
    """Count the operations of a lowered program, those of loops once."""
    names: collections.Counter[str] = collections.Counter()
    signatures = collections.defaultdict(set)

    def visit(operation: Any) -> None:
        for region in operation.regions:
            for block in region.blocks:
                for inner in block.operations:
                    dialect, _, name = inner.operation.name.partition(".")
                    if dialect in ("stablehlo", "chlo") and name != "return":
                        names[name] += 1
                    if name in ("convolution", "dot_general"):
                        signatures[name].add(re.sub(r"%[\w#:]+", "%", str(inner)))
                    if name not in _WITH_REDUCER:
                        visit(inner.operation)

    visit(lowered.compiler_ir("stablehlo").operation)
    return ProgramSize(
        operations=sum(names.values()),
        convolutions=names["convolution"],
        distinct_convolutions=len(signatures["convolution"]),
        products=names["dot_general"],
        distinct_products=len(signatures["dot_general"]),
        scatters=names["scatter"],
        constants=names["constant"],
    )


def measured(settings: Settings, num_cells: int) -> dict[str, Any]:
    """Return size and seconds of one program."""
    keras.config.set_dtype_policy(settings.dtype)
    keras.utils.set_random_seed(0)
    generator = kk.generators.KShotHypernet(settings.rank, settings.num_shots)
    supernet = kk.models.NASBench201Supernet(
        10, settings.channels, num_cells, generator, seed=0
    )
    image_shape = (settings.image_size, settings.image_size, 3)
    supernet.build((None, *image_shape))
    supernet.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True))
    x = np.zeros((settings.batch, *image_shape), "float32")
    start = time.perf_counter()
    lowered = lowered_step(supernet, x, np.zeros(settings.batch, "int64"))
    figures: dict[str, Any] = {"num_cells": num_cells}
    figures["lowering_seconds"] = round(time.perf_counter() - start, 1)
    figures |= dataclasses.asdict(program_size(lowered))
    if settings.compile:
        start = time.perf_counter()
        lowered.compile()
        figures["compile_seconds"] = round(time.perf_counter() - start, 1)
    return figures


def main(settings: Settings) -> None:
    """Print the figures of each program, and write them where asked to."""
    if settings.smoke:
        settings = dataclasses.replace(settings, num_cells=(1,), channels=2, batch=2)
    os.environ[SWITCH] = settings.cells
    start = time.perf_counter()
    programs = []
    for num_cells in settings.num_cells:
        programs.append(measured(settings, num_cells))
        print(programs[-1], flush=True)
    if settings.output is not None:
        section = {
            **provenance(settings, time.perf_counter() - start),
            "device": jax.devices()[0].device_kind,
            "programs": programs,
        }
        size = f"c{settings.channels}_{settings.dtype}_batch{settings.batch}"
        name = f"{settings.cells}_{size}"
        replace_sections(settings.output, {name: section})


if __name__ == "__main__":
    main(tyro.cli(Settings))
