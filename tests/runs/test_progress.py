"""What a run prints: on a terminal of any width, and in a file."""

import re
import shutil
import sys
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from libra_keras.runs import progress
from libra_keras.runs.progress import EpochLines, Line, ProgressBar, clock, fitted
from libra_keras.runs.watching import Speedometer
from libra_keras.training import SGD

NOTES = ["loss 2.672", "9.6 images/s", "0:41 left"]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        # Title 9, count 5, notes 10, 12 and 9, with four gaps of 2: 53, and 3 of a bar's frame.
        (79, "Epoch 1/2 [======.................]  3/10  loss 2.672  9.6 images/s  0:41 left"),
        (62, "Epoch 1/2 [=.....]  3/10  loss 2.672  9.6 images/s  0:41 left"),
        (61, "Epoch 1/2   3/10  loss 2.672  9.6 images/s  0:41 left"),
        (52, "Epoch 1/2 [==.....]  3/10  loss 2.672  9.6 images/s"),
        (20, "Epoch 1/2   3/10"),
        (5, "Epoch"),
    ],
)
def test_a_line_shows_what_there_is_room_for(width, line):
    assert fitted("Epoch 1/2", 3, 10, NOTES, width) == line
    for other in range(1, 120):
        assert len(fitted("Epoch 1/2", 3, 10, NOTES, other)) <= other


def test_times():
    assert [clock(s) for s in (6.6, 750, 3723)] == ["0:07", "12:30", "1:02:03"]


def fit(line, epochs=2, steps=6):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(SGD(0.0), "mse")
    ones, speed = np.ones((2 * steps, 1)), Speedometer(batch_size=2)
    evaluation = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_AP=0.25)
    )
    shown = [speed, ProgressBar(speed, line), evaluation, EpochLines(speed, line, "val_AP")]
    model.fit(ones, ones, 2, epochs, verbose=0, callbacks=shown)


def test_a_terminal_gets_a_bar_that_fits_and_a_line_an_epoch(monkeypatch, capsys):
    columns = iter([80, 60, 33, 12] * 4)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress, "REDRAWN", 0.0)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: SimpleNamespace(columns=next(columns)))
    fit(Line())
    drawn = [part for part in re.split(r"[\r\n]", capsys.readouterr().out) if part.strip()]
    lines = [each for each in drawn if re.match(r"Epoch \d/2  0:0", each)]
    bars = [each for each in drawn if each not in lines]
    assert [len(bar) for bar in bars] == [79, 59, 32, 11] * 3  # one column remains free
    assert " left" in bars[1] and "images/s" in bars[4]
    assert re.fullmatch(r"Epoch 1/2  0:0\d  loss \d\.\d+  \S+ images/s  AP 0\.250", lines[0])
    assert "AP" not in lines[1]  # the table of all numbers follows
    assert len(lines) == 2


def test_a_file_gets_a_line_at_the_start_and_one_every_ten_minutes(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    line = Line()
    for step in range(1, 3001):
        now[0] += 1.0
        line.draw("Epoch 1/12", step, 3000, lambda: ["loss 1.000"])
    said = capsys.readouterr().out.splitlines()
    assert said == [f"Epoch 1/12  {n}/3000  loss 1.000" for n in range(1, 3001, 600)]


def test_the_time_left_is_that_of_the_run_with_its_evaluations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bar = ProgressBar(SimpleNamespace(batch_size=4, images_per_second=8.0), Line())
    bar.set_params({"epochs": 3, "steps": 10})
    bar.on_epoch_begin(0)
    # 30 - 4 steps of half a second, and no evaluation yet.
    assert bar._notes(4, {"loss": 1.0})[-1] == "0:13 left"
    bar.on_epoch_end(0)
    now[0] += 20.0
    bar.on_epoch_begin(1)
    assert bar._notes(4, {})[-1] == "0:48 left"  # 8 s, and 20 s for each of two evaluations
