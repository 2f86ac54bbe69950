"""What happens if a verb's output cannot be written: a closed stream, a pipe, a full disk.

- A stream that is closed from the start (`>&-`) acts like `/dev/null`.
- A pipe whose reader has left (`| head -1`): a verb that only prints ends at once without a
  message, as other tools do, with the status that shells expect. One that writes files continues
  silently: an epoch is not lost because of a pager.
- A full disk (`> log`): a verb that only prints ends; one that writes files continues, reports the
  loss at its end, and fails, because its output is missing.
- What is lost of standard error is lost: it changes neither the work nor the status.

Names of files and classes may contain sequences that move a terminal's cursor, or worse: they are
shown as text. Colours stay, and so does what progress bars are drawn with.
"""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

EXIT_BROKEN_PIPE = 141  # as shells count it: 128 + SIGPIPE
LOST = "libra-keras: cannot write to standard output: {}"
CONTROL = re.compile(r"(?!\x1b\[[\d;]*m)[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Lasting:
    """A text stream that shows control characters as text. Once a write fails, it drops all output
    and keeps the error."""

    def __init__(self, stream: IO[str], ends: bool):
        self._stream = stream
        self.ends = ends  # whether a failed write ends the process
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
            if self.ends:  # no `OSError`, which verbs would attribute to one of their files
                sys.exit(EXIT_BROKEN_PIPE if is_pipe(error) else LOST.format(error.strerror))

    def end(self, status: int) -> None:
        """Exits with an error if a full disk has lost output of work that was done."""
        self.flush()
        if self.lost and not is_pipe(self.lost):
            print(LOST.format(self.lost.strerror), file=sys.stderr)
            sys.exit(status or 1)


def is_pipe(error: OSError) -> bool:
    """Whether an error means that the reader has left, which is not worth a message."""
    return isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL  # on Windows


def open_closed() -> None:
    """Opens `/dev/null` in place of closed standard streams: the next file opened would take their
    descriptor, and receive what is printed."""
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
    """Context in which the standard streams are `Lasting`; yields standard output."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = output, errors = Lasting(before[0], True), Lasting(before[1], False)
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
