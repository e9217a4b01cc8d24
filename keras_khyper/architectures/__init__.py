"""What an architecture means to a supernet: encoding, choices, sizes, sampler."""

from keras_khyper.architectures.base import Architectures
from keras_khyper.architectures.registry import get, register
from keras_khyper.architectures.staged import StagedArchitectures
from keras_khyper.architectures.uib import UIBArchitectures

__all__ = [
    "Architectures",
    "StagedArchitectures",
    "UIBArchitectures",
    "get",
    "register",
]
