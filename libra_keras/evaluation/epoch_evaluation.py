"""What evaluations at the end of epochs share: when, on what, and the weights that did best."""

import math
from pathlib import Path

import keras

from libra_keras.data import evaluation_batches
from libra_keras.files.atomic import save_weights
from libra_keras.training.averages import averaged_weights


class EpochEvaluation(keras.callbacks.Callback):
    """Frame of the callbacks that measure a model at the end of epochs; they implement `measure`.

    Where the optimizer averages the weights (`use_ema`), the averages are measured and saved.

    Args:
        names: sequence of str, the metrics that are logged, without `val_`.
        data: `DetectionData` to evaluate on.
        policy: `InputPolicy`, or `None` for `model.input_policy`.
        batch_size: int. Defaults to 8.
        every: int >= 1, epochs from one evaluation to the next. The last epoch is evaluated in
            any case. Defaults to 1.
        best_weights: path that ends in `.weights.h5`, or `None`. The weights are saved there
            whenever `monitor` beats its best so far. A crash while saving leaves the old file.
        monitor: str, one of the names that are logged. Defaults to the first.
        verbose: 0 for silence, 1 for a progress bar.
        fills_logs: bool, whether the epochs between evaluations log NaN, which a table of fixed
            columns needs, such as that of `CSVLogger`. By default they log nothing, as Keras' own
            `validation_freq` does: `EarlyStopping` and the like would take NaN for the best value
            of all.

    Attributes:
        metrics: dict of the last evaluation.
        detections: list of the last evaluation: one dict per image.
        best: float, the best value of `monitor` so far; set it to continue an earlier run.

    Raises:
        ValueError: if `every`, `monitor` or the name of `best_weights` is not as described.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.evaluation.epoch_evaluation import EpochEvaluation
    >>> EpochEvaluation(["AR@100"], data.shapes(4)).monitor
    'val_AR@100'
    """

    def __init__(
        self,
        names,
        data,
        policy=None,
        batch_size=8,
        every=1,
        best_weights=None,
        monitor=None,
        verbose=0,
        fills_logs=False,
    ):
        super().__init__()
        if int(every) != every or every < 1:
            raise ValueError(f"`every` must be a positive integer. Received: every={every}")
        self.names = tuple(names)
        logged = [f"val_{name}" for name in names]
        monitor = logged[0] if monitor is None else monitor
        if monitor not in logged:
            raise ValueError(f"`monitor` must be one of {logged}. Received: {monitor!r}")
        if best_weights is not None and not str(best_weights).endswith(".weights.h5"):
            raise ValueError(f"`best_weights` must end in '.weights.h5'. Received: {best_weights}")
        self.data = data
        self.policy = policy
        self.batch_size = batch_size
        self.every = int(every)
        self.best_weights = None if best_weights is None else Path(best_weights)
        self.monitor = monitor
        self.verbose = verbose
        self.fills_logs = fills_logs
        self.metrics = {}
        self.detections = []
        self.best = -math.inf
        self._batches = None

    def measure(self, batches):
        """Measures `self.model`.

        Args:
            batches: of `data`, each image once.

        Returns:
            Tuple of the detections, a list of one dict per image, and a dict of all metrics.
        """
        raise NotImplementedError

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        if not self.is_due(epoch):
            if self.fills_logs:
                logs.update({f"val_{name}": math.nan for name in self.names})
            return
        self.evaluate()
        logs.update({f"val_{name}": self.metrics[name] for name in self.names})
        if logs[self.monitor] > self.best:
            self.best = logs[self.monitor]
            if self.best_weights is not None:
                with averaged_weights(self.model):
                    save_weights(self.model, self.best_weights)

    def evaluate(self):
        """Measures `self.model` now: sets `detections` and `metrics`, and saves nothing."""
        with averaged_weights(self.model):
            self.detections, self.metrics = self.measure(self._get_batches())

    def get_state(self):
        """Returns what `set_state` needs to continue a run: a dict."""
        return {"best": self.best}

    def set_state(self, state):
        """Goes on where `get_state` was called."""
        self.best = state["best"]

    def is_due(self, epoch):
        """Whether `epoch`, counted from 0, is evaluated; subclasses may have more to say."""
        is_last = epoch + 1 == (self.params or {}).get("epochs")
        return (epoch + 1) % self.every == 0 or is_last

    @property
    def damaged(self):
        """Dict of the damaged images, which were shown blank, and what was wrong with each."""
        return {} if self._batches is None else self._batches.source.damaged

    def _get_batches(self):
        if self._batches is None:
            policy = self.policy or self.model.input_policy
            self._batches = evaluation_batches(self.data, policy, self.batch_size)
        return self._batches
