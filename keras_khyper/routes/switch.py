"""One subnet that is known at run time only, by control flow.

Shapes: ``D`` decisions, ``B`` batch, ``H W`` space, ``C`` channels.
"""

from keras import ops

from keras_khyper import backend
from keras_khyper.routes.route import Route


class SwitchRoute(Route):
    """One subnet of traced choices: only the chosen operations run.

    Each decision is a branch that holds the operation and its gradients. The
    statistics must record nothing there.

    Args:
        choices: Integer tensor [D], the candidate of each decision.
        **kwargs: As in `Route`.
    """

    def __init__(self, choices, **kwargs):
        super().__init__(**kwargs)
        self.choices = ops.unstack(choices)

    def send(self, x, operations, decisions):
        """Run only the chosen operations."""
        return [
            self._switch(x, candidates, self.choices[decision])
            for candidates, decision in zip(operations, decisions, strict=True)
        ]

    def _switch(self, x, candidates, choice):
        # What a branch differentiates must be handed to it: kernels made ahead
        # as inputs, other weights as variables.
        ahead = [
            conv
            for operation in candidates
            for conv in operation.convolutions()
            if id(conv) in self.kernels
        ]
        stacked = {
            id(weight)
            for conv in ahead
            for weight in conv.kernel_layer.trainable_weights
        }
        variables = [
            [v for v in operation.trainable_variables if id(v) not in stacked]
            for operation in candidates
        ]
        encodings = {
            name: value
            for name, value in zip(
                ("features", "coefficients"), self.encodings, strict=True
            )
            if value is not None
        }
        inputs = [x, *(self.kernels[id(conv)] for conv in ahead), *encodings.values()]

        def branch(operation):
            def run(x, *others):
                kernels, values = others[: len(ahead)], others[len(ahead) :]
                given = dict(zip(encodings, values, strict=True))
                route = Route(statistics=self.statistics, sizes=self.sizes, **given)
                pairs = zip(ahead, kernels, strict=True)
                route.kernels = {id(conv): kernel for conv, kernel in pairs}
                return operation.call(x, route)

            return run

        branches = [branch(operation) for operation in candidates]
        return backend.switch(choice, branches, inputs, variables)
