"""SubnetEvaluator against subnets that are run one by one in NumPy statistics."""

import keras
import numpy as np
import pytest
from encoding_reference import encode_candidates
from keras import ops

from keras_khyper import Supernet, generators
from keras_khyper.cells import SearchableCell
from keras_khyper.evaluation import SubnetEvaluator
from keras_khyper.layers import SubnetBatchNormalization
from keras_khyper.routes import PathRoute
from keras_khyper.spaces import SearchSpace
from keras_khyper.training import Recalibrator

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
SHAPE = (4, 4, 3)


class CellSupernet(Supernet):
    """One searchable cell on the image itself: 729 subnets."""

    def __init__(self, **kwargs):
        super().__init__(
            SearchSpace(len(EDGES), OPERATIONS),
            generators.KShotHypernet(3, 2),
            **kwargs,
        )
        self.cell = SearchableCell(
            OPERATIONS, EDGES, SHAPE[-1], self.generator, name="cell"
        )
        self.bn = SubnetBatchNormalization(name="bn")
        self.classifier = keras.layers.Dense(4, name="classifier")

    def build(self, input_shape):
        super().build(input_shape)
        self.cell.build(input_shape)
        self.bn.build(input_shape)
        self.classifier.build((None, input_shape[-1]))

    def body(self, x, route):
        x = route.norm(self.bn, self.cell(x, route=route))
        x = route.map(lambda part: ops.mean(ops.relu(part), axis=(1, 2)), x)
        logits = route.map(self.classifier, x)
        return ops.stack(logits) if isinstance(logits, list) else logits


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x), "float64")


@pytest.fixture(scope="module")
def supernet():
    supernet = CellSupernet()
    supernet.build((None, *SHAPE))
    rng = np.random.default_rng(0)
    for variable in supernet.trainable_variables:
        if variable.name not in ("gamma", "beta", "bias"):
            variable.assign(rng.normal(0, 0.7, variable.shape).astype("float32"))
    # Each channel stands for a class, the last one for none of them.
    supernet.classifier.kernel.assign(np.eye(3, 4) * 3)
    supernet.classifier.bias.assign([0.0, 0.0, 0.0, 2.0])
    return supernet


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 45)
    images = rng.normal(size=(45, *SHAPE))
    calibration = rng.normal(size=(20, *SHAPE))
    for part, classes in ((images, labels), (calibration, np.arange(20) % 4)):
        part += 2 * np.eye(4)[classes][:, None, None, :3]  # something to recognise
    return calibration.astype("float32"), (images.astype("float32"), labels)


@pytest.fixture(scope="module")
def archs(supernet):
    return supernet.space.sample(100, seed=0)


@pytest.fixture
def make_evaluator(supernet, data):
    def make(calibration_batch_size=None, **kwargs):
        recalibrator = Recalibrator(supernet, data[0], calibration_batch_size)
        options = {"verbose": 0, **kwargs}
        return SubnetEvaluator(supernet, recalibrator, data[1], **options)

    return make


@pytest.fixture(scope="module")
def evaluator(supernet, data):
    """The default one, compiled once."""
    return SubnetEvaluator(
        supernet, Recalibrator(supernet, data[0]), data[1], verbose=0
    )


class NumpyStatistics:
    """Computes statistics in float64 while ``found`` has none, then uses them."""

    def __init__(self, found=None):
        self.given = found
        self.found = {}

    def normalize(self, layer, x, slot=None, mask=None):
        assert slot is None
        x = to_numpy(x)
        pair = x.mean((0, 1, 2)), x.var((0, 1, 2))
        if self.given is not None:
            pair = self.given[layer.name]
        self.found[layer.name] = pair
        scale = to_numpy(layer.gamma) / np.sqrt(pair[1] + 1e-5)
        y = (x - pair[0]) * scale + to_numpy(layer.beta)
        return ops.convert_to_tensor(y.astype("float32"))


def accuracy_by_hand(supernet, arch, data):
    """One subnet alone: statistics of the calibration images, then accuracy."""
    calibration, (images, labels) = data
    features, coefficients = supernet.encode(encode_candidates([arch], len(OPERATIONS)))

    def run(x, statistics):
        route = PathRoute(
            [int(choice) for choice in arch],
            features=features,
            coefficients=coefficients,
            statistics=statistics,
        )
        return to_numpy(supernet.body(ops.convert_to_tensor(x), route))

    recorder = NumpyStatistics()
    run(calibration, recorder)
    logits = run(images, NumpyStatistics(recorder.found))
    return (logits.argmax(axis=1) == labels).mean()


