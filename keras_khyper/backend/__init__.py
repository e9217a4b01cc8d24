"""The only place where layers, models and training meet a Keras backend.

Each module offers the same functions:

- ``value_and_grad``: differentiate a loss that also updates variables;
- ``sum_gradients``: the same for a sum of losses, one after the other;
- ``SupernetTrainer``: the ``train_step`` that ``keras.Model.fit`` expects;
- ``stateless_function``: compile a forward pass with variables as inputs;
- ``convolve``, ``average_pool``: on images [B, H, W, C];
- ``scale_gradients``: factors and weight decay of gradients;
- ``repeat``: runs equal layers one after the other, in a loop where that helps;
- ``normalize``: batch normalisation by given statistics;
- ``normalize_batch``: batch normalisation that returns the statistics it used;
- ``read_archs``: architectures as Python integers where that is possible;
- ``subnet_routing``: moves activations between the subnets of a fair set;
- ``switch``: runs one of several functions, also backwards;
- ``prefers_switch``: whether traced subnets run by it;
- ``fuse_updates``: lets an optimizer update a variable in one kernel;
- ``outside_graph``: runs operations at once, also while a graph is traced;
- ``sync_variables``: make variables readable and writable between batches;
- ``num_replicas``, ``replica_id``: data parallelism;
- ``accelerator``: the name of the GPU or TPU that is used;
- ``configure_gpu``: sets what compilation on a GPU needs.
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
