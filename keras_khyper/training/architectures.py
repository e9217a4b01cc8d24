"""What the architectures of a supernet's space mean to routes, encoder and sampler.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates.
"""

from keras import ops

from keras_khyper.training.samplers import get_sampler


class ArchitectureMeaning:
    """Base of `Supernet`: architectures choose one of K candidates D times.

    A supernet over another kind of space defines these methods for it.
    """

    @property
    def arch_logits_shape(self):
        """Shape of beta: decisions of the routes, and their candidates."""
        return self.space.num_decisions, self.space.num_candidates

    @property
    def encoding_shape(self):
        """Shape of an architecture's encoding alpha."""
        return self.arch_logits_shape

    def encode_archs(self, archs):
        """Return the encodings [S, *encoding_shape] of architectures [S, D]."""
        archs = ops.convert_to_tensor(archs, "int32")
        return ops.one_hot(archs, self.space.num_candidates)

    def encode_teacher(self, weights):
        """Return the teacher's encoding, of softmax(beta)."""
        return weights

    def choices(self, arch):
        """Return the candidate at each decision of the routes.

        Args:
            arch: D Python integers, or an integer tensor [..., D].
        """
        return arch

    def fair_choices(self, archs):
        """Return the choices of a fair set [S, D]; each column is a permutation."""
        return self.choices(archs)

    def candidate_uses(self, archs):
        """Return which candidates each of architectures [S, D] uses: [S, D, K]."""
        return ops.one_hot(self.choices(archs), self.arch_logits_shape[1])

    def sizes(self, archs):
        """Return the sizes of architectures [S, D], see `Route`; None without."""
        del archs

    def make_sampler(self, sampler):
        """Return the `Sampler` that `compile` was given, or its name."""
        return get_sampler(sampler)
