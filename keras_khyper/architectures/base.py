"""What the architectures of a space mean to a supernet.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates at most (docs/symbols.md).
"""

import numpy as np
from keras import ops

from keras_khyper.architectures.samplers import SAMPLERS, get_sampler
from keras_khyper.architectures.unequal import UnequalDecisions


class Architectures:
    """Say what the architectures of a space mean to routes, encoder and sampler.

    A supernet holds one such object, `Supernet.architectures`, which is made from its
    space (`keras_khyper.architectures.get`). Its methods take architectures as
    tensors, also inside a traced graph.

    This class is for spaces whose architectures choose one candidate per decision,
    and nothing else. For another kind of space derive a class, and bind it to the
    class of the space with `keras_khyper.architectures.register`. The decisions of
    the routes, which `choices` answers, need not be those of the space: a
    `UIBSpace` decides on sizes as well, a route on the structure of each block.

    Where decisions have different numbers of candidates, K is the largest. Rows of
    beta and of encodings are then padded: no weight of the mixture, no gradient and
    no draw ever reaches a candidate that there is not.

    Args:
        space: A `keras_khyper.spaces.SearchSpace` or another
            `keras_khyper.spaces.SpaceLike`.

    Attributes:
        candidate_counts: Number of candidates of each decision of the routes, [D].

    Example:
    >>> architectures = kk.architectures.get(kk.spaces.NASBench201())
    >>> tuple(architectures.encode(space.sample(8, seed=0)).shape)
    (8, 6, 5)
    """

    def __init__(self, space):
        self.space = space
        self.candidate_counts = np.asarray(space.candidate_counts)

    @property
    def num_candidates(self):
        """Candidates of a decision of the routes, at most (K)."""
        return int(self.candidate_counts.max())

    @property
    def arch_logits_shape(self):
        """Shape of beta: decisions of the routes, and their candidates."""
        return len(self.candidate_counts), self.num_candidates

    def mixture_weights(self, arch_logits):
        """Return the weights of the teacher's mixture, softmax(beta) (Eq. 5).

        Args:
            arch_logits: beta [D, K].

        Returns:
            float32 [D, K], zero for candidates that there are not.
        """
        if (self.candidate_counts == self.num_candidates).all():
            return ops.softmax(arch_logits)
        there = np.arange(self.num_candidates) < self.candidate_counts[:, None]
        there = ops.convert_to_tensor(there)
        logits = ops.convert_to_tensor(arch_logits)
        return ops.softmax(ops.where(there, logits, -np.inf))

    @property
    def encoding_shape(self):
        """Shape of an architecture's encoding alpha (paper §3.2)."""
        return self.arch_logits_shape

    def encode(self, archs):
        """Return the encodings alpha [S, *encoding_shape] of architectures [S, D]."""
        archs = ops.convert_to_tensor(archs, "int32")
        return ops.one_hot(archs, self.num_candidates)

    def encode_teacher(self, weights):
        """Return the encoding of the teacher, whose mixture has these weights."""
        return weights

    def choices(self, archs):
        """Return the candidate that is chosen at each decision of the routes.

        Args:
            archs: D Python integers, or an integer tensor [..., D].

        Returns:
            The same kind, Python integers or an integer tensor.
        """
        return archs

    def present(self, archs):
        """Return which decisions of the routes count in each subnet.

        A choice that does not count, as in a block beyond a stage's depth, changes
        nothing in the subnet.

        Args:
            archs: Integer tensor [..., D].

        Returns:
            Bool tensor, of the shape of ``choices(archs)``.
        """
        return ops.ones_like(self.choices(archs), "bool")

    def candidate_uses(self, archs):
        """Return which candidates each subnet uses: zeros and ones [S, D, K].

        Args:
            archs: Integer tensor [S, D].
        """
        uses = ops.one_hot(self.choices(archs), self.num_candidates)
        return uses * ops.cast(self.present(archs), uses.dtype)[..., None]

    def fair_choices(self, archs):
        """Return the choices of a fair set [S, D], S = K.

        A column is a permutation where its decision has K candidates. Subnets may
        share a candidate where there are fewer.
        """
        return self.choices(archs)

    def sizes(self, archs):
        """Return the sizes of subnets at each decision: integers [S, D, n].

        None where the subnets of the space all have one size; see `Route`.
        """
        del archs

    def make_sampler(self, sampler):
        """Return the sampler that draws whole architectures.

        Args:
            sampler: That of an `Algorithm1`: a `Sampler`, or None for Focus-Fair. One
                of `SAMPLERS` is made an `UnequalDecisions` where decisions have
                different numbers of candidates; any other draws what it draws.
        """
        equal = (self.candidate_counts == self.num_candidates).all()
        named = sampler is None or type(sampler) in SAMPLERS.values()
        if named and not equal:
            return UnequalDecisions(sampler, self.candidate_counts.tolist())
        return get_sampler(sampler)
