"""The files of a conversion: a detector's folder, or a backbone's weights and their record."""

import json
from pathlib import Path

from libra_keras import atomic
from libra_keras.locks import alone_beside

RECORD = "conversion.json"
WEIGHTS, OF_BACKBONE = "last.weights.h5", ".weights.h5"


def check_free(to, overwrite):
    """Raises unless a conversion may be written to a path.

    Args:
        to: `Path` of a folder or of a file `NAME.weights.h5`.
        overwrite: bool, whether an earlier conversion may go.

    Raises:
        ValueError: if there is something already, or something that is no conversion.

    Example:

    >>> from pathlib import Path
    >>> from libra_keras.convert.output_files import check_free
    >>> check_free(Path("no such folder"), overwrite=False)
    """
    if to.is_file() and not overwrite:
        raise ValueError(f"{to} exists already; overwrite it (--overwrite) or choose another name")
    if to.name.endswith(OF_BACKBONE):
        _check_record_free(_record_beside(to), overwrite)
        if to.is_file() and not _record_beside(to).exists():  # those of a run, for example
            raise ValueError(
                f"{to} is no conversion (no {_record_beside(to).name}), and is not overwritten"
            )
    if not to.is_dir() or not any(to.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{to} is not empty; overwrite it (--overwrite) or choose another folder")
    if not (to / RECORD).is_file():
        raise ValueError(f"{to} holds no conversion (no {RECORD}), and is not overwritten")
    more = sorted({path.name for path in to.iterdir()} - {"model.json", WEIGHTS, RECORD})
    if more:
        raise ValueError(
            f"{to} holds more than a conversion, and is not overwritten: {', '.join(more[:5])}"
        )


def _record_beside(file):
    return file.with_name(file.name.removesuffix(OF_BACKBONE) + ".json")


def _check_record_free(record, overwrite):
    """A backbone's record takes the name of a JSON file, which may be somebody's."""
    if not record.exists():
        return
    if not overwrite:
        raise ValueError(f"{record} exists already; overwrite it (--overwrite) or choose another")
    try:
        is_ours = json.loads(record.read_text()).get("kind") == "backbone"
    except (ValueError, AttributeError, OSError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{record} is no record of a conversion, and is not overwritten")


def write_detector(model, record, folder):
    """Writes a folder that is used like that of a run, whole or not at all.

    Args:
        model: detector.
        record: dict that JSON can hold.
        folder: `Path`, which `check_free` has accepted.

    Raises:
        ValueError: if its name is that of a file, or another conversion is being written there.
        OSError: if there is no room for it.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import keras
    >>> from libra_keras.convert.output_files import write_detector
    >>> folder = Path(tempfile.mkdtemp()) / "run"
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> write_detector(model, {"source": "a.pth"}, folder)
    >>> sorted(file.name for file in folder.iterdir())
    ['conversion.json', 'last.weights.h5', 'model.json']
    """
    if folder.is_file() or folder.name.endswith((".h5", ".keras")):
        raise ValueError(f"a detector is written to a folder. Received: {folder}")
    with alone_beside(folder), atomic.replacing(folder) as unfinished:
        unfinished.mkdir()
        (unfinished / "model.json").write_text(model.to_json())
        atomic.save_weights(model, unfinished / WEIGHTS)
        atomic.write_json(unfinished / RECORD, record)


def write_backbone(model, record, file):
    """Writes the weights of a backbone, and the record beside them.

    Args:
        model: `keras.Model` from images to features.
        record: dict that JSON can hold.
        file: `Path`, which `check_free` has accepted.

    Raises:
        ValueError: if its name does not end in `.weights.h5`.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import keras
    >>> from libra_keras.convert.output_files import write_backbone
    >>> folder = Path(tempfile.mkdtemp())
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> write_backbone(model, {"network": "resnet50"}, folder / "r50.weights.h5")
    >>> sorted(file.name for file in folder.iterdir())
    ['r50.json', 'r50.weights.h5']
    """
    if not file.name.endswith(OF_BACKBONE) or file.is_dir():
        raise ValueError(f"a backbone is written to a file NAME.weights.h5. Received: {file}")
    record_file = _record_beside(file)
    # Weights whose record is missing are an error later; beside the record of others they are not.
    record_file.unlink(missing_ok=True)
    atomic.save_weights(model, file)
    atomic.write_json(record_file, record)


def read_record(folder):
    """Returns the record of a converted detector's folder, or `None` if it is none.

    Example:

    >>> import tempfile
    >>> from libra_keras.convert import read_record
    >>> print(read_record(tempfile.mkdtemp()))
    None
    """
    file = Path(folder) / RECORD
    return json.loads(file.read_text()) if file.is_file() else None
