"""Values beside bars, and ratios of measured subjects, against hand-made numbers."""

import pytest

from benchmarks.harness import measure as harness
from benchmarks.harness import ratios


@pytest.mark.parametrize(
    "bar, value, met",
    [
        ({"at_most": 1.5}, 1.5, True),
        ({"at_most": 1.5}, 1.51, False),
        ({"at_least": 20.0}, 20.0, True),
        ({"at_least": 20.0}, 19.9, False),
        ({}, 3.0, None),
        ({"at_most": 1.5}, None, None),
    ],
)
def test_verdict(bar, value, met):
    assert ratios.rated("name", value, **bar)["met"] is met


@pytest.mark.parametrize(
    "entry, words",
    [
        (
            ratios.rated("r", 1.234, at_most=1.6, aim=1.3, spread=(1.1, 1.5)),
            ("1.234", "1.100-1.500", "at most 1.6, aim 1.3: met"),
        ),
        (
            ratios.rated("r", 12345.6, at_least=2e4, unit="s"),
            ("12,346 s", "", "at least 20000: [red]missed[/red]"),
        ),
        (ratios.rated("r", 0.0123), ("0.0123", "", "")),
        (ratios.rated("r", 15625), ("15,625", "", "")),
        (ratios.rated("r", None, at_most=1.0), ("not measured", "", "at most 1")),
    ],
)
def test_words(entry, words):
    assert ratios.cells(entry) == words


def result(label, seconds, peak=None, error=None):
    subject = harness.Subject(label, "supernet", {"batch": 8})
    memory = {} if peak is None else {"peak_bytes": peak}
    return harness.Result(subject, seconds, memory=memory, error=error)


RESULTS = [
    result("slow", [4.0, 8.0, 6.0], peak=300),
    result("fast", [2.0, 3.0, 2.0], peak=600),
    result("broken", [1.0], error="no memory"),
    result("other", [5.0, 4.0, 10.0], peak=400),
]


def test_ratio_takes_the_best_of_each_side():
    ratio = ratios.Ratio(
        "r", ("other",), ("slow", "fast", "broken"), at_least=2.0, aim=3.0
    )
    entry = ratio.evaluate(RESULTS)
    # Medians 5 and 2; turn by turn 5/2, 4/3 and 10/2.
    assert entry["value"] == 2.5
    assert (entry["min"], entry["max"]) == (4 / 3, 5.0)
    assert entry["best"] == ["other", "fast"]
    assert entry["met"] is True


def test_ratio_of_memory():
    ratio = ratios.Ratio(
        "r", ("slow", "fast", "broken"), ("other",), "peak_bytes", at_most=0.5
    )
    entry = ratio.evaluate(RESULTS)
    assert (entry["value"], entry["best"][0]) == (0.75, "slow")
    assert entry["met"] is False
    assert "min" not in entry


def test_ratio_of_a_failed_subject_has_no_value():
    entry = ratios.Ratio("r", ("broken",), ("other",), at_most=1.0).evaluate(RESULTS)
    assert entry["value"] is None
    assert entry["met"] is None
