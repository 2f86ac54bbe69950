"""The benchmark for GPUs runs, in its smallest form."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import environment, need

SCRIPT = Path(__file__).parents[2] / "recipes" / "benchmarks" / "gpu_speed.py"


@pytest.mark.slow
def test_rows_of_a_detector(tmp_path):
    need("jax")
    part = ["--part", "faster_rcnn_resnet50", "--until", str(time.time() + 3600)]
    command = [sys.executable, str(SCRIPT), "--tiny", *part]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(KERAS_BACKEND="jax"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    fits = ["fit, as runs do", "fit of Keras"]
    assert [row["program"] for row in rows] == [
        "training",
        "detection of 1",
        "detection of 2",
        *fits,
    ]
    assert [row["batch"] for row in rows] == [2, 1, 2, 2, 2]
    for row in rows:
        assert row["images/s"] * row["ms"] == pytest.approx(1000 * row["batch"])
    # Operations: a billion or so for these small images, and not those of a single layer.
    assert all(1e8 < row["TFLOP/s"] * row["ms"] * 1e9 < 1e11 for row in rows[:3])
