"""Objects of the library made from flat settings, which fit command lines."""

import dataclasses
from typing import Any


def make_generator(name: str, **numbers: Any) -> Any:
    """Return the generator of a name with those numbers that it takes.

    Args:
        name: As of `keras_khyper.generators.get`.
        **numbers: ``rank``, ``num_shots``, ``scaling``. The settings have them
            whatever the generator is; plain weight sharing takes none.
    """
    import keras_khyper as kk

    generator: Any = kk.generators.get(name)
    taken = {field.name for field in dataclasses.fields(generator)}
    return dataclasses.replace(
        generator, **{key: numbers[key] for key in taken & numbers.keys()}
    )
