"""Generators by name, configuration, class or instance."""

from typing import Any

import keras

from keras_khyper.generators.centered import CenteredKShotHypernet
from keras_khyper.generators.generator import Generator
from keras_khyper.generators.hypernets import (
    Hypernet,
    KShotHypernet,
    ResidualKShotHypernet,
)
from keras_khyper.generators.whole_kernels import KShot, Shared

_NAMES = {
    "shared": Shared,
    "kshot": KShot,
    "hypernet": Hypernet,
    "kshot_hypernet": KShotHypernet,
    "residual_kshot_hypernet": ResidualKShotHypernet,
    "centered_kshot_hypernet": CenteredKShotHypernet,
}


def get(identifier: "str | dict[str, Any] | type[Generator] | Generator") -> Generator:
    """Return a generator, as `keras.optimizers.get` returns an optimizer.

    Args:
        identifier: One of

            - a name: ``"shared"``, ``"kshot"``, ``"hypernet"``,
              ``"kshot_hypernet"``, ``"residual_kshot_hypernet"`` or
              ``"centered_kshot_hypernet"``, or that of a registered class,
              ``"package>Class"``; with the default arguments;
            - what `keras.saving.serialize_keras_object` made of a generator;
            - a subclass of `Generator`, with its default arguments;
            - a `Generator`, returned unchanged.

    Raises:
        ValueError: It is none of these.

    Example:
    >>> kk.generators.get("kshot")
    KShot(num_shots=12, scaling='orthogonal')
    """
    found: Any = identifier
    if isinstance(identifier, str):
        found = _NAMES.get(identifier)
        found = found or keras.saving.get_registered_object(identifier)
    elif isinstance(identifier, dict):
        found = keras.saving.deserialize_keras_object(identifier)
    if isinstance(found, type) and issubclass(found, Generator):
        found = found()
    if not isinstance(found, Generator):
        raise ValueError(
            f"generator must be one of {sorted(_NAMES)}, a configuration of a "
            f"Generator, a subclass or an instance. Received: generator={identifier!r}"
        )
    return found
