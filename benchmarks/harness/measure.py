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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO, cast

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_TIMEOUT_SECONDS = 1800.0
STEP_TIMEOUT_SECONDS = 300.0


class WorkerError(RuntimeError):
    """A worker failed; the text says why."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a worker runs.

    Attributes:
        label: Its name in tables.
        kind: Key of ``worker.SUBJECTS``.
        options: Arguments of the subject's ``build``.
        backend: Keras backend, where the subject uses one.
        environment: Further environment variables.
        warm_up_alone: Its first step tries out what is fastest, for which all
            others wait even where several start at once.
    """

    label: str
    kind: str
    options: dict[str, Any]
    backend: str = "tensorflow"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    warm_up_alone: bool = False


@dataclasses.dataclass
class Result:
    """What was measured of one subject.

    Attributes:
        subject: The subject.
        seconds: Seconds per step, one value for each round.
        build_seconds: Making data and weights.
        first_step_seconds: The first step: tracing, compiling, running.
        memory: ``baseline_bytes``, ``peak_bytes`` and ``step_peak_bytes`` of the
            process; on a GPU also ``device_peak_bytes``.
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
        limit: Seconds that the start, the first steps or one further step may
            take; None for half an hour, and five minutes for a step.

    Raises:
        WorkerError: It failed, died or did not answer in time; also raised by
            the methods.
    """

    def __init__(
        self,
        subject: Subject,
        threads: int | None = None,
        limit: float | None = None,
    ) -> None:
        self._start_timeout = limit or START_TIMEOUT_SECONDS
        self._step_timeout = limit or STEP_TIMEOUT_SECONDS
        options = {**subject.options, "threads": threads}
        # A file, not a pipe, which would fill up unread.
        self._log: TextIO = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.harness.worker",
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
            self.build_seconds = self._answer(self._start_timeout)["build_seconds"]
        except WorkerError:
            self.close()
            raise

    def warm_up(self) -> float:
        """Run the first steps; returns the seconds of the very first."""
        answer = self._ask("warm_up", self._start_timeout)
        return answer["first_step_seconds"]

    def run(self, steps: int) -> float:
        """Run ``steps`` steps; returns seconds per step."""
        return self._ask("run", steps * self._step_timeout, steps=steps)["seconds"]

    def memory(self) -> dict[str, int]:
        """Return peaks of memory; see ``worker.Session.memory``."""
        return self._ask("memory", self._step_timeout)

    def kernels(self, count: int) -> list[dict[str, Any]]:
        """Return the costliest kernels of a step; see ``worker.Session.kernels``."""
        return self._ask("kernels", self._step_timeout, count=count)["kernels"]

    def close(self) -> None:
        """End the process; it may have ended already."""
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
    root = str(ROOT)
    environment = {**os.environ, "KERAS_BACKEND": subject.backend}
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in (root, os.environ.get("PYTHONPATH", "")) if path
    )
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
        environment["TF_NUM_INTRAOP_THREADS"] = str(threads)
    return {**environment, **subject.environment}


@dataclasses.dataclass
class Entrant:
    """A subject at the start: its result so far, and its worker if that lives."""

    result: Result
    worker: Worker | None = None

    def attempt(self, act: Callable[[Worker], None]) -> None:
        """Act on the worker; when that fails, note why and end the worker."""
        if self.worker is None:
            return
        try:
            act(self.worker)
        except WorkerError as error:
            self.result.error = str(error)
            self.close()

    def start(self, threads: int | None, limit: float | None) -> None:
        """Start the worker, which makes data and weights."""
        try:
            self.worker = Worker(self.result.subject, threads, limit)
            self.result.build_seconds = self.worker.build_seconds
        except WorkerError as error:
            self.result.error = str(error)

    def warm_up(self) -> None:
        """Run the first steps."""

        def act(worker: Worker) -> None:
            self.result.first_step_seconds = worker.warm_up()

        self.attempt(act)

    def take_turn(self, steps: int) -> None:
        """Run and time ``steps`` steps."""
        self.attempt(lambda worker: self.result.seconds.append(worker.run(steps)))

    def note_memory(self) -> None:
        """Ask for the peaks of memory."""
        self.attempt(lambda worker: self.result.memory.update(worker.memory()))

    def costliest_kernels(self, count: int) -> list[dict[str, Any]]:
        """Return the costliest kernels of a step, none where that is not known."""
        found: list[dict[str, Any]] = []
        self.attempt(lambda worker: found.extend(worker.kernels(count)))
        return found

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None


@contextlib.contextmanager
def started(
    subjects: Sequence[Subject],
    threads: int | None = None,
    parallel: int = 1,
    limit: float | None = None,
) -> Iterator[list[Entrant]]:
    """Start and warm up subjects; their processes end with the context.

    Args:
        subjects: What is compared.
        threads: Cores for each; None for all.
        parallel: So many start, and then warm up, at a time. Subjects that warm
            up alone do so afterwards.
        limit: As for `Worker`.

    Yields:
        One entrant per subject, in the given order.
    """
    entrants = [Entrant(Result(subject)) for subject in subjects]
    try:
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda entrant: entrant.start(threads, limit), entrants))
            alone = [one for one in entrants if one.result.subject.warm_up_alone]
            others = [one for one in entrants if one not in alone]
            list(pool.map(Entrant.warm_up, others))
        for entrant in alone:
            entrant.warm_up()
        yield entrants
    finally:
        for entrant in entrants:
            entrant.close()


def take_turns(entrants: Sequence[Entrant], rounds: int, steps: int) -> list[Result]:
    """Time entrants in turns, every second round in the opposite order.

    Args:
        entrants: Of `started`.
        rounds: Turns of each.
        steps: Steps per turn.

    Returns:
        Their results, in the given order.
    """
    for turn in range(rounds):
        for entrant in entrants if turn % 2 == 0 else reversed(entrants):
            entrant.take_turn(steps)
    for entrant in entrants:
        entrant.note_memory()
    return [entrant.result for entrant in entrants]


def measure(
    subjects: Sequence[Subject], rounds: int, steps: int, threads: int | None = None
) -> list[Result]:
    """Measure subjects side by side.

    Each is built and warmed up, one after the other; then they take turns.

    Args:
        subjects: What is compared.
        rounds: Turns of each subject.
        steps: Steps per turn.
        threads: Cores for the subject at work; None for all.

    Returns:
        One result per subject, in the given order.
    """
    with started(subjects, threads) as entrants:
        return take_turns(entrants, rounds, steps)
