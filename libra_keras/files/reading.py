"""Files from elsewhere: checked before they are opened, and named in every error.

A FIFO, a device or a socket in the place of a file would hang its reader, or fill the memory.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

SMALL = 2**26  # bytes: more than describes one image, a model or a run
LONGEST = 500  # characters of a reason: libraries may tell all of what they were given
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def memory() -> int | None:
    """Bytes of the machine's memory, which no file that is read whole may have; `None`: unknown."""
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_regular(path: str | os.PathLike[str], most: int | None = None) -> None:
    """Raises an `OSError` unless a path, or what it links to, is a file of at most `most` bytes.

    For libraries that open files themselves; `open_regular` is safer, and reads the same ones.
    """
    _check(path, os.stat(path), most)


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether a path, or what it links to, is a file; any text may stand for a path."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a character that no path has
        return False


def open_regular(path: str | os.PathLike[str], most: int | None = None) -> BinaryIO:
    """Opens a file for reading bytes, unless it is none or has more than `most` of them."""
    check_regular(path, most)  # opening a device can act on it already
    stream = open(path, "rb", opener=_open_without_waiting)
    try:
        _check(path, os.fstat(stream.fileno()), most)  # another may stand there by now
    except BaseException:
        stream.close()
        raise
    return stream


def read_bytes(path: str | os.PathLike[str], most: int | None = SMALL) -> bytes:
    """Reads a file as `open_regular` opens it."""
    with open_regular(path, most) as stream:
        return stream.read()


def read_text(path: str | os.PathLike[str], most: int | None = SMALL) -> str:
    """Reads text in UTF-8, with or without its mark, or raises an error that names the file."""
    with explained(path):
        return read_bytes(path, most).decode("utf-8-sig")


def read_json(path: str | os.PathLike[str], most: int | None = SMALL) -> Any:
    """Reads a JSON in any form of Unicode, or raises an error that names the file."""
    with explained(path):
        return json.loads(read_bytes(path, most))


def read_object(path: str | os.PathLike[str], most: int | None = SMALL) -> dict[str, Any]:
    """Reads a JSON that must hold an object, or raises an error that names the file."""
    found = read_json(path, most)
    if not isinstance(found, dict):
        raise ValueError(f"{path} cannot be read: expected an object. Received: {found!r:.80}")
    return found


@contextlib.contextmanager
def explained(
    path: str | os.PathLike[str], action: str = "read", kind: type[Exception] = ValueError
) -> Iterator[None]:
    """Turns whatever reading a file raises into one kind of error, unless it names the file."""
    try:
        yield
    except Exception as error:  # a damaged file makes libraries raise nearly anything
        if getattr(error, "filename", None) == os.fspath(path):  # the text may show it quoted
            raise
        if isinstance(error, (ValueError, OSError)) and os.fspath(path) in str(error):
            raise
        raise kind(f"{Path(path)} cannot be {action}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Says in a line what an error means to somebody who knows the file, not the program."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = " ".join(str(error).split())
    if len(text) > LONGEST:  # what came first is told last
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    if isinstance(error, (ValueError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check(path, status, most):
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise OSError(f"{os.fspath(path)} is {kind}, where a file is expected")
    if most is not None and status.st_size > most:
        size, limit = (f"{number / 2**20:,.0f} MiB" for number in (status.st_size, most))
        raise OSError(f"{os.fspath(path)} has {size}, where at most {limit} are expected")


def _open_without_waiting(path, flags):
    """What `open` opens a file with: a FIFO is not waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
