"""A model and the place where its run stands, saved so that no kill leaves half of either."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
from keras import ops

from libra_keras.files import atomic
from libra_keras.training.callbacks import batches_done

PATTERN = "step-{}.weights.h5"
STATE = "state.json"
CANDIDATE = "best.weights.h5"  # of the epoch that is not saved yet
SAVED = (PATTERN.format("*"), STATE, CANDIDATE, "lock")  # all that may lie in the folder


class Checkpoints:
    """Saves a model together with the state of its run, and restores both.

    A checkpoint is two files: `step-<n>.weights.h5` with the weights and the optimizer after `n`
    batches, and `state.json`, which names it. Both are written whole or not at all, the state
    last, and older weights go away only after that: whenever a process is killed, the state names
    weights that are whole and belong to it. A second `save` after the same batch replaces the
    state alone.

    It needs no `fit`; a training loop of one's own calls `save` and `restore`, and `set_metrics`
    at the start of the epoch that is resumed. Where several processes train, one saves.

    Args:
        folder: str or path; it is made when something is saved.

    Example:

    >>> import tempfile
    >>> import keras
    >>> from libra_keras.training import SGD
    >>> from libra_keras.runs.checkpoints import Checkpoints
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(SGD(0.1), "mse")
    >>> model.optimizer.build(model.trainable_variables)
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> checkpoints.restore(model) is None
    True
    >>> checkpoints.save(model, {"batches": 0, "epoch": 0})
    >>> state = checkpoints.restore(model)
    >>> state["epoch"], state["weights"]
    (0, 'step-0.weights.h5')
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.state_file = self.folder / STATE

    def read(self):
        """Returns the state that was saved last, or `None` if there is none.

        Raises:
            ValueError: if `state.json` cannot be read as such.
        """
        if not self.state_file.is_file():
            return None
        try:
            return json.loads(self.state_file.read_text())
        except ValueError as error:
            raise ValueError(f"{self.state_file} is damaged: {error}") from error

    @property
    def weights(self):
        """Path of the weights that the state names; `None` without a state."""
        state = self.read()
        return None if state is None else self.folder / state["weights"]

    def save(self, model, state):
        """Saves the model and the state of its run.

        Args:
            model: built and compiled `keras.Model`, with an optimizer that is built.
            state: dict that `json` can write, with `"batches"`, the batches that the run has
                trained on. `"weights"`, `"updates"` and `"metrics"` are added to it.

        Raises:
            OSError: if it cannot be written; what was saved before stays whole.
        """
        weights = self.folder / PATTERN.format(state["batches"])
        added = {
            "weights": weights.name,
            "updates": batches_done(model.optimizer),
            "metrics": [ops.convert_to_numpy(v).tolist() for v in model.metrics_variables],
        }
        with self._explained():
            if weights != self.weights:  # never touched again, once there is a state that names it
                atomic.save_weights(model, weights)
            with atomic.replacing(self.state_file) as unfinished:
                # Unlike JSON proper, Python's knows the infinities that a best value starts from.
                unfinished.write_text(json.dumps({**state, **added}, indent=1))
        # A process that was killed while it saved has left part of a file.
        for old in [*self.folder.glob(PATTERN.format("*")), *self.folder.glob(".unfinished.*")]:
            if old != weights:
                old.unlink(missing_ok=True)

    def restore(self, model):
        """Loads weights and optimizer as they were saved, and returns the state.

        Args:
            model: `keras.Model` that is built and compiled like the one that was saved.

        Returns:
            The dict that `save` was given, with what it added; `None` if nothing was saved.

        Raises:
            ValueError: if the weights are missing, or are not those of such a model.
        """
        state = self.read()
        if state is None:
            return None
        weights = self.folder / state["weights"]
        if not weights.is_file():
            raise ValueError(f"{self.state_file} names {weights.name}, which is not there")
        model.load_weights(weights)
        # Keras warns only where a file lacks an optimizer's variables.
        updates = batches_done(model.optimizer)
        if updates != state["updates"]:
            raise ValueError(
                f"{weights} does not hold the optimizer of this model: expected "
                f"{state['updates']} batches done. Received: {updates}"
            )
        return state

    def clear(self):
        """Deletes what was saved, the state first."""
        self.state_file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_space(self, model, copies):
        """Checks that the disk holds so many more files of weights and optimizer.

        Args:
            model: built `keras.Model` with a built optimizer.
            copies: number.

        Raises:
            OSError: if it does not.
        """
        needed = copies * atomic.weights_size(model)
        existing = next(p for p in (self.folder, *self.folder.resolve().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise OSError(
                f"The disk of {existing} has {free / 2**20:.0f} MiB left; the run needs about "
                f"{needed / 2**20:.0f} MiB for weights and optimizer"
            )

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except (OSError, RuntimeError) as error:  # h5py raises both over a full disk
            why = atomic.disk_error(error) or error
            raise OSError(
                f"The run cannot be saved in {self.folder}: {why}. What was saved before is whole"
            ) from error


def set_metrics(model, state):
    """Continues the running means of an epoch; call it after Keras has reset them for that epoch.

    Args:
        model: compiled `keras.Model`. Metrics that it is compiled with must have their variables,
            which Keras makes at their first batch; a detector's have.
        state: dict that `Checkpoints.restore` returned.

    Example:

    >>> import keras
    >>> from libra_keras.runs.checkpoints import set_metrics
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> set_metrics(model, {"metrics": [6.0, 2.0]})  # sum and count
    >>> float(model.get_metrics_result()["loss"])
    3.0
    """
    for variable, value in zip(model.metrics_variables, state["metrics"], strict=True):
        variable.assign(np.asarray(value, variable.dtype))


def cut_table(path, size):
    """Takes the rows away that were written after a run was saved: they will come again.

    Args:
        path: `Path` of a file to which rows are appended; it may be missing.
        size: int, bytes that it had.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.runs.checkpoints import cut_table
    >>> path = Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("epoch\\n0\\n1\\n")
    >>> cut_table(path, 8)
    >>> path.read_text()
    'epoch\\n0\\n'
    """
    if not size:
        path.unlink(missing_ok=True)  # an empty file would get no header
    elif path.exists() and path.stat().st_size > size:
        with path.open("rb+") as file:
            file.truncate(size)
