"""Updates of Keras' optimizers that read nothing on the host."""

import functools

import keras
import torch
from keras.src.backend.torch.optimizers.torch_sgd import SGD


def use_tensor_learning_rate(optimizer):
    """Replace the update of an optimizer that reads its learning rate on the host.

    Among those of Keras it is `keras.optimizers.SGD`.

    Args:
        optimizer: A Keras optimizer.
    """
    update = getattr(type(optimizer), "_parallel_update_step", None)
    if update is SGD._parallel_update_step:
        optimizer._parallel_update_step = functools.partial(_update_sgd, optimizer)


def _update_sgd(optimizer, gradients, variables, learning_rate):
    """Update ``variables`` as `keras.optimizers.SGD` does."""
    values = [variable.value for variable in variables]
    rate = keras.ops.convert_to_tensor(learning_rate)
    steps = torch._foreach_mul(gradients, rate)
    if not optimizer.momentum:
        torch._foreach_sub_(values, steps)
        return
    momenta = [
        optimizer.momentums[optimizer._get_variable_index(variable)].value
        for variable in variables
    ]
    torch._foreach_mul_(momenta, optimizer.momentum)
    torch._foreach_sub_(momenta, steps)
    if optimizer.nesterov:
        torch._foreach_sub_(values, steps)
        torch._foreach_add_(values, momenta, alpha=optimizer.momentum)
    else:
        torch._foreach_add_(values, momenta)
