"""One subnet that is known while tracing: only its own operations are in the graph.

Shapes: ``D`` decisions, ``B`` batch, ``H W`` space, ``C`` channels.
"""

from keras_khyper.routes.route import Route


class PathRoute(Route):
    """One subnet whose choices are known while tracing.

    Args:
        choices: Sequence of D Python integers, the candidate of each decision.
        **kwargs: As in `Route`.
    """

    def __init__(self, choices, **kwargs):
        super().__init__(**kwargs)
        self.choices = choices

    def _runs(self, candidate, num_edges):
        return candidate in self.choices[:num_edges]

    def send(self, x, operations, decisions):
        """Run only the chosen operations."""
        return [
            candidates[self.choices[decision]].call(x, self)
            for candidates, decision in zip(operations, decisions, strict=True)
        ]
