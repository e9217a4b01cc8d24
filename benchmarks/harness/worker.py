"""The process that holds one subject of a comparison; see `measure.Worker`.

    python -m benchmarks.harness.worker SUBJECT OPTIONS

OPTIONS is JSON: the arguments of the subject's ``build``, and ``threads``.
Requests come as lines of JSON on standard input, answers go as lines of JSON to
what was standard output; whatever a framework prints goes to standard error.
"""

import contextlib
import ctypes
import importlib
import json
import math
import os
import pathlib
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

# subject -> module whose build(**options) returns run(steps) -> loss
SUBJECTS = {
    "supernet": "benchmarks.subjects.supernet_step",
    "uib_supernet": "benchmarks.subjects.uib_supernet_step",
    "fixed_paths": "benchmarks.subjects.fixed_paths",
    "fewer_operations": "benchmarks.subjects.fewer_operations",
    "torch_peer": "benchmarks.subjects.torch_peer",
    "floor": "benchmarks.subjects.floor",
    "evaluation": "benchmarks.subjects.evaluation_step",
}


def use_threads(count: int | None) -> None:
    """Restrict this process to ``count`` cores; call it before a framework starts."""
    if count is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def peak_bytes() -> int:
    """Return the most memory held since the start or `reset_peak`."""
    status = pathlib.Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found:
        return int(found[1]) * 1024
    # Not by default: this one also knows the process that started this one.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Hand freed memory back and forget the peak, where the system allows it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def device_peak_bytes() -> int | None:
    """Return the most memory that the framework took of a GPU; None without one.

    Counts what tensors take, also while kernels are tried out, and not what an
    allocator keeps in reserve.
    """
    # Only what runs already: an import would start a second framework.
    if jax := sys.modules.get("jax"):
        statistics = jax.local_devices()[0].memory_stats() or {}
        return statistics.get("peak_bytes_in_use")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return None


def costliest(averages: Iterable[Any], count: int) -> list[dict[str, Any]]:
    """Return the costliest kernels of a profile, and the sum of all.

    Args:
        averages: Of `torch.profiler`: each has ``key``, ``count`` and
            ``self_device_time_total`` in microseconds.
        count: How many.
    """
    kernels = [one for one in averages if one.self_device_time_total > 0]
    kernels.sort(key=lambda one: -one.self_device_time_total)

    def entry(name: str, some: list[Any]) -> dict[str, Any]:
        return {
            "name": name,
            "calls": sum(one.count for one in some),
            "microseconds": round(sum(one.self_device_time_total for one in some), 1),
        }

    listed = [entry(one.key[:120], [one]) for one in kernels[:count]]
    return [*listed, entry("all kernels", kernels)] if kernels else []


class Session:
    """Answer the requests of one `Worker`.

    Args:
        subject: Key of `SUBJECTS`.
        options: Arguments of its ``build``.
    """

    def __init__(self, subject: str, options: dict[str, Any]) -> None:
        module = importlib.import_module(SUBJECTS[subject])
        start = time.perf_counter()
        self._run_steps: Callable[[int], float] = module.build(**options)
        self.build_seconds = time.perf_counter() - start
        self._baseline = resident_bytes()
        self._first_peak = 0

    def warm_up(self) -> dict[str, float]:
        """Run the first step, which traces and compiles, and a second one."""
        reset_peak()
        start = time.perf_counter()
        self._checked_run(1)
        seconds = time.perf_counter() - start
        self._checked_run(1)
        self._first_peak = peak_bytes()
        reset_peak()
        return {"first_step_seconds": seconds}

    def run(self, steps: int) -> dict[str, float]:
        """Run ``steps`` steps; returns seconds per step."""
        start = time.perf_counter()
        self._checked_run(steps)
        return {"seconds": (time.perf_counter() - start) / steps}

    def memory(self) -> dict[str, int]:
        """Return the peaks above what data and weights take.

        ``peak_bytes`` includes tracing and compiling, ``step_peak_bytes`` is
        that of the steps after `warm_up`. ``device_peak_bytes``, on a GPU, is
        of its memory, all counted.
        """
        steps, device = peak_bytes(), device_peak_bytes()
        return {
            **({} if device is None else {"device_peak_bytes": device}),
            "baseline_bytes": self._baseline,
            "peak_bytes": max(self._first_peak, steps) - self._baseline,
            "step_peak_bytes": steps - self._baseline,
        }

    def kernels(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Run a step under PyTorch's profiler; returns its costliest GPU kernels.

        Args:
            count: How many.

        Returns:
            ``kernels``: name, calls and microseconds in all, the costliest first; an
            entry ``all kernels`` ends the list. Empty where no PyTorch runs on a GPU.
        """
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return {"kernels": []}
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA]
        ) as profile:
            self._checked_run(1)
            torch.cuda.synchronize()
        return {"kernels": costliest(profile.key_averages(), count)}

    def _checked_run(self, steps: int) -> None:
        loss = self._run_steps(steps)
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss must be finite. Received: {loss=}")


def serve(answers: Any) -> None:
    """Build the subject and answer requests until standard input ends."""

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        options = json.loads(sys.argv[2])
        use_threads(options.pop("threads", None))
        session = Session(sys.argv[1], options)
        answer({"build_seconds": session.build_seconds})
        for line in sys.stdin:
            request = json.loads(line)
            method = getattr(session, request.pop("command"))
            answer(method(**request))
    except Exception as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(answers)
