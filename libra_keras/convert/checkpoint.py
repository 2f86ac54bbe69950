"""Reads the checkpoint files of PyTorch and safetensors as NumPy arrays; runs nothing in them."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - makes bfloat16 known to NumPy, for safetensors
import numpy as np
from safetensors import safe_open

from libra_keras.convert.file_kinds import PICKLE, SAFETENSORS, checkpoint_kind
from libra_keras.convert.pickles import Array, Stub, reason
from libra_keras.convert.torch_files import Tensor, opened
from libra_keras.files.reading import open_regular

# Where training programs put the weights, the averaged ones last. Or they are at the top.
ENTRIES = (
    "state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema", "ema_state_dict",
)  # fmt: skip
# What counts the updates of averages, beside names that all begin with `module.`: of mmengine's
# averaged models, and of PyTorch's.
COUNTERS = {"steps", "n_averaged"}
PADDLE = "StructuredToParameterName@@"  # an entry of every file of weights of PaddlePaddle
VIEWS = 16  # of the size of a file: the most that tensors which share values may take
_DROPPED = object()  # stands for a value that is not plain


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: `Path` of the file.
        tensors: dict of arrays by name, in the order and of the types of the file, except that
            floats of 16 bits and fewer have become float32. The prefix `module.` of data-parallel
            training is removed from the names.
        meta: dict of the other plain values in the file: strings, numbers, bools, `None`, and lists
            and string-keyed dicts of these. Everything else is dropped.
        sha256: str, the file's hash, 64 hexadecimal digits.
        entry: str, where in the file the tensors were, such as `"state_dict"`; `""` at the top.

    Example:

    >>> from pathlib import Path
    >>> import numpy as np
    >>> from libra_keras.convert import Checkpoint
    >>> Checkpoint(Path("a.pth"), {"fc.bias": np.zeros(3)}, {"epoch": 12}, "").meta
    {'epoch': 12}
    """

    path: Path
    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]
    sha256: str
    entry: str = ""


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint of PyTorch (either form of `torch.save`), safetensors, or a pickle of
    NumPy arrays, as detectron2's model zoo has them.

    Nothing in the file is executed, and PyTorch is not required: pickles are read as data. Anything
    other than tensors and plain values is dropped, as are entries whose key is not a string, bytes,
    bool, `None` or 32-bit integer.

    Args:
        path: path of the file. Its format is recognised by the first bytes, not by the name.

    Returns:
        `Checkpoint`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a checkpoint, is truncated or damaged, has no named tensors, or
            contains values that are not finite.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.convert import read_checkpoint
    >>> empty = Path(tempfile.mkdtemp()) / "model.pth"
    >>> empty.touch()
    >>> try:
    ...     read_checkpoint(empty)
    ... except ValueError as error:
    ...     print(str(error).removeprefix(str(empty)))
     is empty
    """
    path = Path(path)
    kind = checkpoint_kind(path)
    if kind == SAFETENSORS:
        found, meta = _read_safetensors(path)
        return Checkpoint(path, _arrays(found, path, None), meta, file_hash(path))
    with opened(path, kind) as (content, read_storage):
        if kind == PICKLE:
            _check_program(content, path)
        entry, found = find_tensors(content, path)
        meta = find_meta(content, entry)
        tensors = _arrays(found, path, read_storage)
    return Checkpoint(path, tensors, meta, file_hash(path), entry)


def file_hash(path):
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path):
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = dict(file.metadata() or {})
    except Exception as error:  # of a damaged header anything comes up
        raise ValueError(f"{path} is truncated or damaged: {reason(error)}") from error
    if not tensors:
        raise ValueError(f"{path} holds no weights")
    return tensors, meta


def _check_program(content, path):
    if path.suffix == ".pdparams" or (isinstance(content, dict) and PADDLE in content):
        raise ValueError(
            f"{path} is a pickle of NumPy arrays (PaddlePaddle), whose networks cannot be converted"
        )


def find_tensors(content, path):
    """Returns the first of `ENTRIES` that has tensors (`""` if only the top has) and its dict."""
    entries = _entries(content)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path} holds {_object(content)}")
    for name in ENTRIES:
        found = _entries(entries.get(name))
        if isinstance(found, dict) and any(map(_is_tensor, found.values())):
            return name, _only_tensors(found, path)
    if any(map(_is_tensor, entries.values())):
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        found = {name: value for name, value in entries.items() if not isinstance(value, plain)}
        return "", _only_tensors(found, path)
    for name in ENTRIES:
        if type(entries.get(name)) is Stub:
            raise ValueError(f"{path} holds, as {name!r}, {_object(entries[name])}")
    raise ValueError(f"{path} holds no weights; its entries are {str(list(entries)[:10]):.300}")


def _object(value):
    if type(value) is not Stub:
        return f"no tensors by name, but a single {type(value).__name__}"
    return f"an object of {value.name}, not weights: save the model's state_dict() instead"


def _only_tensors(found, path):
    for name, value in found.items():
        if type(name) is not str:
            raise ValueError(f"{path} has a tensor whose name is not a string: {name!r:.100}")
        if not _is_tensor(value):
            kind = value.name if type(value) is Stub else type(value).__name__
            raise ValueError(f"{path}: {name:.100} should be a tensor. Received: {kind}")
    return found


def _is_tensor(value):
    return type(value) is Tensor or (type(value) is Array and value.values is not None)


def _entries(value):
    """The items of an object that was a dictionary of a class of its own; all else as it is."""
    return value.entries if type(value) is Stub and value.entries else value


def find_meta(content, entry):
    """Returns the plain values of a file's `meta`, if its tensors were in an entry, and its top."""
    content = _entries(content)
    scalars = (str, int, float, bool)
    top = {name: value for name, value in content.items() if isinstance(value, scalars)}
    meta = _entries(content.get("meta")) if entry else {}
    try:
        return _plain({**top, **(meta if isinstance(meta, dict) else {})}, {})
    except RecursionError:  # what no program nests
        return _plain(top, {})


