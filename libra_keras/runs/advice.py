"""What looks wrong with a run: sentences with a number and advice, each printed once."""

import dataclasses
import math
import sys

import keras
import numpy as np

from libra_keras.data import evaluation_batches
from libra_keras.evaluation import ProposalEvaluation, collect_proposals
from libra_keras.evaluation.proposal_recall import proposal_coverage
from libra_keras.runs.config import TrainConfig
from libra_keras.runs.defaults import usual_rate
from libra_keras.runs.label_fit import statistics_for, unfitting_anchors
from libra_keras.training.averages import averaged_weights

DROWNING = 0.9  # of the loss, in one of several terms
FALLEN = 0.98  # of the first steps' loss: above it, nothing was learnt
LOW_RECALL = 0.5
UNUSUAL = 4.0  # times the rate that is known to work
FEWEST = 20  # steps of an epoch whose quarters are long enough to be compared
ENOUGH = 10_000  # images to judge how anchors fit
PROPOSED_FOR = 8  # images to judge proposals by


class Advisor(keras.callbacks.Callback):
    """Prints warnings that a user can act on, each once; it must come after the evaluation, whose
    metrics it reads from the logs."""

    def __init__(self, losses=(), recall=None, at_start=None):
        super().__init__()
        self.losses = list(losses)
        self.recall = recall
        self.warnings = {}
        self._first = None  # mean of the loss over the first quarter of the run's first epoch
        self._late = None  # steps and mean of the loss at the start of the last quarter
        self._say(-1, at_start or {})

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._late = None

    def on_train_batch_end(self, batch, logs=None):
        steps = (self.params or {}).get("steps") or 0
        if steps < FEWEST:
            return
        if self._epoch == 0 and batch + 1 == steps // 4:
            self._first = float(logs["loss"])
        if batch + 1 == steps - steps // 4:
            self._late = batch + 1, float(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        found = {"losses": drowning_term({name: logs[name] for name in self.losses})}
        if self._first is not None and self._late is not None:
            found["stalled"] = stalled_loss(self._first, self._last_quarter(logs))
        for name in ("rpn_positives", "positives"):
            found[name] = few_positives(name, logs.get(name, math.nan))
        is_measured = any(name.startswith("val_") and math.isfinite(logs[name]) for name in logs)
        if is_measured and self.recall is not None and "recall" not in self.warnings:
            found["recall"] = low_recall(*self.recall())
        self._say(epoch, found)

    def get_state(self):
        """Returns what `set_state` needs to continue: a dict for JSON."""
        return {"warnings": self.warnings, "first": self._first, "late": self._late}

    def set_state(self, state):
        """Continues where `get_state` was called."""
        self.warnings = {**self.warnings, **state["warnings"]}
        self._first, self._late = state["first"], state["late"]

    def _last_quarter(self, logs):
        """The mean of the loss over the last quarter, from the means since the epoch's start."""
        steps, mean = self._late
        total = self.params["steps"]
        return (logs["loss"] * total - mean * steps) / (total - steps)

    def _say(self, epoch, found):
        for subject, message in found.items():
            if message is not None and subject not in self.warnings:
                self.warnings[subject] = {"epoch": epoch + 1, "message": message}
                print(f"\nWarning: {message}.", file=sys.stderr, flush=True)


def at_start(config: TrainConfig, train, model) -> dict[str, str | None]:
    """Returns the warnings before training, by subject; `None` where there is none."""
    said = {"learning_rate": high_rate(config.schedule.learning_rate, usual_rate(config))}
    counts = [example.num_boxes for example in train.examples]
    said["max_detections"] = too_many_objects(counts, model.max_detections)
    some = train.examples[:: -(-len(train) // ENOUGH) or 1]
    statistics = statistics_for(dataclasses.replace(train, examples=some), model)
    said["anchors"] = unfitting_anchors(statistics)
    return said


def recall_of(model, evaluation):
    """Returns a function that returns the share of objects that proposals cover, and on how many
    images; `None` if the model proposes nothing, or several devices share it."""
    if isinstance(evaluation, ProposalEvaluation):
        data = evaluation.data
        return lambda: (proposal_coverage(data, evaluation.detections), len(data))
    if not hasattr(model, "propose") or _has_several_devices(model):
        return None
    return lambda: _recall(model, evaluation)


def _has_several_devices(model):
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.num_replicas_in_sync > 1
    return keras.distribution.distribution() is not None


def _recall(model, evaluation):
    data = evaluation.data
    places = np.linspace(0, len(data) - 1, min(PROPOSED_FOR, len(data))).astype(int)
    data = data.subset(sorted(set(places.tolist())))
    batches = evaluation_batches(data, model.input_policy, evaluation.batch_size)
    with averaged_weights(model):  # what the evaluation has just measured
        found = collect_proposals(model, batches, verbose=0)
    return proposal_coverage(data, found), len(data)


# Each of these returns `None` where there is nothing to report.


def drowning_term(losses):
    """Reports which of several losses, means over an epoch by name, dominates the others."""
    total = sum(losses.values())
    if len(losses) < 2 or not total > 0:
        return None
    name = max(losses, key=losses.get)
    if losses[name] <= DROWNING * total:
        return None
    return (
        f"{name} is {losses[name] / total:.0%} of the loss ({losses[name]:.3g} of {total:.3g}): "
        "the other terms hardly influence the training. Check the annotations with libra-keras "
        "check-data, and if it has grown, lower --learning-rate"
    )


def stalled_loss(first, last):
    """Reports that the loss does not fall from the run's first steps to its last ones."""
    if not last > FALLEN * first:
        return None
    return (
        f"The loss does not fall: {first:.3g} in the first steps of the run, {last:.3g} in the "
        "last of this epoch. Try a third of --learning-rate, or a larger one if it is already "
        "small, and check the annotations with libra-keras check-data"
    )


def few_positives(name, per_image):
    """Reports that hardly any box is learnt from: the mean of a count over an epoch is too low."""
    if not per_image < 1:
        return None
    return (
        f"{name}: {per_image:.2g} per image, so hardly any object is learnt from. Do most images "
        "have boxes, in pixels? libra-keras check-data counts them; images without objects can be "
        "left out"
    )


def low_recall(recall, images):
    """Reports that the first stage misses most objects."""
    if not recall < LOW_RECALL:
        return None
    return (
        f"Proposals cover {recall:.0%} of the objects of {images} validation images: the second "
        "stage never sees the others. Train longer; if that does not help, give small objects more "
        "pixels (--short-side), or anchors of their size"
    )


def high_rate(rate, usual):
    """Reports that a learning rate is far above the usual one, if there is one."""
    if usual is None or not rate > UNUSUAL * usual:
        return None
    return (
        f"--learning-rate {rate:g} is {rate / usual:.3g} times the default for this number of "
        f"images ({usual:g}): if the loss grows or is not finite, this is why"
    )


def too_many_objects(counts, limit):
    """Reports that images have more objects than a detector can return."""
    over = sum(count > limit for count in counts)
    if not over:
        return None
    return (
        f"{over} of {len(counts)} images have more objects than the {limit} that the detector "
        f"returns per image (maximum: {max(counts)}): use --max-detections {max(counts)}"
    )
