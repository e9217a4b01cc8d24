"""Sampling where decisions have different numbers of candidates.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates at most (docs/symbols.md).
"""

import keras
import numpy as np
from keras import ops

from keras_khyper.architectures.samplers import Sampler, get_sampler


@keras.saving.register_keras_serializable(package="keras_khyper")
class UnequalDecisions(Sampler):
    """Draws decisions of equally many candidates together, by another sampler.

    A fair set has K subnets, as many as the largest number of candidates. At a
    decision with n < K of them it is made of independent draws: the first n subnets
    have each candidate once, so have the next n, and the last draw is cut off. So each
    candidate is used at least once, and some are used once more than the others: which
    ones is up to the sampler. Focus-Fair prefers strong candidates, FairNAS takes any.

    A supernet of a space with such decisions makes one of a sampler of the library.

    Args:
        sampler: A `Sampler` or its name; given beta of decisions that have the same
            number of candidates.
        candidate_counts: Number of candidates of each decision: D integers.

    Raises:
        ValueError: A count is below 1.

    Example:
    >>> sampler = kk.training.UnequalDecisions("focus_fair", [3, 2])
    >>> archs = sampler.sample(supernet.arch_logits, seed=0)     # int [3, 2]
    """

    def __init__(self, sampler, candidate_counts):
        self.sampler = get_sampler(sampler)
        self.candidate_counts = [int(count) for count in candidate_counts]
        if min(self.candidate_counts, default=0) < 1:
            raise ValueError(
                "Every decision needs a candidate. "
                f"Received: candidate_counts={candidate_counts}"
            )

    @property
    def is_fair(self):
        """Whether each candidate is used, some once more than the others."""
        return self.sampler.is_fair

    def sample(self, arch_logits, seed, shape=()):
        """Draw subnets [*shape, S, D]; see `Sampler.sample`."""
        if isinstance(seed, int):  # for draws that differ from one another
            seed = keras.random.SeedGenerator(seed)
        counts = np.array(self.candidate_counts)
        groups = [np.flatnonzero(counts == count) for count in np.unique(counts)]
        drawn = [self._sample(arch_logits, group, seed, shape) for group in groups]
        order = np.argsort(np.concatenate(groups))
        return ops.take(ops.concatenate(drawn, axis=-1), order, axis=-1)

    def _sample(self, arch_logits, decisions, seed, shape):
        # Of decisions with n candidates each: [*shape, S, len(decisions)].
        count = self.candidate_counts[decisions[0]]
        logits = ops.take(ops.convert_to_tensor(arch_logits), decisions, axis=0)
        logits = logits[:, :count]
        if not self.is_fair:
            return self.sampler.sample(logits, seed, shape)
        num_subnets = max(self.candidate_counts)
        num_draws = -(-num_subnets // count)
        archs = self.sampler.sample(logits, seed, (*shape, num_draws))
        archs = ops.reshape(archs, (*shape, num_draws * count, len(decisions)))
        return archs[..., :num_subnets, :]

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "candidate_counts": self.candidate_counts,
        }

    @classmethod
    def from_config(cls, config):
        """Make the sampler from `get_config`."""
        sampler = keras.saving.deserialize_keras_object(config["sampler"])
        return cls(sampler, config["candidate_counts"])
