"""The files of a conversion: a detector's folder, or a backbone's weights and their record."""

import json
from pathlib import Path

from libra_keras.files import atomic
from libra_keras.files.locks import alone_beside
from libra_keras.files.replacing import Kind, check_replaceable, check_replaceable_files

RECORD = "conversion.json"
WEIGHTS, OF_BACKBONE = "last.weights.h5", ".weights.h5"
DETECTOR = Kind("conversion", RECORD, ("model.json", WEIGHTS, RECORD))


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
    if not to.name.endswith(OF_BACKBONE):
        check_replaceable(to, DETECTOR, overwrite)
        return
    record = _record_beside(to)
    # Its record takes the name of a JSON file, which may be somebody's.
    check_replaceable_files([record], "record of a conversion", _is_record, overwrite)
    # Without one they are those of a run, for example.
    what = f"conversion (no {record.name})"
    check_replaceable_files([to], what, lambda _: record.exists(), overwrite)


def _record_beside(file):
    return file.with_name(file.name.removesuffix(OF_BACKBONE) + ".json")


def _is_record(file):
    try:
        return json.loads(file.read_text()).get("kind") == "backbone"
    except (ValueError, AttributeError, OSError):
        return False


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
        what = f" ({record['taken_for']})" if "taken_for" in record else ""
        raise ValueError(f"a backbone{what} is written to a file NAME.weights.h5. Received: {file}")
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
