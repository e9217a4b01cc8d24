"""Which of PyTorch's ways a training step runs: eager, traced, or a CUDA graph."""

import dataclasses
import operator
import os
import warnings

import keras
import torch

from keras_khyper.backend.torch_cuda_graph import CudaGraph
from keras_khyper.backend.torch_trace import kept, trace

# How steps run, for all models: "graph" as a CUDA graph where there is CUDA, else
# traced; "traced" as traced operations one by one; "eager" without a trace.
SWITCH = "KERAS_KHYPER_TORCH_STEP"
_MODES = ("graph", "traced", "eager")
# Batches of different shapes that are kept traced.
_MOST_TRACES = 8


def step_mode():
    """Return how steps run, from the environment variable `SWITCH`.

    Raises:
        ValueError: Its value is unknown.
    """
    mode = os.environ.get(SWITCH, _MODES[0])
    if mode not in _MODES:
        raise ValueError(f"{SWITCH} must be one of {_MODES}. Received: {mode!r}")
    return mode


class TracedSteps:
    """The traced steps of a compiled model, one for each form of a batch.

    Args:
        model: A compiled `Supernet`.
        cuda: What makes CUDA graphs: ``torch.cuda``, or None to make none.
    """

    def __init__(self, model, cuda):
        self.model = model
        self.failure = None  # why the step cannot be traced
        self._cuda = cuda
        self._pool = None
        self._compiled = model.algorithm, model.optimizer, model.seed_generator
        self._learning_rates = _learning_rates(model.optimizer)
        self._steps = {}

    def is_current(self):
        """Whether the model is compiled as it was."""
        model = self.model
        algorithm, optimizer, seed_generator = self._compiled
        return (
            model.algorithm is algorithm
            and model.optimizer is optimizer
            and model.seed_generator is seed_generator
            and all(map(operator.is_, _learning_rates(optimizer), self._learning_rates))
        )

    def __call__(self, data):
        """Run a step; returns the metrics, or None where it must run eagerly."""
        leaves = keras.tree.flatten(data)
        given = [index for index, leaf in enumerate(leaves) if leaf is not None]
        tensors = [
            leaf if isinstance(leaf, torch.Tensor) else torch.as_tensor(leaf)
            for leaf in (leaves[index] for index in given)
        ]
        form = (tuple(given), *((t.shape, t.dtype) for t in tensors))
        step = self._steps.get(form)
        if step is None or not step.state.is_current():
            step = self._trace(data, leaves, given, tensors)
            if step is None:
                return None
            while len(self._steps) >= _MOST_TRACES:
                del self._steps[next(iter(self._steps))]
            self._steps[form] = step
        values = step.run(tensors)
        return dict(zip(step.names, values.unbind(), strict=True))

    def _trace(self, data, leaves, given, tensors):
        model = self.model
        batch = keras.tree.map_structure(
            lambda leaf: leaf if leaf is None else keras.ops.convert_to_tensor(leaf),
            data,
        )
        model._symbolic_build(data_batch=batch)
        state = _State(model)

        def step(inputs):
            filled = [None] * len(leaves)
            for index, tensor in zip(given, inputs, strict=True):
                filled[index] = tensor
            return model.update_step(keras.tree.pack_sequence_as(data, filled))

        inputs = [keras.ops.convert_to_tensor(tensor) for tensor in tensors]
        try:
            on_host = self._cuda is None and state.tensors[0].device.type == "cpu"
            traced = trace(step, state.tensors, inputs, on_host)
        except Exception as error:  # whatever the user's loss or optimizer does
            self.failure = error
            warnings.warn(
                "This training step cannot be traced, so each of its operations is "
                "called from Python, which is slower. The cause is: "
                f"{type(error).__name__}: {error}. With run_eagerly=True in compile "
                "there is no attempt.",
                stacklevel=4,
            )
            return None
        runner = None
        if self._cuda is not None:
            runner = self._captured(traced, state, inputs)
        return _Step(traced, state, runner)

    def _captured(self, traced, state, inputs):
        try:
            with kept(state.tensors), torch.no_grad():
                graph = CudaGraph(traced, state.tensors, inputs, self._pool, self._cuda)
        except Exception as error:
            self._cuda = None
            warnings.warn(
                "CUDA refused to capture the traced training step, so its operations "
                "are called one by one, which is slower. The cause is: "
                f"{type(error).__name__}: {error}. With {SWITCH}=traced in the "
                "environment there is no attempt.",
                stacklevel=5,
            )
            return None
        self._pool = graph.pool
        return graph


def _learning_rates(optimizer):
    # Variables or schedules, also of an optimizer that is made of others.
    parts = getattr(optimizer, "parts", [optimizer])
    return [part._learning_rate for part in parts]


@dataclasses.dataclass(frozen=True)
class _Step:
    trace: object
    state: object
    graph: object

    @property
    def names(self):
        return self.trace.names

    def run(self, tensors):
        """Run the step on one batch; returns the metrics [n]."""
        draws = [draw() for draw in self.trace.draws]
        with torch.no_grad():
            if self.graph is not None:
                return self.graph.replay([*tensors, *draws])
            device = self.state.tensors[0].device
            tensors = [tensor.to(device) for tensor in tensors]
            return self.trace.function([*self.state.tensors, *tensors, *draws])


class _State:
    # All tensors that a step reads and writes in place.

    def __init__(self, model):
        variables = [
            *model.variables,
            *model.optimizer.variables,
            *model.metrics_variables,
        ]
        self._variables = list({id(v): v for v in variables}.values())
        self.tensors = self._now()
        self._trained = self._requiring_gradients()

    def _now(self):
        return [variable._value for variable in self._variables]

    def _requiring_gradients(self):
        return [variable._value.requires_grad for variable in self._variables]

    def is_current(self):
        """Whether variables have the same tensors, and the same of them train."""
        return all(map(operator.is_, self._now(), self.tensors)) and (
            self._requiring_gradients() == self._trained
        )
