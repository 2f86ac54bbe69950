"""The training itself: what watches it, how it continues, and how it can end."""

import dataclasses
import importlib.util
import signal
import sys
from collections.abc import Callable
from typing import Any

import keras

from libra_keras.data import DetectionData
from libra_keras.devices import Devices
from libra_keras.evaluation import COCOEvaluation, ProposalEvaluation, voc_ap
from libra_keras.evaluation.class_matching import relabelled
from libra_keras.files import atomic
from libra_keras.models import RegionProposalNetwork
from libra_keras.runs import report
from libra_keras.runs.advice import Advisor, recall_of
from libra_keras.runs.folder import RunFolder, disk_explained
from libra_keras.runs.inputs import damage_explained, damage_told, tell_damage
from libra_keras.runs.moments import EarlyStop, TimeIsUp
from libra_keras.runs.progress import EpochLines, Line, ProgressBar
from libra_keras.runs.resumable import Pace, ResumableFit
from libra_keras.runs.stopping import Stopped, StopSignals
from libra_keras.runs.watching import Speedometer, TensorBoardLogger
from libra_keras.training import LearningRateLogger, StepLogger, StopOnNonFinite
from libra_keras.training.averages import has_averages


class NonFiniteLoss(ArithmeticError):
    """Raised when a gradient or loss was not finite; the weights from before it are saved.

    Example:

    >>> from libra_keras.runs import NonFiniteLoss
    >>> issubclass(NonFiniteLoss, ArithmeticError)
    True
    """


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is ready to start: everything is built and checked."""

    model: keras.Model  # compiled detector
    batches: Any  # what this process reads of them, from where the run continues
    source: Any  # `TrainingSource` of all batches
    val: DetectionData
    pace: Pace
    devices: Devices  # entered
    done: int  # batches that the run has trained on already
    eval_every: int  # epochs; 0 evaluates at the end only
    early_stop: int  # evaluations in a row without a better one; 0 never stops
    with_voc: bool  # whether Pascal VOC's AP is measured at the end as well
    known: dict[str, str | None]  # what is known to look wrong, by subjects, for `Advisor`
    folder: RunFolder | None  # of a process that writes one

    def damaged(self) -> dict[str, dict[str, str]]:
        """Returns the training images that turned out to be damaged."""
        return {"training": self.source.damaged}


@dataclasses.dataclass(frozen=True)
class Watch:
    """The callbacks of a run that are needed again later."""

    guard: StopOnNonFinite
    speed: Speedometer
    line: Line
    evaluation: COCOEvaluation | ProposalEvaluation
    advisor: Advisor


def fit_and_report(job: Job) -> bool:
    """Trains, measures, and fills the run folder, or continues the unfinished run in it; returns
    whether the run is finished; if not, its time was up and it is saved."""
    watch = _watch(job)
    run = _resumable(job, watch)

    def find():
        return {**job.damaged(), "evaluation": watch.evaluation.damaged}

    with damage_explained(find), disk_explained(job.folder.path):
        if not _train(job, watch, run, find):
            return False
        stopped_early = run.batches < job.pace.steps * job.pace.epochs
        if stopped_early:
            print(f"{job.early_stop} evaluation(s) without improvement: the run ends early")
        _measure(job, watch.evaluation)
        watch.line.clear()
        warnings = watch.advisor.warnings
        result = report.Result(watch.evaluation, find(), run.seconds, warnings, stopped_early)
        report.write(job.model, job.val, job.folder, result)
    return True


def follow(job: Job) -> None:
    """Trains a worker of a cluster that writes nothing until the run ends, even after Ctrl-C and
    SIGTERM, which the chief receives as well."""
    pace = job.pace
    if job.done >= pace.steps * pace.epochs:
        return
    guard = StopOnNonFinite(first_step=job.done % pace.steps)
    with damage_told(job.damaged), StopSignals("The chief ends the run") as signals:
        # Schedulers tell all workers to stop. The chief needs this one for the step it is in.
        signals.held = True
        job.devices.fit(
            job.model,
            job.batches,
            steps_per_epoch=pace.steps,
            initial_epoch=job.done // pace.steps,
            epochs=pace.epochs,
            callbacks=[guard],
        )
    if guard.failure:
        raise NonFiniteLoss(guard.failure)


def _watch(job):
    guard, line = StopOnNonFinite(_namer(job.source, job.pace.steps)), Line()
    is_rpn = isinstance(job.model, RegionProposalNetwork)
    evaluation = (GuardedProposalEvaluation if is_rpn else GuardedEvaluation)(
        guard,
        line,
        job.folder,
        job.val,
        batch_size=job.source.plan.batch_size,
        every=job.eval_every or job.pace.epochs,
        fills_logs=True,  # log.csv has the columns of its first row
    )
    advisor = Advisor(job.model.LOSSES, recall_of(job.model, evaluation), job.known)
    return Watch(guard, Speedometer(evaluation.batch_size), line, evaluation, advisor)


def _resumable(job, watch):
    speed, line, evaluation = watch.speed, watch.line, watch.evaluation
    shown = [watch.guard, speed, ProgressBar(speed, line), evaluation]
    shown += [EarlyStop(evaluation.monitor, job.early_stop)]
    shown += [EpochLines(speed, line, evaluation.monitor), watch.advisor]

    def picture():
        return report.panel(job.model, evaluation)

    run = ResumableFit(
        job.folder,
        [*shown, *_loggers(job, speed, picture)],
        job.pace,
        parts={"damaged": job.source.damage},
        fit=job.devices.fit,
    )
    evaluation.best_weights = run.candidate
    return run


def _loggers(job, speed, picture):
    """Callbacks that write logs; they continue the tables of a run that was interrupted."""
    folder, (log, rows) = job.folder, job.folder.tables
    every = min(20, max(1, job.pace.steps * job.pace.epochs // 50))  # short runs have curves too
    steps = StepLogger(rows, every=every, append=True)
    callbacks = [LearningRateLogger(), keras.callbacks.CSVLogger(log, append=True), steps]
    if importlib.util.find_spec("tensorboard") and keras.backend.backend() == "tensorflow":
        board = TensorBoardLogger(folder.path / "tensorboard", speed, picture)
        steps.on_row = board.write_row
        callbacks.append(board)  # behind the steps, whose last row comes when training ends
    return callbacks


def _train(job, watch, run, find_damaged):
    """Runs to the last step; returns whether it got there before its time was up."""
    if run.open(job.model):
        where = f"{job.folder.path} at epoch {run.epoch + 1}, step {run.step}"
        print(f"Continuing {where}", flush=True)
    try:
        run.fit(job.model, job.batches)
    except KeyboardInterrupt as stop:
        report.tell_interruption(job.model, job.folder)
        tell_damage(find_damaged())
        if isinstance(stop, Stopped):
            raise
        raise Stopped(getattr(stop, "signum", signal.SIGINT)) from stop
    except TimeIsUp:
        report.tell_interruption(job.model, job.folder, "The time is up")
        tell_damage(find_damaged())
        return False
    tell_damage(find_damaged())
    if watch.guard.failure:
        job.folder.check_there()
        atomic.save_weights(job.model, job.folder.last_weights)
        kind = "averaged weights" if has_averages(job.model) else "weights"  # as `fit` left them
        print(f"The {kind} are in {job.folder.last_weights}", file=sys.stderr)
        raise NonFiniteLoss(watch.guard.failure)
    return True


def _measure(job, evaluation):
    if not evaluation.metrics:  # killed after the last one
        evaluation.evaluate()
    if job.with_voc and not isinstance(job.model, RegionProposalNetwork):
        found = relabelled(evaluation.detections, job.model.class_names, job.val)
        evaluation.metrics |= voc_ap(job.val, found)


def _namer(source, steps) -> Callable:
    """Maps a run's step to its files; with `steps` an epoch is shorter than the plan's."""

    def names(epoch, step):
        return source.batch_files(*divmod(epoch * steps + step, source.steps_per_epoch))

    return names


class _Guarded:
    """Skips the evaluation after a non-finite number stopped training, and shows its progress."""

    def __init__(self, guard, line, folder, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.guard = guard
        self.line = line
        self.folder = folder

    def is_due(self, epoch):
        """As in `COCOEvaluation`, unless the guard has stopped the training."""
        return self.guard.failure is None and super().is_due(epoch)

    def measure(self, batches):
        """As in `COCOEvaluation`, unless the run folder has disappeared meanwhile."""
        found = super().measure(self.line.over("Evaluation", batches))
        self.folder.check_there()  # what did best is saved there next
        return found


class GuardedEvaluation(_Guarded, COCOEvaluation):
    """`COCOEvaluation` that skips the epoch in which a non-finite number stopped the training."""


class GuardedProposalEvaluation(_Guarded, ProposalEvaluation):
    """`ProposalEvaluation` that skips the epoch in which a non-finite number stopped the run."""
