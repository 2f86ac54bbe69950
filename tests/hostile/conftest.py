"""Watches what fuzzed code does to the machine."""

import os
import sys

import pytest

STARTS_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "exec"}
watching: list[list[tuple[str, tuple]]] = []


def _note(event, arguments):
    if watching and (event in STARTS_PROGRAMS or event == "open"):
        watching[-1].append((event, arguments))


sys.addaudithook(_note)  # it stays for as long as the process lives


@pytest.fixture
def guarded(tmp_path):
    """Returns a check that, since the test began, no program was started, nothing was opened for
    writing, and nothing was opened by name in `tmp_path.parent` outside of `tmp_path`, nor in
    `/etc`. `check.forget()` leaves out what was done until then."""
    events: list[tuple[str, tuple]] = []
    watching.append(events)
    inside, around = f"{tmp_path}{os.sep}", f"{tmp_path.parent}{os.sep}"

    def check(may_write=lambda path: False, may_read=lambda path: False):
        noted, events[:] = list(events), []
        for event, arguments in noted:
            if event == "exec" and os.path.isfile(arguments[0].co_filename):
                continue  # a late import
            assert event == "open", f"{event} {arguments}"
            path, mode, flags = arguments
            if isinstance(path, (str, bytes)):
                path = os.path.abspath(os.fsdecode(path))
                writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                assert not writes or may_write(path) or path == os.devnull, f"{path} was written"
                is_outside = path.startswith(around) and not path.startswith(inside)
                is_outside |= path.startswith("/etc/")
                assert not is_outside or may_read(path), f"{path} was opened"

    check.forget = events.clear
    yield check
    watching.remove(events)
