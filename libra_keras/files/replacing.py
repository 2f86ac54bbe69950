"""What may be replaced, and where can be written: checked before any work is done.

A mistyped path must not cost somebody a folder of photographs. So nothing is replaced unless the
caller asks for it, and then only what the same writer has written, all of it.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

UNFINISHED = ".unfinished."  # what `atomic.replacing` names begin with, left by a killed process
SHOWN = 3  # of the names of others in a message


@dataclasses.dataclass(frozen=True)
class Kind:
    """What one writer writes into a folder of its own.

    Attributes:
        name: str, what messages call it, such as `"run"`.
        marker: str, the file in the folder that makes it one. It should be written first, or with
            all the others at once.
        entries: tuple of str, patterns of all that is written, the marker too. They are paths in
            the folder; names of files may have `*` and `?` as in a shell. One that ends in `/` is
            a folder with all that is in it. Any other is a file, and nothing else in the folders
            that it lies in is the writer's. `.unfinished.<file>`, which a killed process has left
            of a file, counts as that file.

    Example:

    >>> from libra_keras.files.replacing import Kind
    >>> Kind("run", "config.json", ("config.json", "tensorboard/", "checkpoints/step-*.h5")).name
    'run'
    """

    name: str
    marker: str
    entries: tuple[str, ...]


def check_replaceable(path: str | os.PathLike, kind: Kind, overwrite: bool = False) -> None:
    """Raises unless a folder may be written, in the place of what is there.

    It may where there is nothing, or an empty folder. With `overwrite` it also may in the place of
    a folder that has the marker of its kind, and nothing but the entries of its kind.

    Args:
        path: str or path of the folder.
        kind: `Kind`, what would be written.
        overwrite: bool, whether an earlier one may go.

    Raises:
        ValueError: if it may not. The message names what is in the way.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.replacing import Kind, check_replaceable
    >>> kind = Kind("run", "config.json", ("config.json", "log.csv"))
    >>> folder = Path(tempfile.mkdtemp())
    >>> check_replaceable(folder, kind)
    >>> for name in ("config.json", "cat.jpg"):
    ...     _ = (folder / name).write_text("{}")
    >>> try:
    ...     check_replaceable(folder, kind, overwrite=True)
    ... except ValueError as error:
    ...     print(str(error).replace(str(folder), "FOLDER"))
    FOLDER holds cat.jpg, which no run has written; it is not replaced. Move what you need, and \
delete the rest
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; a folder is needed for the {kind.name}")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"{path} is not empty. Choose another with --to, or replace an earlier {kind.name} "
            "with --overwrite (in Python `overwrite=True`)"
        )
    if not (path / kind.marker).is_file():
        raise ValueError(
            f"{path} holds something that is no {kind.name} (no {kind.marker}); it is not replaced"
        )
    if foreign := foreign_entries(path, kind):
        raise ValueError(
            f"{path} holds {', '.join(foreign[:SHOWN])}, which no {kind.name} has written; it is "
            "not replaced. Move what you need, and delete the rest"
        )


def foreign_entries(folder: str | os.PathLike, kind: Kind) -> list[str]:
    """Returns what is in a folder and not among the entries of its kind.

    Args:
        folder: str or path of a folder.
        kind: `Kind`; its marker plays no part here.

    Returns:
        Sorted list of str, paths in the folder. What is in a folder that is not the writer's is
        not listed.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.replacing import Kind, foreign_entries
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "checkpoints").mkdir()
    >>> for name in ("step-20.h5", ".unfinished.step-40.h5", "epoch=3.ckpt"):
    ...     _ = (folder / "checkpoints" / name).write_text("weights")
    >>> foreign_entries(folder, Kind("run", "config.json", ("checkpoints/step-*.h5",)))
    ['checkpoints/epoch=3.ckpt']
    """
    return sorted(_foreign(Path(folder), "", kind.entries))


