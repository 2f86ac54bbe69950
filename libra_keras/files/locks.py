"""Locks between processes, so that two do not write the same files."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def exclusive(path: str | os.PathLike) -> Iterator[None]:
    """Holds a lock while the block runs; the system releases it when a process dies.

    Everybody else is kept out: other processes, other threads, and a second call in the block. The
    file may be deleted meanwhile, with the folder that it is in. Where the file system has no
    locks, nothing is locked.

    Args:
        path: str or path of a file that serves for nothing else; its folder is made.

    Raises:
        BlockingIOError: if somebody else holds it.
        OSError: if the file cannot be made.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.locks import exclusive
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with exclusive(path), exclusive(path):
    ...     pass
    Traceback (most recent call last):
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("a").close()  # so that what goes wrong from here on is about locking
    # A file with the owner's number, which filelock would fall back to, outlives a crash.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    except PermissionError:  # a file that another user could exchange
        raise
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def alone(lock: str | os.PathLike, path: str | os.PathLike) -> Iterator[None]:
    """Holds a lock while something is written; the lock's file is gone afterwards.

    Where the file system has no locks, nothing is locked.

    Args:
        lock: str or path of the file that is locked.
        path: what is written, for the message.

    Raises:
        ValueError: if another process, or another thread, holds it.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.files.locks import alone
    >>> lock = Path(tempfile.mkdtemp()) / ".lock"
    >>> with alone(lock, "exported/cats"), alone(lock, "exported/cats"):
    ...     pass
    Traceback (most recent call last):
    ValueError: Another process is writing to exported/cats. Wait until it has ended
    >>> lock.exists()
    False
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(lock))
        except BlockingIOError as error:
            raise ValueError(
                f"Another process is writing to {path}. Wait until it has ended"
            ) from error
        try:
            yield
        finally:  # before the release: the next one makes a file of its own
            with contextlib.suppress(OSError):  # Windows removes no open file; its lock does
                Path(lock).unlink()


def alone_beside(path: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """`alone`, with a lock beside a file or a folder that is replaced as a whole.

    Args:
        path: str or path; what is written.

    Example:

    >>> from pathlib import Path
    >>> import tempfile
    >>> from libra_keras.files.locks import alone_beside
    >>> folder = Path(tempfile.mkdtemp())
    >>> with alone_beside(folder / "cats"):
    ...     [file.name for file in folder.iterdir()]
    ['.lock.cats']
    """
    whole = Path(path).resolve()
    return alone(whole.with_name(f".lock.{whole.name}"), path)
