"""Subject: recalibrating and evaluating one fair set of subnets after the other."""

from typing import Any

from benchmarks.harness.subnets import EvaluationSettings, make_evaluator


def build(batch: int, prediction_batch: int, **sizes: Any):
    """Return ``run(steps)``: ``steps`` fair sets more, and their mean accuracy.

    Args:
        batch: Validation images, all of which a step evaluates.
        prediction_batch: Images per prediction.
        **sizes: Of `EvaluationSettings`.
    """
    settings = EvaluationSettings(
        validation=batch, batch_size=prediction_batch, **sizes
    )
    evaluator = make_evaluator(settings)
    unseen = iter(evaluator.supernet.space.cosets())

    def run(steps: int) -> float:
        for _ in range(steps):
            accuracies = evaluator.evaluate(next(unseen))
        return float(accuracies.mean())

    return run
