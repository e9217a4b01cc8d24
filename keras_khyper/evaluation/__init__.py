"""Evaluating subnets and comparing them with benchmark tables."""

from keras_khyper.evaluation.comparison import paired_comparison
from keras_khyper.evaluation.effects import operation_effects
from keras_khyper.evaluation.evaluator import SubnetEvaluator
from keras_khyper.evaluation.statistics import (
    bootstrap_interval,
    kendall_tau,
    mean_rank,
    precision_at_k,
    spearman,
    summarize,
    top_k_regret,
)
from keras_khyper.evaluation.table import NASBench201Table

__all__ = [
    "NASBench201Table",
    "SubnetEvaluator",
    "bootstrap_interval",
    "kendall_tau",
    "mean_rank",
    "operation_effects",
    "paired_comparison",
    "precision_at_k",
    "spearman",
    "summarize",
    "top_k_regret",
]
