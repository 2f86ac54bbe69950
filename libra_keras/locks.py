"""Locks between processes, so that two do not write the same files."""

import contextlib
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


@contextlib.contextmanager
def exclusive(path):
    """Holds a lock while the block runs; the system releases it when a process dies.

    Where the file system has no locks, nothing is locked.

    Args:
        path: str or path of a file that serves for nothing else; its folder is made.

    Raises:
        BlockingIOError: if somebody else holds it.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.locks import exclusive
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with exclusive(path), exclusive(path):
    ...     pass
    Traceback (most recent call last):
    BlockingIOError: [Errno 11] Resource temporarily unavailable
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield


@contextlib.contextmanager
def alone(lock, path):
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
    >>> from libra_keras.locks import alone
    >>> lock = Path(tempfile.mkdtemp()) / ".lock"
    >>> with alone(lock, "exported/cats"), alone(lock, "exported/cats"):
    ...     pass
    Traceback (most recent call last):
    ValueError: Another process is writing to exported/cats. Wait until it has ended
    >>> lock.exists()
    False
    """
    lock = Path(lock)
    busy = f"Another process is writing to {path}. Wait until it has ended"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(lock))
        except BlockingIOError as error:
            raise ValueError(busy) from error
        if not lock.exists():  # opened just before its owner removed it: a third one may make it
            raise ValueError(busy)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                lock.unlink()


def alone_beside(path):
    """`alone`, with a lock beside a file or a folder that is replaced as a whole.

    Args:
        path: str or path; what is written.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.locks import alone_beside
    >>> folder = Path(tempfile.mkdtemp())
    >>> with alone_beside(folder / "cats"):
    ...     [file.name for file in folder.iterdir()]
    ['.lock.cats']
    """
    whole = Path(path).resolve()
    return alone(whole.with_name(f".lock.{whole.name}"), path)
