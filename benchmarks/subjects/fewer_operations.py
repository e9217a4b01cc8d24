"""Subject: our step with the first K candidate operations only.

The order begins with the convolutions, so that every K has them. A step trains
K subnets: stem, reductions and head run K times for them, every candidate of a
cell once.
"""

from benchmarks.subjects import supernet_step
from keras_khyper.models import NASBench201Supernet
from keras_khyper.spaces import NASBench201, SearchSpace
from keras_khyper.training import Supernet

ORDER = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none")


class FewerOperations(NASBench201):
    """The cells of NAS-Bench-201 with the first ``num_candidates`` of `ORDER`.

    Raises:
        ValueError: There are not so many.
    """

    def __init__(self, num_candidates):
        if not 2 <= num_candidates <= len(ORDER):
            raise ValueError(
                f"num_candidates must be from 2 to {len(ORDER)}. "
                f"Received: {num_candidates=}"
            )
        full = NASBench201()
        SearchSpace.__init__(
            self, full.num_decisions, ORDER[:num_candidates], full.decision_names
        )

    def __repr__(self):
        return f"FewerOperations({self.num_candidates})"


class _InFewerOperations(Supernet):
    """Put its space in the place of the one that a supernet names."""

    num_candidates = len(ORDER)

    def __init__(self, space, *args, **kwargs):
        del space
        super().__init__(FewerOperations(self.num_candidates), *args, **kwargs)


# Its __init__ calls the next one in this order: that of _InFewerOperations.
class FewerOperationsSupernet(NASBench201Supernet, _InFewerOperations):
    """The supernet of `FewerOperations`, for training; see `build`."""


def build(num_candidates: int, **options):
    """Return ``run(steps)``; see `supernet_step.build` for the options.

    Args:
        num_candidates: K, from 2 to 5.
        **options: Of `supernet_step.build`.
    """
    supernet_class = type(
        "FewerOperationsSupernet",
        (FewerOperationsSupernet,),
        {"num_candidates": num_candidates},
    )
    return supernet_step.build(supernet_class=supernet_class, **options)
