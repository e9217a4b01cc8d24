"""Does a smaller subnet run faster once it is exported?

    python -m benchmarks.latency
    python -m benchmarks.latency --archs 12 --rounds 9

Exports subnets across the range of multiply-accumulates to TFLite, in float32 and
with int8 throughout, and measures the latency of one image in LiteRT, beside the
Keras model's compiled predict. All share one core: files and models take turns.
Weights are untrained, which latency does not see; int8 takes its ranges from
random images. Writes a section per backend to results/benchmarks/latency.json.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import tyro

from benchmarks.harness.ratios import rated
from benchmarks.harness.report import (
    RESULTS,
    print_entries,
    provenance,
    replace_sections,
)
from benchmarks.harness.worker import use_threads

RUNTIMES = ("float32", "int8", "keras")
NUM_CANDIDATES = 1000


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    archs: int = 6
    """Subnets, evenly spread over the multiply-accumulates of random ones."""
    channels: int = 16
    num_cells: int = 5
    """Cells per stage."""
    image_size: int = 32
    rounds: int = 5
    """Turns of each file and model."""
    runs: int = 20
    """Images per turn, one at a time; their median counts."""
    representative: int = 64
    """Images from which int8 takes its ranges."""
    seed: int = 0
    output: pathlib.Path = RESULTS / "latency.json"


def spread_archs(archs: np.ndarray, macs: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of ``archs`` [n, D] at evenly spaced ``macs`` [n].

    From the smallest to the largest; each is the one next to its target.
    """
    targets = np.linspace(macs.min(), macs.max(), count)
    return archs[np.abs(macs[:, None] - targets).argmin(axis=0)]


def export_subnet(
    settings: Settings, arch: np.ndarray, images: np.ndarray, folder: pathlib.Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build and export one subnet.

    Args:
        settings: Sizes.
        arch: D integers.
        images: Representative images; the files are compared on them too.
        folder: Where the files go.

    Returns:
        What is known of it, and what runs it: runtime -> model or function.
    """
    import keras_khyper as kk

    network = kk.models.nas_bench_201_network(
        arch,
        channels=settings.channels,
        num_cells=settings.num_cells,
        input_shape=(settings.image_size, settings.image_size, 3),
    )
    runners: dict[str, Any] = {"keras": network}
    reports = {}
    for quantization in (None, "int8"):
        name = quantization or "float32"
        path = folder / f"{'-'.join(map(str, arch))}-{name}.tflite"
        reports[name] = kk.export.to_tflite(
            network,
            path,
            quantization,
            representative_data=images if quantization else None,
            verification_data=images,
        )
        runners[name] = kk.export.TFLiteRunner(path)
    known = {
        "arch": arch.tolist(),
        "macs": kk.profiling.macs(network),
        "params": kk.profiling.trainable_params(network),
        "size_bytes": {name: report.size_bytes for name, report in reports.items()},
        "agreement": {name: report.agreement for name, report in reports.items()},
    }
    return known, runners


def measure_turns(
    settings: Settings, runners: list[dict[str, Any]], image: np.ndarray
) -> list[dict[str, list[float]]]:
    """Return for each subnet runtime -> latency in ms, a value per turn."""
    import keras_khyper as kk

    measured: list[dict[str, list[float]]] = [
        {runtime: [] for runtime in RUNTIMES} for _ in runners
    ]
    for _ in range(settings.rounds):
        for subnet, latency in zip(runners, measured, strict=True):
            for runtime, turns in latency.items():
                turns.append(
                    kk.profiling.latency_ms(
                        subnet[runtime], image, num_runs=settings.runs
                    )
                )
    return measured


def correlations(macs: list[int], latency: list[float]) -> dict[str, float | None]:
    """Return Pearson's and Kendall's (tau-b) correlation of latency with MACs.

    None for fewer than three subnets, of which any two would be on a line.
    """
    from scipy import stats

    if len(macs) < 3:
        return {"pearson": None, "kendall": None}
    return {
        "pearson": float(stats.pearsonr(macs, latency).statistic),
        "kendall": float(stats.kendalltau(macs, latency).statistic),
    }


def summarize(subnets: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return figures and ratios of all subnets.

    Args:
        subnets: With ``macs`` and ``latency_ms`` (runtime -> values of the turns).
    """
    medians = {
        runtime: [statistics.median(row["latency_ms"][runtime]) for row in subnets]
        for runtime in RUNTIMES
    }
    macs = [row["macs"] for row in subnets]
    figures = [
        rated(
            f"{runtime}, {count / 1e6:.3g} M MACs",
            latency,
            unit="ms",
            spread=(min(row["latency_ms"][runtime]), max(row["latency_ms"][runtime])),
        )
        for runtime in RUNTIMES
        for count, latency, row in zip(macs, medians[runtime], subnets, strict=True)
    ]
    figures += [
        rated(f"{name.capitalize()}'s correlation with MACs, {runtime}", value)
        for runtime in RUNTIMES
        for name, value in correlations(macs, medians[runtime]).items()
        if value is not None
    ]
    return {
        "figures": figures,
        "ratios": [
            _over_subnets(f"latency, {a} / {b}", medians[a], medians[b])
            for a, b in (("keras", "float32"), ("float32", "int8"))
        ],
    }


def _over_subnets(
    name: str, numerators: list[float], denominators: list[float]
) -> dict[str, Any]:
    values = [a / b for a, b in zip(numerators, denominators, strict=True)]
    name = f"{name}, median over {len(values)} subnets"
    return rated(name, statistics.median(values), spread=(min(values), max(values)))


def main(settings: Settings) -> None:
    """Export and measure.

    Raises:
        ValueError: There is no subnet or no turn.
    """
    if settings.archs < 1 or settings.rounds < 1:
        raise ValueError(
            "At least one subnet and one turn are needed. Received: "
            f"archs={settings.archs}, rounds={settings.rounds}"
        )
    # Before a framework starts, which would count the cores.
    use_threads(1)
    import keras

    import keras_khyper as kk

    start = time.perf_counter()
    keras.utils.set_random_seed(settings.seed)
    space = kk.spaces.NASBench201()
    random = space.sample(NUM_CANDIDATES, seed=settings.seed)
    archs = spread_archs(
        random, kk.profiling.nas_bench_201_macs(random), settings.archs
    )
    size = settings.image_size
    rng = np.random.default_rng(settings.seed)
    images = rng.standard_normal((settings.representative, size, size, 3), "float32")
    with tempfile.TemporaryDirectory() as folder:
        exported = [
            export_subnet(settings, arch, images, pathlib.Path(folder))
            for arch in archs
        ]
        runners = [subnet for _, subnet in exported]
        latency = measure_turns(settings, runners, images[:1])
    subnets = [
        {**known, "latency_ms": turns}
        for (known, _), turns in zip(exported, latency, strict=True)
    ]
    backend = keras.backend.backend()
    section = {
        **provenance(settings, time.perf_counter() - start),
        "backend": backend,
        "subnets": subnets,
        **summarize(subnets),
    }
    replace_sections(settings.output, {backend: section})
    print_entries(
        f"Latency of one image on one core, {backend}",
        section["figures"] + section["ratios"],
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
