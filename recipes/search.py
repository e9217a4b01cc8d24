"""Search a trained supernet under several limits; export and test what is found.

    python -m recipes.search paper --run runs/imagenet --budgets 0.6e9 1.3e9 1.9e9
    python -m recipes.search reduced --run runs/imagenet_cifar10 --budgets 2e6 3e6 4e6
    python -m recipes.search reduced --run RUN --limit latency_ms --budgets 0.2 0.3
    python -m recipes.search smoke      # after `recipes/imagenet.py smoke`

Takes a finished run of recipes/imagenet.py or recipes/nas_bench_201.py and runs the
evolution of appendix A.3 once for each budget: parameters, multiply-accumulates, or the
latency of the subnet's float32 TFLite file, measured on this machine with one thread
(every candidate is exported once, which takes seconds each). `paper` has A.3's numbers,
5,100 subnets a budget; `reduced` evaluates 60.

Subnets are selected on the images that the run held out of training. The winner of each
budget is materialised, read once on the test images, and written as TFLite in float32,
float16 and int8; the files run on the first 2,000 test images and must come within 0.2
points of Keras (int8 1.5), or the recipe ends with an error. A killed search goes on by
the same command from its last iteration, and budgets share what was evaluated. Files
stay in runs/NAME/.
"""

import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import Any, Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tyro

from recipes import imagenet, nas_bench_201
from recipes._exported import MAX_POINTS, percent_correct, too_far
from recipes._images import load_benchmark_images

PRECISIONS = ("float32", "float16", "int8")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one search; the defaults are the paper's."""

    run: pathlib.Path
    """Folder of a finished run of imagenet.py or nas_bench_201.py."""
    budgets: tuple[float, ...]
    """One search for each: the largest value allowed, for instance 2e6."""
    limit: Literal["params", "macs", "latency_ms"] = "macs"
    """What is limited."""
    data_dir: pathlib.Path | None = None
    """Folder of TensorFlow Datasets; the run's if not given."""
    population_size: int = 100
    num_iterations: int = 50
    num_parents: int = 20
    num_mutations: int = 50
    num_crossovers: int = 50
    mutation_probability: float = 0.1
    """Per decision; not in the paper."""
    selection_images: int | None = None
    """Held-out images that select, from the first; all if not given."""
    calibration_images: int | None = None
    """To recalibrate candidates and winners; as many as the run if not given."""
    test_images: int = 2000
    """Test images on which files are compared with Keras, from the first."""
    check_files: bool = True
    """Whether a file too far from Keras' accuracy is an error."""
    representative: int = 256
    """Training images from which int8 takes its ranges."""
    seed: int = 0
    name: str = "search"
    """Names the search's folder and its result file."""
    runs: pathlib.Path = pathlib.Path("runs")
    output: pathlib.Path = pathlib.Path("results")


