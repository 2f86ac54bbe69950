"""The folder of a training run: what was done, how it went, and what came out."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops

import libra_keras
from libra_keras.files import atomic, locks
from libra_keras.files.reading import explained, read_object
from libra_keras.files.replacing import (
    Kind,
    check_replaceable,
    check_writable,
    foreign_entries,
)
from libra_keras.files.weights import load_weights
from libra_keras.runs.states import OF_WEIGHTS, PATTERN, check_state
from libra_keras.training.callbacks import batches_done

STATE = "state.json"  # names the weights that belong to it
CANDIDATE = "best.weights.h5"  # of the epoch that is not saved yet
WEIGHTS = ("last.weights.h5", "best.weights.h5")
# All that a run has written before its first checkpoint is complete.
BEGUN = Kind(
    "run",
    "config.json",
    (
        "config.json",  # the command, its settings, the data, and the versions that ran
        "model.json",  # the architecture, for `keras.models.model_from_json`
        # From which an interrupted run continues; deleted when it is complete.
        *(f"checkpoints/{name}" for name in (PATTERN.format("*"), STATE, CANDIDATE, "lock")),
    ),
)
COMPLETE = Kind(
    "run",
    "config.json",
    (
        *BEGUN.entries,
        "log.csv",  # a row per epoch: losses, learning rate, and `val_` metrics
        "steps.csv",  # the means of the losses over 20 steps, or fewer of a short run
        "tensorboard/",  # all of these, images per second, and a picture
        *WEIGHTS,  # after the last epoch, with the optimizer; of the best `val_AP` or `val_AR@100`
        "kept-*.weights.h5",  # after such a share of the steps, where `train` was asked for them
        "model.keras",  # the detector of the last step, for `keras.saving.load_model`
        *("metrics.json", "detections.png", "curves.png"),
        *("report.html", "report-*.html"),  # what explains the numbers; of other data
    ),
)
COPIES = 4  # of weights and optimizer at most: saved, being saved, best, and room for the rest


class RunFolder:
    """Writes a training run's files, each completely or not at all."""

    def __init__(self, path: str | Path):
        self.goes_on = False  # whether an unfinished run in it continues
        self._name: str | None = None
        self._held = contextlib.ExitStack()
        self._lock: os.stat_result | None = None  # the file of the folder that is held
        self._place(path)

    def _place(self, path):
        self.path = Path(path)
        self.last_weights, self.best_weights = (self.path / name for name in WEIGHTS)
        self.model = self.path / "model.keras"
        self.tables = [self.path / "log.csv", self.path / "steps.csv"]
        self.checkpoints = Checkpoints(self.path / "checkpoints")

    @classmethod
    def next_of(cls, name: str) -> "RunFolder":
        """Returns the next free folder `runs/<name>-<number>`; `begin` looks once more."""
        folder = cls(_next_path(name))
        folder._name = name
        return folder

    @property
    def is_unfinished(self) -> bool:
        """Whether there is a run in the folder that can continue."""
        return self.checkpoints.state_file.exists()

    @property
    def is_finished(self) -> bool:
        """Whether there is a run in the folder that has ended and was measured."""
        return (self.path / "metrics.json").is_file() and not self.is_unfinished

    @property
    def batches(self) -> int:
        """Batches that the run has trained on already; 0 if it is a new run."""
        return self.checkpoints.read()["batches"] if self.goes_on else 0

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Context in which no other process trains in this folder; raises a ValueError if one
        does."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.exclusive(self.checkpoints.folder / "lock"))
            except BlockingIOError as error:
                raise ValueError(f"Another process is training in {self.path}") from error
            yield

    def hold(self) -> None:
        """Locks the folder until `release`."""
        self._held.enter_context(self.lock())
        self._lock = (self.checkpoints.folder / "lock").stat()

    def release(self) -> None:
        """Ends what `hold` began."""
        self._held.close()
        self._lock = None

    def check_there(self) -> None:
        """Raises an `OSError` if the folder was deleted or replaced while it is held: writing would
        create it again, with only a part of the run, or change someone else's folder."""
        if self._lock is None:
            return
        try:  # the file is open: no other one can have its number
            is_there = os.path.samestat((self.checkpoints.folder / "lock").stat(), self._lock)
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        except OSError:  # of a network, say; the next write will report it
            return
        if not is_there:
            raise OSError(
                f"The run folder {self.path} is gone: it was deleted, moved or replaced during the "
                "run. Nothing more is written"
            )

    @classmethod
    def create(cls, path: str | Path, overwrite: bool = False) -> "RunFolder":
        """Makes an empty run folder; call it when nothing else can fail before."""
        folder = cls(path)
        folder._make(overwrite)
        return folder

    def begin(self, record: Mapping[str, Any], model: keras.Model, overwrite: bool = False) -> None:
        """Makes the folder with what is known before training, unless its run continues."""
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
        # First of all files: it marks the others as those of a run for the next attempt.
        self.checkpoints.folder.mkdir(parents=True, exist_ok=True)

    def check(self, overwrite: bool = False) -> None:
        """Raises what `create` would raise, and changes nothing."""
        self.check_writable()
        if not self._is_hardly_begun():
            check_replaceable(self.path, COMPLETE, overwrite)

    def check_writable(self) -> None:
        """Raises a ValueError if files cannot be made in the folder, or the folder itself."""
        check_writable(self.path, "The run folder")

    def _is_hardly_begun(self):
        """Whether a run was killed here before it had saved anything to continue from."""
        if not self.checkpoints.folder.is_dir() or self.is_unfinished:
            return False
        return not foreign_entries(self.path, BEGUN)

    def read_config(self) -> dict[str, Any]:
        """Returns what `config.json` holds; `{}` if there is none."""
        return self.read_json("config.json")

    def read_json(self, name: str) -> dict[str, Any]:
        """Returns the object that a JSON file holds; `{}` if there is none."""
        file = self.path / name
        return read_object(file) if file.exists() else {}

    def write_json(self, name: str, values: Any) -> None:
        """Writes a JSON file; a crash leaves the old one."""
        self.check_there()
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
        self.check_there()
        with atomic.replacing(self.model) as unfinished:
            bare.save(unfinished)


