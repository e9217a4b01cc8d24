"""The PyTorch side of the backend seam."""

import contextlib

import keras
import torch

from keras_khyper.backend.gradients import scale_gradients
from keras_khyper.backend.routing import ListRouting, repeat, slots_of
from keras_khyper.backend.torch_functions import tracing
from keras_khyper.backend.torch_optimizers import use_tensor_learning_rate
from keras_khyper.backend.torch_routing import IndexRouting
from keras_khyper.backend.torch_step import TracedSteps, step_mode

__all__ = [
    "accelerator",
    "SupernetTrainer",
    "average_pool",
    "convolve",
    "configure_gpu",
    "fuse_updates",
    "normalize",
    "normalize_batch",
    "num_replicas",
    "outside_graph",
    "prefers_switch",
    "read_archs",
    "repeat",
    "replica_id",
    "scale_gradients",
    "stateless_function",
    "subnet_routing",
    "sum_gradients",
    "switch",
    "sync_variables",
    "value_and_grad",
]


def value_and_grad(loss_fn, variables, state):
    """Differentiate ``loss_fn() -> (loss, aux)`` with respect to ``variables``.

    See the TensorFlow module for the arguments.
    """
    del state
    with torch.enable_grad():
        loss, aux = loss_fn()
        gradients = torch.autograd.grad(
            loss,
            [variable.value for variable in variables],
            allow_unused=True,
            materialize_grads=True,
        )
    aux = [item.detach() if torch.is_tensor(item) else item for item in aux]
    return (loss.detach(), aux), gradients


def sum_gradients(loss_fn, items, variables, state):
    """Differentiate a sum of losses, one after the other.

    See the TensorFlow module for arguments and results.
    """
    outputs = []
    totals = [torch.zeros_like(variable.value) for variable in variables]
    for item in items:
        (_, (output,)), gradients = value_and_grad(
            lambda item=item: loss_fn(item), variables, state
        )
        outputs.append(output)
        totals = [a + b for a, b in zip(totals, gradients, strict=True)]
    return torch.stack(outputs), totals


class SupernetTrainer:
    """Connect ``update_step`` to the PyTorch trainer of Keras."""

    _traced_steps = None

    def train_step(self, data):
        """Run one supernet step, traced if it can be."""
        logs = self._traced_step(data) if self._traces() else None
        if logs is not None:
            return logs
        with torch.no_grad():
            return self.update_step(data)

    def _traces(self):
        # Subnets that run one after the other choose their operations on the host:
        # traced, each would compute all candidates.
        algorithm = self.algorithm
        one_by_one = algorithm.accumulate or not algorithm.sampler.is_fair
        return not (self.run_eagerly or one_by_one or step_mode() == "eager")

    def _traced_step(self, data):
        if self._traced_steps is None or not self._traced_steps.is_current():
            captures = torch.cuda.is_available() and step_mode() == "graph"
            self._traced_steps = TracedSteps(self, torch.cuda if captures else None)
        if self._traced_steps.failure is not None:
            return None
        return self._traced_steps(data)


def stateless_function(model, function):
    """Run ``function(*tensors)``, which may read the variables of ``model``."""
    del model

    def call(*args):
        with torch.no_grad():
            return function(*args)

    return call


def sync_variables(model):
    """Bring the variables up to date between two batches."""
    del model


def outside_graph():
    """Return a context in which operations run at once, also while tracing."""
    return contextlib.nullcontext()


def accelerator():
    """Return the name of the GPU; None without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def configure_gpu(cache_dir, preallocate):
    """Set nothing; see `keras_khyper.configure_gpu`."""
    del cache_dir, preallocate
    return {}


def num_replicas():
    """Return the number of replicas whose gradients the optimizer sums."""
    return 1


def replica_id():
    """Index of this replica."""
    return 0


def convolve(x, kernel, strides, depthwise=False, dilation_rate=1):
    """Convolve with symmetric padding; see `keras_khyper.backend.convolutions`.

    `keras.ops.conv` copies its input twice, to the other layout and back.
    """
    pad, channels = (kernel.shape[0] - 1) // 2 * dilation_rate, x.shape[-1]
    kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    groups = channels if depthwise else 1
    return torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2), kernel, None, strides, pad, dilation_rate, groups
    ).permute(0, 2, 3, 1)


def average_pool(x, size, strides, padding):
    """Average windows; see `keras_khyper.backend.convolutions`."""
    if isinstance(x, keras.KerasTensor):
        return keras.ops.average_pool(x, size, strides, padding)
    border = (size - 1) // 2 if padding == "same" else 0
    return torch.nn.functional.avg_pool2d(
        x.permute(0, 3, 1, 2), size, strides, border, count_include_pad=False
    ).permute(0, 2, 3, 1)


def normalize(x, mean, variance, scale, offset, epsilon):
    """Normalise ``x`` by a given mean and variance; see the TensorFlow module."""
    return torch.nn.functional.batch_norm(
        x.permute(0, 3, 1, 2), mean, variance, scale, offset, eps=epsilon
    ).permute(0, 2, 3, 1)


def normalize_batch(x, scale, offset, epsilon):
    """Normalise ``x`` by its own mean and biased variance over B, H and W."""
    normalized, mean, inverse_deviation, *_ = torch._batch_norm_impl_index(
        x.permute(0, 3, 1, 2),
        scale,
        offset,
        running_mean=None,
        running_var=None,
        training=True,
        momentum=0.0,
        eps=epsilon,
        cudnn_enabled=torch.backends.cudnn.enabled,
    )
    variance = torch.clamp_min(inverse_deviation**-2 - epsilon, 0.0)
    return normalized.permute(0, 2, 3, 1), mean, variance


def read_archs(archs):
    """Return architectures as Python integers, which cost nothing to index."""
    return archs.tolist()


def subnet_routing(archs, jit_compile):
    """Return the routing of a fair set; see `keras_khyper.backend.routing`.

    Args:
        archs: Integer tensor [S, D] whose columns are permutations.
        jit_compile: Whether XLA will compile the graph (used by TensorFlow).
    """
    del jit_compile
    if tracing():
        return IndexRouting(torch.argsort(archs, dim=0).T)
    return ListRouting(slots_of(archs.tolist()))


def prefers_switch(jit_compile, low_memory):
    """Whether a traced subnet runs by `switch`: none is traced."""
    del jit_compile, low_memory
    return True


def switch(index, branches, inputs, variables):
    """Run one of several functions; see the TensorFlow module."""
    del variables
    return branches[int(index)](*inputs)


def fuse_updates(optimizer):
    """Let the optimizer read its learning rate on the device only."""
    use_tensor_learning_rate(optimizer)
