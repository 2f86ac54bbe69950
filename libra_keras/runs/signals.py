"""Ctrl-C and the signal of a scheduler, held back until a training step is complete."""

import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Raised when a run has been told to stop, and is in order.

    Args:
        signum: int, the signal; by default that of Ctrl-C.

    Attributes:
        status: int, the exit status that shells expect: 128 + the signal.

    Example:

    >>> import signal
    >>> from libra_keras.runs.signals import Stopped
    >>> Stopped(signal.SIGINT).status
    130
    """

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__()
        self.status = 128 + signum


class StopSignals:
    """Context in which Ctrl-C (SIGINT) and SIGTERM wait while `held`, and raise `Stopped` if not.

    A second signal does not wait. Outside of a program's main thread, where Python handles no
    signals, nothing changes.

    Args:
        promise: str, what is said when a signal waits.

    Attributes:
        held: bool, to be set by the program; `False` at first.
        received: the signal that is waiting, or `None`.

    Example:

    >>> import signal
    >>> from libra_keras.runs.signals import StopSignals
    >>> with StopSignals() as signals:
    ...     signals.held = True
    ...     signal.raise_signal(signal.SIGINT)  # would raise KeyboardInterrupt
    ...     print(signals.received.name)
    SIGINT
    """

    def __init__(self, promise="Stops after this step, and saves the run"):
        self.promise = promise
        self.held = False
        self.received = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        return self

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def release(self):
        """Ends `held`; raises `Stopped` if a signal is waiting."""
        self.held = False
        if self.received is not None:
            raise Stopped(self.received)

    def _receive(self, signum, frame):
        if not self.held or self.received is not None:
            raise Stopped(signum)
        self.received = signal.Signals(signum)
        print(f"\n{self.promise}; once more stops at once.", file=sys.stderr, flush=True)
