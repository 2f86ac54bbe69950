"""Callbacks that measure a model at the end of epochs, and save the weights that did best."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from libra_keras.data import DetectionData, InputPolicy, evaluation_batches
from libra_keras.evaluation.class_matching import check_classes, relabelled
from libra_keras.evaluation.coco_metrics import (
    METRICS,
    collect_detections,
    evaluate_detections,
    limit_of,
    names_beyond,
)
from libra_keras.evaluation.proposal_recall import check_counts, collect_proposals, proposal_recall
from libra_keras.files.atomic import save_weights
from libra_keras.ranges import whole
from libra_keras.training.averages import averaged_weights


class EpochEvaluation(keras.callbacks.Callback):
    """Frame of the callbacks that measure a model at the end of epochs: theirs is `measure`."""

    def __init__(
        self,
        names: Sequence[str],
        data: DetectionData,
        policy: InputPolicy | None = None,
        batch_size: int = 8,
        every: int = 1,
        best_weights: str | Path | None = None,
        monitor: str | None = None,
        verbose: int = 0,
        fills_logs: bool = False,
    ):
        super().__init__()
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
        self.every = whole(1).check("`every`", every)
        self.best_weights = None if best_weights is None else Path(best_weights)
        self.monitor = monitor
        self.verbose = verbose
        self.fills_logs = fills_logs
        self.metrics: dict[str, float] = {}
        self.detections: list[dict] = []
        self.best = -math.inf
        self._batches: Any = None

    def measure(self, batches: Iterable[dict]) -> tuple[list[dict], dict[str, float]]:
        """Returns the detections of `self.model`, a list of one dict per image, and all metrics."""
        raise NotImplementedError

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
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

    def evaluate(self) -> None:
        """Measures `self.model` now: sets `detections` and `metrics`, and saves nothing."""
        with averaged_weights(self.model):
            self.detections, self.metrics = self.measure(self._get_batches())

    def logs_of(self, model: keras.Model) -> list[str]:
        """Returns the names that this adds to the logs of a model's training."""
        return [f"val_{name}" for name in self._names_of(model)]

    def _names_of(self, model):
        return self.names

    def get_state(self) -> dict:
        """Returns what `set_state` needs to continue a run: a dict."""
        return {"best": self.best}

    def set_state(self, state: dict) -> None:
        """Continues from where `get_state` was called."""
        self.best = state["best"]

    def is_due(self, epoch: int) -> bool:
        """Whether `epoch`, counted from 0, is evaluated; subclasses may have more to say."""
        is_last = epoch + 1 == (self.params or {}).get("epochs")
        return (epoch + 1) % self.every == 0 or is_last

    @property
    def damaged(self) -> dict[str, str]:
        """Dict of the damaged images, which were shown blank, and what was wrong with each."""
        return {} if self._batches is None else self._batches.source.damaged

    def _get_batches(self):
        if self._batches is None:
            policy = self.policy or self.model.input_policy
            self._batches = evaluation_batches(self.data, policy, self.batch_size)
        return self._batches


