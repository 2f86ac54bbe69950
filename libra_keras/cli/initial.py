"""What `libra-keras train --init` starts from: a detector that was trained or converted before."""

import hashlib
import json
import zipfile
from pathlib import Path

from libra_keras.cli.defaults import DEFAULTS, RESNET, RETINANET

# What the detector brings along: these defaults of its family do not apply.
BROUGHT_ALONG = ("backbone_weights", "short_side", "long_side")
NAMED = 3  # classes that the line about the start names


def start_defaults(options):
    """Checks the options beside `--init`, and returns the defaults that the schedule has.

    `options.model` becomes the name that the folder recorded, or `None` where there is none.

    Args:
        options: namespace of `libra-keras train`.

    Returns:
        `TrainDefaults`: those of the recorded model, or else those of its kind with a ResNet.

    Raises:
        ValueError: if an option contradicts the detector that is there.
    """
    given = {
        "--backbone-weights": options.backbone_weights,
        "--backbone-style": options.backbone_style,
    }
    given = [name for name, value in given.items() if value is not None]
    if given:
        raise ValueError(f"--init brings its own backbone; leave {' and '.join(given)} away")
    recorded = recorded_model(options.init)
    if options.model and options.model != recorded:
        holds = f"is a {recorded}" if recorded else "does not say which model it is"
        raise ValueError(f"{options.init} {holds}; leave --model {options.model} away")
    options.model = recorded
    if recorded:
        return DEFAULTS[recorded]
    return RETINANET if _kind(options.init) == "RetinaNet" else RESNET


def recorded_model(path):
    """Returns the name of the ready-made detector that a run or a conversion says it is.

    Args:
        path: folder, or the `model.keras` of a run folder.

    Returns:
        str, one of `DEFAULTS`; `None` if there is no such record.

    Example:

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from libra_keras.cli.initial import recorded_model
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "conversion.json").write_text(json.dumps({"model": "retinanet_resnet50"}))
    >>> recorded_model(folder)
    'retinanet_resnet50'
    """
    path = Path(path)
    folder = path.parent if path.name == "model.keras" else path
    name = _read(folder / "conversion.json").get("model")
    name = name or _read(folder / "config.json").get("settings", {}).get("model")
    return name if name in DEFAULTS else None


def build_initial(options, data, batch_norm="trainable"):
    """Builds the detector of `--init` for the classes of `data`, and says what is new in it.

    Args:
        options: namespace of `libra-keras train`, as `start_defaults` has left it. It stays so:
            an interrupted run is known by its options.
        data: `DetectionData`.
        batch_norm: what trained batch normalisation becomes; `"synchronized"` for several devices.

    Returns:
        Tuple of the detector and a dict for the record of the run.

    Raises:
        ValueError: if there is no detector, or it has not what an option is about.
    """
    from libra_keras.cli.runs import load_detector
    from libra_keras.models.reheading import config_with_classes, rebuilt, reheaded_layers

    found = load_detector(options.init)
    config = config_with_classes(found, data.class_names)
    config = _with_options(found, _with_batch_norm(config, batch_norm), options)
    fresh = reheaded_layers(found, data.class_names)
    model = rebuilt(found, config, fresh)
    model.trained_steps.assign(0)  # of this training, which decide what is sampled
    print(_line(options.init, found, data, fresh))
    return model, _record(options.init, found, fresh)


def _with_options(detector, config, options):
    """The config of a detector with the options that may change it."""
    from libra_keras.models.dtype_policies import config_with_policy

    changes = {
        "backbone": {"frozen_stages": options.frozen_stages, "train_affine": options.train_affine},
        "input_policy": {"short_side": options.short_side, "long_side": options.long_side},
    }
    config = {**config, "seed": options.seed}
    if options.precision:
        config = config_with_policy(config, options.precision, old=detector.dtype_policy.name)
    for part, values in changes.items():
        given = {name: value for name, value in values.items() if value is not None}
        unknown = [name for name in given if name not in config[part]["config"]]
        if unknown:
            raise ValueError(
                f"--{unknown[0].replace('_', '-')} needs a ResNet; the backbone of {options.init} "
                f"is a {type(detector.backbone).__name__}"
            )
        config[part] = _changed(config[part], given)
    if options.sampling_ratio is None:
        return config
    if "box_head" not in config:
        raise ValueError(
            f"--sampling-ratio is of the second stage, which a {type(detector).__name__} has not"
        )
    head = config["box_head"]
    align = _changed(head["config"]["roi_align"], {"sampling_ratio": options.sampling_ratio})
    return {**config, "box_head": _changed(head, {"roi_align": align})}


def _with_batch_norm(config, batch_norm):
    backbone = config["backbone"]
    if backbone["config"].get("batch_norm") not in ("trainable", "synchronized"):
        return config
    return {**config, "backbone": _changed(backbone, {"batch_norm": batch_norm})}


def _changed(part, values):
    """A saved object with other arguments."""
    return {**part, "config": {**part["config"], **values}}


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


def _kind(path):
    """The class of a saved model, read without building it; `None` if there is none."""
    path = Path(path)
    if path.is_dir():
        return _read(path / "model.json").get("class_name")
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json")).get("class_name")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # said when it is loaded
        return None


def _read(file):
    """A JSON object; an empty one if there is none."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
