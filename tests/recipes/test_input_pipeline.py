"""The benchmark of the input pipeline runs; memory stays flat; epochs follow without a stall."""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libra_keras import data

SCRIPT = Path(__file__).parents[2] / "recipes" / "benchmarks" / "input_pipeline.py"
MIB = 2**20


@pytest.fixture
def benchmark():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("input_pipeline", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    for i, size in enumerate([(96, 64), (64, 96)] * 4):
        noise = np.random.default_rng(i).integers(0, 255, (*size[::-1], 3), "uint8")
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    return tmp_path


@pytest.mark.slow
def test_it_compares_all_ways(folder):
    command = [sys.executable, SCRIPT, folder, "--tiny", "--size", "48x96", "64x64"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall(r"^\d+x\d+, batches of 2, \d+ images", done.stdout, re.M) == [
        "48x96, batches of 2, 8 images",
        "64x64, batches of 2, 8 images",
    ]
    rates = re.findall(r"^ours, (.*?)  +([\d.]+) +([\d.]+)$", done.stdout, re.M)
    assert [name for name, *_ in rates] == 2 * [
        "tf.data",
        "PyDataset",
        "tf.data, cached",
        "PyDataset, cached",
    ]
    assert all(float(rate) > 0 for _, *both in rates for rate in both)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf", "py"])
def test_memory_is_flat_over_20_epochs(benchmark, kind):
    policy = data.InputPolicy(320, 320)
    made = data.training_batches(data.shapes(64), policy, 8, epochs=20, kind=kind)
    memory = []
    for step, _ in enumerate(made, 1):
        if step % made.source.steps_per_epoch == 0:
            memory.append(benchmark.resident())
    assert len(memory) == 20
    # An epoch's images are 64 * 320 * 320 * 3 bytes, 19 MiB: one that is kept would show.
    assert max(memory[5:]) - memory[4] < 15 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf", "py"])
def test_a_step_waits_no_longer_behind_the_border_of_epochs(kind):
    """Steps take longer than batches, so that a batch is there whenever one is asked for."""
    made = data.training_batches(data.shapes(16), data.InputPolicy(160, 160), 4, 0.5, kind=kind)
    steps, waits = made.source.steps_per_epoch, []
    start = time.perf_counter()
    for step, _ in enumerate(made):
        waits.append(time.perf_counter() - start)
        if step == 12 * steps:
            break
        time.sleep(0.15)
        start = time.perf_counter()
    borders = waits[2 * steps :: steps]
    within = [wait for i, wait in enumerate(waits) if i > steps and i % steps]
    # Medians: on a busy machine a single wait says little.
    assert np.median(borders) < np.median(within) + 0.05
