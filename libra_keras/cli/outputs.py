"""Checks of what a verb is to write, made before the work is done."""

import os
from pathlib import Path


def check_file(path, option="--to"):
    """Checks that a file can be written, be it new or not.

    Args:
        path: where to.
        option: str, what names it.

    Raises:
        ValueError: if it is a folder, or lies in something that is no folder or is read-only.

    Example:

    >>> import tempfile
    >>> from libra_keras.cli.outputs import check_file
    >>> folder = tempfile.mkdtemp()
    >>> check_file(f"{folder}/new/numbers.json")
    >>> try:
    ...     check_file(folder)
    ... except ValueError as error:
    ...     print(str(error).replace(folder, "FOLDER"))
    --to must be a file. Received: the folder FOLDER
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{option} must be a file. Received: the folder {path}")
    absolute = path.absolute()
    existing = next(parent for parent in absolute.parents if parent.exists())
    if not existing.is_dir():
        raise ValueError(f"{option} {path} cannot be written: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {path} cannot be written: {existing} is read-only")
