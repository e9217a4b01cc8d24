"""Trained supernets that ship with the package.

Shapes: ``n`` images, ``H W`` space, ``C`` image channels, ``D`` decisions.
"""

import json
import pathlib
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_khyper.data import arrays
from keras_khyper.models.half_precision import halve_weights

# In a wheel beside the package's modules, in a checkout beside the package.
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "saved_models", _PACKAGE.parent / "saved_models")

SUPERNET_FILE = "supernet.keras"
INFO_FILE = "preset.json"
CARD_FILE = "CARD.md"
CALIBRATION_FILE = "calibration.npz"
HELD_OUT_FILE = "held_out.npz"
ACCURACIES_FILE = "accuracies.npz"
_ACCURACIES = "the accuracies of its space; evaluate subnets with SubnetEvaluator"


class Preset:
    """A folder with a trained supernet and what is needed to use it offline.

    Beside the weights it holds the training images for BatchNorm recalibration,
    some images held out of training, the accuracy of architectures where it was
    measured, and a card (data, training, figures, licences).

    Args:
        name: One of `Preset.names()`, or the path of a folder that
            `Preset.write` made.

    Attributes:
        info: What `preset.json` says: ``class_name``, ``image_shape``, ``mean``
            and ``std`` of each channel on the 0-255 scale, ``class_names``,
            ``data``, ``weights_dtype`` of the file.

    Raises:
        ValueError: There is no such preset.

    Example:
    >>> preset = kk.models.Preset(kk.models.Preset.names()[0])
    >>> supernet = preset.load_supernet()
    >>> search = kk.search.RandomSearch(
    ...     supernet.space,
    ...     preset.evaluator(supernet),
    ...     [kk.search.MaxMacs(15e6)],
    ...     num_iterations=2,
    ...     verbose=0,
    ... )
    >>> best = search.run().best.arch
    >>> images = preset.calibration_images()[:64]
    >>> recalibrator = kk.training.Recalibrator(supernet, images)
    >>> supernet.materialize(best, recalibrator).output_shape
    (None, 10)
    """

    def __init__(self, name):
        self.folder = _find(name)
        self.name = self.folder.name
        self.info: dict[str, Any] = json.loads((self.folder / INFO_FILE).read_text())

    def __repr__(self):
        return f"Preset({self.name!r})"

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the names of the presets that ship."""
        found = {
            file.parent.name
            for folder in _FOLDERS
            for file in folder.glob(f"*/{INFO_FILE}")
        }
        return tuple(sorted(found))

    @property
    def card(self) -> str:
        """Text of the card, in Markdown."""
        return (self.folder / CARD_FILE).read_text()

    def load_supernet(self):
        """Return the supernet with its trained weights, float32, not compiled."""
        return keras.models.load_model(self.folder / SUPERNET_FILE, compile=False)

    def normalize(self, images: ArrayLike) -> np.ndarray:
        """Return images [n, H, W, C] of values 0-255 as the supernet reads them."""
        return arrays.normalize(
            np.asarray(images), tuple(self.info["mean"]), tuple(self.info["std"])
        )

    def calibration_images(self) -> np.ndarray:
        """Return normalised training images [n, H, W, C] for recalibration."""
        with np.load(self.folder / CALIBRATION_FILE) as file:
            return self.normalize(file["images"])

    def held_out_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels that training did not see.

        For a look at a subnet or its exported file. They are a part of those on
        which the accuracies were measured: what these select is not tested by them.

        Returns:
            Normalised images [n, H, W, C] and their labels, int64 [n].

        Raises:
            ValueError: There are none in this preset.
        """
        with np.load(self._file(HELD_OUT_FILE, "images held out of training")) as file:
            return self.normalize(file["images"]), file["labels"].astype("int64")

    def accuracies(self) -> np.ndarray:
        """Return the held-out accuracy, 0 to 1, of architectures by index.

        Returns:
            float64 array [size of the space], NaN where an architecture was not
            measured: `space.to_index` says where each one stands.

        Raises:
            ValueError: None was measured.
        """
        with np.load(self._file(ACCURACIES_FILE, _ACCURACIES)) as file:
            accuracies = np.full(int(file["size"]), np.nan)
            accuracies[file["indices"]] = file["correct"] / float(file["num_images"])
        return accuracies

    def _file(self, name: str, what: str) -> pathlib.Path:
        path = self.folder / name
        if not path.exists():
            raise ValueError(
                f"This preset does not hold {what}. Received: preset={self.name!r}"
            )
        return path

    def evaluator(self, supernet) -> "StoredAccuracies":
        """Return an evaluator that looks accuracies up: a search takes seconds.

        A search with it stays among the architectures that were measured.

        Raises:
            ValueError: No accuracy was measured.
        """
        with np.load(self._file(ACCURACIES_FILE, _ACCURACIES)) as file:
            correct = file["correct"] / float(file["num_images"])
            return StoredAccuracies(supernet, file["indices"], correct)

    @classmethod
    def write(
        cls,
        folder,
        supernet,
        info: dict[str, Any],
        card: str,
        calibration_images: np.ndarray,
        correct: np.ndarray | None = None,
        num_images: int = 0,
        archs: ArrayLike | None = None,
        held_out: tuple[np.ndarray, np.ndarray] | None = None,
        weights_dtype: str = "float32",
    ) -> "Preset":
        """Write a preset's folder.

        The supernet is saved without optimizer state. `preset.json` is written
        last: a folder without it is none.

        Args:
            folder: Where to; made if it is not there.
            supernet: A built, trained supernet.
            info: ``mean``, ``std``, ``class_names``, ``data`` and whatever else
                is to be known.
            card: The card's text.
            calibration_images: uint8 training images [n, H, W, C].
            correct: Correctly classified held-out images of each of ``archs``;
                None where they were not counted.
            num_images: Of how many.
            archs: Distinct architectures [n, D]; all of the space by index if not
                given.
            held_out: uint8 images [n, H, W, C] held out of training and their
                labels.
            weights_dtype: In which type the file holds weights: ``"float32"``, or
                ``"float16"`` for half the size, rounded to 11 significant bits.

        Raises:
            ValueError: ``info`` lacks an entry, ``correct`` does not fit ``archs`` or
                the space, which must have 64-bit indices, or ``weights_dtype`` is
                another or too small for a weight.
        """
        if weights_dtype not in ("float32", "float16"):
            raise ValueError(
                "weights_dtype must be 'float32' or 'float16'. "
                f"Received: {weights_dtype=}"
            )
        missing = {"mean", "std", "class_names", "data"} - set(info)
        if missing:
            raise ValueError(
                f"info must also hold {sorted(missing)}. Received: {info=}"
            )
        measured = None
        if correct is not None:
            measured = _measured(supernet.space, archs, correct, num_images)
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INFO_FILE).unlink(missing_ok=True)
        _without_optimizer(supernet).save(folder / SUPERNET_FILE)
        if weights_dtype == "float16":
            halve_weights(folder / SUPERNET_FILE)
        np.savez_compressed(folder / CALIBRATION_FILE, images=calibration_images)
        for name in (HELD_OUT_FILE, ACCURACIES_FILE):
            (folder / name).unlink(missing_ok=True)  # of another preset
        if held_out is not None:
            images, labels = held_out
            np.savez_compressed(folder / HELD_OUT_FILE, images=images, labels=labels)
        if measured is not None:
            np.savez_compressed(folder / ACCURACIES_FILE, **measured)
        (folder / CARD_FILE).write_text(card)
        entries = {
            **info,
            "class_name": type(supernet).__name__,
            "image_shape": list(supernet.image_shape),
            "weights_dtype": weights_dtype,
        }
        (folder / INFO_FILE).write_text(json.dumps(entries, indent=1) + "\n")
        return cls(folder)


