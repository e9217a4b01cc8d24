"""Search spaces: what an architecture is, in plain Python and NumPy."""

from keras_khyper.spaces.nas_bench_201 import NASBench201
from keras_khyper.spaces.packing import FairSets
from keras_khyper.spaces.search_space import SearchSpace

__all__ = ["FairSets", "NASBench201", "SearchSpace"]
