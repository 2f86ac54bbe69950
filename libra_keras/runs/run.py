"""A training run that has ended, or that is opened again, or what it says of itself unopened."""

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from libra_keras.runs.config import TrainConfig
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.resuming import recorded_config

SUFFIX = ".weights.h5"
CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")


class Run:
    """What `train` returns, and `open` gives back.

    Args:
        folder: `Path` of the run folder, of a converted folder, or of a `.keras` file; `None` on a
            worker of a cluster that writes nothing.
        model: the detector; by default it is loaded from the folder when it is first asked for.
        weights: `"last"`, `"best"` or a name such as `"kept-0.5"`, which weights are loaded then.

    Attributes:
        model: the detector, such as a `FasterRCNN`.
        is_finished: whether the run has ended and was measured; a run that `stop_by` has
            stopped goes on when it is trained again.
        metrics: dict of COCO's numbers by their names, `None` before the run has ended.
        config: `TrainConfig` of the run, `None` if it is no run.

    Example:

    ```python
    run = runs.open("runs/mine")
    print(run.metrics["AP"], run.model.detect("photo.jpg")["names"])
    ```
    """

    def __init__(
        self, folder: Path | None, model: keras.Model | None = None, weights: str = "last"
    ):
        self.folder = folder
        self.weights = weights
        if model is not None:
            self.model = model

    @functools.cached_property
    def model(self) -> keras.Model:
        return load_detector(self.folder, self.weights)

    @property
    def is_finished(self) -> bool:
        # Without a folder it is a worker, whose `train` returns when the run has ended.
        return self.folder is None or RunFolder(self.folder).is_finished

    @functools.cached_property
    def metrics(self) -> dict[str, float] | None:
        return self.record("metrics.json").get("metrics")

    @functools.cached_property
    def config(self) -> TrainConfig | None:
        return None if self.folder is None else recorded_config(RunFolder(self.folder))

    def record(self, name: str = "metrics.json") -> dict[str, Any]:
        """Returns what a JSON file of the folder holds; `{}` if there is none."""
        if self.folder is None or not (self.folder / name).is_file():
            return {}
        return json.loads((self.folder / name).read_text())

    def __repr__(self):
        return f"Run({str(self.folder)!r})"


def open_run(path: str | Path, weights: str = "last") -> Run:
    """Opens a training run, a converted folder, or a `.keras` file.

    Args:
        path: a run folder, what `libra-keras convert` has written, or a `.keras` file.
        weights: of a run folder, `"last"`, `"best"`, or a name such as `"kept-0.5"`, see `keep_at`
            of `train`.

    Returns:
        `Run`; its model is loaded when it is first asked for.

    Raises:
        ValueError: if there are no such run, file or weights; or if others than the last weights
            are asked for where there is one set: of a `.keras` file or a converted checkpoint.

    Example:

    ```python
    from libra_keras import runs

    model = runs.open("runs/mine", weights="best").model
    ```
    """
    path = Path(path)
    is_file = path.is_file() and path.suffix == ".keras"
    if weights != "last" and (is_file or (path / "conversion.json").is_file()):
        raise ValueError(
            f"{path} holds one set of weights. Leave --weights {weights} away, or name a run folder"
        )
    if not is_file:
        _check_folder(path, weights)
    return Run(path, weights=weights)


def load_detector(path: str | Path, weights: str = "last") -> keras.Model:
    """Loads the detector of what `open_run` opens, unless it is damaged or another model."""
    import libra_keras.models  # noqa: F401  registers what the file names

    path = open_run(path, weights).folder
    is_file = path.is_file()
    try:
        if is_file and not zipfile.is_zipfile(path):  # Keras would say that there is no file
            raise ValueError("it is damaged, or no .keras file")
        if is_file:
            return _checked(keras.saving.load_model(path, compile=False))
        model = _checked(keras.models.model_from_json((path / "model.json").read_text()))
        model.load_weights(path / f"{weights}{SUFFIX}")
    # TypeError: what Keras raises over classes that it does not know
    except (TypeError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    return model


def recorded_model(path: str | Path) -> str | None:
    """Returns which ready-made detector a run, its `model.keras` or a conversion says it is; `None`
    if there is no such record."""
    from libra_keras import models

    path = Path(path)
    folder = path.parent if path.name == "model.keras" else path
    name = _read(folder / "conversion.json").get("model")
    name = name or _read(folder / "config.json").get("settings", {}).get("model")
    return name if name in models.list() else None


def kind_of(path: str | Path) -> str | None:
    """Returns the class of a saved model, read without building it; `None` if there is none."""
    path = Path(path)
    if path.is_dir():
        return _read(path / "model.json").get("class_name")
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json")).get("class_name")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # said when it is loaded
        return None


def _checked(model):
    from libra_keras.models.detector import Detector

    if not isinstance(model, Detector):
        raise ValueError(f"it is no detector, but a {type(model).__name__}")
    return model


def _check_folder(path, weights):
    if path.suffix in CHECKPOINTS and path.is_file():
        raise ValueError(
            f"{path} looks like a checkpoint of PyTorch; convert it first: libra-keras convert "
            f"{path} --to FOLDER"
        )
    for name in ("model.json", f"{weights}{SUFFIX}"):
        if not (path / name).is_file():
            there = sorted(file.name.removesuffix(SUFFIX) for file in path.glob(f"*{SUFFIX}"))
            hint = f". --weights may be {', '.join(there)}" if there else ""
            raise ValueError(
                "RUN must be a run folder, a converted folder or a .keras file; there is no "
                f"{path / name}{hint}"
            )


def _read(file):
    """A JSON object; an empty one if there is none."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
