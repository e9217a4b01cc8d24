"""Train one supernet over a topology search space, deploy any of its subnets.

Kshot-Hypernet on Keras 3: kernels generated from the architecture, in-place
distillation from the whole supernet, Focus-Fair sampling.

>>> supernet = kk.models.NASBench201Supernet(num_classes=10)
"""

from keras_khyper import (
    architectures,
    cells,
    data,
    evaluation,
    experiments,
    export,
    generators,
    layers,
    models,
    operations,
    profiling,
    routes,
    search,
    spaces,
    training,
)
from keras_khyper.gpu import configure_gpu
from keras_khyper.training.supernet import Supernet

__version__ = "0.1.0"

__all__ = [
    "Supernet",
    "architectures",
    "cells",
    "configure_gpu",
    "data",
    "evaluation",
    "experiments",
    "export",
    "generators",
    "layers",
    "models",
    "operations",
    "profiling",
    "routes",
    "search",
    "spaces",
    "training",
]
