"""Two optimizers in one: the architecture encoder's and everything else's."""

import keras

# Options of Keras' optimizers -> why Algorithm 1 cannot train with them.
_REFUSED = {
    "weight_decay": "Keras decays weights on every update, Algorithm 1 only in the "
    "teacher's: give weight_decay to Algorithm1",
    "gradient_accumulation_steps": "A step makes two updates, the teacher's and the "
    "subnets', whose gradients would be mixed: take larger batches",
    "ema_overwrite_frequency": "Weights would be replaced between the two updates of "
    "a step: leave it None, and the averages take over when training ends",
    "loss_scale_factor": "The two updates of a step do not scale losses: take "
    "mixed_bfloat16",
}


def check_optimizer(name, optimizer):
    """Raise unless two updates a batch can be made by an optimizer.

    Args:
        name: Name of the argument, for the message.
        optimizer: The argument.

    Raises:
        TypeError: It is not a `keras.optimizers.Optimizer`.
        ValueError: It has an option that Algorithm 1 cannot serve.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"{name} must be a keras.optimizers.Optimizer. "
            f"Received: {name}={optimizer!r}"
        )
    for option, reason in _REFUSED.items():
        value = getattr(optimizer, option, None)
        if value:
            raise ValueError(
                f"{reason} and leave it out of the optimizer. "
                f"Received: {name}.{option}={value}"
            )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"{_REFUSED['loss_scale_factor']} and no LossScaleOptimizer. "
            f"Received: {name}={optimizer.name}"
        )


@keras.saving.register_keras_serializable(package="keras_khyper")
class EncoderOptimizer(keras.optimizers.Optimizer):
    """Updates the encoder's variables by one optimizer, all others by another.

    What Keras asks of an optimizer (learning rate, iterations) is the main
    optimizer's: a scheduler drives it alone. `keras.optimizers.MultiOptimizer` has
    no learning rate and cannot update a part of the variables, as the two updates
    of Algorithm 1 do. `Supernet.compile` makes one; its two optimizers are the
    attributes ``main_optimizer`` and ``encoder_optimizer``.

    Args:
        main_optimizer: A `keras.optimizers.Optimizer`.
        encoder_optimizer: Another one, of the encoder's variables.
        encoder_variables: Function of no arguments that returns the encoder's
            variables, called when the optimizer is built. It is not saved: the
            supernet that compiles gives it anew.
        name: Name of the optimizer.

    Raises:
        TypeError, ValueError: See `check_optimizer`.

    Example:
    >>> adam = keras.optimizers.Adam(1e-3, clipnorm=1.0)
    >>> algorithm = kk.training.Algorithm1(encoder_optimizer=adam)
    >>> supernet.compile("sgd", algorithm=algorithm)
    >>> supernet.optimizer.encoder_optimizer.learning_rate = 5e-4
    """

    def __init__(
        self,
        main_optimizer,
        encoder_optimizer,
        encoder_variables=None,
        name="encoder_optimizer",
    ):
        check_optimizer("main_optimizer", main_optimizer)
        check_optimizer("encoder_optimizer", encoder_optimizer)
        super().__init__(learning_rate=0.0, name=name)
        self.main_optimizer = main_optimizer
        self.encoder_optimizer = encoder_optimizer
        self._encoder_variables = encoder_variables
        self._of_encoder = frozenset()

    def build(self, variables):
        """Make the state of both optimizers.

        Raises:
            ValueError: It is not known which variables are the encoder's.
        """
        if self.built:
            return
        if self._encoder_variables is None:
            raise ValueError(
                "Only the optimizer of a compiled supernet knows which variables are "
                "the encoder's. Received: encoder_variables=None"
            )
        self._of_encoder = frozenset(map(id, self._encoder_variables()))
        main, encoder = self._split([(variable,) for variable in variables])
        self.main_optimizer.build([variable for (variable,) in main])
        self.encoder_optimizer.build([variable for (variable,) in encoder])
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        """Update the given variables, each by its optimizer."""
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        if not self.built:
            self.build(trainable_variables)
        pairs = list(zip(grads, trainable_variables, strict=True))
        for optimizer, part in zip(self.parts, self._split(pairs), strict=True):
            if part:
                gradients, variables = zip(*part, strict=True)
                optimizer.apply(list(gradients), list(variables))

    def _split(self, rows):
        """Return the rows that end in a main variable, and those of the encoder's."""
        main, encoder = [], []
        for row in rows:
            (encoder if id(row[-1]) in self._of_encoder else main).append(row)
        return main, encoder

    @property
    def parts(self):
        """The main optimizer and the encoder's."""
        # Not `optimizers`: by that name Keras' schedulers would drive both.
        return [self.main_optimizer, self.encoder_optimizer]

    @property
    def variables(self):
        """The state of both optimizers, which a trainer carries through a step."""
        return self.main_optimizer.variables + self.encoder_optimizer.variables

    @property
    def learning_rate(self):
        """The main optimizer's."""
        return self.main_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.main_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        """The main optimizer's."""
        return self.main_optimizer.iterations

    def finalize_variable_values(self, var_list):
        """Let each optimizer finish its variables, as averages of weights do."""
        main, encoder = self._split([(variable,) for variable in var_list])
        self.main_optimizer.finalize_variable_values([v for (v,) in main])
        self.encoder_optimizer.finalize_variable_values([v for (v,) in encoder])

    def save_own_variables(self, store):
        """Save nothing: Keras saves both optimizers, which are attributes."""
        del store

    def load_own_variables(self, store):
        """Load nothing; see `save_own_variables`."""
        del store

    def get_config(self):
        """Return the constructor's arguments, without the encoder's variables."""
        serialize = keras.saving.serialize_keras_object
        return {
            "main_optimizer": serialize(self.main_optimizer),
            "encoder_optimizer": serialize(self.encoder_optimizer),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the optimizer from `get_config`."""
        return cls(
            **keras.saving.deserialize_keras_object(dict(config), custom_objects)
        )
