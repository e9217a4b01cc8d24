"""The PyTorch side of the backend seam."""

import torch

__all__ = [
    "SupernetTrainer",
    "normalize_batch",
    "num_replicas",
    "read_slots",
    "replica_id",
    "stack_subnets",
    "stateless_function",
    "sum_into_subnets",
    "sync_variables",
    "take_subnet",
    "unstack_subnets",
    "value_and_grad",
]


def value_and_grad(loss_fn, variables, state):
    """Differentiate ``loss_fn() -> (loss, aux)`` with respect to ``variables``.

    See the TensorFlow module for the arguments.
    """
    del state
    with torch.enable_grad():
        loss, aux = loss_fn()
        gradients = torch.autograd.grad(
            loss,
            [variable.value for variable in variables],
            allow_unused=True,
            materialize_grads=True,
        )
    aux = [item.detach() if torch.is_tensor(item) else item for item in aux]
    return (loss.detach(), aux), gradients


class SupernetTrainer:
    """Connects ``update_step`` to the PyTorch trainer of Keras."""

    def train_step(self, data):
        """Run one supernet step eagerly."""
        with torch.no_grad():
            return self.update_step(data)


def stateless_function(model, function):
    """Run ``function(*tensors)``, which may read the variables of ``model``."""
    del model

    def call(*args):
        with torch.no_grad():
            return function(*args)

    return call


def sync_variables(model):
    """Bring the variables up to date between two batches."""
    del model


def num_replicas():
    """Number of replicas whose gradients the optimizer sums."""
    return 1


def replica_id():
    """Index of this replica."""
    return 0


def normalize_batch(x, scale, offset, epsilon):
    """Normalise ``x`` by its own mean and biased variance over B, H and W."""
    mean = torch.zeros_like(scale)
    unbiased = torch.ones_like(scale)
    # Momentum 1 makes the running statistics those of this batch.
    normalized = torch.nn.functional.batch_norm(
        x.permute(0, 3, 1, 2), mean, unbiased, scale, offset, True, 1.0, epsilon
    ).permute(0, 2, 3, 1)
    count = x.numel() // x.shape[-1]
    return normalized, mean, unbiased * ((count - 1.0) / count)


def read_slots(slots):
    """Return routing indices as Python integers, which cost nothing to index."""
    return slots.tolist()


def stack_subnets(subnets):
    """Keep a list of S tensors: eager indexing needs no copy."""
    return subnets


def unstack_subnets(stacked):
    """Keep a list of S tensors."""
    return stacked


def take_subnet(stacked, slot):
    """Return the activation [B, H, W, C] of the subnet in ``slot``."""
    return stacked[slot]


def sum_into_subnets(parts, slots, num_subnets):
    """Add each part [B, H, W, C] into the subnet that its slot names."""
    total = [None] * num_subnets
    for part, slot in zip(parts, slots, strict=True):
        total[slot] = part if total[slot] is None else total[slot] + part
    return [torch.zeros_like(parts[0]) if part is None else part for part in total]
