"""Names of operations."""

from collections.abc import Callable
from typing import Any, TypeVar

from keras_khyper.operations.operation import Operation

_Kind = TypeVar("_Kind", bound=type[Operation])
_REGISTRY: dict[str, tuple[type[Operation], dict[str, Any]]] = {}


def register(name: str, **options: Any) -> Callable[[_Kind], _Kind]:
    """Return a decorator that gives a class a name by which spaces choose it.

    One class can have several names, each with other options. A process that loads a
    supernet must have registered the names of its space, so import the module first.

    Args:
        name: Of the operation in a space.
        **options: Arguments of the class, beside those of `Operation`.

    Raises:
        TypeError: What is decorated is not a subclass of `Operation`.
        ValueError: The name stands for another class or other options.

    Example:
    >>> register = kk.operations.register("sep_conv_7x7", kernel_size=7)
    >>> separable = register(kk.operations.ReLUSeparableConvBN)
    >>> "sep_conv_7x7" in kk.operations.names()
    True
    """

    def add(kind: _Kind) -> _Kind:
        if not (isinstance(kind, type) and issubclass(kind, Operation)):
            raise TypeError(
                f"What is registered must be a subclass of Operation. Received: {kind=}"
            )
        known, known_options = _REGISTRY.get(name, (kind, options))
        # A module that is imported again makes its classes again.
        if known.__qualname__ != kind.__qualname__ or known_options != options:
            raise ValueError(
                "An operation's name must stand for one class with one set of options; "
                f"it is that of {known.__name__} with {known_options}. Received: "
                f"{name=}, {kind=}, {options=}"
            )
        _REGISTRY[name] = kind, options
        return kind

    return add


def names() -> tuple[str, ...]:
    """Return the names of all registered operations."""
    return tuple(_REGISTRY)


def make(operation: str, *args: Any, **kwargs: Any) -> Operation:
    """Return a new operation of a registered name.

    Args:
        operation: The name.
        *args: Of `Operation`: channels, kernel bank and index.
        **kwargs: Of `keras.layers.Layer`, such as the layer's ``name``.

    Raises:
        ValueError: The name is not registered.

    Example:
    >>> bank = kk.operations.KernelBank("shared")
    >>> operation = kk.operations.make("nor_conv_3x3", 16, bank, name="conv")
    """
    if operation not in _REGISTRY:
        raise ValueError(
            f"operation must be one of {sorted(_REGISTRY)}; `register` adds others. "
            f"Received: {operation=}"
        )
    kind, options = _REGISTRY[operation]
    return kind(*args, **options, **kwargs)
