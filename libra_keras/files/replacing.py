"""What may be replaced, and where can be written: checked before any work is done."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

# A mistyped path must not cost somebody a folder of photographs. So nothing is replaced unless the
# caller asks for it, and then only what the same writer has written, all of it.

UNFINISHED = ".unfinished."  # what `atomic.replacing` names begin with, left by a killed process
SHOWN = 3  # of the names of others in a message


@dataclasses.dataclass(frozen=True)
class Kind:
    """What one writer writes into a folder of its own."""

    name: str  # what messages call it, such as "run"
    marker: str  # the file that makes a folder one; it is written first, or with all others at once
    # Patterns of all that is written, the marker too: paths in the folder, whose last part may have
    # `*` and `?` as in a shell. One that ends in `/` is a folder with all that is in it.
    entries: tuple[str, ...]


def check_replaceable(path: str | os.PathLike, kind: Kind, overwrite: bool = False) -> None:
    """Raises a `ValueError` unless a folder may be written, in the place of what is there."""
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
            f"{path} contains something other than an earlier {kind.name} (no {kind.marker}); it "
            "is not replaced"
        )
    if foreign := foreign_entries(path, kind):
        raise ValueError(
            f"{path} holds {', '.join(foreign[:SHOWN])}, which no {kind.name} has written; it is "
            "not replaced. Move what you need, and delete the rest"
        )


def foreign_entries(folder: str | os.PathLike, kind: Kind) -> list[str]:
    """What is in a folder and not among the entries of its kind: sorted paths in the folder."""
    return sorted(_foreign(Path(folder), "", kind.entries))


def check_replaceable_files(
    paths: Iterable[str | os.PathLike],
    what: str,
    is_own: Callable[[Path], bool],
    overwrite: bool = False,
) -> None:
    """The same rule for files, of which `is_own` says whether this writer has written them."""
    there = [path for path in map(Path, paths) if path.exists()]
    if there and not overwrite:
        raise ValueError(
            f"{_listed(there)} exists already. Choose another with --to, or replace it with "
            "--overwrite (in Python `overwrite=True`)"
        )
    if foreign := [path for path in there if not (path.is_file() and is_own(path))]:
        raise ValueError(f"{_listed(foreign)} is no {what}, and is not overwritten")


def check_writable(path: str | os.PathLike, what: str = "The folder") -> None:
    """Raises a `ValueError` unless files can be made in a folder, which may be still to be made."""
    path = Path(path)
    if obstacle := _obstacle(path.resolve()):
        raise ValueError(f"{what} {path} cannot be written to: {obstacle}")


def check_writable_file(path: str | os.PathLike, what: str = "--to") -> None:
    """Raises a `ValueError` unless a file can be made or replaced; its folder may be missing."""
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
