"""Comparison of loss curves: by hand, and its errors."""

import pytest

from recipes import loss_curves  # noqa: E402


def runs(**late):
    """Two seeds of each variant: two early blocks, then two of the given losses."""
    return {
        name: {
            seed: {"loss": [9.0, 9.0, a, b], "subnet_loss": [9.0, 9.0, a + 1, b + 1]}
            for seed, (a, b) in enumerate(pairs)
        }
        for name, pairs in late.items()
    }


def test_differences_are_paired_by_seed_and_leave_out_the_first_half():
    found = loss_curves.differences(
        runs(float32=[(2.0, 1.0), (2.2, 1.6)], bfloat16=[(2.1, 1.1), (2.2, 1.6)])
    )
    assert found["loss"]["float32"] == {
        "loss": pytest.approx(1.7),
        "difference": 0.0,
        "between_seeds": pytest.approx(0.4),
    }
    assert found["loss"]["bfloat16"]["difference"] == pytest.approx(0.05)
    assert found["subnet_loss"]["bfloat16"]["loss"] == pytest.approx(2.75)
    assert "bfloat16" in loss_curves.describe(found)


def test_unknown_variant():
    with pytest.raises(ValueError, match=r"Received: variants=\['float8'\]"):
        loss_curves.main(loss_curves.Settings(variants=("float32", "float8")))


def test_the_picture_is_written(tmp_path):
    settings = loss_curves.Settings(blocks=4)
    path = tmp_path / "curves.png"
    loss_curves.draw(runs(float32=[(2.0, 1.0), (2.2, 1.6)]), settings, path)
    assert path.stat().st_size > 1000
