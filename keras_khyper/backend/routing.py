"""Moving activations between the subnets of a fair set.

In a fair set candidate k of decision d belongs to one subnet, its *slot*. A
routing hands each candidate the activation of its subnet (`take`) and adds what
the candidates return to their subnets' sums (`collect`).

Shapes: ``S`` subnets, ``K`` candidates (S = K), ``B`` batch, ``H W`` space, ``C``
channels.
"""

import numpy as np


def slots_of(archs):
    """Return the nested list [D][K] of slots of known architectures [S, D]."""
    return np.argsort(np.asarray(archs), axis=0).T.tolist()


class ListRouting:
    """Routing by Python integers on lists of S tensors: no copies, no kernels.

    Args:
        slots: Nested list [D][K] of the subnet that uses each candidate.
    """

    def __init__(self, slots):
        self.slots = slots
        self.num_subnets = len(slots[0])

    def slot(self, decision, candidate):
        """Return the index of the subnet that uses the candidate."""
        return self.slots[decision][candidate]

    def spread(self, subnets):
        """Bring a list of S tensors into the form that `take` reads."""
        return subnets

    def split(self, subnets):
        """Return what `collect` made as a list of S tensors."""
        return subnets

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates.

        Args:
            subnets: What `spread` made.
            decision: d.
            candidates: List of indices k; the others' inputs are not needed.
        """
        return [subnets[self.slot(decision, candidate)] for candidate in candidates]

    def take_all(self, subnets, places):
        """Return the activations of several decisions' candidates.

        Args:
            subnets: What `spread` made.
            places: List of (decision, list of candidates).

        Returns:
            A list of tensors [B, H, W, C] for each decision, see `take`.
        """
        return [self.take(subnets, *place) for place in places]

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets.

        Args:
            contributions: List of (decision, {candidate: output [B, H, W, C]}).

        Returns:
            The sums of all S subnets, zeros where a subnet gets nothing.
        """
        total = [None] * self.num_subnets
        for decision, outputs in contributions:
            for candidate, output in outputs.items():
                slot = self.slot(decision, candidate)
                known = total[slot]
                total[slot] = output if known is None else known + output
        example = next(part for part in total if part is not None)
        return [example * 0 if part is None else part for part in total]


class StackedRouting:
    """Base of routings of subnets that are known at run time only.

    Activations of all subnets are one tensor [S, B, H, W, C]; a backend brings the
    methods that make, cut and fill it, as of `ListRouting`.

    Args:
        slots: Integer tensor [D, K] of the subnet that uses each candidate.
    """

    def __init__(self, slots):
        self.slots = slots
        self.num_subnets = slots.shape[1]

    def slot(self, decision, candidate):
        """Return the index of the subnet that uses the candidate."""
        return self.slots[decision, candidate]

    def take_all(self, subnets, places):
        """Return the activations of several decisions' candidates, as `ListRouting`."""
        return [self.take(subnets, *place) for place in places]


def repeat(layers, route, x):
    """Run equal layers one after the other; see `keras_khyper.routes.Route.repeat`."""
    for layer in layers:
        x = layer(x, route=route)
    return x
