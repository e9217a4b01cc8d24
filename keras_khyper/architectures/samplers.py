"""Which subnets a training step runs.

Shapes: ``D`` decisions, ``K`` candidates, ``S`` subnets (docs/symbols.md).
"""

import keras
from keras import ops


class Sampler:
    """Base of the samplers; JSON-safe `get_config`, no state.

    Attributes:
        is_fair: The sampled subnets use each candidate of each decision exactly
            once, so that S = K and one static graph runs them. Where decisions have
            different numbers of candidates, see `UnequalDecisions`.
    """

    is_fair = False

    def sample(self, arch_logits, seed, shape=()):
        """Draw subnets, also inside a traced graph.

        Args:
            arch_logits: beta [D, K].
            seed: A `keras.random.SeedGenerator` or an int.
            shape: Leading shape: as many independent draws.

        Returns:
            Integer tensor [*shape, S, D]; row k is subnet k.
        """
        raise TypeError(
            "A sampler must define sample(arch_logits, seed, shape). "
            f"Received: sampler={type(self).__name__}"
        )

    def get_config(self):
        """Return the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Make the sampler from `get_config`."""
        return cls(**config)


def _gumbel(shape, seed):
    uniform = keras.random.uniform(shape, minval=1e-7, maxval=1.0, seed=seed)
    # The upper end is excluded in theory, not in float32 on every backend.
    return -ops.log(-ops.log(ops.minimum(uniform, 1.0 - 1e-7)))


@keras.saving.register_keras_serializable(package="keras_khyper")
class FocusFair(Sampler):
    """Focus-Fair sampling (paper §3.3): strong operations tend to meet.

    At each decision the K candidates are drawn without replacement with weights
    softmax(beta / tau); the k-th draws of all decisions make subnet k. A sort
    of Gumbel-perturbed logits draws all of them at once.

    Args:
        sampling_temperature: tau > 0; the paper uses 1.5.

    Raises:
        ValueError: The temperature is not positive.

    Example:
    >>> sampler = kk.training.FocusFair(sampling_temperature=1.5)
    >>> sampler.sample(supernet.arch_logits, seed=0).shape == (5, 6)    # [K, D]
    True
    """

    is_fair = True

    def __init__(self, sampling_temperature=1.5):
        if not sampling_temperature > 0:
            raise ValueError(
                f"sampling_temperature must be positive. Received: "
                f"{sampling_temperature=}"
            )
        self.sampling_temperature = sampling_temperature

    def sample(self, arch_logits, seed, shape=()):
        """Draw fair sets [*shape, K, D]; see `Sampler.sample`."""
        logits = ops.convert_to_tensor(arch_logits) / self.sampling_temperature
        noise = _gumbel((*shape, *logits.shape), seed)
        order = ops.argsort(-(logits + noise), axis=-1)  # [..., D, K]
        return ops.cast(ops.swapaxes(order, -1, -2), "int32")  # [..., K, D]

    def get_config(self):
        """Return the constructor's arguments."""
        return {"sampling_temperature": self.sampling_temperature}


@keras.saving.register_keras_serializable(package="keras_khyper")
class FairNAS(Sampler):
    """Strict fairness (Chu et al., 2021): Focus-Fair with beta = 0.

    Example:
    >>> drawn = kk.training.FairNAS().sample(supernet.arch_logits, seed=0)  # [K, D]
    >>> sorted(np.array(keras.ops.convert_to_numpy(drawn))[:, 0].tolist())
    [0, 1, 2, 3, 4]
    """

    is_fair = True

    def sample(self, arch_logits, seed, shape=()):
        """Draw fair sets [*shape, K, D]; see `Sampler.sample`."""
        return FocusFair(1.0).sample(ops.zeros(arch_logits.shape), seed, shape)


@keras.saving.register_keras_serializable(package="keras_khyper")
class SPOS(Sampler):
    """Uniform single paths (Guo et al., 2020), each drawn independently.

    On JAX, and under XLA, every single path costs about as much as a fair set
    of K subnets, because all candidates are computed.

    Args:
        num_subnets: S, the single paths per step.

    Raises:
        ValueError: ``num_subnets`` is below 1.

    Example:
    >>> tuple(kk.training.SPOS().sample(supernet.arch_logits, seed=0).shape)
    (1, 6)
    """

    def __init__(self, num_subnets=1):
        if num_subnets < 1:
            raise ValueError(
                f"num_subnets must be at least 1. Received: {num_subnets=}"
            )
        self.num_subnets = num_subnets

    def sample(self, arch_logits, seed, shape=()):
        """Draw single paths [*shape, S, D]; see `Sampler.sample`."""
        decisions, candidates = arch_logits.shape
        return keras.random.randint(
            (*shape, self.num_subnets, decisions), 0, candidates, seed=seed
        )

    def get_config(self):
        """Return the constructor's arguments."""
        return {"num_subnets": self.num_subnets}


SAMPLERS = {"focus_fair": FocusFair, "fairnas": FairNAS, "spos": SPOS}


def get_sampler(sampler):
    """Return a `Sampler`, made by name if a string is given; Focus-Fair for None.

    Raises:
        ValueError: The name is not one of `SAMPLERS`.
        TypeError: Neither a string nor a sampler.
    """
    if sampler is None:
        return FocusFair()
    if isinstance(sampler, Sampler):
        return sampler
    if not isinstance(sampler, str):
        raise TypeError(f"sampler must be a Sampler or a name. Received: {sampler=}")
    if sampler not in SAMPLERS:
        raise ValueError(
            f"sampler must be one of {sorted(SAMPLERS)}. Received: {sampler=}"
        )
    return SAMPLERS[sampler]()
