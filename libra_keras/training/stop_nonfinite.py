"""A callback that ends training when numbers are no longer finite."""

import collections
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import keras
from keras import ops

from libra_keras.keras_private import (
    batches_of,
    layers_in,
    own_variables,
    places_in_fit,
    value_in_fit,
)
from libra_keras.training.callbacks import batches_done
from libra_keras.typing import Tensor

SMALLEST_SCALE = 2.0**-10  # of losses in float16; it starts at 2^15, and is halved


class _Trained(NamedTuple):
    """What a batch has left behind; numbers that may not be computed yet."""

    steps: Sequence[int]  # one, or those of the execution
    loss: Tensor | float
    averages: list[tuple[keras.Variable, Tensor]]  # moving averages before the batch
    batches_before: Tensor
    batches: Tensor  # that the optimizer has not skipped
    skipped: Tensor | int
    scale: Tensor | float


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops training at the first non-finite gradient or loss, and names the batch.

    `libra_keras.training.SGD` never applies a gradient that is not finite, so the weights are those
    from before the batch, and so are moving averages, which this callback restores. In our
    detectors, every non-finite loss has non-finite gradients. If another model's gradients are
    finite, training stops as well, but the update has been applied; the message says so.

    With float16, updates that a `LossScaleOptimizer` skips while it looks for its scale do not stop
    training, unless that scale becomes so small that it cannot be found.

    Checking costs a few scalars per batch, and a copy of the moving averages that training changes;
    frozen batch normalisation has none. Keras' `fit` waits for every batch, to turn its logs into
    floats. A loop that passes them on as tensors, as `libra_keras.runs` does, need not wait: then
    the numbers of a batch are read when the next one has been started, whose update the weights may
    contain. With `steps_per_execution` above 1, all batches of the execution are named.

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

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._trained = model  # on JAX, `self.model` brings all variables up to date

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.failure = None
        self._offset = self.first_step
        self._places: dict[int, tuple[str, int]] = {}
        self._skipped_before = int(ops.convert_to_numpy(self._skipped()))
        self._unread: collections.deque[_Trained] = collections.deque()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        self._moving = moving_variables(self.model)
        is_jax = keras.backend.backend() == "jax"
        self._places = places_in_fit(self.model) if is_jax else {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.catch_up()
        self._offset = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._first = batch + self._offset
        self._averages = [(v, self._copy(v)) for v in self._moving]
        self._batches_before = self._copy(batches_of(self._optimizer()))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        trained = _Trained(
            range(self._first, batch + self._offset + 1),
            loss,
            self._averages,
            self._batches_before,
            self._copy(batches_of(self._optimizer())),
            self._skipped(),
            self._scale(),
        )
        self._unread.append(trained)
        self._read(0 if isinstance(loss, float) else 1)

    def catch_up(self) -> None:
        """Reads the numbers of all batches, and waits for them, such as before the weights are
        saved."""
        self._read(0)

    def _read(self, later):
        """Reads the numbers of all batches but so many of the latest."""
        while len(self._unread) > later and self.failure is None:
            trained = self._unread.popleft()
            skipped, scale, before, after = (
                float(ops.convert_to_numpy(x))
                for x in (trained.skipped, trained.scale, trained.batches_before, trained.batches)
            )
            is_bad = skipped > self._skipped_before or scale < SMALLEST_SCALE
            if is_bad or not math.isfinite(trained.loss):
                was_held_back = is_bad or after - before < len(trained.steps)
                self._stop(trained, was_held_back, after)

    def _copy(self, variable):
        """A copy of what a variable holds, which nobody waits for; later batches overwrite it."""
        return ops.copy(value_in_fit(self._trained, self._places, variable))

    def _optimizer(self):
        optimizer = self._trained.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)

    def _skipped(self):
        counter = getattr(self._optimizer(), "nonfinite_updates", None)  # `None`: Keras', unbuilt
        return 0 if counter is None else self._copy(counter)

    def _scale(self):
        """Of losses in float16; gradients that overflow however small it is made never end."""
        scale = getattr(self._trained.optimizer, "dynamic_scale", None)
        return math.inf if scale is None else self._copy(scale)

    def _stop(self, trained, was_held_back, batches):
        model = self.model  # up to date: what is assigned now stays
        for variable, value in trained.averages:
            variable.assign(value)
        names = self.batch_names or (lambda *_: ())
        files = [str(name) for step in trained.steps for name in names(self._epoch, step)]
        where = "-".join(str(step + 1) for step in sorted({trained.steps[0], trained.steps[-1]}))
        if not was_held_back:
            what = "the loss is not finite, though its gradients were, and the update was applied"
        elif batches_done(model.optimizer) == batches:
            what = "a gradient is not finite. That update was not applied; the weights are those "
            what += "before it"
        else:
            what = "a gradient is not finite. That update was not applied, but that of the batch "
            what += "after it was"
        end = f" Files of the batch: {', '.join(files)}." if files else ""
        self.failure = f"Training stopped at epoch {self._epoch + 1}, step {where}: {what}.{end}"
        model.stop_training = True
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
