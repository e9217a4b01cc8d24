"""How far each weight moves: as its users want on average.

Shapes: ``S`` subnets, ``D`` decisions, ``K`` candidates, ``E`` kernels of one
layer, ``U`` different sets of candidates that weights serve.
"""

import numpy as np
from keras import ops

GRADIENT_SCALINGS = ("users", "shares", "mean", "sum")


class CandidateWeights:
    """Which weights lie on which candidates of a supernet, and how far they move.

    A candidate's weights are used by some of the subnets in flight and are a share of
    the teacher's mixture. What every architecture has, such as the stem, is used by
    all of them. So with averaged losses a candidate that one of S subnets uses moves
    1/S as far as it would if its network trained alone. The factors here make up for
    that.

    In a space with sizes, subnets are counted by candidate, a block beyond the depth of
    its stage not at all. Channels that a narrow subnet lacks are not told apart: in a
    fair set one subnet alone uses a candidate, so that its channels have either that
    user or no gradient.

    Args:
        supernet: A built `Supernet`. Its layers that hold candidates have a method
            ``decisions()``: it returns pairs of a decision and its K operations.
    """

    # DEVIATION (paper §3.3, Algorithm 1): there the gradients of all subnets are
    # accumulated, whatever number of them uses a weight.

    def __init__(self, supernet):
        shape = supernet.architectures.arch_logits_shape
        members = {}  # id of a variable -> [1 or E, D, K], which candidates it serves
        for layer in supernet._flatten_layers(include_self=False):
            for decision, operations in getattr(layer, "decisions", tuple)():
                for candidate, operation in enumerate(operations):
                    for weight, index, count in _weights(operation):
                        empty = np.zeros((count, *shape), "float32")
                        member = members.setdefault(id(weight), empty)
                        member[index, decision, candidate] = 1.0
        rows = {}  # bytes of a member's row -> its index among the U different ones
        self._rows = {
            key: [rows.setdefault(row.tobytes(), len(rows)) for row in member]
            for key, member in members.items()
        }
        flat = [np.frombuffer(row, "float32") for row in rows]
        self._members = np.reshape(flat, (len(rows), *shape))  # [U, D, K]

    def subnet_factors(self, variables, uses):
        """Return S / users for each variable that lies on candidates.

        Args:
            variables: Keras variables.
            uses: Which candidates each subnet uses: zeros and ones [S, D, K].

        Returns:
            Dictionary: id of a variable -> factor of its gradient of the subnets'
            mean loss, a tensor that broadcasts against the variable.
        """
        num_subnets = uses.shape[0]
        members = ops.convert_to_tensor(self._members[:, None])
        served = members * ops.cast(uses, "float32")  # [U, S, D, K]
        users = ops.sum(ops.max(served, axis=(2, 3)), axis=1)  # [U]
        # What nobody uses has no gradient: its factor does not matter.
        return self._by_variable(variables, num_subnets / ops.maximum(users, 1.0))

    def teacher_factors(self, variables, shares):
        """Return 1 / share for each variable that lies on candidates.

        Args:
            variables: Keras variables.
            shares: Of each candidate in the mixture of its decision: [D, K].

        Returns:
            As `subnet_factors`, of the gradient of the teacher's loss.
        """
        members = ops.convert_to_tensor(self._members)
        served = ops.sum(members * ops.cast(shares, "float32"), axis=2)  # [U, D]
        return self._by_variable(variables, 1.0 / ops.max(served, axis=1))

    def _by_variable(self, variables, factors):
        found, made = {}, {}
        for variable in variables:
            rows = tuple(self._rows.get(id(variable), ()))
            if not rows:
                continue
            ones = (1,) * (len(variable.shape) - 1)
            if len(rows) == 1:
                shape = ()
            elif len(set(rows)) == 1:  # the same for every kernel of the stack
                rows, shape = rows[:1], ()
            else:
                shape = (len(rows), *ones)
            if (rows, shape) not in made:
                if shape == ():
                    made[rows, shape] = factors[rows[0]]
                else:
                    picked = ops.take(factors, np.array(rows), axis=0)
                    made[rows, shape] = ops.reshape(picked, shape)
            found[id(variable)] = made[rows, shape]
        return found


def _weights(operation):
    # (weight, index in its stack, size of the stack) of an operation's weights.
    stacked = {
        id(weight): (conv.index, conv.kernel_layer.num_kernels)
        for conv in operation.convolutions()
        if conv.index is not None
        for weight in conv.kernel_layer.trainable_weights
    }
    for weight in operation.trainable_variables:
        yield weight, *stacked.get(id(weight), (0, 1))
