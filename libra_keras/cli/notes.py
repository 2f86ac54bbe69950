"""Keeps the start-up messages of TensorFlow and XLA out of what a command prints.

They write to file descriptor 2 from C++, some of it while they are loaded: none of their settings
stops it, and nothing in Python sees it.
"""

import contextlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

# Lines of absl (`I0000 00:00:1796.5 1970 port.cc:153] ...`) and of older logs; the letter is the
# severity. All of INFO are notes; of the others, only those known to be harmless.
NOTES = re.compile(
    rb"""WARNING:\ All\ log\ messages\ before\ absl::InitializeLog
    | I\d{4}\ [\d:.]+\ +\d+\ \S+:\d+\]
    | \d{4}-\d\d-\d\d\ [\d:.]+:\ I\ \S+:\d+\]
    | To\ enable\ the\ following\ instructions:.*rebuild\ TensorFlow
    | (?: [WE]\d{4}\ [\d:.]+\ +\d+ | \d{4}-\d\d-\d\d\ [\d:.]+:\ [WE] )\ \S+:\d+\]\ (?:
        failed\ call\ to\ cuInit:.*\(303\)  # no driver, and no GPU for it to drive
      | oneDNN\ supports\ \S+\ only\ on\ platforms\ with
      | Unable\ to\ register\ cu\w+\ factory
      | computation\ placer\ already\ registered
    )""",
    re.VERBOSE,
)

LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # 0 asks for everything; 2 for errors, once TensorFlow is loaded
PACKAGE = Path(__file__).parents[1]
_running: list[subprocess.Popen] = []  # Python warns about a process without a reference


def hide() -> None:
    """Filters notes out of the standard error of this process and of processes that it starts."""
    stream: Any = sys.stderr
    is_own = stream is not None and stream is sys.__stderr__
    if os.environ.setdefault(LEVEL, "2") == "0" or not is_own:
        return
    if os.getpid() == 1:  # of a container, which ends with it: the last words would be lost
        return
    # Python's own messages bypass the filter. What C++ writes goes through a process, not a thread,
    # so that the last words before a crash are passed on. It has its own session, which no Ctrl-C
    # reaches, and ends with the last writer.
    reading, writing = os.pipe()
    command = [sys.executable, "-I", "-S", __file__]
    with contextlib.suppress(OSError):  # no process may be started: then notes are shown
        _running.append(
            subprocess.Popen(
                command, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True
            )
        )
        own = {"encoding": stream.encoding, "errors": stream.errors}
        sys.stderr = open(os.dup(2), "w", buffering=1, **own)  # noqa: SIM115 (as long as this runs)
        os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)


def shorten_warnings() -> None:
    """Makes warnings of this package a line each, without a place in its source."""
    usual = warnings.formatwarning

    def formatted(message, category, filename, *place):
        is_own = Path(filename).is_relative_to(PACKAGE)
        return f"Warning: {message}\n" if is_own else usual(message, category, filename, *place)

    warnings.formatwarning = formatted


def is_note(line: bytes) -> bool:
    """Whether a line of standard error means nothing to a user."""
    return NOTES.match(line) is not None


def _filter():
    for line in sys.stdin.buffer:
        if not is_note(line):
            os.write(2, line)


if __name__ == "__main__":
    _filter()
