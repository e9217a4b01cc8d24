"""What Algorithm 1 of the paper can vary, as one object."""

import dataclasses

import keras

from keras_khyper.architectures.samplers import Sampler, get_sampler
from keras_khyper.checks import (
    check_choice,
    check_integer,
    check_number,
    check_positive,
    check_probability,
)
from keras_khyper.training.encoder_optimizer import check_optimizer
from keras_khyper.training.gradient_scaling import GRADIENT_SCALINGS


def _set(frozen, **values):
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True)
class Distillation:
    """In-place distillation: subnets learn the teacher's soft labels (paper §3.3).

    Args:
        temperature: T > 0; teacher's and subnets' logits are divided by it and the
            loss is multiplied by T^2 (Hinton et al., 2015). The paper has none: 1.
        weight: w in [0, 1]; the subnets' loss is w times the distillation's plus
            (1 - w) times the compiled loss on the true labels. The paper: 1.

    Raises:
        TypeError: An argument is no number.
        ValueError: It is out of range.

    Example:
    >>> soft = kk.training.Distillation(temperature=2.0, weight=0.5)
    >>> supernet.compile("sgd", algorithm=kk.training.Algorithm1(distillation=soft))
    """

    temperature: float = 1.0
    weight: float = 1.0

    def __post_init__(self):
        _set(
            self,
            temperature=check_positive("temperature", self.temperature),
            weight=check_probability("weight", self.weight),
        )

    def get_config(self):
        """Return the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        """Make the object from `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_khyper")
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Algorithm1:
    """How a supernet trains: the options of the paper's Algorithm 1.

    Frozen: what was checked and saved is what trains. One object may serve several
    supernets.

    Args:
        sampler: A `Sampler`, or one of ``"focus_fair"``, ``"fairnas"``, ``"spos"``;
            Focus-Fair if None. Over a space with sizes it draws the structures, and
            sizes follow the sandwich rule.
        weight_decay: Coupled decay, added to the teacher's gradients of kernels,
            generators and beta; never on BatchNorm, LayerNorm or biases, never in
            the subnets' update.
        distillation: A `Distillation`; None lets subnets learn the true labels with
            the compiled loss.
        train_arch_logits: Whether beta is trained.
        fair_sets_per_step: Draws of the sampler per batch.
        accumulate: Whether the subnets run forward and backward one after the other,
            their gradients summed, instead of all in one graph: the same update up
            to rounding, in the memory of one subnet (of the teacher on TensorFlow
            with ``jit_compile``). The teacher's update then needs the most, and the
            larger graph takes memory, too: the full ImageNet supernet needs more
            (docs/performance.md). Far slower where XLA compiles for a CPU, as JAX
            does.
        gradient_scaling: How far a weight moves. ``"users"``: by the mean over the
            subnets that use it, and in the teacher's update as if its mixture had
            one candidate: gradients of the weights on a decision's candidates are
            multiplied by S / users in the subnets' update and by K in the teacher's.
            ``"shares"``: the same with one over the candidate's softmax(beta) in
            place of K. ``"mean"``: by the gradient of the subnets' mean loss, in
            which a candidate that one of S subnets uses moves 1/S as far as it would
            alone. ``"sum"``: by that of the summed losses, Algorithm 1 as it is
            written, in which what all subnets share moves S times as far. Decay is
            never scaled.
        encoder_learning_rate_multiplier: Factor of the gradients of the encoder,
            which sum over all layers and subnets. At 1 every kernel jumps with every
            step and learns far slower than a plain one (recipes/generator_scale.py).
            It scales the encoder's decay, too.
        encoder_optimizer: A `keras.optimizers.Optimizer` that updates the encoder in
            both updates, such as ``Adam(1e-3, clipnorm=1.0)``; the compiled optimizer
            updates the others. The encoder's gradients are then neither multiplied
            nor decayed. Each supernet trains with a copy, which has the state
            (`EncoderOptimizer`); one without an encoder has no use for it. None: the
            compiled optimizer updates the encoder, too.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: It is out of range, a name is unknown, the optimizer has options
            that two updates a batch cannot serve, or the encoder has both an
            optimizer and a multiplier.

    Example:
    >>> supernet.compile(
    ...     keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    ...     algorithm=kk.training.Algorithm1(sampler="fairnas", weight_decay=5e-4),
    ... )
    """

    sampler: Sampler | str | None = None
    weight_decay: float = 0.0
    distillation: Distillation | None = Distillation()
    train_arch_logits: bool = True
    fair_sets_per_step: int = 1
    accumulate: bool = False
    gradient_scaling: str = "users"
    encoder_learning_rate_multiplier: float = 0.001
    encoder_optimizer: keras.optimizers.Optimizer | None = None

    def __post_init__(self):
        if not isinstance(self.distillation, Distillation | None):
            raise TypeError(
                "distillation must be a Distillation or None. Received: "
                f"distillation={self.distillation!r}"
            )
        for name in ("train_arch_logits", "accumulate"):
            check_choice(name, getattr(self, name), (True, False))
        check_choice("gradient_scaling", self.gradient_scaling, GRADIENT_SCALINGS)
        for name in ("weight_decay", "encoder_learning_rate_multiplier"):
            _set(self, **{name: check_number(name, getattr(self, name), minimum=0)})
        sets = check_integer("fair_sets_per_step", self.fair_sets_per_step, minimum=1)
        sampler = None if self.sampler is None else get_sampler(self.sampler)
        _set(self, fair_sets_per_step=sets, sampler=sampler)
        if self.encoder_optimizer is not None:
            check_optimizer("encoder_optimizer", self.encoder_optimizer)
            self._check_multiplier_is_default()

    def _check_multiplier_is_default(self):
        multiplier = self.encoder_learning_rate_multiplier
        if multiplier != type(self).encoder_learning_rate_multiplier:
            raise ValueError(
                "encoder_learning_rate_multiplier must keep its default where the "
                "encoder has an optimizer, whose learning rate replaces it. Received: "
                f"encoder_learning_rate_multiplier={multiplier}"
            )

    def __eq__(self, other):
        # Samplers compare by identity.
        return type(self) is type(other) and self.get_config() == other.get_config()

    def get_config(self):
        """Return the constructor's arguments, serialised."""
        return {
            field.name: keras.saving.serialize_keras_object(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_config(cls, config):
        """Make the object from `get_config`."""
        return cls(**keras.saving.deserialize_keras_object(dict(config)))
