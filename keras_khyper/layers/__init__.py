"""Keras layers of supernets and of the networks that subnets become.

Each of them can be saved by itself. What a route drives is in `keras_khyper.operations`
and `keras_khyper.cells`.
"""

from keras_khyper.layers.architecture_encoder import (
    ArchitectureEncoder,
    CoefficientAttention,
    MixerBlock,
    SimplexNet,
)
from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.bias import Bias
from keras_khyper.layers.centered_encoder import CenteredEncoder
from keras_khyper.layers.centered_kernel import CenteredKShotHypernetKernel
from keras_khyper.layers.classification_head import ClassificationHead
from keras_khyper.layers.generated_conv import (
    GeneratedConv2D,
    GeneratedDepthwiseConv2D,
)
from keras_khyper.layers.hypernet_kernels import (
    KShotHypernetKernel,
    ResidualKShotHypernetKernel,
)
from keras_khyper.layers.kernel_layers import (
    SCALINGS,
    KernelLayer,
    KShotKernel,
    SharedKernel,
)
from keras_khyper.layers.universal_inverted_bottleneck import (
    UniversalInvertedBottleneck,
)

__all__ = [
    "SCALINGS",
    "ArchitectureEncoder",
    "Bias",
    "CenteredEncoder",
    "CenteredKShotHypernetKernel",
    "ClassificationHead",
    "CoefficientAttention",
    "GeneratedConv2D",
    "GeneratedDepthwiseConv2D",
    "KShotHypernetKernel",
    "KShotKernel",
    "KernelLayer",
    "MixerBlock",
    "ResidualKShotHypernetKernel",
    "SharedKernel",
    "SimplexNet",
    "SubnetBatchNormalization",
    "UniversalInvertedBottleneck",
]