class StoredAccuracies:
    """Look up what was measured before, as a search's evaluator.

    Searches ask `unmeasured` what to leave out, so that none gets an error here.

    Args:
        supernet: The supernet whose subnets these are; counts their cost.
        indices: `space.to_index` of the architectures that were measured [n].
        accuracies: The accuracy of each, 0 to 1 [n].

    Example:
    >>> stored = kk.models.StoredAccuracies(supernet, [7, 3], [0.5, 0.6])
    >>> stored.evaluate(space.from_index([3, 7])).tolist()
    [0.6, 0.5]
    """

    def __init__(self, supernet, indices, accuracies):
        self.supernet = supernet
        order = np.argsort(indices)
        self._indices = np.asarray(indices)[order]
        self._accuracies = np.asarray(accuracies)[order]

    def unmeasured(self, archs: ArrayLike) -> np.ndarray:
        """Return 1 for each architecture [n, D] that was not measured, else 0: [n]."""
        known = np.isin(self.supernet.space.to_index(archs), self._indices)
        return 1 - known.astype("int64")

    def evaluate(self, archs: ArrayLike) -> np.ndarray:
        """Return the accuracy of each architecture [n, D], 0 to 1: [n].

        Raises:
            ValueError: One was not measured.
        """
        archs = np.asarray(archs)
        missing = np.flatnonzero(self.unmeasured(archs))
        if len(missing):
            raise ValueError(
                "Stored accuracies are those of the architectures that were measured; "
                "evaluate others with SubnetEvaluator. Received: "
                f"{len(missing)} others, arch={archs[missing[0]].tolist()}"
            )
        indices = self.supernet.space.to_index(archs)
        return self._accuracies[np.searchsorted(self._indices, indices)]


def _measured(space, archs, correct, num_images):
    """Return what accuracies.npz holds."""
    if archs is None:
        indices = np.arange(space.size)
    else:
        indices = np.asarray(space.to_index(archs))
    correct = np.asarray(correct)
    if correct.shape != indices.shape or len(np.unique(indices)) != len(indices):
        raise ValueError(
            "correct must have one count for each architecture, and these must be "
            f"distinct. Received: {len(correct)} counts, {len(indices)} architectures, "
            f"{len(np.unique(indices))} of them distinct"
        )
    if not 0 <= correct.min() <= correct.max() <= num_images:
        raise ValueError(
            "Counts must lie in 0, ..., num_images. Received: "
            f"{num_images=}, counts in [{correct.min()}, {correct.max()}]"
        )
    return {
        "size": space.size,
        "indices": indices,
        "correct": correct.astype("int32"),
        "num_images": num_images,
    }


def _find(name):
    if name in Preset.names():
        return next(
            folder / name for folder in _FOLDERS if (folder / name / INFO_FILE).exists()
        )
    folder = pathlib.Path(name)
    if (folder / INFO_FILE).exists():
        return folder.resolve()
    raise ValueError(
        f"preset must be one of {Preset.names()} or a folder with {INFO_FILE}. "
        f"Received: preset={str(name)!r}"
    )


def _without_optimizer(supernet):
    # Momentum doubles the file, and whoever trains on compiles anew.
    copy = type(supernet).from_config(supernet.get_config())
    copy.build((None, *supernet.image_shape))
    copy.set_weights(supernet.get_weights())
    return copy
