"""How fast is KHyper-S on a device, beside the networks one would take instead?

    python -m benchmarks.mobile_latency
    python -m benchmarks.mobile_latency --networks khyper_s efficientnet_b0

Exports KHyper-S, MobileNetV3-Large and EfficientNet-B0 (keras.applications) with 1000
classes to TFLite, in float32 and with int8 throughout, and measures the latency of one
image in LiteRT with one and with two threads. Files and threads take turns. All read
raw pixels and normalise them in the graph: KHyper-S by `raw_pixel_model`,
MobileNetV3 by `include_preprocessing`, EfficientNet always; int8 files read and
write uint8. No softmax.

Weights are random, which latency does not see; BatchNorm's statistics are those of the
representative (random) images, so that no activation vanishes or explodes. Writes a
section per image size to results/benchmarks/mobile_latency.json.
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

OURS = "khyper_s"
NAMES = {
    OURS: "KHyper-S",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "efficientnet_b0": "EfficientNet-B0",
}
PRECISIONS = ("float32", "int8")
# One image on so many threads, in one file of one network.
Key = tuple[str, str, int]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    networks: tuple[str, ...] = tuple(NAMES)
    """Among khyper_s, mobilenet_v3_large and efficientnet_b0."""
    precisions: tuple[str, ...] = PRECISIONS
    """Among float32 and int8."""
    threads: tuple[int, ...] = (1, 2)
    """Threads of LiteRT, each measured."""
    image_size: int = 224
    rounds: int = 7
    """Turns of each file and number of threads."""
    runs: int = 20
    """Images per turn, one at a time; their median counts."""
    representative: int = 16
    """Random images for int8's ranges, BatchNorm and the comparison with Keras."""
    seed: int = 0
    output: pathlib.Path = RESULTS / "mobile_latency.json"


def check(settings: Settings) -> None:
    """Raise ValueError for settings that cannot be measured."""
    unknown = set(settings.networks) - set(NAMES)
    unknown |= set(settings.precisions) - set(PRECISIONS)
    if unknown or OURS not in settings.networks or not settings.precisions:
        raise ValueError(
            f"networks must be among {list(NAMES)} with {OURS}, precisions among "
            f"{list(PRECISIONS)}. Received: networks={settings.networks}, "
            f"precisions={settings.precisions}"
        )
    counts = settings.rounds, settings.representative, *settings.threads
    if min(counts) < 1 or not settings.threads:
        raise ValueError(
            "rounds, representative and threads must be positive. Received: "
            f"rounds={settings.rounds}, representative={settings.representative}, "
            f"threads={settings.threads}"
        )


def build(network: str, image_size: int) -> tuple[Any, int]:
    """Return a network that reads raw pixels, and its multiply-accumulates."""
    import keras

    import keras_khyper as kk
    from keras_khyper.data.imagenet_augmentation import IMAGENET_MEAN, IMAGENET_STD

    shape = (image_size, image_size, 3)
    if network == OURS:
        plain = kk.models.khyper_s(input_shape=shape)
        model = kk.export.raw_pixel_model(plain, IMAGENET_MEAN, IMAGENET_STD)
        return model, kk.profiling.macs(plain)
    make = {
        "mobilenet_v3_large": keras.applications.MobileNetV3Large,
        "efficientnet_b0": keras.applications.EfficientNetB0,
    }[network]
    model = make(input_shape=shape, weights=None, classifier_activation=None)
    return model, kk.profiling.macs(model)


def calibrate(model: Any, pixels: np.ndarray) -> None:
    """Give BatchNorm, nested models' too, the statistics of ``pixels`` [n, H, W, C]."""
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(pixels, training=True)


def export_network(
    settings: Settings, network: str, pixels: np.ndarray, folder: pathlib.Path
) -> tuple[dict[str, Any], dict[Key, Any]]:
    """Build and export one network.

    Args:
        settings: What is measured.
        network: Key of `NAMES`.
        pixels: Random images, 0-255.
        folder: Where the files go.

    Returns:
        What is known of it, and a runner for each file and number of threads.
    """
    import keras_khyper as kk

    model, macs = build(network, settings.image_size)
    calibrate(model, pixels)
    known: dict[str, Any] = {
        "macs": macs,
        "params": kk.profiling.trainable_params(model),
        "size_bytes": {},
        "agreement": {},
    }
    runners: dict[Key, Any] = {}
    for precision in settings.precisions:
        path = folder / f"{network}-{precision}.tflite"
        integer = precision == "int8"
        report = kk.export.to_tflite(
            model,
            path,
            "int8" if integer else None,
            representative_data=pixels,
            verification_data=pixels,
            io_dtype="uint8" if integer else "float32",
        )
        known["size_bytes"][precision] = report.size_bytes
        known["agreement"][precision] = report.agreement
        for threads in settings.threads:
            runner = kk.export.TFLiteRunner(path, threads)
            runners[network, precision, threads] = runner
    return known, runners


