"""The settings of a backend that training on a GPU needs."""

import os
import pathlib

from keras_khyper import backend

DEFAULT_CACHE = pathlib.Path("~", ".cache", "keras_khyper", "xla")


def configure_gpu(
    cache_dir: str | os.PathLike[str] = DEFAULT_CACHE, preallocate: bool = False
) -> dict[str, object]:
    """Prepare the backend for training on a GPU, and say what was set.

    Call it once, before the first tensor is made. On JAX it sets

    - ``jax_compilation_cache_dir``: compiled programs, and what XLA found out when
      it tuned convolutions, are kept there, so that the next run of the same
      supernet starts at once. Only you may be able to write there, since JAX runs
      what it finds;
    - ``XLA_PYTHON_CLIENT_PREALLOCATE``: whether JAX takes three quarters of the
      GPU's memory at once, so that no other process finds room beside it.

    What the environment, XLA_FLAGS or `jax.config` already say is left as it is. On
    the other backends, and without a GPU, nothing is set.

    With or without this call, a `Supernet` trains on a GPU with the compiler options
    that are returned: products by cuBLAS, convolutions tuned, without a search among
    Triton kernels that takes minutes.

    Args:
        cache_dir: Folder of the cache; it is made if it is missing.
        preallocate: Whether JAX takes the memory at once.

    Returns:
        What was set: a dictionary of names to values. ``compiler_options`` are those
        of the training step.

    Example:
    >>> import keras_khyper as kk
    >>> kk.configure_gpu("runs/xla")  # doctest: +SKIP
    {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'jax_compilation_cache_dir': 'runs/xla',
     'compiler_options': {'xla_gpu_enable_triton_gemm': False, ...}}
    """
    return backend.configure_gpu(pathlib.Path(cache_dir).expanduser(), preallocate)
