"""The base class of supernets: teacher, subnets, training and deployment.

Shapes: ``B`` batch, ``D`` decisions, ``K`` candidates, ``S`` subnets, ``Y``
classes.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_khyper import architectures, backend, generators
from keras_khyper.routes import (
    BatchStatistics,
    FairRoute,
    GivenStatistics,
    MixtureRoute,
    PathRoute,
    SwitchRoute,
    TeacherStatistics,
)
from keras_khyper.training.algorithm import Algorithm1
from keras_khyper.training.deployment import count_subnets, fill_in, lay_out
from keras_khyper.training.encoder_optimizer import EncoderOptimizer, check_optimizer
from keras_khyper.training.gradient_scaling import CandidateWeights
from keras_khyper.training.step import supernet_step

# Architectures from which an encoder learns how the space's encodings vary.
NUM_ADAPTATION_ARCHS = 4096


class Supernet(backend.SupernetTrainer, keras.Model):
    """A network that contains every architecture of a search space.

    Called without ``arch`` it is the teacher, the mixture of all candidates
    (paper Eq. 5); with ``arch`` it is one subnet. `fit` runs Algorithm 1.
    Subclasses make their layers in ``__init__`` (kernel layers of convolutions
    through ``generator``), build them in ``build`` after ``super().build``, and
    write the body once in ``body(x, route)``, where the route chooses
    candidates, kernels and BatchNorm statistics. Subnets are deployed from the same
    body (`static_network`, `materialize`). What the architectures of the space mean
    is in `Supernet.architectures`: encodings, choices, sizes, default sampler.

    Args:
        space: A `keras_khyper.spaces.SearchSpace` or another
            `keras_khyper.spaces.SpaceLike`. If its architectures are more than a
            candidate per decision, its class has been registered with
            `keras_khyper.architectures.register`.
        generator: What makes encoder and kernels: a `keras_khyper.generators.Generator`
            or its class, name or configuration, see `keras_khyper.generators.get`.
        seed: Seed of the samplers' random state.
        **kwargs: Passed to `keras.Model`.

    Call arguments:
        inputs: Images [B, H, W, channels].
        arch: None for the teacher. D integers as a list, tuple or NumPy array
            run only their own operations, at the price of one trace per
            architecture. An integer tensor [D] may be traced: one trace serves
            all architectures, and all candidates are computed.
        training: Whether BatchNorm uses batch statistics. The teacher then
            updates its moving statistics; a subnet never does. Otherwise all use
            the teacher's moving statistics, which do not fit a subnet: to predict
            with one, recalibrate it (`call_subnets`, `materialize`).

    Output shape: [B, Y].
    """

    def __init__(
        self,
        space,
        generator="kshot_hypernet",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.space = space
        self.architectures = architectures.get(space)
        self.generator = generators.get(generator)
        self.seed = seed
        self.image_shape = None
        self._subnet_counts = {}  # architecture -> parameters and MACs
        self._candidate_weights = None
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.encoder = self.generator.make_encoder()
        self.subnet_loss_metric = keras.metrics.Mean(name="subnet_loss")
        self.subnet_accuracy_metric = keras.metrics.Mean(name="subnet_accuracy")

    @classmethod
    def from_preset(cls, name):
        """Return a trained supernet that ships with the package.

        Args:
            name: One of `keras_khyper.models.Preset.names()`, or a folder of that
                form. The `Preset` has the images, accuracies and the card as well.

        Raises:
            ValueError: There is no such preset, or it is of another class.
        """
        from keras_khyper.models.presets import Preset

        supernet = Preset(name).load_supernet()
        if not isinstance(supernet, cls):
            raise ValueError(
                f"This preset is a {type(supernet).__name__}, not a {cls.__name__}. "
                f"Received: {name=}"
            )
        return supernet

    def build(self, input_shape):
        """Create beta and build the encoder."""
        self.arch_logits = self.add_weight(
            name="arch_logits",
            shape=self.architectures.arch_logits_shape,
            initializer="zeros",
            autocast=False,
            dtype="float32",
        )
        if self.encoder is not None:
            self.encoder.build((None, *self.architectures.encoding_shape))
            self._adapt_encoder()
        self.image_shape = tuple(input_shape[1:])
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})

    def _adapt_encoder(self):
        # Encoders that center their codes need to know the space.
        if not hasattr(self.encoder, "adapt"):
            return
        archs = self.space.sample(NUM_ADAPTATION_ARCHS, seed=0, unique=False)
        with backend.outside_graph():
            self.encoder.adapt(ops.convert_to_numpy(self.architectures.encode(archs)))

    def body(self, x, route):
        """Return logits: [B, Y], or [S, B, Y] on a fair route."""
        raise TypeError(
            "A supernet must define body(x, route). "
            f"Received: supernet={type(self).__name__}"
        )

    def repeated_layers(self):
        """Return lists of equal layers, each of which `body` runs by `Route.repeat`.

        JAX then trains each list as one layer with stacked weights. Layers are equal
        if they do the same with weights of the same shapes. None by default.
        """
        return []

    def __call__(self, inputs, arch=None, **kwargs):
        """Run the teacher or one subnet; see the class."""
        if arch is not None and not ops.is_tensor(arch):
            arch = tuple(int(choice) for choice in self.space.validate(arch))
        return super().__call__(inputs, arch=arch, **kwargs)

    def call(self, inputs, arch=None, training=False):
        """Run the teacher or one subnet; see the class."""
        x = ops.cast(inputs, self.compute_dtype)
        if arch is None:
            return self.body(x, self._teacher_route(training))
        statistics = BatchStatistics() if training else TeacherStatistics(False)
        return self.body(x, self._subnet_route(arch, statistics))

    def call_subnets(self, inputs, archs, statistics=None):
        """Run a fair set of subnets on the same images.

        Args:
            inputs: Images [B, H, W, channels].
            archs: Integer tensor [K, D], no two of which choose the same candidate
                at a decision.
            statistics: A `keras_khyper.routes.Statistics`, to normalize with; or
                those that `Recalibrator` computed, a dictionary of BatchNorm layer
                names to (mean, variance). None normalizes each subnet by its own
                batch statistics.

        Returns:
            Logits [K, B, Y].
        """
        if statistics is None:
            statistics = BatchStatistics(record=False)
        elif isinstance(statistics, dict):
            statistics = GivenStatistics(statistics)
        archs = ops.convert_to_tensor(archs, "int32")
        features, coefficients = self.encode(self.architectures.encode(archs))
        route = FairRoute(
            self.architectures.fair_choices(archs),
            jit_compile=self._uses_xla(),
            features=features,
            coefficients=coefficients,
            statistics=statistics,
            sizes=self.architectures.sizes(archs),
        )
        logits = self.body(ops.cast(inputs, self.compute_dtype), route)
        if len(logits.shape) == 2:  # nothing on the way depended on the subnet
            logits = ops.stack([logits] * route.num_subnets)
        return logits

    def call_paths(self, inputs, archs, low_memory=False):
        """Run any subnets one after the other, each with its batch statistics.

        Traced architectures run their own operations only, except under XLA. A
        TensorFlow graph must then hold the whole step: its gradients cannot be
        taken outside.

        Args:
            inputs: Images [B, H, W, channels].
            archs: Integer tensor [S, D].
            low_memory: Whether they do so on JAX as well, however slow that is
                on a CPU.

        Returns:
            Logits [S, B, Y].
        """
        x = ops.cast(inputs, self.compute_dtype)
        statistics = BatchStatistics(record=False)
        switch = backend.prefers_switch(self._uses_xla(), low_memory)
        logits = [
            self.body(x, self._subnet_route(archs[subnet], statistics, switch))
            for subnet in range(archs.shape[0])
        ]
        return ops.stack(logits)

    def encode(self, arch_encoding):
        """Return features [S, R, R] and coefficients [S, N], None if there are none."""
        if self.encoder is None:
            return None, None
        return self.encoder(arch_encoding)

    def _teacher_route(self, training):
        weights = self.architectures.mixture_weights(self.arch_logits)
        # beta only balances operations: no gradient through the encoder.
        encoding = self.architectures.encode_teacher(ops.stop_gradient(weights))
        features, coefficients = self.encode(encoding[None])
        return MixtureRoute(
            weights,
            features=features,
            coefficients=coefficients,
            statistics=TeacherStatistics(training),
        )

    def _subnet_route(self, arch, statistics, switch=False):
        if ops.is_tensor(arch):
            # A known architecture runs its own operations only.
            arch = backend.read_archs(arch)
        archs = ops.convert_to_tensor(arch, "int32")[None]
        features, coefficients = self.encode(self.architectures.encode(archs))
        choices = self.architectures.choices(arch)
        if isinstance(arch, list | tuple):
            kind = PathRoute
        elif switch:
            kind = SwitchRoute
        else:
            kind = MixtureRoute
            choices = ops.one_hot(choices, self.architectures.arch_logits_shape[1])
        return kind(
            choices,
            features=features,
            coefficients=coefficients,
            statistics=statistics,
            sizes=self.architectures.sizes(archs),
        )

    def _uses_xla(self):
        return bool(getattr(self, "jit_compile", False))

    def compile(self, optimizer="sgd", loss=None, *, algorithm=None, **kwargs):
        """Configure training by Algorithm 1.

        Args:
            optimizer: A Keras optimizer. It advances twice per batch, so a
                schedule that counts iterations counts ``2 * steps``.
            loss: The teacher's loss; sparse cross-entropy from logits if None.
            algorithm: An `Algorithm1`; one with its defaults if None. The attribute
                of this name has the sampler that draws from the supernet's space.
            **kwargs: Passed to `keras.Model.compile`.

        Raises:
            TypeError: ``algorithm`` is no `Algorithm1`.
            ValueError: The optimizer has an option that two updates a batch cannot
                serve (`check_optimizer`), such as weight decay, or the policy is
                mixed_float16.

        Example:
        >>> algorithm = kk.training.Algorithm1(weight_decay=5e-4)
        >>> supernet.compile("sgd", algorithm=algorithm, metrics=["accuracy"])
        """
        algorithm = Algorithm1() if algorithm is None else algorithm
        if not isinstance(algorithm, Algorithm1):
            raise TypeError(f"algorithm must be an Algorithm1. Received: {algorithm=}")
        if self.compute_dtype == "float16":
            raise ValueError(
                "The two updates of a step do not scale losses, so float16 would "
                "underflow; use mixed_bfloat16. Received: "
                f"dtype_policy={self.dtype_policy.name}"
            )
        sampler = self.architectures.make_sampler(algorithm.sampler)
        self.algorithm = dataclasses.replace(algorithm, sampler=sampler)
        if loss is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.teacher_loss = keras.losses.get(loss)
        optimizer = keras.optimizers.get(optimizer)
        check_optimizer("optimizer", optimizer)
        if algorithm.encoder_optimizer is not None and self.encoder is not None:
            optimizer = EncoderOptimizer(
                optimizer,
                # A copy: the algorithm may serve several supernets.
                keras.optimizers.get(algorithm.get_config()["encoder_optimizer"]),
                lambda: self.encoder.trainable_variables,
            )
        for part in getattr(optimizer, "parts", [optimizer]):
            backend.fuse_updates(part)
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def get_compile_config(self):
        """Return what `compile_from_config` needs."""
        config = super().get_compile_config()
        if config:
            serialize = keras.saving.serialize_keras_object
            config = {**config, "algorithm": serialize(self.algorithm)}
            if isinstance(self.optimizer, EncoderOptimizer):
                config["optimizer"] = serialize(self.optimizer.main_optimizer)
        return config

    def compile_from_config(self, config):
        """Compile as before saving; called by `keras.models.load_model`."""
        config = keras.saving.deserialize_keras_object(dict(config))
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def candidate_weights(self):
        """The `CandidateWeights` of the built supernet."""
        if self._candidate_weights is None:
            self._candidate_weights = CandidateWeights(self)
        return self._candidate_weights

    def update_step(self, data):
        """Run one step of Algorithm 1 on a batch; returns the metrics."""
        return supernet_step(self, data)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Update the teacher's metrics; leaves out those of the subnets."""
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        subnet_metrics = (
            self.subnet_loss_metric.name,
            self.subnet_accuracy_metric.name,
        )
        return {k: v for k, v in results.items() if k not in subnet_metrics}

    def static_network(self, arch):
        """Return the plain Keras model that ``arch`` becomes, with untrained weights.

        It is the body, run on a `DeployRoute`: generated convolutions are ordinary
        ones, of the subnet's own size, and all layers keep their names. What is
        not generated, such as a layer of the user's, is copied.

        Args:
            arch: D integers.

        Raises:
            ValueError: The supernet is not built for images of a known size.
        """
        return lay_out(self, arch, self._image_shape())[0]

    def deployed_layers(self, arch):
        """Return a dict: layer name in the static network -> list of layers.

        The layer gets the weights of these layers of the supernet, one after the
        other. Where its own are smaller, it gets the first channels and the centre
        of the kernel.
        """
        return lay_out(self, arch, self._image_shape())[1]

    def subnet_params(self, archs):
        """Return the trainable parameters of ``archs`` [..., D] as deployed.

        They are counted in the `static_network`, made once per architecture: for
        many architectures a space's closed form is faster.

        Returns:
            int64 array [...].
        """
        return count_subnets(self, archs, self._subnet_counts)[..., 0]

    def subnet_macs(self, archs):
        """Return the multiply-accumulates of ``archs`` [..., D] for one image.

        Counted as `subnet_params` are.

        Returns:
            int64 array [...].
        """
        return count_subnets(self, archs, self._subnet_counts)[..., 1]

    def materialize(self, arch, recalibrator):
        """Turn one subnet into a plain Keras model that needs no keras_khyper.

        Args:
            arch: D integers.
            recalibrator: The `Recalibrator` of this supernet whose BatchNorm
                statistics the model gets.

        Returns:
            The `static_network` with generated kernels and those statistics.

        Raises:
            TypeError: ``recalibrator`` is no `Recalibrator`.
            ValueError: It is another supernet's, or the architecture is not of the
                space.
        """
        network, sources = lay_out(self, arch, self._image_shape())
        fill_in(network, sources, self, arch, recalibrator)
        return network

    def _image_shape(self):
        # What the supernet was built for: the deployed subnet's input.
        if self.image_shape is None or None in self.image_shape:
            raise ValueError(
                "The image size of a deployed subnet is that of the supernet: build "
                "it first, e.g. supernet.build((None, 32, 32, 3)). Received: "
                f"image_shape={self.image_shape}"
            )
        return self.image_shape

    def seed_states(self):
        """Return the state variables of every random generator in the model."""
        weights = {id(weight) for weight in self.weights}
        return [
            variable
            for variable in self.non_trainable_variables
            if id(variable) not in weights
        ]

    def save_own_variables(self, store):
        """Save the model's own variables and every random state."""
        super().save_own_variables(store)
        for index, state in enumerate(self.seed_states()):
            store[f"seed_state_{index}"] = np.asarray(state)

    def load_own_variables(self, store):
        """Load what `save_own_variables` wrote."""
        keys = [key for key in store.keys() if not key.startswith("seed_state_")]
        super().load_own_variables({key: store[key] for key in keys})
        for index, state in enumerate(self.seed_states()):
            state.assign(np.asarray(store[f"seed_state_{index}"]))
