"""COCO metrics during training, and the weights that did best."""

from libra_keras.evaluation.class_matching import check_classes, relabelled
from libra_keras.evaluation.coco_metrics import (
    METRICS,
    collect_detections,
    evaluate_detections,
    limit_of,
    names_beyond,
)
from libra_keras.evaluation.epoch_evaluation import EpochEvaluation


class COCOEvaluation(EpochEvaluation):
    """Evaluates at the end of epochs: adds `val_AP`, `val_AP50`, ... to the logs.

    Put it *before* the callbacks that read the logs (`CSVLogger`, `TensorBoard`, `EarlyStopping`):
    Keras passes one dict through the list in its order. All twelve COCO numbers are added, in
    epochs without an evaluation none; `CSVLogger`, whose table has the columns of the first epoch,
    needs `fills_logs=True` beside `every`.
    Where the optimizer averages the weights (`use_ema`), the averages are measured and saved.
    Classes are matched by their names, if the model has some, as by `evaluate`. A model that gives
    out more than 100 detections an image is also measured with all of them: `val_AP@300`, say.

    Args:
        data: `DetectionData` to evaluate on.
        policy: `InputPolicy`, or `None` for `model.input_policy`.
        batch_size: int. Defaults to 8.
        every: int >= 1, epochs from one evaluation to the next. The last epoch is evaluated in
            any case. Defaults to 1.
        best_weights: path that ends in `.weights.h5`, or `None`. The weights are saved there
            whenever `monitor` beats its best so far. A crash while saving leaves the old file.
        monitor: str, one of the names that are logged. Defaults to `"val_AP"`.
        verbose: 0 for silence, 1 for a progress bar.
        fills_logs: bool, whether the epochs without an evaluation log NaN. Defaults to `False`:
            `EarlyStopping` and the like would take NaN for the best value of all.

    Attributes:
        metrics: dict of the last evaluation, as `evaluate_detections` returns it.
        detections: list of the last evaluation, as `collect_detections` returns it: with the
            labels of the model.
        best: float, the best value of `monitor` so far; set it to continue an earlier run.

    Raises:
        ValueError: if `every`, `monitor` or the name of `best_weights` is not as described; and
            when the training begins, if the data have a class that the model does not know.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.evaluation import COCOEvaluation
    >>> callback = COCOEvaluation(data.shapes(4), every=2, best_weights="run/best.weights.h5")
    >>> callback.monitor, callback.best
    ('val_AP', -inf)
    """

    def __init__(
        self,
        data,
        policy=None,
        batch_size=8,
        every=1,
        best_weights=None,
        monitor="val_AP",
        verbose=0,
        fills_logs=False,
    ):
        when = {"every": every, "fills_logs": fills_logs}
        best = {"best_weights": best_weights, "monitor": monitor}
        super().__init__(METRICS, data, policy, batch_size, verbose=verbose, **when, **best)

    def on_train_begin(self, logs=None):
        names = self._class_names()
        count = getattr(self.model, "num_classes", None) if names is None else len(names)
        if count is not None:
            check_classes(names, count, self.data)
        self.names = (*METRICS, *names_beyond(limit_of(self.model)))

    def measure(self, batches):
        """Returns what `collect_detections` and `evaluate_detections` do."""
        found = collect_detections(self.model, batches, self.verbose)
        same_labels = relabelled(found, self._class_names(), self.data)
        return found, evaluate_detections(self.data, same_labels, limit_of(self.model))

    def _class_names(self):
        return getattr(self.model, "class_names", None)
