"""Which `Architectures` belong to a space."""

import functools

from keras_khyper.architectures.base import Architectures


@functools.singledispatch
def _make(space):
    return Architectures(space)


def get(space):
    """Return what a space's architectures mean to a supernet.

    Args:
        space: An instance of a class that was registered with `register`, or of a
            subclass of one; else `Architectures` are made, one candidate per decision.

    Example:
    >>> architectures = kk.architectures.get(kk.spaces.NASBench201())
    >>> architectures.arch_logits_shape
    (6, 5)
    """
    return _make(space)


def register(space_class):
    """Return a class decorator: supernets of ``space_class`` use that class.

    Args:
        space_class: The class of the spaces.

    Example:
    >>> class Chain(kk.spaces.SearchSpace):
    ...     "Decisions on a line."
    >>> @kk.architectures.register(Chain)
    ... class ChainArchitectures(kk.architectures.Architectures):
    ...     "What a chain means to a supernet."
    >>> type(kk.architectures.get(Chain(3, ["skip", "conv"]))).__name__
    'ChainArchitectures'
    """

    def decorate(architectures_class):
        _make.register(space_class, architectures_class)
        return architectures_class

    return decorate
