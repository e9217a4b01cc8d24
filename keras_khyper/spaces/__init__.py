"""Search spaces: what an architecture is, in plain Python and NumPy."""

from keras_khyper.spaces.convolution import Convolution
from keras_khyper.spaces.nas_bench_201 import NASBench201
from keras_khyper.spaces.packing import FairSets
from keras_khyper.spaces.protocol import SpaceLike
from keras_khyper.spaces.search_space import SearchSpace
from keras_khyper.spaces.staged_space import StagedSpace
from keras_khyper.spaces.uib import UIBSpace
from keras_khyper.spaces.uib_blocks import (
    STRUCTURES,
    UIBBlock,
    UIBOperation,
    UIBStage,
)

__all__ = [
    "STRUCTURES",
    "Convolution",
    "FairSets",
    "NASBench201",
    "SearchSpace",
    "SpaceLike",
    "StagedSpace",
    "UIBBlock",
    "UIBOperation",
    "UIBSpace",
    "UIBStage",
]