def _plain(value, done):
    """Returns a copy without what is not plain; `done` holds by `id` what was met before.

    A list with such elements is dropped as a whole: its elements have places.
    """
    value = _entries(value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = result = {}
        items = {name: _plain(item, done) for name, item in value.items() if type(name) is str}
        result.update({name: item for name, item in items.items() if item is not _DROPPED})
        return result
    if isinstance(value, (list, tuple)):
        done[id(value)] = _DROPPED  # if it contains itself
        items = [_plain(item, done) for item in value]
        done[id(value)] = _DROPPED if _DROPPED in items else items
        return done[id(value)]
    return _DROPPED


def _arrays(tensors, path, read_storage):
    """The values of tensors, checked."""
    size, arrays = path.stat().st_size, {}
    left = VIEWS * size
    for name, tensor in _without_prefix(tensors).items():
        arrays[name] = _array(name, tensor, read_storage, min(size, left), path)
        left -= arrays[name].nbytes
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} of {len(arrays)} tensors contain values that are not finite. The "
            f"first is {bad[0]}"
        )
    return arrays


def _without_prefix(tensors):
    prefix = "module."
    wrapped = {name: value for name, value in tensors.items() if name not in COUNTERS}
    if not wrapped or not all(name.startswith(prefix) for name in wrapped):
        return tensors
    return {name.removeprefix(prefix): value for name, value in wrapped.items()}


def _array(name, tensor, read_storage, largest, path):
    try:
        values = tensor.values(read_storage, largest) if type(tensor) is Tensor else tensor
        values = values.values if type(values) is Array else values
        if values.dtype.kind == "c":
            raise ValueError("it is complex")
        # Floats that NumPy does not know are of the kind V.
        is_short_float = values.dtype.kind in "fV" and values.dtype.itemsize < 4
        return np.array(values, "f4" if is_short_float else values.dtype.newbyteorder("="))
    except Exception as error:  # such as of a damaged archive
        words = str(error) if type(error) is ValueError else reason(error)
        raise ValueError(f"{path}: {name:.100} cannot be read: {words}") from error