def test_accuracies_equal_those_of_single_subnets(supernet, data, archs, evaluator):
    archs = np.concatenate([archs[:12], archs[:2]])  # with repetitions
    accuracy = evaluator.evaluate(archs)
    expected = [accuracy_by_hand(supernet, arch, data) for arch in archs]
    assert accuracy.dtype == np.float64
    np.testing.assert_allclose(accuracy, expected, atol=1e-9)
    assert len(set(expected)) > 3  # the subnets do differ


@pytest.mark.parametrize(
    "batch_size",
    [
        32,  # 45 = 32 + 13: 19 padded images
        pytest.param(15, marks=pytest.mark.one_backend),
        pytest.param(45, marks=pytest.mark.one_backend),
    ],
)
def test_padding_the_last_batch_changes_nothing(
    archs, evaluator, make_evaluator, batch_size
):
    whole = evaluator.evaluate(archs[:8])  # all in one batch, smaller than 500
    padded = make_evaluator(batch_size=batch_size).evaluate(archs[:8])
    np.testing.assert_array_equal(padded, whole)


def test_recalibration_in_minibatches_gives_the_same(archs, evaluator, make_evaluator):
    whole = evaluator.evaluate(archs[:3])
    layered = make_evaluator(calibration_batch_size=7).evaluate(archs[:3])
    # One image of 45 may stand on the edge of two classes.
    np.testing.assert_allclose(layered, whole, atol=1 / 45)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="eager PyTorch traces nothing"
)
def test_one_hundred_architectures_need_two_traces(archs, make_evaluator):
    evaluator = make_evaluator(batch_size=32)
    evaluator.evaluate(archs[:1])
    first = evaluator.num_traces
    evaluator.evaluate(archs)
    assert evaluator.num_traces == first <= 2


def test_nothing_is_evaluated_twice(archs, evaluator, monkeypatch):
    calls = []
    evaluate_set = evaluator._evaluate_set
    monkeypatch.setattr(
        evaluator,
        "_evaluate_set",
        lambda members: calls.append(1) or evaluate_set(members),
    )
    unknown = archs[-5:]
    first = evaluator.evaluate(unknown)
    done = len(calls)
    np.testing.assert_array_equal(evaluator.evaluate(unknown[::-1]), first[::-1])
    assert done >= 1 and len(calls) == done


