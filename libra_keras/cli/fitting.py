"""The training itself, and what is written and printed when it ends, in whatever way."""

import math
import sys

import keras
import numpy as np

from libra_keras import atomic
from libra_keras.averages import has_averages
from libra_keras.cli import advising, damage, resuming
from libra_keras.cli.report import finite, headline, metric_lines
from libra_keras.evaluation import COCOEvaluation, ProposalEvaluation, voc_ap
from libra_keras.models import RegionProposalNetwork
from libra_keras.training import StopOnNonFinite
from libra_keras.training.advisor import Advisor
from libra_keras.training.resumable import ResumableFit
from libra_keras.training.watching import ProgressBar, Speedometer

EXIT_INTERRUPTED = 130
GALLERY = 12  # pictures in detections.png
GALLERY_SCORE = 0.3


def fit_and_report(
    model,
    batches,
    val,
    folder,
    steps,
    epochs,
    eval_every=1,
    with_voc=False,
    save_every=500,
    fit=None,
    at_start=None,
):
    """Trains, evaluates, and fills the run folder; goes on with an unfinished run in it.

    Args:
        model: compiled detector.
        batches: what `data.training_batches` returned, from where the run goes on.
        val: `DetectionData` to measure on.
        folder: `RunFolder`.
        steps: int, steps of an epoch.
        epochs: int.
        eval_every: int, epochs between evaluations; 0 evaluates at the end only.
        with_voc: bool, whether Pascal VOC's AP is measured at the end as well.
        save_every: int, steps between two saves of the run; 0 saves when epochs end.
        fit: as of `ResumableFit`.
        at_start: as of `Advisor`: what is known to look wrong.

    Returns:
        The exit status: 0, 1 if the loss was not finite, 130 after Ctrl-C.

    Raises:
        OSError: if files cannot be written; what was saved before is whole.
    """
    verbose = 1 if sys.stdout.isatty() else 2  # a bar in a log file is thousands of lines
    guard = StopOnNonFinite(_namer(batches.source, steps))
    proposes = isinstance(model, RegionProposalNetwork)
    evaluation = (GuardedProposalEvaluation if proposes else GuardedEvaluation)(
        guard,
        val,
        batch_size=batches.source.plan.batch_size,
        every=eval_every or epochs,
        verbose=int(verbose == 1),
        fills_logs=True,  # log.csv has the columns of its first row
    )
    # The bar comes before the evaluation, whose twelve numbers would fill every line of it.
    speed = Speedometer(evaluation.batch_size)
    advisor = Advisor(model.LOSSES, advising.recall_of(model, evaluation), at_start)
    shown = [guard, speed, ProgressBar(speed), evaluation, PrintAP(), advisor]
    run = ResumableFit(
        folder.checkpoints,
        [*shown, *folder.loggers(speed=speed, picture=lambda: _panel(model, evaluation))],
        steps,
        epochs,
        save_every=save_every,
        tables=folder.tables,
        parts={"damaged": batches.source.damage},
        last_weights=folder.last_weights,
        best_weights=folder.best_weights,
        verbose=verbose,
        fit=fit,
    )
    evaluation.best_weights = run.candidate

    def find():
        return {"training": batches.source.damaged, "evaluation": evaluation.damaged}

    with damage.explained(find), resuming.disk_explained(folder):
        status = _train(run, model, batches, folder, guard, find)
        if status:
            return status
        if not evaluation.metrics:  # killed after the last one
            evaluation.evaluate()
        if with_voc and not proposes:
            evaluation.metrics |= voc_ap(val, evaluation.detections)
        _report(model, val, folder, evaluation, find(), run.seconds, advisor.warnings)
    return 0


def _train(run, model, batches, folder, guard, find_damaged):
    """Runs to the last step; returns 0, or the exit status of a run that ended before it."""
    if run.open(model):
        print(f"Goes on with {folder.path} at epoch {run.epoch + 1}, step {run.step}", flush=True)
    try:
        run.fit(model, batches)
    except KeyboardInterrupt as stop:
        _interrupted(folder, model)
        damage.tell(find_damaged())
        return getattr(stop, "status", EXIT_INTERRUPTED)
    damage.tell(find_damaged())
    if guard.failure:
        atomic.save_weights(model, folder.last_weights)
        kind = "averaged weights" if has_averages(model) else "weights"  # as `fit` has left them
        print(f"The {kind} are in {folder.last_weights}", file=sys.stderr)
        return 1
    return 0


def _report(model, val, folder, evaluation, damaged, seconds, warnings):
    record = {**_measurement(model, val, evaluation, seconds), "warnings": warnings}
    record["damaged_images"] = {
        purpose: {"count": len(files), "files": files} for purpose, files in damaged.items()
    }
    folder.save_model(model)  # first: numbers can be measured again
    if record["averaged"]:  # what was measured, which the checkpoint has beside the last weights
        atomic.save_weights(model, folder.last_weights)
    folder.write_json("metrics.json", record)
    _draw(folder, val, evaluation.detections, model.class_names)
    folder.checkpoints.clear()  # last: a run that is killed before goes on to here
    _print_result(folder, record, evaluation.metrics)