def check_replaceable_files(
    paths: Iterable[str | os.PathLike],
    what: str,
    is_own: Callable[[Path], bool],
    overwrite: bool = False,
) -> None:
    """Raises unless files may be written, in the place of those that are there: the same rule.

    Args:
        paths: str or paths of the files.
        what: str, what messages call one of them, such as `"record of a conversion"`.
        is_own: function from the `Path` of a file that is there to whether this writer has written
            it.
        overwrite: bool, whether earlier ones may go.

    Raises:
        ValueError: if they may not. The message names those that are in the way.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.replacing import check_replaceable_files
    >>> file = Path(tempfile.mkdtemp()) / "note.txt"
    >>> check_replaceable_files([file], "note of ours", lambda path: False)
    >>> _ = file.write_text("precious")
    >>> try:
    ...     check_replaceable_files([file], "note of ours", lambda path: False, overwrite=True)
    ... except ValueError as error:
    ...     print(str(error).replace(str(file.parent), "FOLDER"))
    FOLDER/note.txt is no note of ours, and is not overwritten
    """
    there = [path for path in map(Path, paths) if path.exists()]
    if there and not overwrite:
        raise ValueError(
            f"{_listed(there)} exists already. Choose another with --to, or replace it with "
            "--overwrite (in Python `overwrite=True`)"
        )
    if foreign := [path for path in there if not (path.is_file() and is_own(path))]:
        raise ValueError(f"{_listed(foreign)} is no {what}, and is not overwritten")


def check_writable(path: str | os.PathLike, what: str = "The folder") -> None:
    """Raises unless files can be made in a folder, which may be still to be made.

    Args:
        path: str or path of the folder.
        what: str, what the message calls it.

    Raises:
        ValueError: if it is a file or lies in one, or is read-only.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.replacing import check_writable
    >>> folder = Path(tempfile.mkdtemp()).resolve()
    >>> check_writable(folder / "runs" / "mine")
    >>> (folder / "runs").touch()
    >>> try:
    ...     check_writable(folder / "runs" / "mine", "The run folder")
    ... except ValueError as error:
    ...     print(str(error).replace(str(folder), "FOLDER"))
    The run folder FOLDER/runs/mine cannot be written to: FOLDER/runs is a file
    """
    path = Path(path)
    if obstacle := _obstacle(path.resolve()):
        raise ValueError(f"{what} {path} cannot be written to: {obstacle}")


def check_writable_file(path: str | os.PathLike, what: str = "--to") -> None:
    """Raises unless a file can be made, or replaced; its folder may be still to be made.

    Args:
        path: str or path of the file.
        what: str, what the message calls it, such as the option that names it.

    Raises:
        ValueError: if it is a folder, or its own folder cannot be written to.

    Example:

    >>> import tempfile
    >>> from libra_keras.files.replacing import check_writable_file
    >>> folder = tempfile.mkdtemp()
    >>> check_writable_file(f"{folder}/new/numbers.json")
    >>> try:
    ...     check_writable_file(folder)
    ... except ValueError as error:
    ...     print(str(error).replace(folder, "FOLDER"))
    --to must be a file. Received: the folder FOLDER
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{what} must be a file. Received: the folder {path}")
    if obstacle := _obstacle(path.resolve().parent):
        raise ValueError(f"{what} {path} cannot be written to: {obstacle}")


def _foreign(folder: Path, inside: str, entries: tuple[str, ...]) -> Iterator[str]:
    """Paths of the foreign entries below `folder`, which is `inside` the one that is checked."""
    for entry in folder.iterdir():
        name = inside + entry.name.removeprefix(UNFINISHED)
        is_folder = entry.is_dir()
        name = f"{name}/" if is_folder else name
        if any(fnmatchcase(name, pattern) for pattern in entries):
            continue
        if is_folder and any(pattern.startswith(name) for pattern in entries):
            yield from _foreign(entry, name, entries)
        else:
            yield inside + entry.name


def _obstacle(folder: Path) -> str | None:
    """Why nothing can be made in an absolute folder; `None` if it can."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is a file"
    return None if os.access(existing, os.W_OK | os.X_OK) else f"{existing} is read-only"


def _listed(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:SHOWN]))
