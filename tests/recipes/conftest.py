"""What the tests of recipes share."""

import keras
import pytest


@pytest.fixture(scope="module")
def eagerly():
    """Without tracing under TensorFlow: a few steps of a tiny network do not repay it.

    The recipe as a process of its own, in graphs, is tests/integration/test_resume.py.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(before)
