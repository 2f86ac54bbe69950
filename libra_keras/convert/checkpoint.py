"""Reads the checkpoint files of PyTorch and safetensors as NumPy arrays; runs nothing in them."""

import dataclasses
import hashlib
import pickle
import warnings
from pathlib import Path

import numpy as np

from libra_keras.convert import unpickling
from libra_keras.convert.checkpoint_content import find_meta, find_tensors
from libra_keras.convert.file_kinds import PICKLE, SAFETENSORS, checkpoint_kind
from libra_keras.convert.pickled_values import StoredArray, StoredTensor

INSTALL = "pip install 'libra-keras[convert]'"
# Below 2.6, `weights_only=True` could be made to run code; below 2.10, to read other memory.
OLDEST_TORCH = (2, 10)
# What counts the updates of averages, beside names that all begin with `module.`: of mmengine's
# averaged models, and of PyTorch's.
COUNTERS = {"steps", "n_averaged"}
PADDLE = "StructuredToParameterName@@"  # an entry of every file of weights of PaddlePaddle


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: `Path` of the file.
        tensors: dict of arrays by name, in the order and of the types of the file, except that
            float16 and bfloat16 have become float32. `module.` of data-parallel training is taken
            off the names.
        meta: dict of what else the file says: strings, numbers, bools, `None`, lists and dicts of
            them with strings as keys. Everything else is dropped.
        sha256: str, the file's hash, 64 hexadecimal digits.
        entry: str, where in the file the tensors were, such as `"state_dict"`; `""` at the top.

    Example:

    >>> from pathlib import Path
    >>> import numpy as np
    >>> from libra_keras.convert.checkpoint import Checkpoint
    >>> Checkpoint(Path("a.pth"), {"fc.bias": np.zeros(3)}, {"epoch": 12}, "").meta
    {'epoch': 12}
    """

    path: Path
    tensors: dict
    meta: dict
    sha256: str
    entry: str = ""


def read_checkpoint(path):
    """Reads a checkpoint of PyTorch (either form of `torch.save`), safetensors, or a pickle of
    NumPy arrays, as detectron2's model zoo has them.

    Nothing in the file is executed. `torch.load(weights_only=True)` reads files of weights. If it
    refuses, as it does for training runs, which hold objects of their program's classes, the
    pickle is read as data by `libra_keras.convert.unpickling`: what is no tensor and no plain
    value is dropped. A file may still ask for much time and memory.

    Args:
        path: str or path. What it is shows in its first bytes, not in its name.

    Returns:
        `Checkpoint`.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no checkpoint, is truncated or damaged, holds no tensors by name, or
            values that are not finite.
        ImportError: if PyTorch is needed and not installed or older than 2.10, or safetensors is
            needed and not installed.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.convert.checkpoint import read_checkpoint
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
        entry = ""
    else:
        content = _read_pickle(path) if kind == PICKLE else _read_torch(path)
        entry, found = find_tensors(content, path)
        meta = find_meta(content, entry)
    tensors = _arrays(_without_prefix(found), path)
    return Checkpoint(path, tensors, meta, file_hash(path), entry)


def file_hash(path):
    """Returns the SHA-256 of a file as 64 hexadecimal digits.

    Args:
        path: str or path.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.convert.checkpoint import file_hash
    >>> file = Path(tempfile.mkdtemp()) / "model.pth"
    >>> file.touch()
    >>> file_hash(file)[:8]
    'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def import_torch():
    """Returns the module `torch`.

    Raises:
        ImportError: if it is not installed or too old, with the command that installs it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"PyTorch is not installed: {INSTALL}") from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        raise ImportError(
            f"PyTorch {torch.__version__} is too old to read files without running them; "
            f"2.10 or newer is needed: {INSTALL}"
        )
    return torch


def _read_safetensors(path):
    import_torch()
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(f"safetensors is not installed: {INSTALL}") from error
    try:
        # As tensors of PyTorch: NumPy has no bfloat16.
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    if not tensors:
        raise ValueError(f"{path} holds no weights")
    return tensors, meta


def _read_pickle(path):
    """What another program than PyTorch has pickled, as far as it is plain or arrays."""
    try:
        with open(path, "rb") as file:
            content = unpickling.load(file)
    except unpickling.UnpicklingError as error:
        raise ValueError(f"{path} is a pickle that is truncated or damaged: {error}") from error
    if path.suffix == ".pdparams" or (isinstance(content, dict) and PADDLE in content):
        raise ValueError(
            f"{path} is a pickle of NumPy arrays (PaddlePaddle), whose networks cannot be converted"
        )
    return content


def _read_torch(path):
    """What was given to `torch.save`, tensors as `torch.Tensor` or `StoredTensor`.

    Refusals of the pickle alone lead to the second reader: archives of programs, which
    `torch.load` would start there, are other errors.
    """
    torch = import_torch()
    try:
        # A file object: of a path, `torch.load` also looks at the suffix.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # such as: an unusual protocol
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                file.seek(0)
                return torch.load(
                    file, map_location="cpu", weights_only=False, pickle_module=unpickling
                )
    except Exception as error:  # of a damaged file PyTorch raises what comes up
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(": ")
        raise ValueError(
            f"{path} is truncated, damaged or no checkpoint of PyTorch: {reason}"
        ) from error


def _without_prefix(tensors):
    prefix = "module."
    wrapped = {name: value for name, value in tensors.items() if name not in COUNTERS}
    if not wrapped or not all(name.startswith(prefix) for name in wrapped):
        return tensors
    return {name.removeprefix(prefix): value for name, value in wrapped.items()}


def _arrays(tensors, path):
    """The values of tensors, checked."""
    largest = path.stat().st_size
    arrays = {name: _array(name, tensor, largest, path) for name, tensor in tensors.items()}
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} of {len(arrays)} tensors hold values that are not finite. The "
            f"first is {bad[0]}"
        )
    return arrays


def _array(name, tensor, largest, path):
    if type(tensor) is StoredArray:
        values = tensor.values
        dtype = "float32" if values.dtype.itemsize == 2 and values.dtype.kind == "f" else None
        return np.array(values, dtype or values.dtype.newbyteorder("="))
    torch = import_torch()
    try:
        if type(tensor) is StoredTensor:
            # Pickles call this function by its name, so that it stays what it is.
            tensor = torch._utils._rebuild_tensor(
                tensor.storage, tensor.offset, tensor.size, tensor.strides
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise ValueError("it is sparse, quantized or complex")
        if tensor.device.type != "cpu":
            raise ValueError(f"it has no values, but the device {tensor.device}")
        if tensor.numel() * tensor.element_size() > largest:
            raise ValueError(f"its shape {tuple(tensor.shape)} is larger than the file")
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()
        return np.array(tensor.detach().numpy())
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: {name} cannot be read: {reason}") from error