# What may differ when a search goes on.
CHANGEABLE = ("budgets", "data_dir", "check_files", "runs", "output")
PRESETS = {
    "paper": (
        "The paper's appendix A.3.",
        Settings(run=pathlib.Path("runs/imagenet"), budgets=(0.6e9, 1.3e9, 1.9e9)),
    ),
    "reduced": (
        "Sixty subnets a budget.",
        Settings(
            run=pathlib.Path("runs/imagenet_cifar10"),
            budgets=(1.8e6, 2.4e6, 3.2e6),
            population_size=20,
            num_iterations=4,
            num_parents=8,
            num_mutations=5,
            num_crossovers=5,
            name="search_cifar10",
        ),
    ),
    "smoke": (
        "Two budgets of the smoke run of imagenet.py.",
        Settings(
            run=pathlib.Path("runs/imagenet_smoke"),
            budgets=(8e3, 2e4),
            population_size=4,
            num_iterations=1,
            num_parents=2,
            num_mutations=1,
            num_crossovers=1,
            selection_images=100,
            test_images=50,
            check_files=False,  # with next to no training, accuracies are noise
            representative=16,
            name="search_smoke",
            output=pathlib.Path("runs"),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its settings, supernet and images."""

    settings: Any
    supernet: Any
    task: Any


def load_run(settings: Settings) -> Run:
    """Load the supernet and the images on which it was trained.

    Raises:
        ValueError: The folder holds no finished run.
    """
    import keras

    import keras_khyper as kk

    recipe: Any = imagenet
    if "num_cells" in kk.experiments.stored_settings(settings.run):
        recipe = nas_bench_201
    trained = kk.experiments.read_settings(
        settings.run, recipe.Settings, settings.data_dir
    )
    keras.config.set_dtype_policy(trained.dtype_policy)
    supernet = keras.models.load_model(settings.run / "supernet.keras")
    if recipe is imagenet:
        return Run(trained, supernet, imagenet.load_task(trained))
    return Run(trained, supernet, load_benchmark_images(trained))


class MeasuredLatency:
    """Milliseconds of subnets as float32 TFLite files, one image, one thread.

    Weights are untrained, which latency does not see. Each architecture is measured
    once and kept in a file, so that a search that goes on sees the same values.

    Args:
        supernet: Says what network an architecture is.
        folder: Where measured values are kept.
    """

    def __init__(self, supernet: Any, folder: pathlib.Path) -> None:
        self.supernet = supernet
        self._folder = folder
        self._path = folder / "latency.json"
        self._known: dict[str, float] = {}
        if self._path.exists():
            self._known = json.loads(self._path.read_text())

    def __call__(self, archs: np.ndarray) -> np.ndarray:
        """Return the latency of each architecture [n, D]: float64 [n]."""
        return np.array([self._latency(arch) for arch in archs])

    def _latency(self, arch: np.ndarray) -> float:
        import keras_khyper as kk

        name = self.supernet.space.to_string(arch)
        if name not in self._known:
            network = self.supernet.static_network(arch)
            path = self._folder / "candidate.tflite"
            self._known[name] = kk.export.to_tflite(network, path).latency_ms
            kk.experiments.write_json(self._path, self._known)
        return self._known[name]


def make_constraint(settings: Settings, budget: float, latency: Any) -> Any:
    """Return the constraint of one search."""
    import keras_khyper as kk

    if settings.limit == "latency_ms":
        return kk.search.MaxCost(latency, budget, "latency_ms")
    limits = {"params": kk.search.MaxParams, "macs": kk.search.MaxMacs}
    return limits[settings.limit](budget)


def search(
    settings: Settings, run: Run, recalibrator: Any, folder: pathlib.Path
) -> dict[float, Any]:
    """Run the evolution for each budget; returns budget -> `SearchResult`."""
    import keras_khyper as kk

    supernet = run.supernet
    evaluator = kk.evaluation.SubnetEvaluator(
        supernet,
        recalibrator,
        run.task.examples("validation", settings.selection_images),
        batch_size=getattr(run.settings, "evaluation_batch_size", 500),
        results_path=folder / "subnets.jsonl",
        verbose=0,
    )
    latency = MeasuredLatency(supernet, folder)
    results = {}
    for budget in settings.budgets:
        print(f"{settings.limit} <= {budget:g}")
        results[budget] = kk.search.EvolutionarySearch(
            supernet.space,
            evaluator,
            [make_constraint(settings, budget, latency)],
            population_size=settings.population_size,
            num_iterations=settings.num_iterations,
            num_parents=settings.num_parents,
            num_mutations=settings.num_mutations,
            num_crossovers=settings.num_crossovers,
            mutation_probability=settings.mutation_probability,
            seed=settings.seed,
            checkpoint_path=folder / f"{settings.limit}_{budget:g}.json",
            costs=[kk.search.Params(), kk.search.Macs()],
        ).run()
    return results


def compare_files(
    network: Any, stem: pathlib.Path, calibration: np.ndarray, test: Any
) -> dict[str, Any]:
    """Write TFLite files of a network, run them on test images beside Keras."""
    import keras_khyper as kk

    images, labels = test
    keras_accuracy = percent_correct(
        network.predict(images, batch_size=100, verbose=0), labels
    )
    files = {}
    for precision in PRECISIONS:
        path = stem.with_name(f"{stem.name}_{precision}.tflite")
        report = kk.export.to_tflite(
            network,
            path,
            quantization=None if precision == "float32" else precision,
            representative_data=calibration,
            verification_data=images,
        )
        outputs = kk.export.TFLiteRunner(path)(images)
        files[precision] = {
            **report.to_dict(),
            "path": path.name,
            "accuracy": percent_correct(outputs, labels),
        }
    return {
        "keras_accuracy": keras_accuracy,
        "files": files,
        "max_points": MAX_POINTS,
        "missed": too_far(keras_accuracy, files),
    }


def difference_from_supernet(
    run: Run, recalibrator: Any, arch: np.ndarray, logits: np.ndarray, images: Any
) -> float:
    """Return the largest difference of a network's logits from the supernet's."""
    import keras

    fair_set = run.supernet.space.pack(arch[None]).archs[0]  # the first row is arch
    reference = run.supernet.call_subnets(
        keras.ops.convert_to_tensor(images),
        fair_set,
        recalibrator.statistics(fair_set),
    )
    return float(np.abs(logits - keras.ops.convert_to_numpy(reference)[0]).max())


def deploy(
    settings: Settings, run: Run, result: Any, recalibrator: Any, stem: pathlib.Path
) -> dict[str, Any]:
    """Materialise a winner, test it once, export it; the answer is kept in a file."""
    import keras_khyper as kk

    kept = stem.with_suffix(".json")
    arch = result.best.arch
    if kept.exists():
        row = json.loads(kept.read_text())
        if row["arch"] == run.supernet.space.to_string(arch):
            return row
    network = run.supernet.materialize(arch, recalibrator)
    network.save(stem.with_suffix(".keras"))
    images, labels = run.task.examples("test")
    logits = network.predict(images, batch_size=100, verbose=0)
    few = slice(0, 100)
    row = {
        "arch": run.supernet.space.to_string(arch),
        "accuracy": 100.0 * result.best.accuracy,
        "test_accuracy": percent_correct(logits, labels),
        "test_images": len(labels),
        **result.best.costs,
        "max_difference_from_supernet": difference_from_supernet(
            run, recalibrator, arch, logits[few], images[few]
        ),
        **compare_files(
            network,
            stem,
            recalibrator.images[: settings.representative],
            (images[: settings.test_images], labels[: settings.test_images]),
        ),
    }
    kk.experiments.write_json(kept, row)
    return row


def summarize(result: Any) -> dict[str, Any]:
    """Return what a result file says about one search."""
    accuracy = 100.0 * np.array([c.accuracy for c in result.candidates])
    first = result.history[0].num_new
    return {
        "evaluated": len(accuracy),
        "random_population": {
            "average": float(accuracy[:first].mean()),
            "maximum": float(accuracy[:first].max()),
        },
        "best_by_iteration": [100.0 * record.best for record in result.history],
        "stop_reason": result.stop_reason,
    }


def run_search(settings: Settings, folder: pathlib.Path) -> dict[str, Any]:
    """Search, deploy; returns what the result file holds."""
    import keras_khyper as kk

    defaults = kk.experiments.setting_defaults(settings)
    kk.experiments.open_folder(
        folder, dataclasses.asdict(settings), "name", defaults, CHANGEABLE
    )
    watch = kk.experiments.Stopwatch(folder / "seconds.json")
    start = time.monotonic()
    run = load_run(settings)
    calibration = run.task.calibration_images(
        settings.calibration_images or run.settings.calibration_images,
        run.settings.seed,
    )
    recalibrator = kk.training.Recalibrator(
        run.supernet,
        calibration,
        getattr(run.settings, "calibration_batch_size", None),
    )
    with watch.phase("search"):
        results = search(settings, run, recalibrator, folder)
    rows = []
    for budget, result in results.items():
        stem = folder / f"winner_{settings.limit}_{budget:g}"
        with watch.phase("deployment"):
            row = deploy(settings, run, result, recalibrator, stem)
        rows.append({"budget": budget, **summarize(result), "winner": row})
    return {
        "run": settings.run.name,
        "limit": settings.limit,
        "selection_split": run.task.validation_split,
        "selection_images": settings.selection_images,
        "test_split": f"{run.task.test_split}, read once for each winner",
        "budgets": rows,
        "compute": watch.times,
        **kk.experiments.provenance(settings, time.monotonic() - start),
    }


def print_rows(result: dict[str, Any]) -> None:
    """Print one line for each budget."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"Winners of {result['run']}, accuracies in percent"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = ("params", "M MACs", "held\nout", "test", "first,\nKeras")
    for column in (f"{result['limit']}\n<=", *columns, *PRECISIONS):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["budgets"]:
        winner = row["winner"]
        accuracies = [
            winner[key] for key in ("accuracy", "test_accuracy", "keras_accuracy")
        ]
        accuracies += [winner["files"][name]["accuracy"] for name in PRECISIONS]
        table.add_row(
            f"{row['budget']:g}",
            f"{winner['params']:,.0f}",
            f"{winner['macs'] / 1e6:,.2f}",
            *(f"{value:.2f}" for value in accuracies),
        )
    Console(highlight=False).print(table)


def main(settings: Settings) -> int:
    """Run the searches in their folder, write the result file; the exit code."""
    import keras_khyper as kk

    folder = settings.runs / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    with kk.experiments.lock_folder(folder):
        result = run_search(settings, folder)
    path = settings.output / f"{settings.name}.json"
    kk.experiments.write_json(path, result)
    print_rows(result)
    print(f"Written: {path}")
    missed = [row["budget"] for row in result["budgets"] if row["winner"]["missed"]]
    if missed and settings.check_files:
        print(f"Too far from Keras' accuracy: the files of {missed}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.extras.overridable_config_cli(PRESETS, description=__doc__)))