def test_a_killed_evaluation_goes_on(archs, make_evaluator, tmp_path):
    path = tmp_path / "results" / "accuracy.jsonl"
    expected = make_evaluator(results_path=path).evaluate(archs[:9])
    complete = path.read_text()
    lines = complete.splitlines(keepends=True)
    assert len(lines) == 1 + 9
    # Killed while the sixth result was being written.
    path.write_text("".join(lines[:6]) + lines[6][: len(lines[6]) // 2])
    evaluator = make_evaluator(results_path=path)
    evaluated = []
    evaluate_set = evaluator._evaluate_set

    def spy(members):
        evaluated.extend(tuple(int(c) for c in member) for member in members)
        return evaluate_set(members)

    evaluator._evaluate_set = spy
    np.testing.assert_array_equal(evaluator.evaluate(archs[:9]), expected)
    assert evaluated  # the lost ones were evaluated again
    assert sorted(path.read_text().splitlines()) == sorted(complete.splitlines())
    again = make_evaluator(results_path=path)
    again._evaluate_set = None  # everything is known now
    np.testing.assert_array_equal(again.evaluate(archs[:9]), expected)


@pytest.mark.parametrize("what", ["weights", "calibration", "images", "labels"])
def test_results_of_other_weights_or_data_are_refused(
    supernet, data, make_evaluator, tmp_path, what
):
    path = tmp_path / "accuracy.jsonl"
    make_evaluator(results_path=path)
    calibration, (images, labels) = data
    variable = supernet.classifier.bias
    old = to_numpy(variable)
    if what == "weights":
        variable.assign((old + 1).astype("float32"))
    elif what == "calibration":
        calibration = calibration + 1
    elif what == "images":
        images = images + 1
    else:
        labels = labels[::-1]
    try:
        with pytest.raises(ValueError, match="other weights or data"):
            SubnetEvaluator(
                supernet,
                Recalibrator(supernet, calibration),
                (images, labels),
                results_path=path,
                verbose=0,
            )
    finally:
        variable.assign(old.astype("float32"))


def test_results_follow_the_weights(supernet, archs, make_evaluator, tmp_path):
    kept = make_evaluator()
    stored = make_evaluator(results_path=tmp_path / "accuracy.jsonl")
    before = kept.evaluate(archs[:5])
    bias = supernet.classifier.bias
    old = to_numpy(bias)
    bias.assign([0.0, 3.0, 0.0, 0.0])
    try:
        after = kept.evaluate(archs[:5])
        np.testing.assert_array_equal(after, make_evaluator().evaluate(archs[:5]))
        with pytest.raises(ValueError, match="another results_path"):
            stored.evaluate(archs[:5])
        bias.assign([np.nan, 0.0, 0.0, 0.0])
        with pytest.raises(ValueError, match="has diverged"):
            kept.evaluate(archs[:1])
    finally:
        bias.assign(old.astype("float32"))
    assert not np.array_equal(before, after)


@pytest.mark.one_backend
def test_labels_count_as_a_column_too(supernet, data, evaluator, archs):
    images, labels = data[1]
    recalibrator = Recalibrator(supernet, data[0])
    column = SubnetEvaluator(supernet, recalibrator, (images, labels[:, None]))
    np.testing.assert_array_equal(
        column.evaluate(archs[:3]), evaluator.evaluate(archs[:3])
    )


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(44, int), ValueError, "as many integer labels"),
        (np.eye(45), ValueError, "as many integer labels"),
        (np.zeros(45), TypeError, "labels.dtype=float64"),
        (np.full(45, np.nan), TypeError, "labels.dtype=float64"),
        (np.full(45, "cat"), TypeError, "labels.dtype=<U3"),
        (np.arange(45) - 1, ValueError, "with label -1"),
    ],
    ids=["fewer", "one-hot", "floats", "nan", "strings", "negative"],
)
def test_labels_that_are_no_classes_are_refused(supernet, data, labels, error, message):
    recalibrator = Recalibrator(supernet, data[0])
    with pytest.raises(error, match=message):
        SubnetEvaluator(supernet, recalibrator, (data[1][0], labels))


@pytest.mark.one_backend
def test_bad_input(supernet, data, make_evaluator):
    calibration, (images, labels) = data
    recalibrator = Recalibrator(supernet, calibration)
    holes = np.where(np.arange(45)[:, None, None, None] == 7, np.inf, images)
    for bad, message in [
        (images[:0], "n > 0"),
        (images[:, :3], "built for"),
        (images[..., :1], "built for"),
        (holes, "48 values that are NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=message):
            SubnetEvaluator(supernet, recalibrator, (bad, labels[: len(bad)]))
    with pytest.raises(ValueError, match="batch_size=0"):
        make_evaluator(batch_size=0)
    with pytest.raises(TypeError, match="of type ndarray"):
        SubnetEvaluator(supernet, calibration, data[1])
    with pytest.raises(ValueError, match="two objects"):
        other = keras.models.clone_model(supernet)
        SubnetEvaluator(other, recalibrator, data[1])
    with pytest.raises(ValueError, match="4 classes. Received: .* label 99"):
        validation = images, np.where(labels == 3, 99, labels)
        evaluator = SubnetEvaluator(supernet, recalibrator, validation, verbose=0)
        evaluator.evaluate([0] * 6)
    for arch in ([[0, 1]], [[0] * 5 + [3]]):
        with pytest.raises(ValueError, match="Received"):
            make_evaluator().evaluate(arch)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="an option of TensorFlow"
)
def test_evaluation_leaves_the_graph_optimizer_as_it_was(archs, make_evaluator):
    import tensorflow as tf

    for value in (True, False):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": value})
        make_evaluator().evaluate(archs[:1])
        options = tf.config.optimizer.get_experimental_options()
        assert options["disable_meta_optimizer"] is value
