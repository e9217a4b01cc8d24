"""Operations: what an edge of a cell can choose.

A space names its operations. `register` says which class a name stands for, with
which options; a user's own class is registered in the same way. Operations hold
weights, but a route drives them: they are not Keras layers to be used alone.
"""

from keras_khyper.operations.convolutions import ReLUConvBN, ReLUSeparableConvBN
from keras_khyper.operations.kernel_bank import KernelBank
from keras_khyper.operations.operation import Operation
from keras_khyper.operations.plain import (
    AveragePool3x3,
    Identity,
    MaxPool3x3,
    Zero,
)
from keras_khyper.operations.registry import make, names, register

__all__ = [
    "AveragePool3x3",
    "Identity",
    "KernelBank",
    "MaxPool3x3",
    "Operation",
    "ReLUConvBN",
    "ReLUSeparableConvBN",
    "Zero",
    "make",
    "names",
    "register",
]
