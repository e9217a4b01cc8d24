"""Which subnets are exported, and what is read from their latencies."""

import numpy as np
import pytest

from benchmarks import latency


def test_subnets_are_spread_over_macs():
    macs = np.array([30, 0, 100, 10, 20])
    archs = np.arange(5)[:, None]
    # Targets 0, 50 and 100; 30 is next to 50.
    chosen = latency.spread_archs(archs, macs, 3)
    assert chosen[:, 0].tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "values, pearson, kendall",
    [
        ([2.0, 4.0, 6.0, 8.0], 1.0, 1.0),
        ([8.0, 6.0, 4.0, 2.0], -1.0, -1.0),
        # One of six pairs the other way round; covariance 4 of 5.
        ([1.0, 3.0, 2.0, 4.0], 0.8, 2 / 3),
    ],
)
def test_correlations(values, pearson, kendall):
    found = latency.correlations([1, 2, 3, 4], values)
    assert found["pearson"] == pytest.approx(pearson)
    assert found["kendall"] == pytest.approx(kendall)


def test_two_subnets_have_no_correlation():
    assert latency.correlations([1, 2], [3.0, 4.0]) == {
        "pearson": None,
        "kendall": None,
    }


def test_ratios_are_medians_over_subnets_of_medians_over_turns():
    def subnet(macs, keras, float32, int8):
        turns = {"keras": keras, "float32": float32, "int8": int8}
        return {"macs": macs, "latency_ms": turns}

    subnets = [
        subnet(1, [6.0, 9.0, 8.0], [2.0, 2.0, 5.0], [1.0, 1.0, 1.0]),  # 4, 2
        subnet(2, [9.0, 9.0, 9.0], [3.0, 3.0, 3.0], [1.0, 2.0, 3.0]),  # 3, 1.5
        subnet(3, [20.0], [4.0], [1.0]),  # 5, 4
    ]
    ratios = {e["name"].split(",")[1]: e for e in latency.summarize(subnets)["ratios"]}
    assert ratios[" keras / float32"]["value"] == 4.0
    assert ratios[" float32 / int8"]["value"] == 2.0
    assert ratios[" float32 / int8"]["max"] == 4.0
