"""How PyTorch moves activations between subnets that are known on the device only.

Shapes: ``S`` subnets, ``K`` candidates (S = K), ``B`` batch, ``H W`` space, ``C``
channels.
"""

import torch

from keras_khyper.backend.routing import StackedRouting


class IndexRouting(StackedRouting):
    """Routing by index on one array [S, B, H, W, C], without a host read."""

    def __init__(self, slots):
        super().__init__(slots)
        self._stacked = {}  # decisions and candidates -> their slots

    def spread(self, subnets):
        """Stack a list of S tensors."""
        return torch.stack(subnets) if isinstance(subnets, list) else subnets

    def split(self, subnets):
        """Return a list of S tensors."""
        return list(subnets.unbind())

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates."""
        return self.take_all(subnets, [(decision, candidates)])[0]

    def take_all(self, subnets, places):
        """Return the activations of several decisions' candidates, in one copy."""
        slots = self._slots_of((d, k) for d, candidates in places for k in candidates)
        taken = iter(subnets.index_select(0, slots).unbind())
        return [[next(taken) for _ in candidates] for _, candidates in places]

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets: [S, B, H, W, C]."""
        slots = self._slots_of((d, k) for d, outputs in contributions for k in outputs)
        outputs = torch.stack([o for _, part in contributions for o in part.values()])
        total = outputs.new_zeros((self.num_subnets, *outputs.shape[1:]))
        return total.index_add(0, slots, outputs)

    def _slots_of(self, places):
        # The same in every cell.
        places = tuple(places)
        if places not in self._stacked:
            self._stacked[places] = torch.stack([self.slot(*pair) for pair in places])
        return self._stacked[places]
