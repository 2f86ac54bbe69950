"""`fit` that continues where it was killed: one callback that wraps all others and saves."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from libra_keras.files import atomic
from libra_keras.files.reading import explained
from libra_keras.runs.folder import CANDIDATE, RunFolder
from libra_keras.runs.moments import Moments, TimeIsUp
from libra_keras.runs.states import OF_RUN, check_like, check_state
from libra_keras.runs.stopping import Stopped, StopSignals
from libra_keras.training.averages import averaged_weights, has_averages


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long a run is, and how often it is saved: every `save_every` batches; 0: every epoch."""

    steps: int
    epochs: int
    save_every: int = 500
    moments: Moments = Moments()


class ResumableFit(keras.callbacks.Callback):
    """Trains with `model.fit`, saves the run's progress, and continues from there: Keras sees only
    this callback, which wraps all others, and to them a run that was killed looks like one that was
    not."""

    # Epochs and batches keep their numbers, means of an epoch continue, tables are cut back to the
    # saved rows, and what was under way is done again. The state of a callback, or of one of
    # `parts`, with `get_state` and `set_state`, a dict for JSON, is saved too; in the middle of an
    # epoch, `set_state` follows `on_epoch_begin`. A callback with `catch_up` may be a batch behind,
    # but not when the run is saved. A run that another callback stops in the middle of an epoch, as
    # `StopOnNonFinite` does, is not saved again: it would continue from there. One that is stopped
    # at the end of an epoch, as `EarlyStop` does, is complete.

    def __init__(
        self,
        folder: RunFolder,
        callbacks: Iterable[keras.callbacks.Callback],
        pace: Pace,
        parts: Mapping[str, Any] | None = None,
        fit: Callable | None = None,
    ):
        super().__init__()
        self.folder = folder
        self.checkpoints = folder.checkpoints
        self.callbacks = list(callbacks)
        self.steps, self.epochs, self.save_every = pace.steps, pace.epochs, pace.save_every
        self._moments, self._kept = pace.moments, pace.moments.kept(pace.steps * pace.epochs)
        stateful = {type(c).__name__: c for c in self.callbacks if hasattr(c, "get_state")}
        self.parts = {**stateful, **(parts or {})}
        self._fit = fit
        # An evaluation saves here what did best so far; `_publish` moves it once that is saved.
        self.candidate = self.checkpoints.folder / CANDIDATE
        self.epoch = self.step = 0
        self._restored = None  # the state that callbacks have not received yet
        self._offset = 0  # of Keras' numbers of batches in the epoch that is resumed
        self._is_begun = self._ends_early = False
        self._signals = StopSignals()
        self._seconds_before, self._started = 0.0, time.monotonic()

    @property
    def batches(self):
        """Batches that the run has trained on."""
        return self.epoch * self.steps + self.step

    @property
    def seconds(self):
        """Seconds that the run has taken, without those lost to kills."""
        return self._seconds_before + time.monotonic() - self._started

    def open(self, model: keras.Model) -> bool:
        """Restores the run, or saves its start, and returns whether there was one; call it before
        `fit`."""
        self.set_model(model)
        state = self.checkpoints.restore(model)
        if state is None:
            self.save()
            return False
        with explained(self.checkpoints.state_file):
            self._check(state)
        self.epoch, self.step = state["epoch"], state["step"]
        self.epochs = state.get("epochs", self.epochs)  # fewer in a run that has ended early
        self._seconds_before = state["seconds"]
        for path in self.folder.tables:
            cut_table(path, state["tables"].get(path.name, 0))
        if not state["has_candidate"]:  # of an evaluation that is repeated
            self.candidate.unlink(missing_ok=True)
        if self.batches and self.step == 0:
            self._publish()
        self._restored = state
        return True

    def _check(self, state):
        """Raises unless a state can belong to this run."""
        check_state(state, OF_RUN)
        epoch, step = state["epoch"], state["step"]
        if not epoch <= state.get("epochs", self.epochs) <= self.epochs or step > self.steps:
            raise ValueError(
                f"epoch {epoch}, step {step} does not exist in a run of {self.epochs} epochs of "
                f"{self.steps} steps"
            )
        if state["batches"] != epoch * self.steps + step:
            raise ValueError(f"{state['batches']} batches are not epoch {epoch}, step {step}")
        if unknown := [name for name in state["parts"] if name not in self.parts]:
            raise ValueError(f"this run has no part {unknown[0]!r:.80}")

    def fit(self, model: keras.Model, batches: Any) -> None:
        """Trains for the rest of the run, from batch `self.batches` on; raises `Stopped` after a
        signal and `TimeIsUp` when its time is up, once the run is saved."""
        self._started = time.monotonic()
        with self._signals:
            if self.step == self.steps or self.epoch == self.epochs:
                self._finish(model)
            if self.epoch < self.epochs and not model.stop_training:
                fit = self._fit or type(model).fit
                fit(
                    model,
                    _one_after_another(batches),
                    steps_per_epoch=self.steps,
                    initial_epoch=self.epoch,
                    epochs=self.epochs,
                    callbacks=[self],
                    verbose=0,
                    shuffle=False,  # the batches are shuffled already
                )

    def _finish(self, model):
        """Does what is left of a run that was killed after the last batch of an epoch."""
        for callback in self.callbacks:
            callback.set_model(model)
        self.set_params({})
        self.on_train_begin()
        if self.step == self.steps:
            self.on_epoch_begin(self.epoch)
            results = model.get_metrics_result()
            self.on_epoch_end(self.epoch, {name: float(v) for name, v in results.items()})
        if self.epoch == self.epochs:
            self._give_states()
            model.optimizer.finalize_variable_values(model.trainable_weights)  # as `fit` does
            self.on_train_end()

    def set_model(self, model):
        super().set_model(model)
        self._trained = model  # on JAX, `self.model` costs a copy of all weights
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params):
        own = {"epochs": self.epochs, "steps": self.steps}
        super().set_params({**params, **own})
        for callback in self.callbacks:
            callback.set_params(self.params)

    def on_train_begin(self, logs=None):
        if not self._is_begun:
            self._call("on_train_begin", logs)
        self._is_begun = True

    def on_epoch_begin(self, epoch, logs=None):
        self._offset = self.step
        if not self.step:  # saved between two epochs
            self._give_states()
        self._call("on_epoch_begin", epoch, logs)
        if self._restored:
            with explained(self.checkpoints.state_file):
                set_metrics(self._trained, self._restored)
            self._give_states()

    def on_train_batch_begin(self, batch, logs=None):
        self._call("on_train_batch_begin", batch + self._offset, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.folder.check_there()  # before a callback writes
        self.step = batch + self._offset + 1
        self._signals.held = True  # before, nothing is lost, and a first step compiles for long
        self._call("on_train_batch_end", self.step - 1, logs)
        is_last = self.step == self.steps
        is_told = bool(self._signals.received) or self._moments.is_time
        is_due = self.save_every and self.batches % self.save_every == 0
        if is_told or is_due or self.batches in self._kept:
            self._catch_up()
        if self._trained.stop_training:
            return
        is_kept = self._keep()
        if is_told:
            self._leave()
        if (is_due or is_kept) and not is_last:
            self.save()
        if is_last and self._offset:  # Keras would wait for the batches before the offset
            self._ends_early = self._trained.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self._ends_early:
            self._ends_early = self._trained.stop_training = False
        self._catch_up()
        is_sound = not self._trained.stop_training
        if is_sound:
            self.save()  # an evaluation takes long
            self._publish_last()
        self._signals.release()
        self._call("on_epoch_end", epoch, logs)
        if is_sound:
            self.epoch, self.step = epoch + 1, 0
            if self._trained.stop_training:  # by a callback that has seen enough
                self.epochs = self.epoch
            self.save()
            self._publish()
            if self.epoch < self.epochs and self._moments.is_time:
                raise TimeIsUp

    def on_train_end(self, logs=None):
        self._call("on_train_end", logs)

    def save(self):
        """Saves the run as it is."""
        self.folder.check_there()
        tables = [path for path in self.folder.tables if path.exists()]
        for path in tables:
            atomic.flush_to_disk(path)
        # Before the first epoch callbacks have no state yet.
        parts = self.parts if self._is_begun else {}
        state = {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "step": self.step,
            "batches": self.batches,
            "seconds": self.seconds,
            "tables": {path.name: path.stat().st_size for path in tables},
            "has_candidate": self.candidate.exists(),
            "parts": {name: part.get_state() for name, part in parts.items()},
        }
        self.checkpoints.save(self.model, state)

    def _keep(self):
        """Keeps the weights after the last batch if requested; returns whether."""
        # It comes before a save: a run that is killed in between does both again.
        names = self._kept.get(self.batches, ())
        for name in names:
            with averaged_weights(self.model):
                atomic.save_weights(self.model, self.folder.path / name)
        return bool(names)

    def _catch_up(self):
        """Lets callbacks read what they have put off: whether the run is sound is known then."""
        for callback in self.callbacks:
            if hasattr(callback, "catch_up"):
                callback.catch_up()

    def _leave(self):
        """Saves and ends the run, after a signal or because its time is up."""
        self.save()
        self._publish_last()
        raise Stopped(self._signals.received) if self._signals.received else TimeIsUp

    def _publish(self):
        """Gives the weights of an epoch their names; doing so twice is harmless."""
        if self.candidate.exists():
            self.candidate.replace(self.folder.best_weights)
        if not has_averages(self._trained):  # which have got theirs before the evaluation
            self._publish_last()

    def _publish_last(self):
        """Gives the weights of the last save, or their averages, their name."""
        if has_averages(self._trained):
            with averaged_weights(self.model):
                atomic.save_weights(self.model, self.folder.last_weights)
        else:
            atomic.link(self.checkpoints.weights, self.folder.last_weights)

    def _give_states(self):
        with explained(self.checkpoints.state_file):
            for name, state in (self._restored or {}).get("parts", {}).items():
                check_like(state, self.parts[name].get_state(), name)
                self.parts[name].set_state(state)
        self._restored = None

    def _call(self, method, *arguments):
        for callback in self.callbacks:
            getattr(callback, method)(*arguments)


def set_metrics(model: keras.Model, state: Mapping[str, Any]) -> None:
    """Continues the running means of an epoch, after Keras has reset them for it."""
    for variable, value in zip(model.metrics_variables, state["metrics"], strict=True):
        variable.assign(np.asarray(value, variable.dtype))


def cut_table(path: Path, size: int) -> None:
    """Removes the rows that were written after a run was saved: they will be written again."""
    if not size:
        path.unlink(missing_ok=True)  # an empty file would get no header
    elif path.exists() and path.stat().st_size > size:
        with path.open("rb+") as file:
            file.truncate(size)


def _one_after_another(batches):
    """Batches as a generator: Keras does not accept an epoch of a `PyDataset` that ends early."""
    if not isinstance(batches, keras.utils.PyDataset):
        return batches
    end = batches.num_batches
    return (batches[i] for i in (itertools.count() if end is None else range(end)))
