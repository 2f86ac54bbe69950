"""The folder of a training run: what was done, how it went, and what came out."""

import importlib.metadata
import importlib.util
import json
import platform
import sys
from pathlib import Path

import keras

import libra_keras
from libra_keras import atomic
from libra_keras.training.callbacks import LearningRateLogger, StepLogger


class RunFolder:
    """Writes a training run's files, each either whole or not at all.

    - `config.json`: the command, its settings, the data, and the versions that ran.
    - `model.json`: the architecture, for `keras.models.model_from_json`.
    - `log.csv`: one row per epoch: losses, learning rate, and `val_` metrics.
    - `steps.csv`: the means of the losses over every 20 steps.
    - `tensorboard/`: the same for TensorBoard, if it is installed.
    - `last.weights.h5`: weights and optimizer after the last epoch; `best.weights.h5`: those with
      the best `val_AP`, or `val_AR@100` of a region proposal network.
    - `model.keras`: the trained detector of the last step, for `keras.saving.load_model`.
    - `metrics.json`, `detections.png`, `curves.png`: the results.

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
        if folder._is_used():
            with atomic.replacing(folder.path) as empty:
                empty.mkdir()
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    def check(self, overwrite=False):
        """Raises what `create` would, and changes nothing.

        Raises:
            ValueError: if the folder is not empty, and `overwrite` is false or what it holds is
                no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The run folder {self.path} exists and is a file")
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

    def _is_used(self):
        return self.path.is_dir() and any(self.path.iterdir())

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

    def loggers(self, every=20):
        """Returns the callbacks that write logs and weights; they belong behind evaluation.

        Args:
            every: int, steps per row of `steps.csv`.
        """
        callbacks = [
            LearningRateLogger(),
            keras.callbacks.CSVLogger(self.path / "log.csv"),
            StepLogger(self.path / "steps.csv", every=every),
            SaveLastWeights(self.last_weights),
        ]
        if importlib.util.find_spec("tensorboard") and keras.backend.backend() == "tensorflow":
            events = str(self.path / "tensorboard")
            callbacks.append(keras.callbacks.TensorBoard(events, write_graph=False))
        return callbacks

    def save_model(self, model):
        """Writes `model.keras` without the optimizer: half the size, and enough to detect."""
        bare = type(model).from_config(model.get_config())
        bare.set_weights(model.get_weights())
        with atomic.replacing(self.model) as unfinished:
            bare.save(unfinished)


class SaveLastWeights(keras.callbacks.Callback):
    """Saves weights and optimizer after every epoch; a crash while saving leaves the old file.

    Args:
        path: file whose name ends in `.weights.h5`.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import keras
    >>> from libra_keras.training.run import SaveLastWeights
    >>> path = Path(tempfile.mkdtemp()) / "last.weights.h5"
    >>> callback = SaveLastWeights(path)
    >>> callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    >>> callback.on_epoch_end(0)
    >>> path.exists()
    True
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)

    def on_epoch_end(self, epoch, logs=None):
        atomic.save_weights(self.model, self.path)


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
