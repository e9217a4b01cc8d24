"""Step times of several subjects side by side, each in a process of its own.

The subjects take turns while all others wait, so that whatever else the machine
does meets all of them. A subject that fails is reported with its error.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, cast

HERE = pathlib.Path(__file__).resolve().parent
START_TIMEOUT_SECONDS = 1800.0
STEP_TIMEOUT_SECONDS = 300.0


class WorkerError(RuntimeError):
    """A worker failed; the text says why."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a worker runs.

    Attributes:
        label: Its name in tables.
        kind: Key of ``_worker.SUBJECTS``.
        options: Arguments of the subject's ``build``.
        backend: Keras backend, where the subject uses one.
        environment: Further environment variables.
    """

    label: str
    kind: str
    options: dict[str, Any]
    backend: str = "tensorflow"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Result:
    """What was measured of one subject.

    Attributes:
        subject: The subject.
        seconds: Seconds per step, one value for each round.
        build_seconds: Making data and weights.
        first_step_seconds: The first step: tracing, compiling, running.
        memory: ``baseline_bytes``, ``peak_bytes`` and ``step_peak_bytes``.
        error: Why there is nothing more, or None.
    """

    subject: Subject
    seconds: list[float] = dataclasses.field(default_factory=list)
    build_seconds: float | None = None
    first_step_seconds: float | None = None
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    error: str | None = None

    @property
    def median(self) -> float:
        """Median of seconds per step; NaN where the subject failed."""
        if self.error or not self.seconds:
            return float("nan")
        return statistics.median(self.seconds)

    @property
    def images_per_second(self) -> float:
        """Images of the batch per median second."""
        return self.subject.options["batch"] / self.median

    def as_dict(self) -> dict[str, Any]:
        """Return the result for a JSON file."""
        content: dict[str, Any] = {**dataclasses.asdict(self)}
        if self.error is None and self.seconds:
            content |= {
                "median_seconds": self.median,
                "min_seconds": min(self.seconds),
                "max_seconds": max(self.seconds),
                "images_per_second": self.images_per_second,
            }
        return content


class Worker:
    """A subprocess that runs one subject on request.

    Args:
        subject: What it runs.
        threads: Cores that it may use; None for all.

    Raises:
        WorkerError: It failed, died or did not answer in time; also raised by
            the methods.
    """

    def __init__(self, subject: Subject, threads: int | None = None) -> None:
        options = {**subject.options, "threads": threads}
        # A file, not a pipe, which would fill up unread.
        self._log: TextIO = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "_worker.py"),
                subject.kind,
                json.dumps(options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(subject, threads),
        )
        self._requests = cast(TextIO, self._process.stdin)
        self._answers = cast(TextIO, self._process.stdout)
        try:
            self.build_seconds = self._answer(START_TIMEOUT_SECONDS)["build_seconds"]
        except WorkerError:
            self.close()
            raise

    def warm_up(self) -> float:
        """Run the first steps; returns the seconds of the very first."""
        answer = self._ask("warm_up", START_TIMEOUT_SECONDS)
        return answer["first_step_seconds"]

    def run(self, steps: int) -> float:
        """Run ``steps`` steps; returns seconds per step."""
        return self._ask("run", steps * STEP_TIMEOUT_SECONDS, steps=steps)["seconds"]

    def memory(self) -> dict[str, int]:
        """Return peaks of memory; see ``_worker.Session.memory``."""
        return self._ask("memory", STEP_TIMEOUT_SECONDS)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        # What is left to write cannot be: the process is gone.
        with contextlib.suppress(OSError):
            self._requests.close()
        self._answers.close()
        self._log.close()

    def _ask(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"command": command, **arguments})
        try:
            self._requests.write(request + "\n")
            self._requests.flush()
        except OSError as error:
            raise WorkerError(self._last_words("ended early")) from error
        return self._answer(timeout)

    def _answer(self, timeout: float) -> dict[str, Any]:
        ready, _, _ = select.select([self._answers], [], [], timeout)
        if not ready:
            raise WorkerError(f"no answer in {timeout:.0f} s")
        line = self._answers.readline()
        if not line:
            raise WorkerError(self._last_words("ended early"))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self, reason: str) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        return f"{reason} with exit code {code}: {' / '.join(lines[-3:])}"


def _environment(subject: Subject, threads: int | None) -> dict[str, str]:
    root = str(HERE.parent)
    environment = {**os.environ, "KERAS_BACKEND": subject.backend}
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in (root, os.environ.get("PYTHONPATH", "")) if path
    )
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
        environment["TF_NUM_INTRAOP_THREADS"] = str(threads)
    return {**environment, **subject.environment}


def measure(
    subjects: Sequence[Subject], rounds: int, steps: int, threads: int | None = None
) -> list[Result]:
    """Measure subjects side by side.

    Each is built and warmed up, one after the other; then they take turns,
    every second round in the opposite order.

    Args:
        subjects: What is compared.
        rounds: Turns of each subject.
        steps: Steps per turn.
        threads: Cores for the subject at work; None for all.

    Returns:
        One result per subject, in the given order.
    """
    results = [Result(subject) for subject in subjects]
    with contextlib.ExitStack() as stack:
        workers = [_start(result, threads, stack) for result in results]
        pairs = list(zip(workers, results, strict=True))
        for turn in range(rounds):
            for worker, result in pairs if turn % 2 == 0 else reversed(pairs):
                with _noting_errors(result):
                    if worker is not None and result.error is None:
                        result.seconds.append(worker.run(steps))
        for worker, result in pairs:
            with _noting_errors(result):
                if worker is not None and result.error is None:
                    result.memory = worker.memory()
    return results


def _start(
    result: Result, threads: int | None, stack: contextlib.ExitStack
) -> Worker | None:
    with _noting_errors(result):
        worker = Worker(result.subject, threads)
        stack.callback(worker.close)
        result.build_seconds = worker.build_seconds
        result.first_step_seconds = worker.warm_up()
        return worker
    return None


@contextlib.contextmanager
def _noting_errors(result: Result) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        result.error = str(error)
