"""How programs are compiled for a GPU, checked without one."""

import keras
import pytest

import keras_khyper as kk

if keras.backend.backend() != "jax":
    pytest.skip("of the JAX backend", allow_module_level=True)

import os

import jax

from keras_khyper.backend.jax_compilation import CompiledTrainer, compiler_options

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
TRITON = "xla_gpu_enable_triton_gemm"


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    for name in (PREALLOCATE, "XLA_FLAGS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    cache_dir = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", cache_dir)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def test_without_a_gpu_nothing_is_set(tmp_path):
    assert kk.configure_gpu(tmp_path / "xla") == {}
    assert PREALLOCATE not in os.environ and not (tmp_path / "xla").exists()
    assert compiler_options() is None


@pytest.mark.usefixtures("gpu")
def test_it_sets_what_is_not_set_and_says_so(tmp_path):
    made = kk.configure_gpu(tmp_path / "xla")
    assert made == {
        PREALLOCATE: "false",
        "jax_compilation_cache_dir": str(tmp_path / "xla"),
        "compiler_options": compiler_options(),
    }
    assert os.environ[PREALLOCATE] == "false"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")
    assert compiler_options()[TRITON] is False


@pytest.mark.usefixtures("gpu")
def test_it_leaves_what_the_user_set(tmp_path, monkeypatch):
    monkeypatch.setenv(PREALLOCATE, "true")
    monkeypatch.setenv("XLA_FLAGS", f"--{TRITON}=true")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    made = kk.configure_gpu(tmp_path / "xla")
    assert list(made) == ["compiler_options"]
    assert TRITON not in made["compiler_options"]
    assert os.environ[PREALLOCATE] == "true"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")


@pytest.mark.usefixtures("gpu")
def test_options_that_this_jaxlib_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setitem(
        compiler_options.__globals__["_GPU_OPTIONS"], "xla_gpu_unheard_of", True
    )
    assert "xla_gpu_unheard_of" not in compiler_options()
    assert TRITON in compiler_options()


@pytest.mark.usefixtures("gpu")
def test_the_training_step_is_compiled_with_them(monkeypatch):
    compiled = {}

    class Trainer(CompiledTrainer, keras.Model):
        def train_step(self, state, data):
            return state, data

    model = Trainer()
    model.compile("sgd", jit_compile=True)
    jit = jax.jit

    def recording(function, **options):
        compiled[function.__name__] = options.get("compiler_options")
        return jit(function, **options)

    monkeypatch.setattr(jax, "jit", recording)
    model.make_train_function()
    assert compiled["train_step"] == compiler_options()
