"""Training batches that `fit` reads in the same order, killed and resumed or not."""

from typing import Any

import keras

_HOW_TO_FIT = "model.fit(train, shuffle=False, callbacks=[*train.callbacks(), ...])"


class TrainingBatches(keras.utils.PyDataset):
    """Batches of training images, a function of seed, epoch and index alone.

    Batch `i` of epoch `e` depends on `(seed, e, i)` and on nothing else: a run that
    was killed and resumed in epoch `e` sees the batches that it would have seen. For
    that the batches must know the epoch, and `fit` must read them in order, with
    `shuffle=False` and `callbacks=[*train.callbacks()]`; `ImageTask` has an example.
    A `fit` without these callbacks is refused, and so is one without
    `shuffle=False`: there Keras shuffles the *order of the batches* with Python's
    global generator. The order of the images is new in every epoch all the same.

    A subclass defines `__len__`, the number of batches in an epoch, and
    :meth:`batch`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0
        self._follows_fit = False
        self._indices_read: set[int] = set()
        self._index_out_of_order: int | None = None

    def batch(self, epoch: int, index: int) -> tuple[Any, Any]:
        """Return batch `index` of `epoch`, whatever epoch is being read.

        Args:
            epoch: number of the epoch, counted from 0.
            index: number of the batch in its epoch, counted from 0.

        Returns:
            Normalized images, `float32` `[B, H, W, C]`, and labels.

        Raises:
            IndexError: if the epoch has no such batch.
        """
        raise TypeError(
            "Training batches must define batch(epoch, index). "
            f"Received: {type(self).__name__}"
        )

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return the callbacks that `fit` needs to read the right epoch's batches.

        With them `keras.callbacks.BackupAndRestore` resumes on the very batches of
        the epoch that was interrupted, and `fit(initial_epoch=e)` begins with those
        of `e`. During `fit` they raise ValueError if it was not called with
        `shuffle=False`, if `steps_per_epoch` cuts epochs short or strings them
        together, or if the batches are read by more than one worker, whose leftover
        batches Keras carries into the next epoch.
        """
        self._follows_fit = True
        return [_SetEpoch(self)]

    @property
    def epoch(self) -> int:
        """The epoch, counted from 0, whose batches are read at present."""
        return self._epoch

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index > 0 and index - 1 not in self._indices_read:
            self._index_out_of_order = index
        self._indices_read.add(index)
        return self.batch(self._epoch, index)

    def on_epoch_begin(self) -> None:
        """Refuse a `fit` that does not tell the epoch; Keras calls this."""
        if not self._follows_fit:
            raise ValueError(
                "Training batches must know the epoch, or a resumed run would see "
                f"other images: call {_HOW_TO_FIT}. To evaluate, read "
                "`evaluation_batches` or `examples`. "
                "Received: an epoch without train.callbacks()"
            )


class _SetEpoch(keras.callbacks.Callback):
    """Keep training batches in step with the epoch that `fit` is in."""

    def __init__(self, batches: TrainingBatches):
        super().__init__()
        self.batches = batches

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuse settings of `fit` under which epochs would not be exact."""
        del logs
        steps = self.params.get("steps")
        if steps != len(self.batches):
            raise ValueError(
                "An epoch must read every training batch once; leave out "
                f"steps_per_epoch. Received: steps per epoch={steps}, "
                f"number of batches={len(self.batches)}"
            )
        if self.batches.workers > 1:
            raise ValueError(
                "Exact epochs need one worker. "
                f"Received: workers={self.batches.workers}"
            )
        self.batches._follows_fit = True
        self.batches._index_out_of_order = None
        self.batches._indices_read.clear()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Tell the batches which epoch begins."""
        del logs
        self.batches._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Refuse batches in shuffled order."""
        del batch, logs
        index = self.batches._index_out_of_order
        if index is not None:
            raise ValueError(
                "Batches must be read in order, or a resumed run would see them in "
                f"another: call {_HOW_TO_FIT}. The order of the images is new in "
                f"every epoch all the same. Received: batch {index} before the one "
                "preceding it"
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        """Let the next `fit` bring the callbacks again."""
        del logs
        self.batches._follows_fit = False
