"""All candidates at once, weighted: the teacher, or a subnet known at run time only.

Shapes: ``D`` decisions, ``K`` candidates, ``B`` batch, ``H W`` space, ``C`` channels.
"""

from keras import ops

from keras_khyper.routes.route import NodeOutput, Route, check_equally_many, sum_of


class MixtureRoute(Route):
    """All candidates, weighted: the teacher (Eq. 5), or a traced subnet.

    Args:
        weights: [D, K]; softmax(beta) for the teacher, one-hot for a subnet.
        **kwargs: As in `Route`.
    """

    def __init__(self, weights, **kwargs):
        super().__init__(**kwargs)
        self.weights = [ops.unstack(row) for row in ops.unstack(weights)]

    def conv_joined(self, layers, x):
        """Convolve with the kernels of several layers side by side."""
        kernels = [self._kernel(layer) for layer in layers]
        return layers[0].convolve(x, ops.concatenate(kernels, axis=-1))

    def norm_joined(self, layers, x, weights):
        """Normalise the outputs of `conv_joined`, each times its weight."""
        return self.statistics.normalize_joined(layers, x, weights)

    def send(self, x, operations, decisions):
        """Return each decision's weighted sum over its candidates."""
        check_equally_many(operations)
        node, totals, joined = NodeOutput(x), [[] for _ in decisions], []
        for candidate, group in enumerate(zip(*operations, strict=True)):
            if group[0].is_zero:
                continue
            weights = [self.weights[decision][candidate] for decision in decisions]
            parts = group[0].weighted(group, node, self, weights)
            if not isinstance(parts, list):
                joined.append(parts)
                continue
            for total, part in zip(totals, parts, strict=True):
                total.append(part)
        if joined:
            parts = ops.split(sum_of(joined), len(decisions), axis=-1)
            for total, part in zip(totals, parts, strict=True):
                total.append(part)
        return [sum_of(total) for total in totals]
