"""What TensorFlow says of itself is left out; nothing else is, not even of a process that dies."""

import signal
import subprocess
import sys
import warnings

import pytest
from processes import environment

from libra_keras.cli import notes
from libra_keras.cli.notes import is_note

STAMP = "0000 00:00:1796020630.992063   19728 "
DROPPED = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    f"I{STAMP}port.cc:153] oneDNN custom operations are on. You may see slightly different",
    f"E{STAMP}cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)",
    f"E{STAMP}util.cc:131] oneDNN supports DT_INT32 only on platforms with AVX-512. Falling back",
    f"E{STAMP}cuda_dnn.cc:8579] Unable to register cuDNN factory: Attempting to register factory",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with",
    "2026-02-03 10:11:12.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations",
]
KEPT = [
    f"E{STAMP}cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_UNKNOWN: unknown error (999)",
    f"F{STAMP}tensor.cc:852] Check failed: dtype() == expected_dtype (3 vs. 1)",
    f"W{STAMP}bfc_allocator.cc:501] Allocator (GPU_0_bfc) ran out of memory",
    "Fatal Python error: Segmentation fault",
    "In image 3: I0000 is no object",
]
PROGRAM = """
import os, subprocess, sys
from libra_keras.cli import notes
notes.hide()
note, *words = sys.argv[1:]
print(words[0], file=sys.stderr)
os.write(2, (note + "\\n" + words[1] + "\\n").encode())
subprocess.run(["sh", "-c", 'echo "$1" >&2; echo "$2" >&2', "sh", note, words[2]])
os.write(2, words[3].encode())  # without the end of its line
os.abort()
"""


def test_notes_are_known_by_their_words():
    assert [line for line in DROPPED if not is_note(line.encode())] == []
    assert [line for line in KEPT if is_note(line.encode())] == []


def test_warnings_of_the_package_are_a_line_each(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # for its own undoing
    notes.shorten_warnings()
    own, other = (
        warnings.formatwarning("too small", UserWarning, file, 3)
        for file in (notes.__file__, __file__)
    )
    assert own == "Warning: too small\n" and "UserWarning" in other


@pytest.mark.skipif(not hasattr(signal, "SIGABRT"), reason="signals as on Unix")
def test_errors_and_last_words_of_a_crash_are_shown():
    command = [sys.executable, "-c", PROGRAM, DROPPED[1], *KEPT[:4]]
    own = environment(TF_CPP_MIN_LOG_LEVEL="2")
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    assert done.returncode == -signal.SIGABRT
    assert sorted(done.stderr.splitlines()) == sorted(KEPT[:4])  # Python's own goes another way
    everything = environment(TF_CPP_MIN_LOG_LEVEL="0")
    done = subprocess.run(command, capture_output=True, text=True, env=everything)
    assert done.stderr.count("oneDNN custom") == 2


def test_where_no_process_may_be_started_notes_are_shown():
    code = """
import os, subprocess, sys
from libra_keras.cli import notes
def refuse(*_, **__):
    raise PermissionError("no process")
subprocess.Popen = refuse
notes.hide()
os.write(2, (sys.argv[1] + "\\n").encode())
print("words", file=sys.stderr)
"""
    own = environment(TF_CPP_MIN_LOG_LEVEL="2")
    done = subprocess.run(
        [sys.executable, "-c", code, DROPPED[1]], capture_output=True, text=True, env=own
    )
    assert (done.returncode, done.stderr.splitlines()) == (0, [DROPPED[1], "words"])
