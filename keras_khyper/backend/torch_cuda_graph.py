"""A traced step as one CUDA graph."""

# Steps before the capture: cuDNN and cuBLAS choose and allocate in the first ones.
_WARMUP_STEPS = 3


class CudaGraph:
    """The operations of a traced step, launched together.

    Making one runs the step: the caller restores the state afterwards.

    Args:
        trace: A `Trace`.
        state: List of the tensors that the step writes; they must stay in place.
        inputs: List of the tensors of one batch.
        pool: Memory pool that earlier graphs of the model use; None for a new one.
        cuda: ``torch.cuda``, or what stands for it in a test.

    Attributes:
        pool: The memory pool.
    """

    def __init__(self, trace, state, inputs, pool, cuda):
        drawn = [draw() for draw in trace.draws]
        self._inputs = [tensor.clone() for tensor in (*inputs, *drawn)]
        arguments = [*state, *self._inputs]
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(_WARMUP_STEPS):
                trace.function(arguments)
        cuda.current_stream().wait_stream(stream)
        self._graph = cuda.CUDAGraph()
        # Other threads, such as one that loads data, may use CUDA meanwhile.
        with cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._outputs = trace.function(arguments)
        self.pool = self._graph.pool()

    def replay(self, inputs):
        """Run the step on the tensors of a batch; returns the metrics [n]."""
        for static, tensor in zip(self._inputs, inputs, strict=True):
            static.copy_(tensor, non_blocking=True)
        self._graph.replay()
        # The next replay writes into the same memory.
        return self._outputs.clone()
