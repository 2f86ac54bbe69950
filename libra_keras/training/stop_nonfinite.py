"""A callback that ends training when numbers are no longer finite."""

import math
import sys
from collections.abc import Callable, Iterable

import keras
from keras import ops

from libra_keras.keras_private import layers_in, own_variables
from libra_keras.training.callbacks import batches_done

SMALLEST_SCALE = 2.0**-10  # of losses in float16; it starts at 2^15, and is halved


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops training at the first non-finite gradient or loss, and names the batch.

    `libra_keras.training.SGD` never applies a gradient that is not finite, so the weights are those
    from before the batch, and so are moving averages, which this callback restores. In our
    detectors, every non-finite loss has non-finite gradients. If another model's gradients are
    finite, training stops as well, but the update has been applied; the message says so.

    With float16, updates that a `LossScaleOptimizer` skips while it looks for its scale do not stop
    training, unless that scale becomes so small that it cannot be found.

    Checking costs a few scalar reads per batch, and a copy of the moving averages that training
    changes; frozen batch normalisation has none. With `steps_per_execution` above 1, all batches of
    the execution are named.

    Args:
        batch_names: callable `(epoch, step) -> iterable of str`, both counted from 0, that returns
            the files of a batch; or `None`, to name only epoch and step.
        first_step: int, the number within its epoch of the batch that a loop counts as 0 when it
            continues in the middle of an epoch. Defaults to 0.

    Attributes:
        failure: `None`, or the message, for a program that should exit with an error.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from libra_keras.training import SGD, StopOnNonFinite
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(SGD(0.1), "mse")
    >>> guard = StopOnNonFinite(lambda epoch, step: [f"image_{step}.jpg"])
    >>> guard.failure is None
    True
    >>> y = np.array([[1.0], [np.nan], [1.0]])
    >>> _ = model.fit(
    ...     np.ones((3, 1)), y, batch_size=1, shuffle=False, verbose=0, callbacks=[guard]
    ... )
    >>> print(guard.failure.split(":")[0])
    Training stopped at epoch 1, step 2
    """

    def __init__(
        self,
        batch_names: Callable[[int, int], Iterable[str]] | None = None,
        first_step: int = 0,
    ):
        super().__init__()
        self.batch_names = batch_names
        self.first_step = first_step
        self.failure: str | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.failure = None
        self._skipped_before = self._skipped()
        self._offset = self.first_step

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        self._moving = moving_variables(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._offset = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._first = batch + self._offset
        model = self.model  # on JAX, asking for it brings its variables up to date
        self._averages = [(v, ops.convert_to_numpy(v).copy()) for v in self._moving]
        self._done_before = batches_done(model.optimizer)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        is_bad = self._skipped() > self._skipped_before or self._has_no_scale()
        if is_bad or not math.isfinite((logs or {}).get("loss", 0.0)):
            steps = range(self._first, batch + self._offset + 1)
            done = batches_done(self.model.optimizer) - self._done_before
            self._stop(steps, was_held_back=is_bad or done < len(steps))

    def _has_no_scale(self):
        """Whether gradients overflow float16 however small the loss is made."""
        scale = getattr(self.model.optimizer, "dynamic_scale", None)
        return scale is not None and float(ops.convert_to_numpy(scale)) < SMALLEST_SCALE

    def _skipped(self):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        counter = getattr(optimizer, "nonfinite_updates", None)  # `None`: Keras' own, or unbuilt
        return 0 if counter is None else int(ops.convert_to_numpy(counter))

    def _stop(self, steps, was_held_back):
        for variable, value in self._averages:
            variable.assign(value)
        names = (
            []
            if self.batch_names is None
            else [str(name) for step in steps for name in self.batch_names(self._epoch, step)]
        )
        where = "-".join(str(step + 1) for step in sorted({steps[0], steps[-1]}))
        what = (
            "a gradient is not finite. That update was not applied; the weights are those before it"
            if was_held_back
            else "the loss is not finite, though its gradients were, and the update was applied"
        )
        files = f" Files of the batch: {', '.join(names)}." if names else ""
        self.failure = f"Training stopped at epoch {self._epoch + 1}, step {where}: {what}.{files}"
        self.model.stop_training = True
        print(f"\n{self.failure}", file=sys.stderr)


def moving_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that a forward pass of training may change, such as moving averages."""
    # Vectors and scalars: kernels that do not train never change. Nor do the statistics of layers
    # that are frozen, by `trainable` or by `batch_norm`, as in our `ResNet`.
    still: set[int] = set()
    for layer in layers_in(model):
        if not layer.trainable or getattr(layer, "batch_norm", None) == "frozen":
            still.update(map(id, own_variables(layer)))
    found = model.non_trainable_variables
    return [v for v in found if len(v.shape) <= 1 and id(v) not in still]
