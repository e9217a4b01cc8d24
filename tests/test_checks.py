"""The checks of arguments: what is a wrong kind, what a wrong value."""

import numpy as np
import pytest

from keras_khyper.checks import (
    check_choice,
    check_integer,
    check_number,
    check_positive,
    check_probability,
)

NAN, INF = float("nan"), float("inf")
CHECKS = {
    "integer": lambda value: check_integer("x", value, 1, 5),
    "number": lambda value: check_number("x", value, 1, 5),
    "positive": lambda value: check_positive("x", value),
    "probability": lambda value: check_probability("x", value),
    "open": lambda value: check_probability("x", value, open_interval=True),
    "choice": lambda value: check_choice("x", value, ("a", 1, None)),
}
# What each takes, refuses as a value and refuses as a kind.
ROWS = {
    "integer": ([1, 5, np.int64(3), np.uint8(2)], [0, 6, -1], [1.0, 1.5, NAN, True]),
    "number": ([1, 5.0, np.float32(2), np.int8(3)], [0.9, 6, NAN, INF], [True, "1"]),
    "positive": ([1, 1e-9, np.float64(2)], [0, -1.0, NAN, INF, -INF], [True, None]),
    "probability": ([0, 1, 0.5], [-1e-9, 1.1, NAN, INF], [True, False, "0.5"]),
    "open": ([0.5, np.float32(0.25)], [0, 1, 1.0, NAN], [True, [0.5]]),
    "choice": (["a", 1, None, np.int64(1)], ["b", 2, 0], [1.0, True, ["a"], b"a"]),
}
SHARED_WRONG_KINDS = {
    "integer": ["1", None, [1], 1j, np.bool_(True), np.zeros(1, int)],
    "number": [None, [1], 1j, np.bool_(True), np.ones(2)],
}


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_taken_and_what_is_refused(kind):
    good, wrong_values, wrong_kinds = ROWS[kind]
    for value in good:
        result = CHECKS[kind](value)
        assert result == value
        assert type(result) in (int, float, str, type(None))
    for values, error in (
        (wrong_values, ValueError),
        (wrong_kinds + SHARED_WRONG_KINDS.get(kind, []), TypeError),
    ):
        for value in values:
            with pytest.raises(error) as caught:
                CHECKS[kind](value)
            assert str(caught.value).startswith("x must be ")
            assert str(caught.value).endswith(f" Received: x={value!r}")
