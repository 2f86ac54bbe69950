"""What `init` of a config starts from: a detector that was trained or converted before."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from libra_keras.runs.checks import flag
from libra_keras.runs.config import TrainConfig

NAMED = 3  # classes that the line about the start names


def recorded_model(path: str | Path) -> str | None:
    """Returns the name of the ready-made detector that a run or a conversion says it is.

    Args:
        path: folder, or the `model.keras` of a run folder.

    Returns:
        str, one of `models.list()`; `None` if there is no such record.

    Example:

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from libra_keras.runs.initial import recorded_model
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "conversion.json").write_text(json.dumps({"model": "retinanet_resnet50"}))
    >>> recorded_model(folder)
    'retinanet_resnet50'
    """
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


def build_initial(
    config: TrainConfig, data: Any, batch_norm: str = "trainable"
) -> tuple[Any, dict[str, Any]]:
    """Builds the detector of `init` for the classes of `data`, and says what is new in it.

    Args:
        config: `TrainConfig`, resolved.
        data: `DetectionData`.
        batch_norm: what trained batch normalisation becomes; `"synchronized"` for several devices.

    Returns:
        Tuple of the detector and a dict for the record of the run.

    Raises:
        ValueError: if there is no detector, or it has not what an option is about.
    """
    from libra_keras.models.rebuilding import (
        config_with_batch_norm,
        config_with_classes,
        rebuilt,
        reheaded_layers,
    )
    from libra_keras.runs.run import load_detector

    init = config.model.init
    found = load_detector(init)
    saved = config_with_classes(found, data.class_names)
    saved = _with_options(found, config_with_batch_norm(saved, batch_norm), config)
    fresh = reheaded_layers(found, data.class_names)
    model = rebuilt(found, saved, fresh)
    model.trained_steps.assign(0)  # of this training, which decide what is sampled
    print(_line(init, found, data, fresh))
    return model, _record(init, found, fresh)


def _with_options(detector, saved, config):
    """The saved config of a detector with the options that may change it."""
    from libra_keras.models.rebuilding import changed, config_with_policy

    own = config.model
    changes = {
        "backbone": {"frozen_stages": own.frozen_stages, "train_affine": own.train_affine},
        "input_policy": {"short_side": own.short_side, "long_side": own.long_side},
    }
    saved = {**saved, "seed": config.run.seed}
    if own.precision:
        saved = config_with_policy(saved, own.precision, old=detector.dtype_policy.name)
    for part, values in changes.items():
        given = {name: value for name, value in values.items() if value is not None}
        unknown = [name for name in given if name not in saved[part]["config"]]
        if unknown:
            raise ValueError(
                f"{flag(unknown[0])} needs a ResNet; the backbone of {own.init} "
                f"is a {type(detector.backbone).__name__}"
            )
        saved[part] = changed(saved[part], **given)
    return saved if own.sampling_ratio is None else _with_ratio(detector, saved, own.sampling_ratio)


def _with_ratio(detector, saved, ratio):
    from libra_keras.models.rebuilding import config_with_sampling_ratio

    if "box_head" not in saved:
        raise ValueError(
            f"--sampling-ratio is of the second stage, which a {type(detector).__name__} has not"
        )
    return config_with_sampling_ratio(saved, ratio)


def _line(path, found, data, fresh):
    if fresh:
        new = f"re-initialised for {_number(data.num_classes)}: {', '.join(fresh)}"
    else:
        new = "all weights kept"
    return f"Started from {path} ({_classes(found)}); {new}"


def _classes(found):
    from libra_keras.models import RegionProposalNetwork

    if isinstance(found, RegionProposalNetwork):
        return "boxes of any class"
    names = found.class_names
    if names is None:
        return f"{_number(found.num_classes)} without names"
    more = ", ..." if len(names) > NAMED else ""
    return f"{_number(len(names))}: {', '.join(names[:NAMED])}{more}"


def _number(count):
    return "1 class" if count == 1 else f"{count} classes"


def _record(path, found, fresh):
    path = Path(path)
    weights = path / "last.weights.h5" if path.is_dir() else path
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "path": str(path),
        "weights": weights.name,
        "sha256": digest,
        "class_names": found.class_names,
        "reinitialised": list(fresh),
    }


def _read(file):
    """A JSON object; an empty one if there is none."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
