"""Cells: the parts of a supernet's body that hold decisions, and those between them.

A route drives them: they hold weights, but a call needs a route, and none is a Keras
layer to be used alone.
"""

from keras_khyper.cells.residual_reduction import ResidualReduction
from keras_khyper.cells.searchable_bottleneck import (
    BottleneckOperation,
    SearchableBottleneck,
)
from keras_khyper.cells.searchable_cell import SearchableCell

__all__ = [
    "BottleneckOperation",
    "ResidualReduction",
    "SearchableBottleneck",
    "SearchableCell",
]
