"""The only place where layers, models and training meet a Keras backend.

Each module offers the same functions:

- ``value_and_grad``: differentiate a loss that also updates variables;
- ``SupernetTrainer``: the ``train_step`` that ``keras.Model.fit`` expects;
- ``stateless_function``: compile a forward pass with variables as inputs;
- ``normalize_batch``: batch normalisation that returns the statistics it used;
- ``read_slots``, ``stack_subnets``, ``unstack_subnets``, ``take_subnet``,
  ``sum_into_subnets``: move activations between the subnets of a fair set;
- ``sync_variables``: make variables readable and writable between batches;
- ``num_replicas``, ``replica_id``: data parallelism.
"""

import keras

_BACKEND = keras.backend.backend()

if _BACKEND == "tensorflow":
    from keras_khyper.backend.tensorflow import *  # noqa: F403
elif _BACKEND == "jax":
    from keras_khyper.backend.jax import *  # noqa: F403
elif _BACKEND == "torch":
    from keras_khyper.backend.torch import *  # noqa: F403
else:
    raise ImportError(
        "keras_khyper runs on the Keras backends tensorflow, jax and torch. "
        f"Received: backend={_BACKEND}"
    )
