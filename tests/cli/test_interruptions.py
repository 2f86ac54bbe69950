"""Runs that are killed, stopped, or run out of disk: the same command ends where it would have."""

import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libra_keras.cli import main
from libra_keras.runs.folder import Checkpoints

ROOT = Path(__file__).parents[2]
RUN = (
    "shapes --train-split 12 --val-split 4 --model rpn_small --batch 2 --epochs 2 "
    "--short-side 64 --long-side 64 --save-every 2 --deterministic"
).split()


def recipe():
    """The program that kills runs, as a module."""
    path = ROOT / "recipes" / "benchmarks" / "kill_and_resume.py"
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


def train(folder, act=None, when=lambda text: "Epoch" in text):
    """Runs the command; calls `act` with the process once it has printed what `when` waits for."""
    command = [sys.executable, "-m", "libra_keras", "train", *RUN, "--to", str(folder)]
    output = folder.with_suffix(".txt")
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        while act and not when(output.read_text()):
            assert process.poll() is None, output.read_text()[-3000:]
            time.sleep(0.01)
        if act:
            act(process)
        return process.wait(timeout=900), output.read_text()
    finally:
        process.kill()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals as on Unix")
@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are Linux' own")
@pytest.mark.slow
def test_a_full_disk_signals_and_kills_change_nothing(tmp_path, environment, capsys):
    import resource

    kill_and_resume = recipe()
    status, text = train(tmp_path / "whole")
    assert status == 0, text[-3000:]
    expected = kill_and_resume.contents(tmp_path / "whole")

    folder, checkpoints = tmp_path / "stopped", Checkpoints(tmp_path / "stopped" / "checkpoints")
    limit = 30_000  # bytes of a file: tables grow, weights do not fit
    status, text = train(
        folder,
        lambda process: resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit)),
        when=lambda text: "Epoch" in text and checkpoints.read()["step"] > 0,
    )
    assert status == 1 and "Traceback" not in text
    said = text.strip().split("\n")[-1]
    assert (
        "libra-keras train: " in said
        and "File too large. What was saved before is complete" in said
    )
    assert checkpoints.weights.stat().st_size > limit

    continued = ""
    for signum in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, and what a scheduler sends
        status, text = train(folder, lambda process, signum=signum: process.send_signal(signum))
        assert status == 128 + signum and "Traceback" not in text and continued in text
        place = re.search(r"saved at epoch (\d), step (\d); the same command continues", text)
        saved = checkpoints.read()
        assert (int(place[1]) - 1, int(place[2])) == (saved["epoch"], saved["step"])
        continued = f"Continuing {folder} at epoch {place[1]}, step {place[2]}"

    [(plan, *_)] = kill_and_resume.train(folder, RUN, 1, random.Random(5), usual=10)
    assert plan == "writing" and "SIGKILL" in capsys.readouterr().out
    assert kill_and_resume.compare(expected, kill_and_resume.contents(folder))


def test_a_disk_that_is_too_small_is_said_at_the_start(tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 2**20))
    assert main(["train", *RUN[:-1], "--to", str(tmp_path / "run")]) == 1
    assert "MiB left; the run needs about" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_read_only_is_said_at_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert main(["train", *RUN[:-1], "--to", str(tmp_path / "run")]) == 1
    assert f"cannot be written to: {tmp_path} is read-only" in capsys.readouterr().err
