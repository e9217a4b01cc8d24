"""Keras layers of a supernet: encoder, generated convolutions, searchable cells."""

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
from keras_khyper.layers.operations import (
    OPERATIONS,
    Operation,
    ResidualReduction,
    SearchableCell,
)
from keras_khyper.layers.routed_layer import RoutedLayer
from keras_khyper.layers.searchable_bottleneck import (
    BottleneckOperation,
    SearchableBottleneck,
)
from keras_khyper.layers.universal_inverted_bottleneck import (
    UniversalInvertedBottleneck,
)

__all__ = [
    "OPERATIONS",
    "SCALINGS",
    "ArchitectureEncoder",
    "Bias",
    "BottleneckOperation",
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
    "Operation",
    "ResidualKShotHypernetKernel",
    "ResidualReduction",
    "RoutedLayer",
    "SearchableBottleneck",
    "SearchableCell",
    "SharedKernel",
    "SimplexNet",
    "SubnetBatchNormalization",
    "UniversalInvertedBottleneck",
]
