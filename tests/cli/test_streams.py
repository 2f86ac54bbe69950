"""Output that nobody takes: closed streams, pipes without a reader, full disks."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

from libra_keras.cli.streams import Lasting

PROGRAM = "import sys; from libra_keras.cli import main; sys.exit(main())"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")


def shell(redirected, verb="train --help"):
    """Exit status and standard error of the command in a shell; `{}` stands for it."""
    command = redirected.replace("{}", f"'{sys.executable}' -c '{PROGRAM}' {verb}")
    own = environment()
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, env=own)
    return done.returncode, done.stderr


@pytest.fixture
def pipe():
    """A stream into a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        yield stream


@pytest.mark.skipif(sys.platform == "win32", reason="a shell as on Unix")
@pytest.mark.parametrize(
    ("redirected", "expected"),
    [
        ("{} >&- <&-", (0, "")),
        ("{} | true; exit ${PIPESTATUS[0]}", (141, "")),
        pytest.param(
            "{} > /dev/full",
            (1, "libra-keras: cannot write to standard output: No space left on device\n"),
            marks=needs_full,
        ),
    ],
)
def test_a_verb_that_tells_ends_with_its_output(redirected, expected):
    assert shell(redirected) == expected


def test_work_goes_on_without_its_output(pipe, capsys):
    output = Lasting(pipe, ends=False)
    for _ in range(3):
        assert output.write("epoch\n") == 6
        output.flush()
    assert isinstance(output.lost, BrokenPipeError) and not output.isatty()
    output.end(0)  # a reader that has left is no fault
    assert capsys.readouterr().err == ""


@needs_full
def test_work_whose_output_is_lost_has_failed_at_the_end(capsys):
    with open("/dev/full", "w") as stream:
        output = Lasting(stream, ends=False)
        output.write("AP 0.5\n")
        with pytest.raises(SystemExit) as ended:
            output.end(0)
    assert ended.value.code == 1
    assert "cannot write to standard output: No space left" in capsys.readouterr().err


def test_sequences_for_terminals_are_shown_as_text():
    seen = io.StringIO()
    bar = "\r\x1b[32m1/2\x1b[0m\b\b\tdone\n"
    Lasting(seen, ends=False).write(f"{bar}cat\x1b[2J\x07\x9b2J")
    assert seen.getvalue() == f"{bar}cat\\x1b[2J\\x07\\x9b2J"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal as on Unix")
def test_a_terminal_is_told_at_once_that_the_start_takes_time():
    """And the words are gone when the verb has something to say."""
    terminal, end = os.openpty()
    command = [sys.executable, "-c", PROGRAM, "models"]
    with subprocess.Popen(command, stderr=end, stdout=end, env=environment()) as process:
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(terminal, 1000):
                shown += part
    os.close(terminal)
    assert process.returncode == 0
    assert shown.startswith(b"Starting ...\r            \rfast_rcnn_resnet50 ")
