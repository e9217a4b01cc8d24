"""The supernet of the ImageNet space.

Shapes: ``B`` batch, ``H W`` space, ``S`` subnets, ``D`` decisions, ``Y`` classes.
"""

import keras
from keras import ops

from keras_khyper.cells import SearchableBottleneck
from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.bias import Bias
from keras_khyper.layers.generated_conv import GeneratedConv2D
from keras_khyper.profiling.uib import uib_macs, uib_params
from keras_khyper.spaces import UIBSpace
from keras_khyper.training.supernet import Supernet


@keras.saving.register_keras_serializable(package="keras_khyper")
class UIBSupernet(Supernet):
    """All networks of a `UIBSpace` in one (paper §4.2, appendix A.1 and A.3).

    3x3 convolution, BatchNorm, ReLU, the blocks, MobileNetV3's head. Each block has
    four structures, ExtraDW, IB, ConvNext and FFN, with kernel layers and
    BatchNorm of their own. All but the classifier is generated.

    The teacher is the network of the largest size, whose blocks mix their structures
    by softmax(beta), beta [blocks, 4] (Eq. 5). A subnet takes one structure per block,
    the first channels of each layer, the centre of depthwise kernels and the first
    blocks of each stage. All run at the largest shapes, with masks, so that one
    traced graph serves every architecture; the masked channels are zero, and the
    logits those of the small network that `materialize` returns.

    The sampler of its `Algorithm1` is a `Sandwich`, or one of structures, of which
    `compile` makes a `Sandwich`: by default four subnets per step, the smallest size,
    the largest and two random ones, their structures drawn Focus-Fair.

    The encoder reads topology and size, see `UIBArchitectures.encode`; the teacher's
    encoding is the mean over its structures.

    Args:
        num_classes: Y.
        space: A `UIBSpace`; the paper's by default.
        dropout_rate: Share of the head's features dropped while the teacher trains.
        share_kernels: Whether the structures of a block share the layers that make
            their expansion, projection and depthwise kernels.
        generator: What makes encoder and kernels, see `Supernet`.
        seed: Seed of the samplers' and dropout's random states.
        **kwargs: Passed to `keras.Model`.

    Input shape: [B, H, W, image channels]. Output shape: logits [B, Y].

    Raises:
        TypeError: ``space`` is no `UIBSpace`.

    Example:
    >>> space = kk.spaces.UIBSpace(
    ...     [kk.spaces.UIBStage([16, 24], [1, 2]),
    ...      kk.spaces.UIBStage([32, 40], [2, 3], strides=2)],
    ...     stem_channels=16, head_channels=(96, 128), stem_strides=1,
    ... )
    >>> generator = kk.generators.KShotHypernet(rank=16, num_shots=16)
    >>> supernet = kk.models.UIBSupernet(10, space, generator=generator)
    >>> logits = supernet(images)                                # teacher
    >>> logits = supernet(images, arch=space.smallest())         # a subnet
    >>> tuple(logits.shape)
    (32, 10)
    """

    def __init__(
        self,
        num_classes=1000,
        space=None,
        dropout_rate=0.2,
        share_kernels=False,
        generator="kshot_hypernet",
        seed=None,
        **kwargs,
    ):
        space = UIBSpace() if space is None else space
        if not isinstance(space, UIBSpace):
            raise TypeError(f"space must be a UIBSpace. Received: space={space!r}")
        super().__init__(space, generator, seed, **kwargs)
        self.num_classes = num_classes
        self.dropout_rate = dropout_rate
        self.share_kernels = share_kernels
        self.stem_conv = self._conv(space.stem(), "stem_conv")
        self.stem_bn = SubnetBatchNormalization(name="stem_bn")
        self.blocks = self._make_blocks()
        conv, features = space.head(space.stages[-1].channels[-1])
        self.head_conv = self._conv(conv, "head_conv")
        self.head_bn = SubnetBatchNormalization(name="head_bn")
        self.head_features = self._conv(features, "head_features")
        self.head_bias = Bias(name="head_bias")
        self.dropout = keras.layers.Dropout(dropout_rate, seed=seed, name="dropout")
        self.classifier = keras.layers.Dense(num_classes, name="head_classifier")

    def _conv(self, conv, name):
        kernel_layer = self.generator.make_kernel_layer()
        return GeneratedConv2D(
            conv.filters, conv.kernel_size, kernel_layer, conv.strides, name=name
        )

    def _make_blocks(self):
        space, blocks, in_channels = self.space, [], (self.space.stem_channels,)
        for decision, block in enumerate(space.blocks(space.largest())):
            index = space.block_stages[decision]
            stage = space.stages[index]
            # Within a stage the input has the channels of the output.
            is_first = not decision or index > space.block_stages[decision - 1]
            layer = SearchableBottleneck(
                decision,
                stage.channels,
                in_channels if is_first else None,
                max(space.kernel_sizes),
                block.expansion_ratio,
                block.strides,
                self.generator,
                self.share_kernels,
                name=block.name,
            )
            blocks.append(layer)
            in_channels = stage.channels
        return blocks

    def build(self, input_shape):
        """Build every layer for images [B, H, W, image channels]."""
        super().build(input_shape)
        self.stem_conv.build(input_shape)
        shape = self.stem_conv.compute_output_shape(input_shape)
        self.stem_bn.build(shape)
        for block in self.blocks:
            block.build(shape)
            shape = (*shape[:-1], block.channels)
        self.head_conv.build(shape)
        shape = (*shape[:-1], self.head_conv.filters)
        self.head_bn.build(shape)
        self.head_features.build(shape)
        features = self.head_features.filters
        self.head_bias.build((None, 1, 1, features))
        self.classifier.build((None, features))

    def body(self, x, route):
        """Return logits: [B, Y], or [S, B, Y] on a fair route."""
        x = route.norm(self.stem_bn, route.conv(self.stem_conv, x))
        x = route.map(ops.relu, x)
        for block in self.blocks:
            x = block(x, route=route)
        x = route.norm(self.head_bn, route.conv(self.head_conv, x))
        x = route.map(_pool, route.map(ops.hard_swish, x))  # [B, 1, 1, filters]
        x = route.map(self.head_bias, route.conv(self.head_features, x))
        x = route.map(lambda part: _flatten(ops.hard_swish(part)), x)
        # In the teacher's training alone, as weight decay: the paper does not say.
        dropout = route.statistics.regularizes
        x = route.map(lambda part: self.dropout(part, training=dropout), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits

    def subnet_params(self, archs):
        """Trainable parameters of ``archs`` [..., D] as deployed, in closed form.

        Returns:
            int64 array [...].
        """
        return uib_params(self.space, archs, self.num_classes, self._image_shape()[2])

    def subnet_macs(self, archs):
        """Multiply-accumulates of ``archs`` [..., D] per image, in closed form.

        Returns:
            int64 array [...].
        """
        height, width, image_channels = self._image_shape()
        return uib_macs(
            self.space, archs, self.num_classes, image_channels, (height, width)
        )

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "space": self.space.get_config(),
            "dropout_rate": self.dropout_rate,
            "share_kernels": self.share_kernels,
            "generator": keras.saving.serialize_keras_object(self.generator),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the supernet from `get_config`."""
        del custom_objects
        return cls(**{**config, "space": UIBSpace.from_config(config["space"])})


def _pool(x):
    return ops.mean(x, axis=(1, 2), keepdims=True)


def _flatten(x):
    return ops.reshape(x, (-1, x.shape[-1]))
