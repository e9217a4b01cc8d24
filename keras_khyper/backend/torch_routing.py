"""How PyTorch moves activations between subnets that are known on the device only.

Shapes: ``S`` subnets, ``K`` candidates (S = K), ``B`` batch, ``H W`` space, ``C``
channels.
"""

import torch

from keras_khyper.backend.routing import StackedRouting


class IndexRouting(StackedRouting):
    """Routing by index on one array [S, B, H, W, C], without a host read."""

    def spread(self, subnets):
        """Stack a list of S tensors."""
        return torch.stack(subnets) if isinstance(subnets, list) else subnets

    def split(self, subnets):
        """Return a list of S tensors."""
        return list(subnets.unbind())

    def take(self, subnets, decision, candidates):
        """Return the activation [B, H, W, C] of each of the given candidates."""
        slots = torch.stack([self.slot(decision, k) for k in candidates])
        return list(subnets.index_select(0, slots).unbind())

    def collect(self, contributions):
        """Add the candidates' outputs into their subnets: [S, B, H, W, C]."""
        pairs = [
            (self.slot(decision, candidate), output)
            for decision, outputs in contributions
            for candidate, output in outputs.items()
        ]
        slots, outputs = zip(*pairs, strict=True)
        outputs = torch.stack(outputs)
        total = outputs.new_zeros((self.num_subnets, *outputs.shape[1:]))
        return total.index_add(0, torch.stack(slots), outputs)
