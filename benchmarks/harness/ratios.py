"""Measured values beside their bars."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.measure import Result


def rated(
    name: str,
    value: float | None,
    at_most: float | None = None,
    at_least: float | None = None,
    aim: float | None = None,
    unit: str = "",
    spread: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return an entry of a section's ``ratios``: a value, its bar, the verdict.

    Args:
        name: What it says.
        value: What was measured; None where it could not be.
        at_most: The bar, where the value should be small.
        at_least: The bar, where it should be large.
        aim: What lies behind the bar.
        unit: Of the value; empty for a ratio.
        spread: Smallest and largest value over the turns.
    """
    met = None
    if value is not None and at_most is not None:
        met = value <= at_most
    elif value is not None and at_least is not None:
        met = value >= at_least
    entry: dict[str, Any] = {
        "name": name,
        "value": value,
        "unit": unit,
        "at_most": at_most,
        "at_least": at_least,
        "aim": aim,
        "met": met,
    }
    if spread is not None:
        entry |= {"min": spread[0], "max": spread[1]}
    return entry


def cells(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Return value, range, and bar with verdict of an entry as words."""
    value = "not measured"
    if entry["value"] is not None:
        value = f"{_number(entry['value'])} {entry['unit']}".rstrip()
    spread = ""
    if "min" in entry:
        spread = f"{_number(entry['min'])}-{_number(entry['max'])}"
    verdict = {True: "met", False: "[red]missed[/red]", None: ""}[entry["met"]]
    return value, spread, ": ".join(part for part in (_bar(entry), verdict) if part)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    # Three digits behind the point say enough of a ratio near one.
    if 0.1 <= abs(value) < 100:
        return f"{value:.3f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _bar(entry: dict[str, Any]) -> str:
    words = {"at_most": "at most", "at_least": "at least", "aim": "aim"}
    parts = [
        f"{word} {entry[key]:g}"
        for key, word in words.items()
        if entry[key] is not None
    ]
    return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The best of some subjects over the best of others.

    Attributes:
        name: What it says.
        of: Labels of the numerator's subjects.
        to: Labels of the denominator's subjects.
        quantity: ``"seconds"`` per step, or a key of ``Result.memory``.
        at_most: The bar, where the ratio should be small.
        at_least: The bar, where it should be large.
        aim: What lies behind the bar.
    """

    name: str
    of: tuple[str, ...]
    to: tuple[str, ...]
    quantity: str = "seconds"
    at_most: float | None = None
    at_least: float | None = None
    aim: float | None = None

    def evaluate(self, results: Sequence[Result]) -> dict[str, Any]:
        """Return the ratio of medians beside its bar, as `rated`.

        Also ``of``, ``to``, ``quantity`` and which subjects were ``best``. Its
        value is None where every subject of one side failed.
        """
        numerator, denominator = best = [
            self._best(results, labels) for labels in (self.of, self.to)
        ]
        value, spread = None, None
        if numerator is not None and denominator is not None:
            value = self._amount(numerator) / self._amount(denominator)
            if self.quantity == "seconds":
                pairs = zip(numerator.seconds, denominator.seconds, strict=True)
                rounds = [a / b for a, b in pairs]
                spread = min(rounds), max(rounds)
        return {
            **rated(
                self.name,
                value,
                self.at_most,
                self.at_least,
                self.aim,
                spread=spread,
            ),
            "of": self.of,
            "to": self.to,
            "quantity": self.quantity,
            "best": [result.subject.label if result else None for result in best],
        }

    def _best(self, results: Sequence[Result], labels: Sequence[str]) -> Result | None:
        able = [
            result
            for result in results
            if result.subject.label in labels and math.isfinite(self._amount(result))
        ]
        return min(able, key=self._amount, default=None)

    def _amount(self, result: Result) -> float:
        if self.quantity == "seconds" or result.error:
            return result.median
        return result.memory.get(self.quantity, float("nan"))
