"""The sandwich rule for spaces whose architectures have sizes.

Shapes: ``L`` blocks, ``D`` decisions, ``S`` subnets (docs/symbols.md).
"""

import keras
from keras import ops

from keras_khyper.architectures.registry import get
from keras_khyper.architectures.samplers import Sampler, get_sampler
from keras_khyper.spaces import StagedSpace


@keras.saving.register_keras_serializable(package="keras_khyper")
class Sandwich(Sampler):
    """Sizes by the sandwich rule, structures by another sampler (appendix A.1).

    Of the S subnets one has the smallest size, one the largest, the others random
    ones (Yu et al., 2020, BigNAS): depth and width of each stage, and in a `UIBSpace`
    the kernel sizes of each block, each drawn uniformly. Structures are drawn for all
    blocks before sizes are, which draw gets which size is random: so no size is tied
    to the structures that come first. With a fair sampler each structure of each
    block belongs to exactly one subnet; it is trained unless the block lies beyond
    that subnet's depth.

    A supernet of a `StagedSpace` makes one of the name of the sampler of structures.

    Args:
        space: A `StagedSpace`, such as a `UIBSpace`.
        structures: A `Sampler` or its name: of structures, given beta [L, K].
        extremes: Whether the smallest and the largest size are always drawn; else
            all are random. A sampler of one subnet draws random ones.

    Raises:
        TypeError: ``space`` is no `StagedSpace`.

    Example:
    >>> space = kk.spaces.UIBSpace()
    >>> sampler = kk.training.Sandwich(space, "focus_fair")
    >>> arch_logits = np.zeros((space.num_blocks, 4), "float32")
    >>> sampler.sample(arch_logits, seed=0).shape == (4, space.num_decisions)
    True
    """

    def __init__(self, space, structures="focus_fair", extremes=True):
        if not isinstance(space, StagedSpace):
            raise TypeError(f"space must be a StagedSpace. Received: space={space!r}")
        self.space = space
        self.structures = get_sampler(structures)
        self.extremes = extremes
        self._architectures = get(space)

    @property
    def is_fair(self):
        """Whether the structures are drawn without replacement."""
        return self.structures.is_fair

    def sample(self, arch_logits, seed, shape=()):
        """Draw architectures [*shape, S, D]; see `Sampler.sample`.

        Args:
            arch_logits: beta [L, K], of structures.
            seed: As in `Sampler.sample`.
            shape: As in `Sampler.sample`.
        """
        if isinstance(seed, int):  # for draws that differ from one another
            seed = keras.random.SeedGenerator(seed)
        structures = self.structures.sample(arch_logits, seed, shape)
        leading = structures.shape[:-1]  # [*shape, S]
        counts = self._architectures.num_size_candidates()
        uniform = keras.random.uniform((*leading, len(counts)), seed=seed)
        # In float32 the product may round up to the count itself.
        sizes = ops.floor(uniform * ops.convert_to_tensor(counts, "float32"))
        sizes = ops.minimum(ops.cast(sizes, "int32"), counts.astype("int32") - 1)
        if self.extremes and leading[-1] > 1:
            rank = ops.argsort(keras.random.uniform(leading, seed=seed), axis=-1)
            for place, extreme in enumerate(self._architectures.extreme_sizes()):
                here = ops.equal(rank, place)[..., None]
                extreme = ops.convert_to_tensor(extreme, "int32")
                sizes = ops.where(here, extreme, sizes)
        return self._architectures.combine(structures, sizes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            "space": keras.saving.serialize_keras_object(self.space),
            "structures": keras.saving.serialize_keras_object(self.structures),
            "extremes": self.extremes,
        }

    @classmethod
    def from_config(cls, config):
        """Make the sampler from `get_config`."""
        return cls(
            keras.saving.deserialize_keras_object(config["space"]),
            keras.saving.deserialize_keras_object(config["structures"]),
            config["extremes"],
        )
