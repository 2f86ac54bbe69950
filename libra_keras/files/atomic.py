"""Files and folders that are written whole or not at all."""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# What only writing can run into; libraries hide these numbers, but quote the words.
DISK_ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EFBIG")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path at which to make what takes the place of a file or folder if all goes well."""
    # The new one is made beside the old one under the same suffix, and renamed at the end: a crash,
    # an error or Ctrl-C leaves the old one as it was. A file has reached the disk before, so that a
    # power failure cannot leave half of it either.
    path = Path(path).resolve()  # a link stays, and what it points to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished.{path.name}")
    _remove(unfinished)  # of a process that was killed
    try:
        yield unfinished
        _put(unfinished, path)
    finally:
        _remove(unfinished)


def write_json(path: str | os.PathLike, values: Any) -> None:
    """Writes a JSON file that any program reads: a number that is not finite is a `ValueError`."""
    text = json.dumps(values, indent=2, allow_nan=False, default=str) + "\n"
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def save_weights(model: "keras.Model", path: str | os.PathLike) -> None:
    """Saves weights, and the optimizer if there is one; an error leaves the old file."""
    with replacing(path) as unfinished:
        _reserve(unfinished, weights_size(model))
        model.save_weights(unfinished)


def weights_size(model: "keras.Model") -> int:
    """Returns about how many bytes `save_weights` writes, rather too many than too few."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    # Variables stay float32 in mixed precision; HDF5 adds names and tables to each.
    return 2**16 + sum(4 * math.prod(variable.shape) + 2**12 for variable in variables)


def link(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Makes `path` a second name, or else a copy, of a file that is never written to."""
    with replacing(path) as unfinished:
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)


def disk_error(error: BaseException) -> str | None:
    """Returns why a disk takes no more files if an error is about that, else `None`."""
    words = [os.strerror(getattr(errno, name)) for name in DISK_ERRORS if hasattr(errno, name)]
    return next((found for found in words if found in str(error)), None)


def flush_to_disk(path: str | os.PathLike) -> None:
    """Waits until a file has reached the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _reserve(path, size):
    """Raises an OSError if a file of so many bytes cannot be written; leaves none behind."""
    # The library of HDF5 does not survive a write that fails: it ends the whole process.
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with open(path, "wb") as file:
        try:  # sees quotas and limits too
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # on macOS and Windows
            pass
        except OSError as error:
            if disk_error(error):  # others: a file system that cannot
                raise
    path.unlink()


def _put(new, path):
    """Renames `new` to `path`; an old file or folder there goes away after that only."""
    if not new.is_dir():
        flush_to_disk(new)
    if not (new.is_dir() and path.is_dir()):  # a file never takes the place of a folder
        os.replace(new, path)
        _flush_names(path.parent)
        return
    old = path.with_name(f".old.{path.name}")  # no system renames over a folder with content
    _remove(old)
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    _remove(old)


def _flush_names(folder):
    """Waits until the names in a folder have reached the disk, on systems that can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
