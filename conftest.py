"""One `pytest` tests every Keras backend, each in a process of its own.

A process has one Keras backend for its whole life. So without KERAS_BACKEND in
the environment the same command line is run again under tensorflow, jax and
torch, two at a time where there are two cores, and the last line adds them up.
Tests of what no backend computes run once, with the first. With KERAS_BACKEND
set, pytest runs as it always does (needed for --pdb and --junitxml).
"""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

BACKENDS = ("tensorflow", "jax", "torch")
# Paths in tests/ of what no backend computes: the first backend's run covers them.
BACKEND_FREE = (
    "spaces",
    "search",
    "profiling/test_nas_bench_201_closed_form.py",
    "profiling/test_uib_closed_form.py",
    "data/test_imagenet16.py",
    "data/test_splits.py",
    "recipes",
    "evaluation/test_comparison.py",
    "evaluation/test_statistics.py",
    "evaluation/test_table.py",
    "evaluation/test_table_official.py",
)
_SKIP_FREE = "KHYPER_SKIP_BACKEND_FREE"
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
    """Run the session once per backend, unless one was chosen."""
    if os.environ.get("KERAS_BACKEND") or hasattr(config, "workerinput"):
        return None
    if any(config.getoption(name, default=False) for name in _INFORMATIVE):
        return None
    start = time.monotonic()
    stop = threading.Event()

    def run(backend: str) -> tuple[int, str] | None:
        if stop.is_set():
            return None
        code, closing = _run_backend(backend, config)
        if code == pytest.ExitCode.INTERRUPTED or (
            code == pytest.ExitCode.TESTS_FAILED and config.getoption("maxfail")
        ):
            stop.set()
        return code, closing

    with ThreadPoolExecutor(_num_jobs()) as pool:
        results = dict(zip(BACKENDS, pool.map(run, BACKENDS), strict=True))
    return _close(results, time.monotonic() - start)


def _num_jobs() -> int:
    return min(2, os.cpu_count() or 1)


def _run_backend(backend: str, config: pytest.Config) -> tuple[int, str]:
    """Run the same command line under one backend: exit code and closing line."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONUNBUFFERED": "1"}
    # TensorFlow's notes on CPU features would bury the tests' own output.
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    threads = str(max(1, (os.cpu_count() or 1) // _num_jobs()))
    environment.setdefault("OMP_NUM_THREADS", threads)
    environment.setdefault("TF_NUM_INTRAOP_THREADS", threads)
    if backend != BACKENDS[0]:
        environment[_SKIP_FREE] = "1"
    command = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    # A cache for each, or a test that fails on one backend only is forgotten.
    command += ["-o", f"cache_dir=.pytest_cache/{backend}"]
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
            print(f"{backend:10s} | {line}", end="", flush=True)
            plain = _COLOR.sub("", line)
            if _CLOSING.search(plain):
                closing = plain.strip(" =\n")
    return process.returncode, closing


def _close(results: dict[str, tuple[int, str] | None], seconds: float) -> int:
    """Print each backend's closing line and their sum; returns the exit code."""
    totals = dict.fromkeys(_OUTCOMES, 0)
    codes = []
    print()
    for backend, result in results.items():
        if result is None:
            print(f"{backend:10s} | not run")
            continue
        code, closing = result
        codes.append(code)
        if not closing:  # it crashed, or never began
            closing = f"1 error: ended with exit code {code}"
        print(f"{backend:10s} | {closing}")
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
    """Leave out what the first backend's run covers already."""
    if not os.environ.get(_SKIP_FREE):
        return
    free = [config.rootpath / "tests" / name for name in BACKEND_FREE]
    covered, kept = [], []
    for item in items:
        known = any(item.path.is_relative_to(path) for path in free)
        (covered if known else kept).append(item)
    if covered:
        config.hook.pytest_deselected(items=covered)
        items[:] = kept
