"""The supernet of NAS-Bench-201.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels, ``S`` subnets, ``Y`` classes.
"""

import itertools

import keras
from keras import ops

from keras_khyper.cells import ResidualReduction, SearchableCell
from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.profiling.nas_bench_201 import (
    nas_bench_201_macs,
    nas_bench_201_params,
)
from keras_khyper.spaces import NASBench201
from keras_khyper.spaces.nas_bench_201_blocks import (
    nas_bench_201_blocks,
    stem_convolution,
)
from keras_khyper.training.supernet import Supernet


@keras.saving.register_keras_serializable(package="keras_khyper")
class NASBench201Supernet(Supernet):
    """All 15,625 networks of NAS-Bench-201 in one (paper §4.1).

    Stem 3x3 convolution and BatchNorm, three stages of searchable cells at C,
    2C and 4C channels with residual blocks of stride 2 between them, BatchNorm
    and ReLU, global average pool, linear classifier. All cells share one
    architecture; every convolution is generated.

    Args:
        num_classes: Y.
        channels: C of the first stage (16 in the benchmark).
        num_cells: Cells per stage (5 in the benchmark).
        generator: What makes encoder and kernels, see `Supernet`.
        seed: Seed of the samplers' random state.
        **kwargs: Passed to `keras.Model`.

    Input shape: [B, H, W, image channels], H and W multiples of 4. Output
    shape: logits [B, Y].

    Raises:
        ValueError: H or W is not a multiple of 4.

    Example:
    >>> supernet = kk.models.NASBench201Supernet(10, channels=4, num_cells=1)
    >>> logits = supernet(images)                                # teacher
    >>> logits = supernet(images, arch=archs[0])                 # a subnet
    >>> tuple(logits.shape)
    (32, 10)
    """

    def __init__(
        self,
        num_classes=10,
        channels=16,
        num_cells=5,
        generator="kshot_hypernet",
        seed=None,
        **kwargs,
    ):
        super().__init__(NASBench201(), generator, seed, **kwargs)
        self.num_classes = num_classes
        self.channels = channels
        self.num_cells = num_cells
        stem = stem_convolution(channels)
        kernel_layer = self.generator.make_kernel_layer()
        self.stem_conv = GeneratedConv2D(
            stem.filters, stem.kernel_size, kernel_layer, name="stem_conv"
        )
        self.stem_bn = SubnetBatchNormalization(name="stem_bn")
        self.blocks = []
        operations, edges = self.space.operations, self.space.edges
        for block in nas_bench_201_blocks(channels, num_cells):
            width, name = block.channels, block.name
            if block.is_reduction:
                layer = ResidualReduction(width, self.generator, name=name)
            else:
                layer = SearchableCell(
                    operations, edges, width, self.generator, name=name
                )
            self.blocks.append(layer)
        self.head_bn = SubnetBatchNormalization(name="head_bn")
        self.classifier = keras.layers.Dense(num_classes, name="classifier")

    def build(self, input_shape):
        """Build every layer for images [B, H, W, image channels]."""
        for size in input_shape[1:3]:
            if size is not None and size % 4:
                raise ValueError(
                    "Image height and width must be multiples of 4, as they are "
                    f"halved twice. Received: {input_shape=}"
                )
        super().build(input_shape)
        self.stem_conv.build(input_shape)
        shape = (*input_shape[:-1], self.channels)
        self.stem_bn.build(shape)
        for layer in self.blocks:
            layer.build(shape)
            shape = (*shape[:-1], layer.channels)
        self.head_bn.build(shape)
        self.classifier.build((None, shape[-1]))

    def repeated_layers(self):
        """Return the cells of each stage, and each reduction in a list of one."""
        return [list(run) for _, run in itertools.groupby(self.blocks, type)]

    def body(self, x, route):
        """Return logits: [B, Y], or [S, B, Y] on a fair route."""
        x = route.norm(self.stem_bn, route.conv(self.stem_conv, x))
        for layers in self.repeated_layers():
            x = route.repeat(layers, x)
        x = route.map(ops.relu, route.norm(self.head_bn, x))
        x = route.map(lambda part: ops.mean(part, axis=(1, 2)), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits

    def subnet_params(self, archs):
        """Trainable parameters of ``archs`` [..., D] as deployed, in closed form.

        Returns:
            int64 array [...].
        """
        return nas_bench_201_params(
            archs, image_channels=self._image_shape()[2], **self._sizes()
        )

    def subnet_macs(self, archs):
        """Multiply-accumulates of ``archs`` [..., D] per image, in closed form.

        Returns:
            int64 array [...].
        """
        *image_size, image_channels = self._image_shape()
        return nas_bench_201_macs(
            archs,
            image_channels=image_channels,
            image_size=tuple(image_size),
            **self._sizes(),
        )

    def _sizes(self):
        return {
            "num_classes": self.num_classes,
            "channels": self.channels,
            "num_cells": self.num_cells,
        }

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            **self._sizes(),
            "generator": keras.saving.serialize_keras_object(self.generator),
            "seed": self.seed,
        }
