"""Checks of arguments: one rule for the whole library.

A value of the wrong kind is a `TypeError`, a value of the right kind that is out of
range a `ValueError`. Each message states the rule and ends `Received: name=value`.

- An integer is a Python or NumPy integer. `True`, `1.0` and `1.5` are not integers.
- A number is a real Python or NumPy number. `True` and `"1"` are not numbers; `nan`
  and `inf` are numbers out of every range.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=object)


def check_integer(
    name: str, value: Any, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Return `value` as an int.

    Args:
        name: Name of the argument, for the message.
        value: The argument.
        minimum: Smallest value allowed; None for no limit.
        maximum: Largest value allowed; None for no limit.

    Raises:
        TypeError: If `value` is not an integer. A bool is not an integer.
        ValueError: If `value` is out of range.

    Example:
        >>> kk.checks.check_integer("batch_size", 32, minimum=1)
        32
    """
    rule = f"{name} must be an integer{_range(minimum, maximum)}."
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{rule} Received: {name}={value!r}")
    _check_range(rule, name, value, minimum, maximum)
    return int(value)


def check_number(
    name: str, value: Any, minimum: float | None = None, maximum: float | None = None
) -> float:
    """Return `value` as a finite float.

    Args:
        name: Name of the argument, for the message.
        value: The argument.
        minimum: Smallest value allowed; None for no limit.
        maximum: Largest value allowed; None for no limit.

    Raises:
        TypeError: If `value` is not a real number. A bool is not a number.
        ValueError: If `value` is not finite or out of range.

    Example:
        >>> kk.checks.check_number("weight_decay", 0.0005, minimum=0)
        0.0005
    """
    rule = f"{name} must be a finite number{_range(minimum, maximum)}."
    number = _real(rule, name, value)
    _check_range(rule, name, value, minimum, maximum)
    return number


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a finite float above 0.

    Args:
        name: Name of the argument, for the message.
        value: The argument.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If `value` is not finite or not above 0.

    Example:
        >>> kk.checks.check_positive("sampling_temperature", 1.5)
        1.5
    """
    rule = f"{name} must be a finite number above 0."
    number = _real(rule, name, value)
    if not number > 0:
        raise ValueError(f"{rule} Received: {name}={value!r}")
    return number


def check_probability(name: str, value: Any, open_interval: bool = False) -> float:
    """Return `value` as a float from 0 to 1.

    Args:
        name: Name of the argument, for the message.
        value: The argument.
        open_interval: Whether 0 and 1 themselves are refused.

    Raises:
        TypeError: If `value` is not a real number.
        ValueError: If `value` is out of range.

    Example:
        >>> kk.checks.check_probability("dropout", 0.2)
        0.2
    """
    rule = f"{name} must be a number from 0 to 1."
    if open_interval:
        rule = f"{name} must be a number between 0 and 1, neither of them."
    number = _real(rule, name, value)
    if open_interval and number in (0.0, 1.0):
        raise ValueError(f"{rule} Received: {name}={value!r}")
    _check_range(rule, name, value, 0, 1)
    return number


def check_choice(name: str, value: Any, choices: Sequence[Choice]) -> Choice:
    """Return `value` if it is one of `choices`.

    Args:
        name: Name of the argument, for the message.
        value: The argument.
        choices: The values allowed, strings, integers or None.

    Raises:
        TypeError: If `value` has the type of none of them. A bool is not an integer.
        ValueError: If `value` is not among them.

    Example:
        >>> kk.checks.check_choice("split", "test", ("train", "validation", "test"))
        'test'
    """
    rule = f"{name} must be one of {', '.join(map(repr, choices))}."
    if not any(_same_type(value, choice) for choice in choices):
        raise TypeError(f"{rule} Received: {name}={value!r}")
    for choice in choices:
        if value == choice:
            return choice
    raise ValueError(f"{rule} Received: {name}={value!r}")


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is None and maximum is None:
        return ""
    if maximum is None:
        return f" of at least {minimum}"
    if minimum is None:
        return f" of at most {maximum}"
    return f" from {minimum} to {maximum}"


def _real(rule: str, name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{rule} Received: {name}={value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{rule} Received: {name}={value!r}")
    return float(value)


def _check_range(
    rule: str, name: str, value: Any, minimum: float | None, maximum: float | None
) -> None:
    too_small = minimum is not None and value < minimum
    if too_small or (maximum is not None and value > maximum):
        raise ValueError(f"{rule} Received: {name}={value!r}")


def _same_type(value: Any, choice: Any) -> bool:
    if isinstance(choice, numbers.Integral):
        is_integer = isinstance(value, numbers.Integral)
        return is_integer and isinstance(value, bool) == isinstance(choice, bool)
    return isinstance(value, type(choice))
