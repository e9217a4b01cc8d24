"""What is exported, and what is read from the latencies."""

import importlib.util
import json

import keras
import numpy as np
import pytest

from benchmarks import mobile_latency


def known(macs, float32, int8):
    return {"macs": macs, "size_bytes": {"float32": float32, "int8": int8}}


def test_ratios_are_ours_over_theirs_of_medians_over_turns():
    networks = {
        "khyper_s": known(400, 8_000_000, 2_000_000),
        "mobilenet_v3_large": known(200, 16_000_000, 8_000_000),
    }
    turns = {
        ("khyper_s", "float32", 1): [3.0, 6.0, 4.0],
        ("khyper_s", "int8", 2): [1.0, 1.0, 2.0],
        ("mobilenet_v3_large", "float32", 1): [2.0, 2.0, 2.0],
        ("mobilenet_v3_large", "int8", 2): [4.0, 2.0, 1.0],
    }
    summary = mobile_latency.summarize(networks, turns)
    values = {entry["name"]: entry["value"] for entry in summary["ratios"]}
    assert values == {
        "latency, KHyper-S / MobileNetV3-Large, float32, 1 thread": 2.0,
        "latency, KHyper-S / MobileNetV3-Large, int8, 2 threads": 0.5,
        "MACs, KHyper-S / MobileNetV3-Large": 2.0,
        "size, KHyper-S / MobileNetV3-Large, float32": 0.5,
        "size, KHyper-S / MobileNetV3-Large, int8": 0.25,
    }
    spread = summary["ratios"][1]
    assert (spread["min"], spread["max"]) == (0.25, 2.0)
    figures = {entry["name"]: entry for entry in summary["figures"]}
    latency = figures["latency, KHyper-S, float32, 1 thread"]
    assert (latency["value"], latency["min"], latency["max"]) == (4.0, 3.0, 6.0)
    assert figures["size, KHyper-S, int8"]["value"] == 2.0


def test_turns_alternate(monkeypatch):
    import keras_khyper as kk

    order = []

    class Runner:
        def __init__(self, name):
            self.name = name

        def to_input(self, images):
            return images

    def latency_ms(runner, image, num_runs):
        order.append(runner.name)
        return float(len(order))

    monkeypatch.setattr(kk.profiling, "latency_ms", latency_ms)
    settings = mobile_latency.Settings(rounds=3)
    runners = {("a", "float32", 1): Runner("a"), ("b", "float32", 1): Runner("b")}
    turns = mobile_latency.measure_turns(settings, runners, np.zeros((1, 2, 2, 3)))
    assert "".join(order) == "abbaab"
    assert list(turns.values()) == [[1.0, 4.0, 5.0], [2.0, 3.0, 6.0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "params_m", "macs_m", "tolerance"),
    [
        # Howard et al. (2019), Table 3; Tan & Le (2019), Table 2; ours: Table 5's
        # 0.59 G of 272 pixels, and 1.3 M of the classifier.
        ("mobilenet_v3_large", 5.4, 219, 0.03),
        ("efficientnet_b0", 5.3, 390, 0.03),
        ("khyper_s", 3.97 + 1.28, 590 * (224 / 272) ** 2, 0.03),
    ],
)
def test_networks_have_their_published_sizes(network, params_m, macs_m, tolerance):
    import keras_khyper as kk

    model, macs = mobile_latency.build(network, 224)
    assert kk.profiling.trainable_params(model) / 1e6 == pytest.approx(
        params_m, rel=tolerance
    )
    assert macs / 1e6 == pytest.approx(macs_m, rel=tolerance)
    assert model.output_shape == (None, 1000)


def test_batch_norm_fits_the_images_also_inside():
    inner = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.BatchNormalization()]
    )
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, inner(2 * inputs))
    images = np.random.default_rng(0).uniform(0, 9, (50, 4, 4, 3)).astype("float32")
    mobile_latency.calibrate(model, images)
    mean = keras.ops.convert_to_numpy(inner.layers[0].moving_mean)
    np.testing.assert_allclose(mean, 2 * images.mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": ("mobilenet_v3_large",)},
        {"networks": ("khyper_s", "resnet")},
        {"precisions": ("int4",)},
        {"precisions": ()},
        {"threads": (0,)},
        {"threads": ()},
        {"rounds": 0},
    ],
)
def test_settings_that_cannot_be_measured(changes):
    with pytest.raises(ValueError, match="Received: "):
        mobile_latency.main(mobile_latency.Settings(**changes))


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow"
    or importlib.util.find_spec("ai_edge_litert") is None,
    reason="one backend is enough, and LiteRT is needed",
)
def test_from_network_to_file(tmp_path):
    settings = mobile_latency.Settings(
        networks=("khyper_s",),
        precisions=("int8",),
        threads=(1, 2),
        image_size=32,
        representative=4,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("f4")
    known, runners = mobile_latency.export_network(
        settings, "khyper_s", pixels, tmp_path
    )
    assert set(runners) == {("khyper_s", "int8", 1), ("khyper_s", "int8", 2)}
    for runner in runners.values():
        assert runner.input_dtype == np.uint8 and runner.input_quantization == (1.0, 0)
    # A byte for each of 5.2 M weights.
    assert known["size_bytes"]["int8"] == pytest.approx(known["params"], rel=0.1)
    json.dumps(known)
