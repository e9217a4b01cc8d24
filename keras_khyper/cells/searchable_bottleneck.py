"""The searchable block of the ImageNet space: four structures, each of any size.

Shapes: ``B`` batch, ``H W`` space, ``I O`` channels in and out at the largest width,
``F = expansion_ratio * I`` expanded. A smaller subnet runs at the largest shapes,
with zeros in the channels that it lacks.
"""

import keras
import numpy as np
from keras import ops

from keras_khyper import generators
from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D, GeneratedDepthwiseConv2D
from keras_khyper.operations import KernelBank, Operation
from keras_khyper.routes.routed_layer import RoutedLayer
from keras_khyper.spaces import UIBBlock
from keras_khyper.spaces.uib_blocks import uib_operations


class BottleneckOperation(Operation):
    """One structure of a block: its branch without the skip connection.

    Every convolution is generated at the largest size. A subnet keeps the first
    channels, by a mask behind each BatchNorm, and the centre of depthwise kernels.
    A block beyond the depth of its stage has the mask zero, so that with the skip
    connection it is the identity.

    A `SearchableBottleneck` makes it and is what can be saved by itself.

    Args:
        block: The `UIBBlock` at its largest size.
        decision: Index of the block.
        kernel_bank: The `KernelBank`; structures that share one share the kernel
            layers of equal parts.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, I]. Output shape: [B, ceil(H / strides),
    ceil(W / strides), O].
    """

    def __init__(self, block, decision, kernel_bank, **kwargs):
        super().__init__(kernel_bank=kernel_bank, **kwargs)
        self.block = block
        self.decision = decision
        self.parts = []  # the block's convolutions, known once it is built
        self.convs = {}
        self.norms = {}

    @property
    def structure(self):
        """One of `STRUCTURES`."""
        return self.block.operation.structure

    def build(self, input_shape):
        """Make and build the parts for inputs [B, H, W, I]."""
        self.parts = self.block.convolutions(input_shape[-1])
        for part in self.parts:
            make = GeneratedDepthwiseConv2D if part.depthwise else GeneratedConv2D
            name = f"{self.name}_{part.name}"
            kernel_layer = self.kernel_bank.layer(part.name, part.depthwise)
            conv = make(
                part.filters, part.kernel_size, kernel_layer, part.strides, name=name
            )
            conv.build((*input_shape[:-1], part.in_channels))
            norm = SubnetBatchNormalization(name=f"{name}_bn")
            norm.build((*input_shape[:-1], part.filters))
            self.convs[part.name], self.norms[part.name] = conv, norm

    def call(self, x, route, weight=None):
        """Return the branch's output for ``x``, times ``weight`` if one is given."""
        sizes = route.sizes_at(self.decision)
        kernel_sizes, masks = {}, {}
        if sizes is not None:
            in_channels, channels, start, middle, present = ops.unstack(sizes)
            kernel_sizes = {"start": start, "middle": middle}
            expanded = in_channels * self.block.expansion_ratio
            counts = {"start": in_channels, "project": channels}
            for part in self.parts:
                count = counts.get(part.name, expanded)
                masks[part.name] = _first(count, part.filters)
            masks["project"] *= ops.cast(present, "float32")
        if weight is not None:
            masks["project"] = weight * masks.get("project", 1.0)
        for part in self.parts:
            x = route.conv(self.convs[part.name], x, kernel_sizes.get(part.name))
            x = route.norm(self.norms[part.name], x, masks.get(part.name))
            if part.activation is not None:
                x = getattr(ops, part.activation)(x)
        return x

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Weight the output, in the last BatchNorm; see `Operation.weighted`."""
        return [
            operation.call(node.x, route, weight)
            for operation, weight in zip(operations, weights, strict=True)
        ]


@keras.saving.register_keras_serializable(package="keras_khyper")
class SearchableBottleneck(RoutedLayer):
    """A block that chooses among four structures (paper §4.2, Eq. 5).

    Args:
        decision: Index of the block.
        channels: The candidates of the output width, ascending.
        in_channels: The candidates of the input width, ascending; None for those of
            the output, and the same choice.
        kernel_size: Largest size of depthwise kernels.
        expansion_ratio: Expanded over input channels.
        strides: 1 or 2.
        generator: A `keras_khyper.generators.Generator`, or what its `get` takes.
        share_kernels: Whether the structures share the kernel layers of their parts
            (expansion, projection, depthwise kernels); each has BatchNorm of its own.
        **kwargs: Passed to `keras.layers.Layer`.

    Input shape: [B, H, W, I] (or what the route carries). Output shape: [B,
    ceil(H / strides), ceil(W / strides), O].
    """

    def __init__(
        self,
        decision,
        channels,
        in_channels,
        kernel_size,
        expansion_ratio,
        strides,
        generator,
        share_kernels=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.generator = generators.get(generator)
        self.decision = decision
        self.width_candidates = channels, in_channels
        self.channels = channels[-1]
        self.kernel_size = kernel_size
        self.expansion_ratio = expansion_ratio
        self.strides = strides
        self.share_kernels = share_kernels
        # Only where a subnet's own widths are equal it has a skip connection.
        self.always_skips = strides == 1 and in_channels is None
        self.may_skip = (
            strides == 1
            and not self.always_skips
            and bool(set(in_channels) & set(channels))
        )
        self._largest_skips = self.may_skip and in_channels[-1] == channels[-1]
        shared = KernelBank(self.generator)
        # In the order of STRUCTURES.
        self.operations = [
            BottleneckOperation(
                UIBBlock(operation, expansion_ratio, channels[-1], strides, self.name),
                decision,
                shared if share_kernels else KernelBank(self.generator),
                name=f"{self.name}_{operation.structure.lower()}",
            )
            for operation in uib_operations([kernel_size])
        ]

    def decisions(self):
        """Return the pair of this block's decision and its four operations."""
        return [(self.decision, self.operations)]

    def build(self, input_shape):
        """Build every structure for inputs [B, H, W, I]."""
        for operation in self.operations:
            operation.build(input_shape)

    def call(self, x, route):
        """Run the block along ``route``."""
        y = route.choose(x, self.operations, self.decision)
        if self.always_skips:
            return route.add(x, y)
        if self.may_skip and (route.sizes is not None or self._largest_skips):
            return route.add_skip(x, y, self.decision)
        return y

    def get_config(self):
        """Return the constructor's arguments."""
        channels, in_channels = self.width_candidates
        return {
            **super().get_config(),
            "decision": self.decision,
            "channels": channels,
            "in_channels": in_channels,
            "kernel_size": self.kernel_size,
            "expansion_ratio": self.expansion_ratio,
            "strides": self.strides,
            "generator": keras.saving.serialize_keras_object(self.generator),
            "share_kernels": self.share_kernels,
        }


def _first(count, width):
    # Ones in the first channels: float32 [width].
    channels = ops.convert_to_tensor(np.arange(width), "int32")
    return ops.cast(ops.less(channels, count), "float32")
