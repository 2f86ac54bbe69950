"""One export at a time to a folder."""

import contextlib
from pathlib import Path

from libra_keras import atomic


@contextlib.contextmanager
def alone(lock, folder):
    """Holds a lock while the block runs; the file is gone afterwards.

    Where the file system has no locks, nothing is locked.

    Args:
        lock: str or path of the file that is locked.
        folder: what is written to, for the message.

    Raises:
        ValueError: if another process, or another thread, holds it.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.export.alone import alone
    >>> lock = Path(tempfile.mkdtemp()) / ".lock"
    >>> with alone(lock, "exported/cats"), alone(lock, "exported/cats"):
    ...     pass
    Traceback (most recent call last):
    ValueError: Another export is being written to exported/cats. Wait until it has ended
    >>> lock.exists()
    False
    """
    lock = Path(lock)
    busy = f"Another export is being written to {folder}. Wait until it has ended"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic.exclusive(lock))
        except BlockingIOError as error:
            raise ValueError(busy) from error
        if not lock.exists():  # opened just before its owner removed it: a third one may make it
            raise ValueError(busy)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                lock.unlink()
