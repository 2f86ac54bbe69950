"""Fixtures that many tests share; the one place that knows where reference data lies."""

import collections
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from eager import without_graphs
from voc_folder import truncate, write_voc

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path(os.environ.get("LIBRA_KERAS_REFERENCE", ROOT.parent / "shared" / "reference"))
DATA = Path(os.environ.get("LIBRA_KERAS_DATA", ROOT.parent / "shared" / "data"))
# Files of one or two tests that take minutes: begun last, one process would wait for the other.
FIRST = {
    *("test_serving_speed.py", "test_interruptions.py", "test_devices.py", "test_cluster.py"),
    *("test_gpu_speed.py", "test_mirrored.py", "test_hostile_load.py", "test_overfit.py"),
}


def pytest_collection_modifyitems(items):
    """Puts the files that take longest before the others."""
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session")
def reference():
    """Returns a function that loads a file of mmdetection's outputs, or skips with the reason."""

    def load(name):
        path = REFERENCE / name
        if not path.exists():
            pytest.skip(f"reference data not found: {path} (set LIBRA_KERAS_REFERENCE)")
        return dict(np.load(path))

    return load


@pytest.fixture(scope="session")
def photographs():
    """Returns a function that gives a folder of real photographs, or skips with the reason."""

    def folder(name):
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"photographs not found: {path} (set LIBRA_KERAS_DATA)")
        return path

    return folder


@pytest.fixture(scope="session")
def damaged_voc(tmp_path_factory):
    """Four images to train on and two to measure on; one of each is cut in half."""
    boxes = [(5, 5, 60, 40)], [(30, 10, 90, 60)]
    folder = tmp_path_factory.mktemp("data") / "voc"
    write_voc(folder, size=(96, 64), suffix="jpg", train=[*boxes, [], boxes[0]], val=boxes)
    truncate(folder, 1, 5)
    return folder


@pytest.fixture(scope="session")
def run_folder(damaged_voc, tmp_path_factory):
    """A run of four steps that all tests of the command and of the export share."""
    from libra_keras.cli import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    sizes = "--batch 2 --epochs 2 --short-side 64 --long-side 96 --eval-every 0".split()
    with without_graphs():
        assert main(["train", str(damaged_voc), *sizes, "--to", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def served_model(run_folder):
    """The detector of that run: it finds something in any image."""
    from libra_keras import runs

    return runs.open(run_folder).model


@pytest.fixture(scope="session")
def served_folder(served_model, tmp_path_factory):
    """Its export: a folder with the version 1."""
    from libra_keras.export import export_saved_model

    folder = tmp_path_factory.mktemp("served") / "detector"
    export_saved_model(served_model, folder)
    return folder


@pytest.fixture
def roomy_disk(monkeypatch):
    """Says that the disk has room, however full it is: an `ImageCache` leaves 2 GiB alone."""
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free=2**40))


@pytest.fixture
def eagerly():
    """`without_graphs` around a test of what surrounds the steps, not of the steps."""
    with without_graphs():
        yield


@pytest.fixture
def rng():
    """A NumPy generator of a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def record_error(record_property):
    """Returns a function that checks an error and notes it for the table at the end of the run."""
    import keras

    def record(component, error, limit):
        # Plain values: with pytest-xdist they are sent to another process.
        record_property("parity", [component, keras.backend.backend(), float(error), float(limit)])
        assert error <= limit, f"{component}: {error}"

    return record


def random_boxes(rng, *shape, height=100.0, width=150.0, smallest=2.0):
    """Valid boxes `(*shape, 4)` inside an image: every side is at least `smallest` pixels."""
    corner = rng.uniform(0, 1, (*shape, 2)) * (width - smallest, height - smallest)
    side = smallest + rng.uniform(0, 1, (*shape, 2)) * ((width, height) - corner - smallest)
    return np.concatenate([corner, corner + side], -1).astype("float32")


def pytest_terminal_summary(terminalreporter):
    """Shows how far the backends were apart, and how far our numbers from the reference's."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    noted = [pair for r in reports for pair in r.user_properties]
    lines = sorted({value for name, value in noted if name == "difference"})
    show(terminalreporter, "largest differences from TensorFlow", lines)
    largest = {}
    for component, backend, error, limit in (value for name, value in noted if name == "parity"):
        key = f"{backend:10} {component:60} limit {limit:7.0e}"
        # A NaN is larger than anything.
        largest[key] = max(largest.get(key, 0.0), error if error == error else float("inf"))
    lines = [f"{key}   largest error {error:.1e}" for key, error in sorted(largest.items())]
    show(terminalreporter, "largest errors against mmdetection", lines)


def show(terminalreporter, title, lines):
    if lines:
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
