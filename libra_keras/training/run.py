"""The folder of a training run: what was done, how it went, and what came out."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

import keras

import libra_keras
from libra_keras import atomic, locks
from libra_keras.training.callbacks import LearningRateLogger, StepLogger
from libra_keras.training.checkpoints import Checkpoints
from libra_keras.training.tensorboard import TensorBoardLogger

# All that a run has written before its first checkpoint is complete.
BEGUN = {"config.json", "model.json", "checkpoints"}
COMPLETE = BEGUN | {
    *("log.csv", "steps.csv", "tensorboard", "last.weights.h5", "best.weights.h5"),
    *("model.keras", "metrics.json", "detections.png", "curves.png"),
}


class RunFolder:
    """Writes a training run's files, each either whole or not at all.

    - `config.json`: the command, its settings, the data, and the versions that ran.
    - `model.json`: the architecture, for `keras.models.model_from_json`.
    - `log.csv`: one row per epoch: losses, learning rate, and `val_` metrics.
    - `steps.csv`: the means of the losses over every 20 steps.
    - `tensorboard/`: all of it, images per second, and a picture of annotations and detections,
      for TensorBoard, if it is installed and the backend is TensorFlow.
    - `last.weights.h5`: weights and optimizer after the last epoch; `best.weights.h5`: those with
      the best `val_AP`, or `val_AR@100` of a region proposal network.
    - `model.keras`: the trained detector of the last step, for `keras.saving.load_model`.
    - `metrics.json`, `detections.png`, `curves.png`: the results.
    - `checkpoints/`: from which a run that was interrupted goes on; deleted when it is complete.

    Args:
        path: the folder.

    Example:

    >>> import tempfile
    >>> from libra_keras.training.run import RunFolder
    >>> folder = RunFolder.create(tempfile.mkdtemp())
    >>> folder.write_json("metrics.json", {"AP": 0.5})
    >>> (folder.path / "metrics.json").read_text()
    '{\\n  "AP": 0.5\\n}\\n'
    """

    def __init__(self, path):
        self.path = Path(path)
        self.last_weights = self.path / "last.weights.h5"
        self.best_weights = self.path / "best.weights.h5"
        self.model = self.path / "model.keras"
        self.tables = [self.path / "log.csv", self.path / "steps.csv"]
        self.checkpoints = Checkpoints(self.path / "checkpoints")

    @property
    def is_unfinished(self):
        """Whether there is a run in the folder that can go on."""
        return self.checkpoints.state_file.is_file()

    def lock(self):
        """Returns a context in which no other process trains in this folder.

        Entering it raises a ValueError if another one does.
        """
        return _locked(self.checkpoints.folder / "lock", self.path)

    @classmethod
    def create(cls, path, overwrite=False):
        """Makes an empty run folder; call it when nothing is left that could go wrong before.

        Args:
            path: the folder; its parents are made.
            overwrite: bool, whether an earlier *run* in it is deleted.

        Returns:
            `RunFolder`.

        Raises:
            ValueError: as `check` does.
        """
        folder = cls(path)
        folder.check(overwrite)
        if folder._is_used() or folder._is_hardly_begun():
            with folder.lock(), atomic.replacing(folder.path) as empty:
                empty.mkdir()
        # First of all files: it tells the next attempt that the others are those of a run.
        folder.checkpoints.folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check(self, overwrite=False):
        """Raises what `create` would, and changes nothing.

        Raises:
            ValueError: if the folder is not empty, and `overwrite` is false or what it holds is
                no run, or more than that; or if nothing can be written there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The run folder {self.path} exists and is a file")
        self.check_writable()
        if not self._is_used():
            return
        if not overwrite:
            raise ValueError(
                f"The run folder {self.path} is not empty. Choose another with --to, or "
                "replace the run with --overwrite"
            )
        # A mistyped path must not cost somebody a folder of photographs.
        if not (self.path / "config.json").is_file():
            raise ValueError(
                f"{self.path} holds files but no config.json of a run; it is not replaced"
            )
        if others := sorted(self._entries() - COMPLETE) + self._foreign():
            raise ValueError(
                f"{self.path} holds {', '.join(others[:3])}, which no run has written; it is not "
                "replaced. Move what you need, and delete the rest"
            )

    def check_writable(self):
        """Raises a ValueError if files cannot be made in the folder, or the folder itself."""
        absolute = self.path.resolve()
        existing = next(path for path in (absolute, *absolute.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            why = "read-only" if existing.is_dir() else "a file"
            raise ValueError(
                f"The run folder {self.path} cannot be written to: {existing} is {why}"
            )

    def _is_used(self):
        return self.path.is_dir() and any(self.path.iterdir()) and not self._is_hardly_begun()

    def _is_hardly_begun(self):
        """Whether a run was killed here before it had saved anything that could go on."""
        if not self.checkpoints.folder.is_dir() or self.is_unfinished:
            return False
        return self._entries() <= BEGUN and not self._foreign()

    def _foreign(self):
        # Others keep weights in folders of this name too.
        folder = self.checkpoints.folder.name
        return [f"{folder}/{name}" for name in self.checkpoints.foreign_files()]

    def _entries(self):
        return {path.name.removeprefix(".unfinished.") for path in self.path.iterdir()}

    def write_json(self, name, values):
        """Writes a JSON file; a crash leaves the old one."""
        atomic.write_json(self.path / name, values)

    def write_config(self, record):
        """Writes `config.json`: `record`, with the command and the versions that run it."""
        own = {"command": sys.argv, "versions": versions(), "backend": keras.backend.backend()}
        policy = keras.config.dtype_policy().name
        self.write_json("config.json", {**own, "dtype_policy": policy, **record})

    def write_architecture(self, model):
        """Writes `model.json`, from which a model without weights and optimizer can be made."""
        architecture = json.loads(model.to_json())
        architecture.pop("compile_config", None)
        self.write_json("model.json", architecture)

    def loggers(self, every=20, speed=None, picture=None):
        """Returns the callbacks that write logs; they belong behind evaluation.

        They go on with the tables that there are: those of a run that was interrupted.

        Args:
            every: int, steps per row of `steps.csv`.
            speed, picture: as of `TensorBoardLogger`.
        """
        steps = StepLogger(self.tables[1], every=every, append=True)
        callbacks = [
            LearningRateLogger(),
            keras.callbacks.CSVLogger(self.tables[0], append=True),
            steps,
        ]
        if importlib.util.find_spec("tensorboard") and keras.backend.backend() == "tensorflow":
            board = TensorBoardLogger(self.path / "tensorboard", speed, picture)
            steps.on_row = board.write_row
            callbacks.append(board)  # behind the steps, whose last row comes when training ends
        return callbacks

    def save_model(self, model):
        """Writes `model.keras` without the optimizer: half the size, and enough to detect."""
        bare = type(model).from_config(model.get_config())
        bare.set_weights(model.get_weights())
        with atomic.replacing(self.model) as unfinished:
            bare.save(unfinished)


@contextlib.contextmanager
def _locked(path, folder):
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.exclusive(path))
        except BlockingIOError as error:
            raise ValueError(f"Another process is training in {folder}") from error
        yield


def versions():
    """Returns a dict of the versions that decide what a run computes.

    Example:

    >>> from libra_keras.training.run import versions
    >>> "keras" in versions()
    True
    """
    found = {"libra_keras": libra_keras.__version__, "python": platform.python_version()}
    for name in ("keras", "tensorflow", "jax", "torch", "numpy", "pillow", "pycocotools"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "platform": platform.platform()}
