"""What stands for ``torch.cuda`` on a machine without it: graphs that replay.

A graph is what was dispatched while it was captured. A replay computes it again and
writes each result where the capture had it, as CUDA does.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class FakeStream:
    def wait_stream(self, stream):
        assert isinstance(stream, FakeStream)


class FakeGraph(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []
        self.replays = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self):
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            pairs = zip(_tensors(result), _tensors(again), strict=True)
            for old, new in pairs:
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def pool(self):
        return "pool"


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


class FakeCuda:
    """The functions of ``torch.cuda`` that a captured step uses.

    Args:
        refuses: Whether a capture fails at its end.
    """

    Stream = FakeStream
    CUDAGraph = FakeGraph

    def __init__(self, refuses=False):
        self.refuses = refuses
        self.graphs = []
        self.pools = []

    def current_stream(self):
        return FakeStream()

    def stream(self, stream):
        assert isinstance(stream, FakeStream)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.graphs.append(graph)
        self.pools.append(pool)
        with graph:
            yield
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
