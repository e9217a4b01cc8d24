"""Pickles of others, read without running their code."""

import pickle
from typing import IO, Any

# What arrays, and strings written by Python 2, need: each of these only makes values.
_ALLOWED = frozenset(
    {
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
    }
)


class RestrictedUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and NumPy arrays, and nothing else.

    An ordinary unpickler calls whatever function the file names. This one refuses
    every name but the few that make arrays and ordered dictionaries.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that the file names, if it is allowed.

        Raises:
            pickle.UnpicklingError: if it is not.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"the file asks for {module}.{name}, which could run code; only "
                "arrays, numbers, strings and containers are read"
            )
        return super().find_class(module, name)


def load_pickle(file: IO[bytes], encoding: str = "ASCII") -> Any:
    """Read a pickle that holds arrays, numbers, strings and containers.

    Args:
        file: an open binary file.
        encoding: of strings that Python 2 wrote; `"latin1"` for its NumPy arrays.

    Raises:
        pickle.UnpicklingError: if it asks for anything else.

    Example:
        >>> import io, pickle
        >>> kk.pickles.load_pickle(io.BytesIO(pickle.dumps({"labels": [1, 2]})))
        {'labels': [1, 2]}
    """
    return RestrictedUnpickler(file, encoding=encoding).load()
