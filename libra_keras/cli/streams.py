"""What becomes of a verb whose output nobody takes: a closed stream, a pipe, a full disk.

- A stream that is closed from the start (`>&-`) is as `/dev/null`.
- A pipe whose reader has left (`| head -1`): a verb that only tells ends at once without a word, as
  other tools do, with the status that shells know. One that writes files goes on in silence: an
  epoch is not lost because of a pager.
- A disk that is full (`> log`): a verb that only tells ends; one that writes files goes on, says so
  at its end, and has failed, for what it was to tell is missing.
- What is lost of standard error is lost: it changes neither the work nor the status.

Names of files and classes may hold sequences that move a terminal's cursor, or more: they are shown
as text. Colours stay, and what progress bars are drawn with.
"""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

EXIT_BROKEN_PIPE = 141  # as shells count it: 128 + SIGPIPE
LOST = "libra-keras: standard output cannot be written: {}"
CONTROL = re.compile(r"(?!\x1b\[[\d;]*m)[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Lasting:
    """A text stream that shows control characters as text, and drops what cannot be written, from
    the first time on, and keeps why."""

    def __init__(self, stream: IO[str], ends: bool):
        self._stream = stream
        self.ends = ends  # whether what is lost ends the process
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream does."""
        with self._kept():
            self._stream.write(CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text))
        return len(text)

    def flush(self) -> None:
        """As the stream does."""
        with self._kept():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept(self):
        try:
            yield
        except OSError as error:
            if self.lost is None:
                self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is buffered, and for C++
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if self.ends:  # no `OSError`, which verbs take for one of their files
                sys.exit(EXIT_BROKEN_PIPE if is_pipe(error) else LOST.format(error.strerror))

    def end(self, status: int) -> None:
        """Exits with an error if a disk has lost what work that was done had to tell."""
        self.flush()
        if self.lost and not is_pipe(self.lost):
            print(LOST.format(self.lost.strerror), file=sys.stderr)
            sys.exit(status or 1)


def is_pipe(error: OSError) -> bool:
    """Whether an error means that a reader has left, which is not worth a message."""
    return isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL  # on Windows


def open_closed() -> None:
    """Opens `/dev/null` where standard streams are closed: a file that is opened would take the
    place, and get what is printed."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)


@contextlib.contextmanager
def lasting() -> Iterator[Lasting]:
    """Context in which standard streams are `Lasting`; gives standard output."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = output, errors = Lasting(before[0], True), Lasting(before[1], False)
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
