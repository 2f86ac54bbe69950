"""`libra-keras train` in a terminal on PyTorch: the bar, the warnings, the files.

On JAX test_without_tensorflow.py does it.
"""

import json
import os
import subprocess
import sys

import pytest
from processes import environment, need

pty = pytest.importorskip("pty", reason="terminals as on Unix")
RUN = (
    "shapes --model rpn_small --train-split 16 --val-split 4 --batch 2 --epochs 1 "
    "--short-side 64 --long-side 64"
).split()


def in_a_terminal(command, environment):
    """Exit status and output of a program that believes somebody watches it."""
    ours, its = pty.openpty()
    process = subprocess.Popen(command, stdout=its, stderr=its, env=environment)
    os.close(its)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 2**16)
        except OSError:  # how Linux says that the other end is closed
            break
    os.close(ours)
    return process.wait(), shown.decode(errors="replace")


@pytest.mark.slow
def test_the_bar_and_the_warnings_of_a_run(tmp_path):
    need("torch")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "libra_keras", "train", *RUN, "--to", str(folder)]
    status, shown = in_a_terminal(command, environment(KERAS_BACKEND="torch"))
    assert status == 0, shown[-3000:]
    bar = shown[shown.rindex("8/8") :]
    assert all(words in bar for words in ("loss ", " images/s", " left", "Evaluation ["))
    bars = [line for line in shown.splitlines() if " images/s" in line]  # the tables have the rest
    assert bars and not any("_class_loss" in line for line in bars)
    assert json.loads((folder / "config.json").read_text())["backend"] == "torch"
    # An untrained box loss is small beside the other, and the run says so.
    warnings = json.loads((folder / "metrics.json").read_text())["warnings"]
    assert "losses" in warnings
    assert all(f"Warning: {each['message']}." in shown for each in warnings.values())
    assert (folder / "curves.png").exists() and (folder / "detections.png").exists()
