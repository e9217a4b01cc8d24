"""The contract of operations.

Shapes: ``B`` batch, ``H W`` space, ``C`` channels, ``E`` edges of a cell.
"""

from keras import ops

from keras_khyper.layers.batch_normalization import SubnetBatchNormalization
from keras_khyper.layers.generated_conv import (
    GeneratedConv2D,
    GeneratedDepthwiseConv2D,
)
from keras_khyper.operations.kernel_bank import KernelBank
from keras_khyper.routes.routed_layer import RoutedLayer


class Operation(RoutedLayer):
    """Base of the operations that an edge of a cell can choose.

    A subclass makes its parts in ``__init__`` (`make_conv`, `make_norm`), builds them
    in ``build(input_shape)`` and implements ``call(x, route)``, from [B, H, W, C] to
    the same shape. Convolutions and BatchNorms go through ``route.conv`` and
    ``route.norm``: the route knows whose kernels and statistics to use. A subclass
    can also implement `weighted`, where edges that leave one node can share work.

    `keras_khyper.operations.register` gives a subclass the name by which spaces
    choose it. The constructor of a registered one takes the arguments below and its
    own options by name, and `get_config` returns the options as well.

    Args:
        channels: C, in and out.
        kernel_bank: The `KernelBank` that the operations of all E edges share.
        index: Which of the bank's kernels are this operation's; None if there is
            one kernel for all.
        **kwargs: Passed to `keras.layers.Layer`.

    Attributes:
        is_zero: The operation contributes nothing and is never run.

    Example:
    >>> @kk.operations.register("bn_conv_3x3")
    ... @keras.saving.register_keras_serializable(package="mine")
    ... class BNConv(kk.operations.Operation):
    ...     def __init__(self, *args, **kwargs):
    ...         super().__init__(*args, **kwargs)
    ...         self.bn = self.make_norm("bn")
    ...         self.conv = self.make_conv("conv", kernel_size=3)
    ...     def build(self, input_shape):
    ...         self.bn.build(input_shape)
    ...         self.conv.build(input_shape)
    ...     def call(self, x, route):
    ...         return route.conv(self.conv, route.norm(self.bn, x))
    >>> space = kk.spaces.SearchSpace(3, ("none", "skip_connect", "bn_conv_3x3"))
    """

    is_zero = False

    def __init__(self, channels=None, kernel_bank=None, index=None, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.kernel_bank = kernel_bank
        self.index = index

    def make_conv(self, part, kernel_size, depthwise=False, dilation_rate=1):
        """Return a generated convolution of C channels, in and out.

        Args:
            part: Its name among the operation's parts.
            kernel_size: k, odd.
            depthwise: Whether it is depthwise.
            dilation_rate: Distance of the values that the kernel sees.
        """
        kind = GeneratedDepthwiseConv2D if depthwise else GeneratedConv2D
        return kind(
            self.channels,
            kernel_size,
            self.kernel_bank.layer(part, depthwise),
            dilation_rate=dilation_rate,
            index=self.index,
            name=f"{self.name}_{part}",
        )

    def make_norm(self, part):
        """Return a BatchNorm layer of the name of a part."""
        return SubnetBatchNormalization(name=f"{self.name}_{part}")

    # A method: in a property of that form Keras would look for weights to save.
    def convolutions(self):
        """Return its generated convolutions, those that are attributes of it.

        A route makes the kernels of all edges of a cell together.
        """
        sublayers = self._flatten_layers(include_self=False, recursive=False)
        return [layer for layer in sublayers if isinstance(layer, GeneratedConv2D)]

    def call(self, x, route):
        """Return the operation's output for ``x`` [B, H, W, C]."""
        raise TypeError(
            "An operation must define call(x, route). "
            f"Received: operation={type(self).__name__}"
        )

    @classmethod
    def weighted(cls, operations, node, route, weights):
        """Run this candidate on all edges that leave one node, each weighted.

        Only a `MixtureRoute` calls it.

        Args:
            operations: The operations of the edges, one each.
            node: A `NodeOutput`.
            route: The `MixtureRoute`.
            weights: List of scalar tensors, one per edge.

        Returns:
            List of tensors [B, H, W, C], one per edge, or one tensor that has
            them side by side.
        """
        return [
            ops.cast(weight, node.x.dtype) * operation.call(node.x, route)
            for operation, weight in zip(operations, weights, strict=True)
        ]

    def get_config(self):
        """Return the constructor's arguments."""
        bank = self.kernel_bank
        return {
            **super().get_config(),
            "channels": self.channels,
            "kernel_bank": None if bank is None else bank.get_config(),
            "index": self.index,
        }

    @classmethod
    def from_config(cls, config):
        """Make the operation from `get_config`, with a bank that it does not share."""
        if config["kernel_bank"] is not None:
            bank = KernelBank.from_config(config["kernel_bank"])
            config = {**config, "kernel_bank": bank}
        return cls(**config)
