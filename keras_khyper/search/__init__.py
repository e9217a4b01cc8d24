"""Search under limits: evolution, random search, accuracy against cost.

Pure NumPy; nothing here imports Keras. See `EvolutionarySearch` (the paper's
appendix A.3), `RandomSearch` (the baseline to compare it with) and `ParetoSearch`.
A search of another kind is a subclass of `ArchitectureSearch` that defines `propose`.
"""

from keras_khyper.search.base import (
    ArchitectureSearch,
    Evaluator,
    SearchOptions,
    SearchState,
)
from keras_khyper.search.constraints import (
    Constraint,
    Cost,
    Macs,
    MaxCost,
    MaxMacs,
    MaxParams,
    Params,
)
from keras_khyper.search.evolution import EvolutionarySearch
from keras_khyper.search.feasible import FeasibleSpace
from keras_khyper.search.pareto import ParetoSearch, pareto_front
from keras_khyper.search.random_search import RandomSearch
from keras_khyper.search.result import (
    Candidate,
    IterationRecord,
    ParetoResult,
    SearchResult,
)

__all__ = [
    "ArchitectureSearch",
    "Candidate",
    "Constraint",
    "Cost",
    "Evaluator",
    "EvolutionarySearch",
    "FeasibleSpace",
    "IterationRecord",
    "Macs",
    "MaxCost",
    "MaxMacs",
    "MaxParams",
    "Params",
    "ParetoResult",
    "ParetoSearch",
    "RandomSearch",
    "SearchOptions",
    "SearchResult",
    "SearchState",
    "pareto_front",
]
