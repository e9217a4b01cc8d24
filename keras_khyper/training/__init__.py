"""Training supernets: the base class, Algorithm 1, samplers, callbacks, statistics."""

from keras_khyper.architectures.samplers import (
    SAMPLERS,
    SPOS,
    FairNAS,
    FocusFair,
    Sampler,
)
from keras_khyper.architectures.sandwich import Sandwich
from keras_khyper.architectures.unequal import UnequalDecisions
from keras_khyper.training.algorithm import Algorithm1, Distillation
from keras_khyper.training.callbacks import (
    AtomicBackup,
    CoefficientTemperatureAnnealing,
    CoefficientWarmup,
    GeneratorDiagnostics,
)
from keras_khyper.training.coefficient_gradients import CoefficientGradients
from keras_khyper.training.encoder_optimizer import EncoderOptimizer
from keras_khyper.training.raise_on_nan import RaiseOnNaN
from keras_khyper.training.recalibration import Recalibrator
from keras_khyper.training.schedules import cosine_by_epoch
from keras_khyper.training.supernet import Supernet

__all__ = [
    "AtomicBackup",
    "SAMPLERS",
    "SPOS",
    "Algorithm1",
    "CoefficientGradients",
    "CoefficientTemperatureAnnealing",
    "CoefficientWarmup",
    "Distillation",
    "EncoderOptimizer",
    "FairNAS",
    "FocusFair",
    "GeneratorDiagnostics",
    "RaiseOnNaN",
    "Recalibrator",
    "Sampler",
    "Sandwich",
    "Supernet",
    "UnequalDecisions",
    "cosine_by_epoch",
]
