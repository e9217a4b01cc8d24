"""Without retraining against from scratch: passes over the images, and costs."""

from typing import Any

import numpy as np

from evidence.statistics import METHOD, Matrix

# A fair set of NAS-Bench-201's space: each edge has five operations.
SUBNETS_PER_SET = 5
# Appendix A.1 against the benchmark: 300 epochs of 20 subnets for 200 of one network.
PAPER_PASSES = 300 * 20 / 200
DEPLOYED = (1, 10, 100, 1000)


def passes_per_epoch(supernet: dict[str, Any], scratch: dict[str, Any]) -> float:
    """Return how many subnet passes are spent for each epoch from scratch.

    One pass is one subnet's training step over all images, so that an epoch of a
    supernet has as many passes as its steps have subnets. The paper spends 30.

    Args:
        supernet: Settings of a run of recipes/nas_bench_201.py.
        scratch: Settings of evidence/from_scratch.py.
    """
    sets = supernet.get("fair_sets_per_step", 1) * supernet.get("replicas", 1)
    return supernet["epochs"] * sets * SUBNETS_PER_SET / scratch["epochs"]


def deployment(
    matrix: Matrix, scratch: dict[str, Any], variant: str = METHOD
) -> dict[str, Any] | None:
    """Return the CPU seconds of deploying n networks each way.

    A supernet is trained once; each subnet is then recalibrated and evaluated. Networks
    from scratch are trained one by one.

    Args:
        matrix: The matrix.
        scratch: A result file of evidence/from_scratch.py.
        variant: Whose runs.

    Returns:
        None without a finished run; else `training`, `subnet` and `network` (seconds
        of one), `equivalents` (networks that cost what the training does), `break_even`
        (networks from which on the supernet is cheaper; None if it never is) and
        `counts`: n with `supernet` and `scratch`.
    """
    runs = matrix.of(variant)
    if not runs:
        return None
    times = [run.result["compute"] for run in runs]
    training = float(np.mean([one["training"]["cpu_seconds"] for one in times]))
    subnet = float(
        np.mean(
            [
                one["evaluation"]["cpu_seconds"] / len(run.more)
                for one, run in zip(times, runs, strict=True)
            ]
        )
    )
    trained = sum(len(row["accuracy"]) for row in scratch["archs"])
    network = scratch["compute"]["cpu_seconds"] / trained
    return {
        "training": training,
        "subnet": subnet,
        "network": network,
        "equivalents": training / network,
        "break_even": training / (network - subnet) if network > subnet else None,
        "counts": [
            {"n": n, "supernet": training + n * subnet, "scratch": n * network}
            for n in DEPLOYED
        ],
    }