def measure_turns(
    settings: Settings, runners: dict[Key, Any], pixels: np.ndarray
) -> dict[Key, list[float]]:
    """Return the latencies in ms, a value per turn; every second round backwards."""
    import keras_khyper as kk

    turns: dict[Key, list[float]] = {key: [] for key in runners}
    for turn in range(settings.rounds):
        for key in list(runners)[:: 1 if turn % 2 == 0 else -1]:
            runner = runners[key]
            image = runner.to_input(pixels[:1])
            turns[key].append(
                kk.profiling.latency_ms(runner, image, num_runs=settings.runs)
            )
    return turns


def summarize(
    networks: dict[str, dict[str, Any]], turns: dict[Key, list[float]]
) -> dict[str, list[dict[str, Any]]]:
    """Return figures of all networks, and ratios of KHyper-S over each other one.

    Args:
        networks: With ``macs`` and ``size_bytes`` (precision -> bytes).
        turns: Latencies in ms of network, precision and threads.
    """
    figures = []
    for (network, precision, threads), values in turns.items():
        name = f"latency, {NAMES[network]}, {_runtime(precision, threads)}"
        spread = min(values), max(values)
        figures.append(rated(name, statistics.median(values), unit="ms", spread=spread))
    for network, known in networks.items():
        figures.append(rated(f"MACs, {NAMES[network]}", known["macs"] / 1e6, unit="M"))
        figures += [
            rated(f"size, {NAMES[network]}, {precision}", size / 1e6, unit="MB")
            for precision, size in known["size_bytes"].items()
        ]
    ratios = [
        ratio
        for other in networks
        if other != OURS
        for ratio in _ratios(networks[OURS], networks[other], other, turns)
    ]
    return {"figures": figures, "ratios": ratios}


def _ratios(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    other: str,
    turns: dict[Key, list[float]],
) -> list[dict[str, Any]]:
    pair = f"{NAMES[OURS]} / {NAMES[other]}"
    ratios = []
    for (network, precision, threads), values in turns.items():
        if network != OURS:
            continue
        others = turns[other, precision, threads]
        by_turn = [a / b for a, b in zip(values, others, strict=True)]
        ratios.append(
            rated(
                f"latency, {pair}, {_runtime(precision, threads)}",
                statistics.median(values) / statistics.median(others),
                spread=(min(by_turn), max(by_turn)),
            )
        )
    ratios.append(rated(f"MACs, {pair}", ours["macs"] / theirs["macs"]))
    ratios += [
        rated(f"size, {pair}, {precision}", size / theirs["size_bytes"][precision])
        for precision, size in ours["size_bytes"].items()
    ]
    return ratios


def _runtime(precision: str, threads: int) -> str:
    return f"{precision}, {threads} thread{'s' * (threads > 1)}"


def main(settings: Settings) -> None:
    """Export and measure.

    Raises:
        ValueError: Settings that cannot be measured.
    """
    check(settings)
    # Before a framework starts, which would count the cores.
    use_threads(max(settings.threads))
    import keras

    start = time.perf_counter()
    keras.utils.set_random_seed(settings.seed)
    size = settings.image_size
    shape = (settings.representative, size, size, 3)
    rng = np.random.default_rng(settings.seed)
    pixels = rng.integers(0, 256, shape).astype("float32")
    networks: dict[str, dict[str, Any]] = {}
    runners: dict[Key, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for network in settings.networks:
            known, own = export_network(settings, network, pixels, pathlib.Path(folder))
            networks[network] = known
            runners |= own
        turns = measure_turns(settings, runners, pixels)
    latency = [
        {"network": network, "precision": precision, "threads": threads, "ms": values}
        for (network, precision, threads), values in turns.items()
    ]
    section = {
        **provenance(settings, time.perf_counter() - start),
        "weights": "random, BatchNorm calibrated on random images",
        "networks": networks,
        "latency": latency,
        **summarize(networks, turns),
    }
    replace_sections(settings.output, {f"{size}px": section})
    print_entries(
        f"Latency of one {size}x{size} image in LiteRT",
        section["figures"] + section["ratios"],
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
