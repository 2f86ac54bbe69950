"""A training run that has ended or was opened again, and its records."""

import functools
from pathlib import Path
from typing import Any

import keras

from libra_keras.data import DetectionData
from libra_keras.evaluation.coco_metrics import MOST
from libra_keras.models.rebuilding import with_policy
from libra_keras.models.saved import load_detector, located
from libra_keras.runs import explaining, inputs
from libra_keras.runs.config import TrainConfig
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.measuring import Wanted, measure
from libra_keras.runs.precision import checked, policy_of
from libra_keras.runs.resuming import recorded_config


class Run:
    """What `train` and `open` return.

    Args:
        folder: `Path` of the run folder, of a converted folder, or of a `.keras` file; `None` on a
            worker of a cluster that writes nothing.
        model: the detector; by default it is loaded from the folder on first use.
        weights: `"last"`, `"best"` or a name such as `"kept-0.5"`: which weights to load.
        precision: what the layers of a loaded model compute with, see `open`.

    Attributes:
        model: the detector, such as a `FasterRCNN`.
        is_finished: whether the run has ended and was measured; a run that was stopped by
            `stop_by` continues when it is trained again.
        metrics: dict of COCO's numbers by name, `None` before the run has ended.
        config: `TrainConfig` of the run, `None` if it is not a run.

    Example:

    ```python
    run = runs.open("runs/mine")
    print(run.metrics["AP"], run.model.detect("photo.jpg")["names"])
    ```
    """

    def __init__(
        self,
        folder: Path | None,
        model: keras.Model | None = None,
        weights: str = "last",
        precision: str | None = None,
    ):
        self.folder = folder
        self.weights = weights
        self.precision = checked(precision)
        if model is not None:
            self.model = model

    @functools.cached_property
    def model(self) -> keras.Model:
        policy, model = policy_of(self.precision), load_detector(self.folder, self.weights)
        return model if policy in (None, model.dtype_policy.name) else with_policy(model, policy)

    @property
    def is_finished(self) -> bool:
        # Without a folder it is a worker, whose `train` returns when the run has ended.
        return self.folder is None or RunFolder(self.folder).is_finished

    @functools.cached_property
    def metrics(self) -> dict[str, float] | None:
        found = self.record("metrics.json").get("metrics")
        if not isinstance(found, dict | None):
            raise ValueError(
                f"{self.folder / 'metrics.json'} cannot be read: 'metrics' must be an object. "
                f"Received: {found!r:.80}"
            )
        return found

    @functools.cached_property
    def config(self) -> TrainConfig | None:
        return None if self.folder is None else recorded_config(RunFolder(self.folder))

    def report(
        self,
        data: DetectionData | None = None,
        to: str | Path | None = None,
        batch: int = 4,
    ) -> Path:
        """Measures the model and writes a page that explains it, as `libra-keras report` does.

        Args:
            data: `DetectionData` to measure on; by default what the run was measured on.
            to: path of the page, which replaces an earlier one; by default `report.html` in the
                run folder, or `report-<name>.html` for other data or weights.
            batch: int, images at a time.

        Returns:
            `Path` of the page.

        Raises:
            ValueError: if the data do not exist, or the detector does not know their classes, or
                if something else is in the place of the page.

        Example:

        ```python
        path = runs.open("runs/mine").report(data.load("my_photos", "test"))
        ```
        """
        page = explaining.place(self.origin, data) if to is None else Path(to)
        explaining.check_page(page)
        has_voc = data is None and self.config is not None and inputs.wants_voc(self.config.data)
        if data is None:
            data = own_data(self)
        # Of more detections than COCO counts, pycocotools alone computes the AP.
        is_more = getattr(self.model, "max_detections", 0) > MOST[-1]
        measured = measure(self.model, data, batch, Wanted(voc=has_voc, coco=is_more))
        explaining.write_page(page, self.model, measured, self.origin)
        return page

    @property
    def origin(self) -> explaining.Origin:
        """Where the model came from, as shown on a page."""
        folder = None if self.config is None else RunFolder(self.folder)
        return explaining.Origin(str(self.folder), self.weights, folder)

    def record(self, name: str = "metrics.json") -> dict[str, Any]:
        """Returns what a JSON file of the folder contains; `{}` if there is none."""
        return {} if self.folder is None else RunFolder(self.folder).read_json(name)

    def __repr__(self):
        return f"Run({str(self.folder)!r})"


def own_data(run: Run) -> DetectionData:
    """Reads the data that a run was measured on, according to its config."""
    if run.config is None:
        raise ValueError(f"{run.folder} is not a run, so it has no data of its own: name DATA")
    own = run.config.data
    try:
        split = own.val_split if own.val_fraction is None else own.train_split
        found = inputs.load(own, split, "val")
        told, own_now = run.record("config.json").get("val"), found.summary()
        # Notes in brackets may have been worded otherwise.
        if told is not None and told.partition(" (")[0] != own_now.partition(" (")[0]:
            raise ValueError(f"it was measured on {told}, and its config names {own_now}")
        file, option = own.val_proposals_file, "--val-proposals-file"
        return inputs.add_given(found, file, run.model, option)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"The data of the run cannot be read: {error}. Name other data, or their new location: "
            f"libra-keras report {run.folder} DATA"
        ) from error


def open_run(path: str | Path, weights: str = "last", precision: str | None = None) -> Run:
    """Opens a training run, a converted folder, a `.keras` file, or a published detector.

    Args:
        path: a run folder, the output of `libra-keras convert` or `save_to_preset`, a `.keras`
            file, or a name that `libra-keras models --pretrained` lists, which is downloaded once.
        weights: for a run folder, `"last"`, `"best"`, or a name such as `"kept-0.5"`, see `keep_at`
            of `train`.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, or `"auto"`, the one that
            pays off on this machine: what the layers compute with, whatever they were trained with.
            Defaults to that of the training.

    Returns:
        `Run`; its model is loaded on first use.

    Raises:
        ValueError: if the run, file or weights do not exist, or if weights other than the last are
            requested from a `.keras` file or a converted checkpoint, which have only one set, or
            if `precision` is none of these.
        OSError: if a published detector cannot be downloaded.

    Example:

    ```python
    from libra_keras import runs

    model = runs.open("runs/mine", weights="best").model
    ```
    """
    return Run(located(path, weights), weights=weights, precision=precision)