class Checkpoints:
    """Saves a model and the state of its run so that no kill leaves half of either: weights come
    first, then the state that names them, and only then are older weights deleted."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.state_file = self.folder / STATE

    def read(self) -> dict[str, Any] | None:
        """Returns the state that was saved last, or `None` if there is none."""
        if not self.state_file.exists():
            return None
        state = read_object(self.state_file)
        with explained(self.state_file):
            check_state(state, ["batches"])
        return state

    @property
    def weights(self) -> Path | None:
        """Path of the weights that the state names; `None` without a state."""
        state = self.read()
        return None if state is None else self._weights_of(state)

    def _weights_of(self, state):
        with explained(self.state_file):
            check_state(state, OF_WEIGHTS)
        return self.folder / state["weights"]

    def save(self, model: keras.Model, state: Mapping[str, Any]) -> None:
        """Saves a built model with its optimizer, and a state for JSON with the `"batches"` so far;
        a second save after the same batch replaces the state alone."""
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

    def restore(self, model: keras.Model) -> dict[str, Any] | None:
        """Loads weights and optimizer as saved, and returns the state; `None` if there is none."""
        state = self.read()
        if state is None:
            return None
        weights = self._weights_of(state)
        if not weights.exists():
            raise ValueError(f"{self.state_file} names {weights.name}, which does not exist")
        load_weights(model, weights)
        # Keras warns only where a file lacks an optimizer's variables.
        updates = batches_done(model.optimizer)
        if updates != state["updates"]:
            raise ValueError(
                f"{weights} and {self.state_file} do not belong together, or to this optimizer: "
                f"{updates} and {state['updates']} batches done"
            )
        return state

    def clear(self) -> None:
        """Deletes what was saved, the state first."""
        self.state_file.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_space(self, model: keras.Model, copies: float) -> None:
        """Checks that the disk has room for so many more copies of weights and optimizer."""
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
                f"The run cannot be saved in {self.folder}: {why}. What was saved before is "
                "complete"
            ) from error


@contextlib.contextmanager
def disk_explained(path: Path) -> Iterator[None]:
    """Turns what libraries raise over a full or read-only disk into an error with the folder."""
    try:
        yield
    except Exception as error:
        why = atomic.disk_error(error)
        if why is None:
            raise
        raise OSError(
            f"Files cannot be written to {path}: {why}. What was saved before is complete: "
            "once there is room, the same command continues"
        ) from error


def numbers_of(name: str) -> list[int]:
    """Returns the numbers of the existing folders `runs/<name>-<number>`, sorted."""
    found = (
        re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in Path("runs").glob("*")
    )
    return sorted(int(match[1]) for match in found if match)


def _next_path(name):
    return Path("runs") / f"{name}-{max(numbers_of(name), default=0) + 1}"


def versions() -> dict[str, str]:
    """Returns a dict of the versions that decide what a run computes."""
    found = {"libra_keras": libra_keras.__version__, "python": platform.python_version()}
    for name in ("keras", "tensorflow", "jax", "torch", "numpy", "pillow", "pycocotools"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "platform": platform.platform()}
