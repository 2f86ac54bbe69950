"""Detectors from files that others wrote: what these say is checked before it takes memory."""

import contextlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import keras

from libra_keras.files.reading import (
    SMALL,
    check_regular,
    explained,
    open_regular,
    read_bytes,
)
from libra_keras.files.weights import array_sizes, check_finite, load_weights
from libra_keras.keras_private import without_values
from libra_keras.models.detector import Detector

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, WEIGHTS, "metadata.json"}  # of a detector's `.keras` file
NO_WEIGHTS = re.compile("(^|/)(optimizer|seed_generator)/")  # arrays beside them
UNPACKED = 16  # times its size: the most that a `.keras` file may unpack to
ROOM = 2**20  # bytes of a model's values that need not be in its file


def from_folder(architecture: Path, weights: Path) -> Detector:
    """Returns the detector of an architecture, with the weights of another file."""
    with explained(weights):
        check_regular(weights)
        arrays = array_sizes(weights)
    with explained(architecture, "loaded"):
        make = _maker(read_bytes(architecture))
        _draft(make, weights.stat().st_size, arrays)
        model = make()
    load_weights(model, weights)
    return model


def from_archive(path: Path) -> Detector:
    """Returns the detector of a `.keras` file."""
    with explained(path, "loaded"):
        with open_regular(path) as stream:
            make, (size, arrays) = _maker(config_of(stream)), _check_weights(stream)
        _draft(make, size, arrays)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        check_finite({variable.path: variable for variable in model.weights})
        return model


def config_of(stream: BinaryIO) -> bytes:
    """Returns the `config.json` of a `.keras` file."""
    if not zipfile.is_zipfile(stream):
        raise ValueError("it is damaged, or not a .keras file")
    with zipfile.ZipFile(stream) as archive:
        _check_members(archive, os.fstat(stream.fileno()).st_size)
        return archive.read(CONFIG)


def _check_members(archive, size):
    members = archive.infolist()
    names = [member.filename for member in members]
    if missing := [name for name in (CONFIG, WEIGHTS) if names.count(name) != 1]:
        raise ValueError(f"it must contain one {missing[0]}. Received: {', '.join(names):.80}")
    if foreign := [name for name in names if name not in MEMBERS]:
        raise ValueError(f"it contains {foreign[0]:.80}, which no detector has")
    if sum(member.file_size for member in members) > UNPACKED * size:
        raise ValueError(f"it claims to unpack to more than {UNPACKED} times its size")
    if archive.getinfo(CONFIG).file_size > SMALL:
        raise ValueError(f"its {CONFIG} has more than {SMALL / 2**20:.0f} MiB")


def _check_weights(stream) -> tuple[int, Iterable[str]]:
    """Returns the size of the weights in an archive and the names of its arrays, once they have
    been looked over."""
    with zipfile.ZipFile(stream) as archive:
        content = archive.read(WEIGHTS)  # as a whole, which checks its sum
    return len(content), array_sizes(io.BytesIO(content))


def _maker(config: bytes) -> Callable[[], Any]:
    """Returns what makes the model of a JSON, which is not compiled."""
    found = json.loads(config)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object. Received: {found!r:.80}")
    text = json.dumps({**found, "compile_config": None})
    return lambda: keras.models.model_from_json(text)


def _draft(make, size, arrays):
    """Makes a model without values, and raises unless it is a detector whose values a file of that
    size, with arrays of these names, can hold."""
    with without_values():
        with _in_short():
            draft = make()
        if not isinstance(draft, Detector):
            raise ValueError(f"it is not a detector, but a {type(draft).__name__}")
        _check_places(draft, arrays)
        needed = sum(_bytes(variable) for variable in draft.weights)
    if needed > size + ROOM:
        needed, size = (f"{number / 2**20:,.1f} MiB" for number in (needed, size))
        raise ValueError(f"it describes {needed} of weights, but the file of weights has {size}")


def _check_places(model, arrays):
    """Raises if there are arrays of more weights than a model has: without a valid build_config, a
    layer counts as built and has none, until it makes some at random."""
    stored = [name for name in arrays if not NO_WEIGHTS.search(name)]
    if len(stored) > len(model.weights):
        raise ValueError(
            f"it describes {len(model.weights)} arrays of weights, but the file of weights has "
            f"{len(stored)}"
        )


@contextlib.contextmanager
def _in_short() -> Iterator[None]:
    """Takes what Keras says of a config out of the configs around it, which it repeats."""
    try:
        yield
    except (TypeError, ValueError) as error:
        said = str(error).rpartition("Exception encountered: ")[2]
        raise ValueError(said.partition("Full object config")[0]) from error


def _bytes(variable):
    return math.prod(variable.shape) * (2 if "16" in variable.dtype else 4)
