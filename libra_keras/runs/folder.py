"""The folder of a training run: what was done, how it went, and what came out."""

import contextlib
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

import libra_keras
from libra_keras.files import atomic, locks
from libra_keras.files.replacing import (
    Kind,
    check_replaceable,
    check_writable,
    foreign_entries,
)
from libra_keras.runs.checkpoints import SAVED, Checkpoints

WEIGHTS = ("last.weights.h5", "best.weights.h5")
_SAVED = tuple(f"checkpoints/{name}" for name in SAVED)
# All that a run has written before its first checkpoint is complete.
BEGUN = Kind("run", "config.json", ("config.json", "model.json", *_SAVED))
COMPLETE = Kind(
    "run",
    "config.json",
    (
        *BEGUN.entries,
        *("log.csv", "steps.csv", "tensorboard/", *WEIGHTS, "kept-*.weights.h5"),
        *("model.keras", "metrics.json", "detections.png", "curves.png"),
    ),
)
COPIES = 4  # of weights and optimizer at most: saved, being saved, best, and room for the rest


class RunFolder:
    """Writes a training run's files, each either whole or not at all.

    - `config.json`: the command, its settings, the data, and the versions that ran.
    - `model.json`: the architecture, for `keras.models.model_from_json`.
    - `log.csv`: one row per epoch: losses, learning rate, and `val_` metrics.
    - `steps.csv`: the means of the losses over every 20 steps.
    - `tensorboard/`: all of it, images per second, and a picture of annotations and detections,
      for TensorBoard, if it is installed and the backend is TensorFlow.
    - `last.weights.h5`: weights and optimizer after the last epoch; `best.weights.h5`: those with
      the best `val_AP`, or `val_AR@100` of a region proposal network; `kept-0.5.weights.h5` and
      the like: those after such a share of the steps, where `train` was asked for them.
    - `model.keras`: the trained detector of the last step, for `keras.saving.load_model`.
    - `metrics.json`, `detections.png`, `curves.png`: the results.
    - `checkpoints/`: from which a run that was interrupted goes on; deleted when it is complete.

    Args:
        path: the folder.

    Attributes:
        goes_on: bool, whether an unfinished run in it goes on.

    Example:

    >>> import tempfile
    >>> from libra_keras.runs.folder import RunFolder
    >>> folder = RunFolder.create(tempfile.mkdtemp())
    >>> folder.write_json("metrics.json", {"AP": 0.5})
    >>> (folder.path / "metrics.json").read_text()
    '{\\n  "AP": 0.5\\n}\\n'
    """

    def __init__(self, path: str | Path):
        self.goes_on = False
        self._name = None
        self._held = contextlib.ExitStack()
        self._place(path)

    def _place(self, path):
        self.path = Path(path)
        self.last_weights, self.best_weights = (self.path / name for name in WEIGHTS)
        self.model = self.path / "model.keras"
        self.tables = [self.path / "log.csv", self.path / "steps.csv"]
        self.checkpoints = Checkpoints(self.path / "checkpoints")

    @classmethod
    def next_of(cls, name: str) -> "RunFolder":
        """Returns the next folder `runs/<name>-<number>` that is free; `begin` looks once more."""
        folder = cls(_next_path(name))
        folder._name = name
        return folder

    @property
    def is_unfinished(self) -> bool:
        """Whether there is a run in the folder that can go on."""
        return self.checkpoints.state_file.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether there is a run in the folder that has ended and was measured."""
        return (self.path / "metrics.json").is_file() and not self.is_unfinished

    @property
    def batches(self) -> int:
        """Batches that the run has trained on already; 0 if none goes on."""
        return self.checkpoints.read()["batches"] if self.goes_on else 0

    def lock(self) -> contextlib.AbstractContextManager:
        """Returns a context in which no other process trains in this folder.

        Entering it raises a ValueError if another one does.
        """
        return _locked(self.checkpoints.folder / "lock", self.path)

    def hold(self) -> None:
        """Locks the folder until `release`; raises a ValueError if another process trains in it."""
        self._held.enter_context(self.lock())

    def release(self) -> None:
        """Ends what `hold` began."""
        self._held.close()

    @classmethod
    def create(cls, path: str | Path, overwrite: bool = False) -> "RunFolder":
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
        folder._make(overwrite)
        return folder

    def begin(self, record: Mapping[str, Any], model: keras.Model, overwrite: bool = False) -> None:
        """Makes the folder with what is known before training, unless the run in it goes on.

        Args:
            record: dict for `config.json`.
            model: compiled detector.
            overwrite: bool, whether an earlier run in it is deleted.

        Raises:
            ValueError: as `check` does.
            OSError: if the disk is too small.
        """
        if self.goes_on:
            self.checkpoints.check_space(model, copies=1)
            return
        if self._name:  # another run may have taken the number meanwhile
            self._place(_next_path(self._name))
        self.checkpoints.check_space(model, COPIES)
        self._make(overwrite)
        self.hold()
        self.write_config(record)
        self.write_architecture(model)

    def _make(self, overwrite):
        self.check(overwrite)
        if self.path.is_dir() and any(self.path.iterdir()):
            with self.lock(), atomic.replacing(self.path) as empty:
                empty.mkdir()
        # First of all files: it tells the next attempt that the others are those of a run.
        self.checkpoints.folder.mkdir(parents=True, exist_ok=True)

    def check(self, overwrite: bool = False) -> None:
        """Raises what `create` would, and changes nothing.

        Raises:
            ValueError: if the folder is not empty, and `overwrite` is false or what it holds is
                no run, or more than that; or if nothing can be written there.
        """
        self.check_writable()
        if not self._is_hardly_begun():
            check_replaceable(self.path, COMPLETE, overwrite)

    def check_writable(self) -> None:
        """Raises a ValueError if files cannot be made in the folder, or the folder itself."""
        check_writable(self.path, "The run folder")

    def _is_hardly_begun(self):
        """Whether a run was killed here before it had saved anything that could go on."""
        if not self.checkpoints.folder.is_dir() or self.is_unfinished:
            return False
        return not foreign_entries(self.path, BEGUN)

    def read_config(self) -> dict[str, Any]:
        """Returns what `config.json` holds; `{}` where it cannot be read."""
        try:
            found = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_json(self, name: str, values: Any) -> None:
        """Writes a JSON file; a crash leaves the old one."""
        atomic.write_json(self.path / name, values)

    def write_config(self, record: Mapping[str, Any]) -> None:
        """Writes `config.json`: `record`, with the command and the versions that run it."""
        own = {"command": sys.argv, "versions": versions(), "backend": keras.backend.backend()}
        policy = keras.config.dtype_policy().name
        self.write_json("config.json", {**own, "dtype_policy": policy, **record})

    def write_architecture(self, model: keras.Model) -> None:
        """Writes `model.json`, from which a model without weights and optimizer can be made."""
        architecture = json.loads(model.to_json())
        architecture.pop("compile_config", None)
        self.write_json("model.json", architecture)

    def save_model(self, model: keras.Model) -> None:
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


def numbers_of(name: str) -> list[int]:
    """Returns the numbers of the folders `runs/<name>-<number>` that there are, sorted."""
    found = (
        re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in Path("runs").glob("*")
    )
    return sorted(int(match[1]) for match in found if match)


def _next_path(name):
    return Path("runs") / f"{name}-{max(numbers_of(name), default=0) + 1}"


def versions() -> dict[str, str]:
    """Returns a dict of the versions that decide what a run computes.

    Example:

    >>> from libra_keras.runs.folder import versions
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
