"""One `pytest` tests every Keras backend, each in a process of its own.

A process has one Keras backend for its whole life. So without KERAS_BACKEND in
the environment the same command line is run again under jax, tensorflow and
torch, and under tensorflow once more for tests of what no backend computes. These
four jobs run two at a time where there are two cores; the last line adds them up.
With KERAS_BACKEND set, pytest runs as it always does (needed for --pdb and
--junitxml).
"""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

# The longest first, so that two lanes end together. The name of a job is that of
# its backend; "once" runs what BACKEND_FREE lists, whose backend does not matter.
JOBS = {
    "tensorflow": "tensorflow",
    "jax": "jax",
    "once": "tensorflow",
    "torch": "torch",
}
# Paths in tests/ of what no backend computes. A single test, or one of its
# parameters, has the marker `one_backend` instead: then PyTorch's job runs it, which
# is the fastest, or TensorFlow's where the test lies in what TensorFlow alone does.
BACKEND_FREE = (
    "spaces",
    "search",
    "profiling/test_counts.py",
    "profiling/test_nas_bench_201_closed_form.py",
    "profiling/test_uib_closed_form.py",
    "data/test_arrays.py",
    "data/test_augmentation.py",
    "data/test_imagenet16.py",
    "data/test_loaders.py",
    "data/test_splits.py",
    "benchmarks/test_exported_latency.py",
    "benchmarks/test_floor.py",
    "benchmarks/test_mobile_latency.py",
    "benchmarks/test_ratios.py",
    "benchmarks/test_run_all.py",
    "benchmarks/test_scaling.py",
    "benchmarks/test_search_speed.py",
    "benchmarks/test_whole_space.py",
    "recipes",
    "evidence",
    "experiments",
    "evaluation/test_comparison.py",
    "evaluation/test_statistics.py",
    "evaluation/test_table.py",
    "evaluation/test_table_official.py",
    "test_checks.py",
    "test_import_edges.py",
    "test_installed_wheel.py",
)
WITH_TENSORFLOW = ("export",)
_JOB = "KHYPER_TEST_JOB"
# Hands _XLA_FLAGS to tests that start a process under JAX.
_JAX_FLAGS = "KHYPER_TEST_JAX_FLAGS"
# Tiny graphs that run once: XLA need not generate code by way of MLIR nor split it
# for threads, which halves the time that JAX's job takes.
_XLA_FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# Options that only print something: one run says it all.
_INFORMATIVE = (
    "cacheshow",
    "collectonly",
    "help",
    "markers",
    "showfixtures",
    "show_fixtures_per_test",
    "version",
)
_OUTCOMES = ("passed", "failed", "skipped", "xfailed", "xpassed", "errors")
_CLOSING = re.compile(r"\d+ [a-z]+.* in [\d.]+s|no tests ran in [\d.]+s")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the session once per job, unless a backend was chosen."""
    if os.environ.get("KERAS_BACKEND") or hasattr(config, "workerinput"):
        return None
    if any(config.getoption(name, default=False) for name in _INFORMATIVE):
        return None
    start = time.monotonic()
    stop = threading.Event()
    quick_xla = _quick_xla()

    def run(job: str) -> tuple[int, str] | None:
        if stop.is_set():
            return None
        code, closing = _run_job(job, config, quick_xla)
        if code == pytest.ExitCode.INTERRUPTED or (
            code == pytest.ExitCode.TESTS_FAILED and config.getoption("maxfail")
        ):
            stop.set()
        return code, closing

    with ThreadPoolExecutor(_num_jobs()) as pool:
        results = dict(zip(JOBS, pool.map(run, JOBS), strict=True))
    return _close(results, time.monotonic() - start)


def _num_jobs() -> int:
    return min(2, os.cpu_count() or 1)


def _run_job(job: str, config: pytest.Config, quick_xla: str) -> tuple[int, str]:
    """Run the same command line under a job's backend: exit code and closing line."""
    environment = {**os.environ, "KERAS_BACKEND": JOBS[job], _JOB: job}
    environment["PYTHONUNBUFFERED"] = "1"
    # TensorFlow's notes on CPU features would bury the tests' own output.
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    threads = str(max(1, (os.cpu_count() or 1) // _num_jobs()))
    environment.setdefault("OMP_NUM_THREADS", threads)
    environment.setdefault("TF_NUM_INTRAOP_THREADS", threads)
    # Tiny graphs that run once: JAX compiles them in two thirds of the time.
    environment.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if "XLA_FLAGS" not in environment:
        environment["XLA_FLAGS" if JOBS[job] == "jax" else _JAX_FLAGS] = quick_xla
    command = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    # A cache for each, or a test that fails on one backend only is forgotten.
    command += ["-o", f"cache_dir=.pytest_cache/{job}"]
    if sys.stdout.isatty():
        command.append("--color=yes")
    closing = ""
    with subprocess.Popen(
        command,
        cwd=config.invocation_params.dir,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            print(f"{job:10s} | {line}", end="", flush=True)
            plain = _COLOR.sub("", line)
            if _CLOSING.search(plain):
                closing = plain.strip(" =\n")
    return process.returncode, closing


def _quick_xla() -> str:
    """Return flags for quick compilation; none where this JAX refuses one."""
    flags = " ".join(_XLA_FLAGS)
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": flags}
    probe = subprocess.run(command, env=environment, capture_output=True)
    return flags if probe.returncode == 0 else ""


def _close(results: dict[str, tuple[int, str] | None], seconds: float) -> int:
    """Print each job's closing line and their sum; returns the exit code."""
    totals = dict.fromkeys(_OUTCOMES, 0)
    codes = []
    print()
    for job, result in results.items():
        if result is None:
            print(f"{job:10s} | not run")
            continue
        code, closing = result
        codes.append(code)
        if not closing:  # it crashed, or never began
            closing = f"1 error: ended with exit code {code}"
        print(f"{job:10s} | {closing}")
        for count, outcome in re.findall(r"(\d+) ([a-z]+)", closing):
            # pytest writes "1 error" but "2 errors".
            outcome = "errors" if outcome == "error" else outcome
            if outcome in totals:
                totals[outcome] += int(count)
    parts = [
        f"{count} {outcome}"
        for outcome, count in totals.items()
        if count or outcome in ("passed", "failed", "skipped")
    ]
    print(f"{', '.join(parts)} in {seconds:.2f}s", flush=True)
    empty = int(pytest.ExitCode.NO_TESTS_COLLECTED)
    bad = [code for code in codes if code not in (0, empty)]
    if bad:
        return max(bad[0], 1)
    return 0 if 0 in codes else empty


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what another job runs."""
    job = os.environ.get(_JOB)
    if job is None:
        return
    free = [config.rootpath / "tests" / name for name in BACKEND_FREE]
    exported = [config.rootpath / "tests" / name for name in WITH_TENSORFLOW]
    left_out, kept = [], []
    for item in items:
        if any(item.path.is_relative_to(path) for path in free):
            mine = job == "once"
        elif item.get_closest_marker("one_backend"):
            on_tensorflow = any(item.path.is_relative_to(path) for path in exported)
            mine = job == ("tensorflow" if on_tensorflow else "torch")
        else:
            mine = job != "once"
        (kept if mine else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
