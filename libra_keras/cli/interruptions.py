"""Ctrl-C and what else tells a process to end, while it is the command's own.

The first signal ends a verb in order: what was being written is taken away, and a sentence says how
to go on. A second one ends the process at once. So does the first after a few seconds if it cannot
get through: while a library computes, Python handles no signal, and some swallow its exceptions.
That loses nothing, since all files are written whole or not at all. A training has a handler of its
own, which waits for the step.
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
    "\nInterrupted. All that was written is whole; the same command starts again, and a run goes "
    "on from its last save."
)


class Interruption(KeyboardInterrupt):
    """Raised by a signal, wherever the process is."""

    def __init__(self, signum: int):
        super().__init__()
        self.signum = signum


class Signals:
    """Handles `SIGNALS` from here to the end of the process, but for those that whoever started it
    ignores: a shell does so for what it runs in the background."""

    def __init__(self) -> None:
        self._received: int | None = None
        default = (signal.SIG_DFL, signal.default_int_handler)
        self._own = [signum for signum in SIGNALS if signal.getsignal(signum) in default]
        for signum in self._own:
            signal.signal(signum, self._receive)
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        # Python's handlers run in the main thread, which may be in C for long.
        threading.Thread(target=self._watch, daemon=True).start()

    def told(self, error: BaseException) -> int | None:
        """As the function, also of errors that libraries have made of an interruption."""
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
    """Says what an interruption leaves behind, and returns the exit status that shells expect:
    128 + the signal; `None` for other errors."""
    if not isinstance(error, KeyboardInterrupt):
        return None
    print(SENTENCE, file=sys.stderr, flush=True)
    return 128 + getattr(error, "signum", signal.SIGINT)
