"""Ctrl-C and other signals that ask a process to end, where the process is the command's own.

The first signal ends a verb in order: partly written files are removed, and a message says how to
continue. A second one ends the process at once. So does the first, after a few seconds, if it
cannot get through: while a library computes, Python handles no signals, and some libraries swallow
its exceptions. Nothing is lost, since files are written completely or not at all. Training has a
handler of its own, which waits for the step.
"""

import os
import signal
import socket
import sys
import threading
import time

from libra_keras.runs.stopping import ONE_EVENT, SIGNALS

PATIENCE = 4.0  # seconds
SENTENCE = (
    "\nInterrupted. All files written are complete; the same command starts again, and a run "
    "continues from its last save."
)


class Interruption(KeyboardInterrupt):
    """Raised by a signal, wherever the process is."""

    def __init__(self, signum: int):
        super().__init__()
        self.signum = signum


class Signals:
    """Handles `SIGNALS` from here to the end of the process, except those that its parent ignores,
    as a shell does for what it runs in the background."""

    def __init__(self) -> None:
        self._received: int | None = None
        default = (signal.SIG_DFL, signal.default_int_handler)
        self._own = [signum for signum in SIGNALS if signal.getsignal(signum) in default]
        for signum in self._own:
            signal.signal(signum, self._receive)
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        # Python's handlers run in the main thread, which may be in C for a long time.
        threading.Thread(target=self._watch, daemon=True).start()

    def told(self, error: BaseException) -> int | None:
        """As the function, also for errors into which libraries have turned an interruption."""
        return told(error if self._received is None else Interruption(self._received))

    def _receive(self, signum, frame):
        self._received = signum
        raise Interruption(signum)

    def _watch(self):
        signum = self._next()
        if signal.getsignal(signum) != self._receive:  # but a training's, which ends with a step
            first = time.monotonic()
            while time.monotonic() < first + ONE_EVENT:
                self._next()
        self._reading.settimeout(PATIENCE)
        try:
            self._next()
        except TimeoutError:
            print(SENTENCE, file=sys.stderr, flush=True)
        os._exit(128 + signum)

    def _next(self):
        while (signum := self._reading.recv(1)[0]) not in self._own:
            pass
        return signum


def told(error: BaseException) -> int | None:
    """Prints what an interruption leaves behind, and returns the exit status that shells expect
    (128 + the signal); `None` for other errors."""
    if not isinstance(error, KeyboardInterrupt):
        return None
    print(SENTENCE, file=sys.stderr, flush=True)
    return 128 + getattr(error, "signum", signal.SIGINT)
