"""Files and folders that are written whole or not at all."""

import contextlib
import errno
import json
import math
import os
import shutil
from pathlib import Path

# What only writing can run into; libraries hide these numbers, but quote the words.
DISK_ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EFBIG")


@contextlib.contextmanager
def replacing(path):
    """Gives a path to write to, which takes the place of `path` if the block ends without error.

    The new file or folder is made beside the old one under the same suffix, and renamed at the
    end: a crash, an error or Ctrl-C leaves the old one as it was. A file has reached the disk
    before it is renamed, so that a power failure cannot leave half of it either. Parents are made.
    A folder takes the place of any other folder: whether that may go is for the caller to find out.

    Args:
        path: str or path of a file or a folder.

    Yields:
        `Path` at which nothing exists yet, to be made by the block.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.atomic import replacing
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replacing(path) as unfinished:
    ...     _ = unfinished.write_text("whole")
    >>> [file.name for file in path.parent.iterdir()]
    ['note.txt']
    """
    path = Path(path).resolve()  # a link stays, and what it points to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished.{path.name}")
    _remove(unfinished)  # of a process that was killed
    try:
        yield unfinished
        _put(unfinished, path)
    finally:
        _remove(unfinished)


def write_json(path, values):
    """Writes a JSON file that any program reads; an error leaves the old one.

    Args:
        path: str or path.
        values: what `json` can write; what it cannot becomes a string.

    Raises:
        ValueError: if a number is not finite, which JSON does not know.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.atomic import write_json
    >>> path = Path(tempfile.mkdtemp()) / "numbers.json"
    >>> write_json(path, {"AP": 0.5})
    >>> path.read_text()
    '{\\n  "AP": 0.5\\n}\\n'
    """
    text = json.dumps(values, indent=2, allow_nan=False, default=str) + "\n"
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def save_weights(model, path):
    """Saves weights, and the optimizer if there is one; an error leaves the old file.

    Args:
        model: `keras.Model`.
        path: str or path of a file whose name ends in `.weights.h5`.

    Raises:
        OSError: if there is no room for it.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import keras
    >>> from libra_keras.files.atomic import save_weights
    >>> path = Path(tempfile.mkdtemp()) / "last.weights.h5"
    >>> save_weights(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), path)
    >>> [file.name for file in path.parent.iterdir()]
    ['last.weights.h5']
    """
    with replacing(path) as unfinished:
        _reserve(unfinished, weights_size(model))
        model.save_weights(unfinished)


def weights_size(model):
    """Returns about how many bytes `save_weights` writes, rather too many than too few.

    Example:

    >>> import keras
    >>> from libra_keras.files.atomic import weights_size
    >>> weights_size(keras.Sequential([keras.Input((100,)), keras.layers.Dense(1000)])) > 400_000
    True
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    # Variables stay float32 in mixed precision; HDF5 adds names and tables to each.
    return 2**16 + sum(4 * math.prod(variable.shape) + 2**12 for variable in variables)


def link(source, path):
    """Makes `path` a second name of a file that is never written to; an error leaves the old one.

    Where the file system knows no such names, `path` becomes a copy.

    Args:
        source, path: str or path; the file itself, and its second name.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.atomic import link
    >>> source = Path(tempfile.mkdtemp()) / "step-20.weights.h5"
    >>> _ = source.write_text("weights")
    >>> link(source, source.parent / "last.weights.h5")
    >>> (source.parent / "last.weights.h5").read_text()
    'weights'
    """
    with replacing(path) as unfinished:
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)


def disk_error(error):
    """Returns why a disk takes no more files if an error is about that, else `None`.

    Args:
        error: exception of any library.

    Example:

    >>> from libra_keras.files.atomic import disk_error
    >>> disk_error(RuntimeError("write failed: errno = 28, 'No space left on device', buf = 0x1"))
    'No space left on device'
    """
    words = [os.strerror(getattr(errno, name)) for name in DISK_ERRORS if hasattr(errno, name)]
    return next((found for found in words if found in str(error)), None)


def flush_to_disk(path):
    """Waits until a file has reached the disk.

    Example:

    >>> import tempfile
    >>> from libra_keras.files.atomic import flush_to_disk
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     flush_to_disk(file.name)
    """
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _reserve(path, size):
    """Raises an OSError if a file of so many bytes cannot be written; leaves none behind.

    The library of HDF5 does not survive a write that fails: it ends the whole process.
    """
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
