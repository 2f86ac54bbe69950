"""Detectors on disk: what a run, a conversion or `save_to_preset` has written, and what others have
published, by name."""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from libra_keras.files import atomic
from libra_keras.files.locks import alone_beside
from libra_keras.files.reading import explained, open_regular, read_object
from libra_keras.files.replacing import Kind, check_replaceable, check_writable
from libra_keras.models import loading
from libra_keras.models.detector import Detector
from libra_keras.models.rebuilding import config_with_classes, rebuilt, reheaded_layers
from libra_keras.models.region_proposal_network import RegionProposalNetwork

AnyDetector = TypeVar("AnyDetector", bound=Detector)

ARCHITECTURE, SUFFIX = "model.json", ".weights.h5"
WEIGHTS = f"last{SUFFIX}"
PRESET = Kind("preset", ARCHITECTURE, (ARCHITECTURE, WEIGHTS))
CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")


def from_preset(
    kind: type[AnyDetector],
    preset: str | os.PathLike[str],
    num_classes: int | None,
    class_names: Sequence[str] | None,
) -> AnyDetector:
    """Loads a detector of a class, see `Detector.from_preset`."""
    if entry := published(preset):
        _check_kind(kind, entry.kind, preset)  # before it is downloaded for nothing
    detector = load_detector(preset)
    _check_kind(kind, type(detector), preset)
    if num_classes is None and class_names is None:
        return detector
    if isinstance(detector, RegionProposalNetwork):
        raise ValueError(
            f"{preset} proposes regions and knows no classes. Omit `num_classes` and `class_names`"
        )
    config = config_with_classes(detector, class_names, num_classes)
    return rebuilt(detector, config, fresh=reheaded_layers(detector, class_names))


def save_to_preset(detector: Detector, folder: Path, overwrite: bool) -> None:
    """Writes a detector without its optimizer, see `Detector.save_to_preset`."""
    check_replaceable(folder, PRESET, overwrite)
    check_writable(folder)
    write_folder(rebuilt(detector, detector.get_config()), folder)


def write_folder(
    detector: Detector, folder: Path, records: Mapping[str, Any] | None = None
) -> None:
    """Writes a folder that `load_detector` reads, with JSON files, completely or not at all."""
    if folder.is_file() or folder.name.endswith((".h5", ".keras")):
        raise ValueError(f"a detector must be written to a folder. Received: {folder}")
    with alone_beside(folder), atomic.replacing(folder) as unfinished:
        unfinished.mkdir()
        (unfinished / ARCHITECTURE).write_text(detector.to_json())
        atomic.save_weights(detector, unfinished / WEIGHTS)
        for name, record in (records or {}).items():
            atomic.write_json(unfinished / name, record)


def load_detector(source: str | os.PathLike[str], weights: str = "last") -> Any:
    """Loads the detector of what `located` finds, unless it is damaged or another model."""
    path = located(source, weights)
    if path.is_file():
        return loading.from_archive(path)
    return loading.from_folder(path / ARCHITECTURE, path / f"{weights}{SUFFIX}")


def located(source: str | os.PathLike[str], weights: str = "last") -> Path:
    """Returns the folder or the `.keras` file of a detector that has these weights.

    A published one is downloaded and converted first. What there is under a name goes first.
    """
    path = Path(source)
    if published(source):
        from libra_keras.convert import published as zoo  # it imports models

        path = zoo.converted(os.fspath(source))
    is_file = path.is_file() and path.suffix == ".keras"
    if weights != "last" and (is_file or (path / "conversion.json").is_file()):
        raise ValueError(
            f"{source} contains only one set of weights. Omit --weights {weights}, or name a run "
            "folder"
        )
    if not is_file:
        _check_folder(path, weights)
    return path


def published(source: str | os.PathLike[str]) -> Any:
    """Returns the entry of a published detector; `None` if this is no name of one, or a path."""
    if Path(source).exists():
        return None
    return _published().get(os.fspath(source))


def recorded_model(source: str | os.PathLike[str]) -> str | None:
    """Returns which ready-made detector a run, its `model.keras`, a conversion or a published one
    says it is; `None` if there is no such record."""
    from libra_keras import models

    if entry := published(source):
        return entry.model
    path = Path(source)
    is_alone = path.name == "model.keras"  # what lies beside it may be of something else
    folder, read = (path.parent, _read_if_one) if is_alone else (path, _read)
    name = read(folder / "conversion.json").get("model")
    settings = read(folder / "config.json").get("settings")
    if not name and isinstance(settings, dict):
        name = settings.get("model")
    return name if name in models.list() else None


def kind_of(source: str | os.PathLike[str]) -> str | None:
    """Returns the class of a saved model, read without building it; `None` if there is none."""
    if entry := published(source):
        return entry.kind.__name__
    path = Path(source)
    if path.is_dir():
        found = _read(path / ARCHITECTURE)
    else:
        with explained(path, "loaded"), open_regular(path) as stream:
            found = json.loads(loading.config_of(stream))
    return found.get("class_name") if isinstance(found, dict) else None


def _published():
    from libra_keras.convert.published import PUBLISHED  # it imports models

    return PUBLISHED


def _check_kind(wanted, found, preset):
    if not issubclass(found, wanted):
        raise ValueError(
            f"{preset} is a {found.__name__}; load it with {found.__name__}.from_preset. "
            f"Received: {wanted.__name__}.from_preset"
        )


def _check_folder(path, weights):
    if path.suffix in CHECKPOINTS and path.is_file():
        raise ValueError(
            f"{path} looks like a PyTorch checkpoint; convert it first: libra-keras convert "
            f"{path} --to FOLDER"
        )
    needed = "A detector must be a run folder, a converted folder or a .keras file"
    if not path.exists():
        nearest = difflib.get_close_matches(os.fspath(path), _published())
        such_as = f", such as {', '.join(nearest)}" if nearest else ""
        raise ValueError(
            f"there is no {path}. {needed}, or a name that libra-keras models --pretrained "
            f"lists{such_as}"
        )
    for name in (ARCHITECTURE, f"{weights}{SUFFIX}"):
        if not (path / name).is_file():
            there = sorted(file.name.removesuffix(SUFFIX) for file in path.glob(f"*{SUFFIX}"))
            hint = f". --weights may be {', '.join(there)}" if there else ""
            raise ValueError(f"{needed}; there is no {path / name}{hint}")


def _read_if_one(file):
    """As `_read`; empty, too, if it is damaged or no object."""
    try:
        return _read(file)
    except (ValueError, OSError):
        return {}


def _read(file):
    """A JSON object; an empty one if there is no such file."""
    return read_object(file) if file.exists() else {}
