"""Curves, exponents and ratios of the scaling, against hand-made numbers."""

import pytest

from benchmarks import scaling


def point(series, value, seconds=None):
    median = {} if seconds is None else {"median_seconds": seconds}
    return {"series": series, "value": value, **median}


POINTS = [
    point("ours", 16, 2.0),
    point("PyTorch peer", 16, 2.5),
    point("PyTorch peer", 16, 3.0),
    point("ours", 64, 8.0),
    point("PyTorch peer", 64),  # failed
    point("weight sharing", None, 1.6),
]


def test_curve_takes_the_best_that_did_not_fail():
    assert scaling.curve(POINTS, "ours") == ([16, 64], [2.0, 8.0])
    assert scaling.curve(POINTS, "PyTorch peer") == ([16], [2.5])
    assert scaling.curve(POINTS, "weight sharing") == ([None], [1.6])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_of_a_power_law(power):
    values = [1, 4, 16, 64]
    seconds = [0.3 * value**power for value in values]
    assert scaling.exponent(values, seconds) == pytest.approx(power, abs=1e-12)


def test_one_value_has_no_exponent():
    assert scaling.exponent([16], [2.0]) is None


def test_ratios():
    values = {entry["name"]: entry["value"] for entry in scaling.ratios("rank", POINTS)}
    assert values == {
        "step time, rank h 64 / 16": 4.0,
        "step time, rank h 64 / weight sharing": 5.0,
    }
    (missing,) = scaling.ratios("batch", [point("ours", 16)])
    assert missing["value"] is None


def test_images_per_second_beside_the_peer():
    entries = scaling.figures("batch", POINTS)
    beside = {e["name"]: e["value"] for e in entries if "ours / peer" in e["name"]}
    assert beside == {"images/s of ours / peer, images per step 16": 1.25}


@pytest.mark.parametrize("factor", list(scaling.NAMES))
def test_one_factor_varies_at_a_time(factor):
    settings = scaling.Settings()
    groups = list(scaling.comparisons(settings, factor))
    values = getattr(settings, f"{factor}_values")
    ours = [
        (value, subject.options)
        for group in groups
        for series, value, subject in group
        if series == "ours"
    ]
    assert [value for value, _ in ours] == list(values)
    assert all(options[factor] == value for value, options in ours)
    others = [{k: v for k, v in o.items() if k != factor} for _, o in ours]
    assert all(other == others[0] for other in others)
    with_peer = factor in ("batch", "channels", "num_cells")
    assert len(groups) == (len(values) if with_peer else 1)
    assert all(len(group) == 3 for group in groups) == with_peer


def test_draws_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    sections = {
        "batch": {"points": POINTS, "exponent": 1.0},
        "rank": {"points": POINTS[:1], "exponent": None},
    }
    scaling.draw(sections, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
