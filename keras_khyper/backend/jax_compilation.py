"""How XLA compiles a supernet's programs on a GPU."""

import functools
import os

import jax
import jax.numpy as jnp
import keras

# A step has hundreds of small products. By default XLA compiles dozens of Triton
# kernels for each, and as many for fusions, to time them: minutes. Convolutions must
# be tuned, because cuDNN's first algorithm can be a hundred times too slow.
_GPU_OPTIONS = {
    "xla_gpu_enable_triton_gemm": False,  # products by cuBLAS
    "xla_gpu_experimental_enable_fusion_autotuner": False,
}


def compiler_options():
    """Return the options of `jax.jit` for programs of a supernet on this device.

    None on a CPU or TPU. Options that XLA_FLAGS sets are left to it, and those that
    this jaxlib does not know are left out.
    """
    if jax.default_backend() != "gpu":
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        name: value
        for name, value in _GPU_OPTIONS.items()
        if f"--{name}" not in flags and _is_known(name, value)
    }


@functools.cache
def _is_known(name, value):
    # In XLA_FLAGS an unknown flag ends the process; here it is an error.
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def configure_gpu(cache_dir, preallocate):
    """Set caches and memory of a GPU; see `keras_khyper.configure_gpu`."""
    made = {}
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    if name not in os.environ:
        # JAX reads it when it first looks for a GPU, which is below.
        made[name] = os.environ[name] = str(preallocate).lower()
    if jax.default_backend() != "gpu":
        for name in made:
            del os.environ[name]
        return {}
    if jax.config.jax_compilation_cache_dir is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # JAX also keeps XLA's tuning results there.
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        made["jax_compilation_cache_dir"] = str(cache_dir)
    return {**made, "compiler_options": compiler_options()}


class CompiledTrainer:
    """Compiles the training step with the options of this device."""

    def make_train_function(self, force=False):
        """Make the function of one step; as Keras does, but for the options."""
        is_made = self.train_function is not None and not force
        options = None if is_made or self.run_eagerly else compiler_options()
        if not options or not self.jit_compile:
            super().make_train_function(force)
            return
        shardings = None
        if keras.distribution.distribution() is not None:
            shardings = None, self._get_state_sharding_spec()
        step = jax.jit(
            self.train_step,
            donate_argnums=0,
            out_shardings=shardings,
            compiler_options=options,
        )
        self.train_function = self._make_function(step)
