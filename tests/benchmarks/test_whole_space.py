"""Estimates of the whole space against numbers worked out by hand."""

import pytest

from benchmarks import whole_space


def test_mean_macs():
    # 6 edges, 5 operations: 6/5 of them are 1x1 and as many 3x3 in the mean;
    # 7,783,040 + 3,932,160 n(1x1) + 35,389,440 n(3x3) is the benchmark's formula.
    expected = 7_783_040 + 1.2 * (3_932_160 + 35_389_440)
    assert whole_space.mean_macs(16, 5, 32) == pytest.approx(expected, rel=1e-12)


def test_estimated_minutes():
    # 15,625 * 2 million * 300 images are 9.375e12; at 1e10 a second 937.5 s.
    minutes = whole_space.estimated_minutes(2e6, 300, 1e10)
    assert minutes == pytest.approx(937.5 / 60)


def test_measured_minutes():
    # 3,125 sets, of which the first takes a minute and the others 1.2 s.
    assert whole_space.measured_minutes(60.0, 1.2) == pytest.approx(63.48)


def test_estimate_at_the_same_size_is_what_was_measured():
    settings = whole_space.Settings(
        other=whole_space.Size(channels=4, num_cells=1, image_size=8, images=756)
    )
    summary = whole_space.summarize(settings, "tensorflow", [0.5, 0.5, 0.5])
    estimate, measured = summary["figures"][-1], summary["ratios"][0]
    assert estimate["value"] == pytest.approx(measured["value"])
    assert measured["value"] == pytest.approx(3125 * 0.5 / 60)
    assert measured["met"] is True


@pytest.mark.parametrize("text, sets", [(None, 0), ("", 0), ("header\n", 0)])
def test_no_known_sets(tmp_path, text, sets):
    path = tmp_path / "results.jsonl"
    if text is not None:
        path.write_text(text)
    assert whole_space.known_sets(path) == sets


@pytest.mark.parametrize("num_lines, sets", [(4, 0), (5, 1), (12, 2)])
def test_a_set_cut_short_does_not_count(tmp_path, num_lines, sets):
    path = tmp_path / "results.jsonl"
    path.write_text("header\n" + "line\n" * num_lines + "half a li")
    assert whole_space.known_sets(path) == sets


def test_refuses_an_estimate_without_a_rate():
    settings = whole_space.Settings(estimate_only=True)
    with pytest.raises(ValueError, match="Received: macs_per_second=None"):
        whole_space.main(settings)
