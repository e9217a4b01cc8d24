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

# In a wheel beside the package's modules, in a checkout beside the package.
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "saved_models", _PACKAGE.parent / "saved_models")

SUPERNET_FILE = "supernet.keras"
INFO_FILE = "preset.json"
CARD_FILE = "CARD.md"
CALIBRATION_FILE = "calibration.npz"
ACCURACIES_FILE = "accuracies.npz"


class Preset:
    """A folder with a trained supernet and what is needed to use it offline.

    Beside the weights it holds the training images for BatchNorm recalibration,
    the accuracy of every architecture of the space on held-out images where it
    was measured, and a card (data, training, figures, licences).

    Args:
        name: One of `Preset.names()`, or the path of a folder that
            `Preset.write` made.

    Attributes:
        info: What `preset.json` says: ``class_name``, ``image_shape``, ``mean``
            and ``std`` of each channel on the 0-255 scale, ``class_names``,
            ``data``.

    Raises:
        ValueError: There is no such preset.

    Example:
    >>> preset = kk.models.Preset(kk.models.Preset.names()[0])
    >>> supernet = preset.load_supernet()
    >>> search = kk.search.EvolutionarySearch(
    ...     supernet.space, preset.evaluator(supernet), [kk.search.MaxMacs(4e6)]
    ... )
    >>> best = search.run().best.arch
    >>> network = supernet.materialize(best, preset.calibration_images())
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
        """Return the supernet with its trained weights, not compiled."""
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

    def accuracies(self) -> np.ndarray:
        """Return the held-out accuracy, 0 to 1, of every architecture by index.

        Returns:
            float64 array [size of the space]: `space.to_index` says where.

        Raises:
            ValueError: They were not measured.
        """
        path = self.folder / ACCURACIES_FILE
        if not path.exists():
            raise ValueError(
                "This preset does not hold the accuracies of its space; evaluate "
                f"subnets with SubnetEvaluator. Received: preset={self.name!r}"
            )
        with np.load(path) as file:
            return file["correct"] / float(file["num_images"])

    def evaluator(self, supernet) -> "StoredAccuracies":
        """Return an evaluator that looks accuracies up: a search takes seconds."""
        return StoredAccuracies(supernet, self.accuracies())

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
            correct: Correctly classified held-out images of every architecture
                by index; None where they were not counted.
            num_images: Of how many.

        Raises:
            ValueError: ``info`` lacks an entry, or ``correct`` does not fit the
                space.
        """
        missing = {"mean", "std", "class_names", "data"} - set(info)
        if missing:
            raise ValueError(
                f"info must also hold {sorted(missing)}. Received: {info=}"
            )
        if correct is not None and len(correct) != supernet.space.size:
            raise ValueError(
                "correct must have one count per architecture of the space. "
                f"Received: {len(correct)} counts, size={supernet.space.size}"
            )
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INFO_FILE).unlink(missing_ok=True)
        _without_optimizer(supernet).save(folder / SUPERNET_FILE)
        np.savez_compressed(folder / CALIBRATION_FILE, images=calibration_images)
        if correct is not None:
            np.savez_compressed(
                folder / ACCURACIES_FILE,
                correct=np.asarray(correct, "uint16"),
                num_images=num_images,
            )
        (folder / CARD_FILE).write_text(card)
        entries = {
            **info,
            "class_name": type(supernet).__name__,
            "image_shape": list(supernet.image_shape),
        }
        (folder / INFO_FILE).write_text(json.dumps(entries, indent=1) + "\n")
        return cls(folder)


class StoredAccuracies:
    """Looks up what was measured before, as a search's evaluator.

    Args:
        supernet: The supernet whose subnets these are; counts their cost.
        accuracies: Accuracy of every architecture by `space.to_index`.
    """

    def __init__(self, supernet, accuracies):
        self.supernet = supernet
        self._accuracies = accuracies

    def evaluate(self, archs: ArrayLike) -> np.ndarray:
        """Return the accuracy of each architecture [n, D], 0 to 1: [n]."""
        return self._accuracies[self.supernet.space.to_index(archs)]


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
