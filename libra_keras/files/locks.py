"""Locks between processes, so that two do not write the same files."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def exclusive(path: str | os.PathLike, wait: bool = False) -> Iterator[None]:
    """Locks a file during the block, against threads too; a dead process's lock is released."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("a").close()  # so that what goes wrong from here on is about locking
    # A file with the owner's number, which filelock would fall back to, outlives a crash.
    timeout = -1 if wait else 0
    lock = FileLock(path, timeout=timeout, thread_local=False, fallback_to_soft=False)
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
def in_turn(lock: str | os.PathLike, doing: str) -> Iterator[None]:
    """Holds a lock during the block; waits for whoever has it, and says what that one is doing."""
    # The file stays: who waits for one that is deleted would not exclude who makes it anew.
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(lock))
        except BlockingIOError:
            print(f"Another process is {doing}; waiting for it", flush=True)
            stack.enter_context(exclusive(lock, wait=True))
        yield


@contextlib.contextmanager
def alone(lock: str | os.PathLike, path: str | os.PathLike) -> Iterator[None]:
    """Holds a lock while `path` is written; refuses a second one, and leaves no file behind."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(lock))
        except BlockingIOError as error:
            raise ValueError(
                f"Another process is writing to {path}. Wait until it has finished"
            ) from error
        try:
            yield
        finally:  # before the release: the next one makes a file of its own
            with contextlib.suppress(OSError):  # Windows removes no open file; its lock does
                Path(lock).unlink()


def alone_beside(path: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """`alone`, with a lock beside a file or a folder that is replaced as a whole."""
    whole = Path(path).resolve()
    return alone(whole.with_name(f".lock.{whole.name}"), path)
