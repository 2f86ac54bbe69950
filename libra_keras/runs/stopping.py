"""How a run is stopped: by Ctrl-C, by a scheduler, by closing the terminal."""

import contextlib
import signal
import sys
import threading
import time
from typing import Any

ONE_EVENT = 1.0  # seconds: a shell and the system may both report a closed terminal
# Windows has no SIGHUP.
SIGNALS = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))


class Stopped(KeyboardInterrupt):
    """Raised when a run was asked to stop, and is saved.

    Args:
        signum: the signal; by default that of Ctrl-C.

    Attributes:
        status: int, the exit status that shells expect: 128 + the signal.

    Example:

    >>> import signal
    >>> from libra_keras.runs import Stopped
    >>> Stopped(signal.SIGINT).status
    130
    """

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__()
        self.signum = signum
        self.status = 128 + signum


class StopSignals:
    """Context in which `SIGNALS` raise `Stopped`, except the first one while `held`. Signals that
    the parent process ignores stay ignored, and outside of a program's main thread, where Python
    handles no signals, nothing changes."""

    def __init__(self, promise: str = "Stopping after this step; the run will be saved"):
        self.promise = promise  # what is printed when a signal waits
        self.held = False
        self.received = None
        self._first = 0.0  # when that was
        self._before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            before = {signum: signal.getsignal(signum) for signum in SIGNALS}
            self._before = {
                n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)
            }
            for signum in self._before:
                signal.signal(signum, self._receive)
        return self

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def release(self) -> None:
        """Ends `held`; raises `Stopped` if a signal is waiting."""
        self.held = False
        if self.received is not None:
            raise Stopped(self.received)

    def _receive(self, signum, frame):
        if self.received is not None and time.monotonic() < self._first + ONE_EVENT:
            return
        if not self.held or self.received is not None:
            raise Stopped(signum)
        self.received, self._first = signal.Signals(signum), time.monotonic()
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"\n{self.promise}. Repeat to stop at once.", file=sys.stderr, flush=True)