class COCOEvaluation(EpochEvaluation):
    """Evaluates at the end of epochs: adds `val_AP`, `val_AP50`, ... to the logs.

    Put it *before* the callbacks that read the logs (`CSVLogger`, `TensorBoard`, `EarlyStopping`):
    Keras passes one dict through the list in its order. All twelve COCO numbers are added, but none
    in epochs without an evaluation; `CSVLogger`, whose table has the columns of the first epoch,
    requires `fills_logs=True` when `every` is above 1. Where the optimizer averages the weights
    (`use_ema`), the averages are measured and saved. Classes are matched by name, if the model has
    names, as in `evaluate`. A model that returns more than 100 detections an image is also measured
    with all of them, for example as `val_AP@300`.

    Args:
        data: `DetectionData` to evaluate on.
        policy: `InputPolicy`, or `None` for `model.input_policy`.
        every: epochs from one evaluation to the next, at least 1; the last is evaluated anyway.
        best_weights: path that ends in `.weights.h5`, or `None`. The weights are saved there
            whenever `monitor` beats its best so far. A crash while saving leaves the old file
            intact.
        monitor: str, `val_` and one of COCO's twelve numbers. Defaults to `"val_AP"`.
        verbose: 0 for silence, 1 for a progress bar.
        fills_logs: bool, whether the epochs without an evaluation log NaN. Defaults to `False`:
            `EarlyStopping` and similar callbacks would take NaN for the best value of all.

    Attributes:
        metrics: dict of the last evaluation, as `evaluate_detections` returns it.
        detections: list, as `collect_detections` returns it, with the labels of the model.
        best: float, the best value of `monitor` so far; set it to continue an earlier run.

    Raises:
        ValueError: if `every`, `monitor` or the name of `best_weights` is not as described; at the
            start of training, also if the data have a class that the model does not know.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.evaluation import COCOEvaluation
    >>> callback = COCOEvaluation(data.shapes(4), every=2, best_weights="run/best.weights.h5")
    >>> callback.monitor, callback.best
    ('val_AP', -inf)
    """

    def __init__(
        self,
        data: DetectionData,
        policy: InputPolicy | None = None,
        batch_size: int = 8,
        every: int = 1,
        best_weights: str | Path | None = None,
        monitor: str = "val_AP",
        verbose: int = 0,
        fills_logs: bool = False,
    ):
        super().__init__(
            METRICS, data, policy, batch_size, every, best_weights, monitor, verbose, fills_logs
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        names = self._class_names()
        count = getattr(self.model, "num_classes", None) if names is None else len(names)
        if count is not None:
            check_classes(names, count, self.data)
        self.names = self._names_of(self.model)

    def measure(self, batches: Iterable[dict]) -> tuple[list[dict], dict[str, float]]:
        """Returns what `collect_detections` and `evaluate_detections` do."""
        found = collect_detections(self.model, batches, self.verbose)
        same_labels = relabelled(found, self._class_names(), self.data)
        return found, evaluate_detections(self.data, same_labels, limit_of(self.model))

    def _names_of(self, model):
        return (*METRICS, *names_beyond(limit_of(model)))

    def _class_names(self):
        return getattr(self.model, "class_names", None)


class ProposalEvaluation(EpochEvaluation):
    """Evaluates proposals at the end of epochs: adds `val_AR@100`, `val_AR@300`, ... to the logs.

    It is the `COCOEvaluation` of a `RegionProposalNetwork`; like that, put it *before* the
    callbacks that read the logs.

    Args:
        data: `DetectionData` to evaluate on; its classes do not matter.
        counts: increasing numbers of best proposals per image to take into account.
        policy, batch_size, every, best_weights, verbose, fills_logs: as in `COCOEvaluation`.
        monitor: str, one of the names that are logged. Defaults to that of the first count.

    Attributes:
        metrics: dict of the last evaluation, as `proposal_recall` returns it.
        detections: list of the last evaluation, as `collect_proposals` returns it.
        best: float, the best value of `monitor` so far; set it to continue an earlier run.

    Raises:
        ValueError: if `counts`, `every`, `monitor` or `best_weights` is not as described.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.evaluation import ProposalEvaluation
    >>> callback = ProposalEvaluation(data.shapes(4), counts=(10, 100))
    >>> callback.monitor, callback.names[:2]
    ('val_AR@10', ('AR@10', 'AR@100'))
    """

    def __init__(
        self,
        data: DetectionData,
        counts: Sequence[int] = (100, 300, 1000),
        policy: InputPolicy | None = None,
        batch_size: int = 8,
        every: int = 1,
        best_weights: str | Path | None = None,
        monitor: str | None = None,
        verbose: int = 0,
        fills_logs: bool = False,
    ):
        check_counts(counts)
        sizes = [f"AR_{size}@{counts[-1]}" for size in ("small", "medium", "large")]
        names = [*(f"AR@{count}" for count in counts), *sizes]
        super().__init__(
            names, data, policy, batch_size, every, best_weights, monitor, verbose, fills_logs
        )
        self.counts = tuple(counts)

    def measure(self, batches: Iterable[dict]) -> tuple[list[dict], dict[str, float]]:
        """Returns what `collect_proposals` and `proposal_recall` do."""
        found = collect_proposals(self.model, batches, self.verbose)
        return found, proposal_recall(self.data, found, self.counts)