class _Guarded:
    """Leaves out the epoch in which training stopped over a number."""

    def __init__(self, guard, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.guard = guard

    def is_due(self, epoch):
        """As in `COCOEvaluation`, unless the guard has stopped the training."""
        return self.guard.failure is None and super().is_due(epoch)


class GuardedEvaluation(_Guarded, COCOEvaluation):
    """`COCOEvaluation` that leaves out the epoch in which training stopped over a number.

    Args:
        guard: `StopOnNonFinite`.
        *args, **kwargs: of `COCOEvaluation`.

    Example:

    >>> from libra_keras.cli.fitting import GuardedEvaluation
    >>> from libra_keras.data import shapes
    >>> from libra_keras.training import StopOnNonFinite
    >>> evaluation = GuardedEvaluation(StopOnNonFinite(), shapes(1))
    >>> evaluation.is_due(epoch=0)
    True
    >>> evaluation.guard.failure = "a gradient is not finite"
    >>> evaluation.is_due(epoch=0)
    False
    """


class GuardedProposalEvaluation(_Guarded, ProposalEvaluation):
    """`ProposalEvaluation` with the guard of `GuardedEvaluation`.

    Example:

    >>> from libra_keras.cli.fitting import GuardedProposalEvaluation
    >>> from libra_keras.data import shapes
    >>> from libra_keras.training import StopOnNonFinite
    >>> GuardedProposalEvaluation(StopOnNonFinite(), shapes(1)).monitor
    'val_AR@100'
    """


class PrintAP(keras.callbacks.Callback):
    """Prints AP, or recall, after every evaluation; belongs behind it.

    Example:

    >>> from libra_keras.cli.fitting import PrintAP
    >>> PrintAP().on_epoch_end(0, {"val_AP": 0.5, "val_AP50": 0.75, "val_AP_small": 0.25})
    AP 0.500  AP50 0.750  AP_small 0.250
    """

    def on_epoch_end(self, epoch, logs=None):
        measured = {name.removeprefix("val_"): value for name, value in (logs or {}).items()}
        if not math.isnan(measured.get("AP", measured.get("AR@100", math.nan))):
            print(headline(measured), flush=True)


def _namer(source, steps):
    """Maps a run's step to its files; with `--steps` an epoch is shorter than the plan's."""

    def names(epoch, step):
        return source.batch_files(*divmod(epoch * steps + step, source.steps_per_epoch))

    return names


def _interrupted(folder, model):
    if not has_averages(model):  # else the run has saved them, if it could
        atomic.link(folder.checkpoints.weights, folder.last_weights)
    state = folder.checkpoints.read()
    print(
        f"\nInterrupted. The run is saved at epoch {state['epoch'] + 1}, step {state['step']}; the "
        "same command goes on from there.",
        file=sys.stderr,
    )
    if folder.last_weights.exists():
        kind = "averaged weights" if has_averages(model) else "weights"
        print(f"The {kind} are in {folder.last_weights}", file=sys.stderr)


def _measurement(model, val, evaluation, seconds):
    """What `metrics.json` holds: the numbers, and how they were measured."""
    settings = model.heads()[-1].settings  # of the stage that has the last word
    limits = ("score_threshold", "max_detections", "post_nms")
    return {
        "weights": "last",
        "averaged": has_averages(model),
        "trained_steps": int(np.asarray(model.trained_steps)),
        "seconds": round(seconds, 1),
        "data": val.name,
        "images": len(val),
        "measured_by": "pycocotools on the annotations and image sizes of the data set",
        **{name: getattr(settings, name) for name in limits if hasattr(settings, name)},
        **finite({f"best_{evaluation.monitor}": evaluation.best}),
        "metrics": finite(evaluation.metrics),
    }


def _panel(model, evaluation):
    from libra_keras.visualization import panel

    names = model.class_names
    return panel(evaluation.data, evaluation.detections, names, min_score=GALLERY_SCORE)


def _draw(folder, val, detections, names):
    """Writes the pictures: detections on images spread over the whole set, and curves."""
    from libra_keras import visualization

    found = {image["image_id"]: image for image in detections}
    pictures = []
    for example, image in visualization.spread(val, GALLERY):
        own = found[example.image_id]
        boxes = own["boxes"], own["labels"], own["scores"], names
        pictures.append(visualization.draw_detections(image, *boxes, min_score=GALLERY_SCORE))
    if pictures:
        visualization.save_image(visualization.gallery(pictures), folder.path / "detections.png")
    try:
        visualization.plot_curves(folder.path / "log.csv", folder.path / "curves.png")
    except ImportError as error:
        print(f"No curves.png: {error}")


def _print_result(folder, record, metrics):
    weights = "averaged weights" if record["averaged"] else "weights"
    print(
        f"\n{record['data']}, {record['images']} images, {weights} of the last step:\n"
        f"{metric_lines(metrics)}\n\n{headline(metrics)}\n"
        f"{record['seconds']:.0f} s; everything is in {folder.path}"
    )
