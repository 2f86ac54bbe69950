"""Batches for `model.fit` and `model.predict` as a `keras.utils.PyDataset`, on any backend."""

import concurrent.futures
import os
import threading

import keras
import numpy as np

MAX_THREADS = 8


# Whoever asks for batches one after the other is likely to want the next ones, so threads load
# these meanwhile; decoding and resizing run beside the training step, in `fit` as in a `for` loop.
# `fit` asks at random unless it is told `shuffle=False`: the batches are shuffled already.
#
# Keras is told of a single worker, itself. Its own queue of workers starts a finite data set anew
# in every epoch of `fit(steps_per_epoch=...)`, so that later epochs would not be those of the plan;
# and workers in other processes could not report damaged images.
class Batches(keras.utils.PyDataset):
    """Batches of a source by their number, each the same in whatever order, loaded by threads."""

    def __init__(self, source, numbers, num_batches, threads=None, max_queue_size=4):
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=max_queue_size)
        threads = min(os.cpu_count() or 1, MAX_THREADS) if threads is None else threads
        if threads < 1 or max_queue_size < 0:
            raise ValueError(
                "`threads` must be at least 1 and `max_queue_size` at least 0. "
                f"Received: threads={threads}, max_queue_size={max_queue_size}"
            )
        self.source = source
        self.threads = threads
        self._numbers = numbers
        self._num_batches = num_batches
        self._pool = None
        self._next = 0
        self._pending = {}  # from the number of a batch to the futures of its samples
        self._lock = threading.Lock()

    @property
    def num_batches(self):
        """Number of batches; `None` if there is no end."""
        return self._num_batches

    def __len__(self):
        if self._num_batches is None:
            raise TypeError("An endless data set has no length; see `source.steps_per_epoch`")
        return self._num_batches

    def __getitem__(self, index):
        last = index + self.max_queue_size + 1
        last = last if self._num_batches is None else min(last, self._num_batches)
        if not 0 <= index < last:
            end = "and on" if self._num_batches is None else f"to {self._num_batches - 1}"
            raise IndexError(f"There are batches 0 {end}. Received: {index}")
        with self._lock:
            if index not in (0, self._next):  # asked for at random: nobody knows what comes next
                last = index + 1
            self._next = index + 1
            self._forget(outside=range(index, last))
            for batch in range(index, last):
                if batch not in self._pending:
                    self._pending[batch] = [self._submit(n) for n in self._numbers(batch)]
            futures = self._pending.pop(index)
        return arranged(self.source.inputs, [future.result() for future in futures])

    def _submit(self, number):
        if self._pool is None:  # only now: not every data set that is made is used
            self._pool = concurrent.futures.ThreadPoolExecutor(self.threads, "libra_keras-batches")
        return self._pool.submit(self.source.sample, number)

    def _forget(self, outside):
        for batch in [number for number in self._pending if number not in outside]:
            for future in self._pending.pop(batch):
                future.cancel()


def arranged(names, samples):
    """Joins samples, tuples of arrays, into `x`, or `(x, y)` if they have boxes and labels."""
    columns = [np.stack(column) for column in zip(*samples, strict=True)]
    x, rest = dict(zip(names, columns, strict=False)), columns[len(names) :]
    return (x, dict(zip(("boxes", "labels"), rest, strict=True))) if rest else x


def training(source, start, end, threads=None):
    """Returns the `Batches` of a training run; arguments as for `pipeline.training`."""
    size = source.plan.batch_size

    def numbers(index):
        first = (start + index) * size
        return range(first, first + size)

    return Batches(source, numbers, None if end is None else end - start, threads)


def evaluation(source, batch_size, threads=None):
    """Returns the `Batches` that show every image once; see `data.evaluation_batches`."""
    batches = [
        group[start : start + batch_size]
        for group in source.groups
        for start in range(0, len(group), batch_size)
    ]
    return Batches(source, batches.__getitem__, len(batches), threads)
