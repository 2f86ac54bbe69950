"""What the tests of served detectors share: exported folders, the stand-in server, comparing."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parents[1]
RECIPES = TESTS.parent / "recipes"


def need_serving():
    """Skips the test if the package is not installed; .ci/run looks for the words."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        pytest.skip("tensorflow-serving-api is not installed")


def recipe(path):
    """Imports a file of `recipes` as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, RECIPES / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_program(*command):
    """Runs Python in a process of its own; returns what it printed, or fails with its words."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@contextlib.contextmanager
def prediction_server(folder, *options):
    """Runs `export/prediction_server.py`; gives its address and its process."""
    command = [sys.executable, TESTS / "export" / "prediction_server.py", folder, *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        port = process.stdout.readline().strip()
        assert port, "the server ended before it listened"
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def in_order(scores, boxes, expected_scores, expected_boxes, digits):
    """Positions of what was found in the order in which it is expected: runtimes round in other
    places, so that scores that are equal but for that may change places."""
    free, order = list(range(len(scores))), []
    for score, box in zip(expected_scores, expected_boxes, strict=True):
        near = [i for i in free if abs(scores[i] - score) <= 10.0**-digits] or free
        order.append(min(near, key=lambda i: np.abs(boxes[i] - box).max()))
        free.remove(order[-1])
    return order


def check_same(served, expected, row=None):
    """Compares the outputs of a signature for one image with what `model.detect` gives.

    Args:
        served: dict of the outputs, by the signature's names.
        expected: dict of `model.detect` with `score_threshold=0`.
        row: int, the image's row of `served`; None if it has no batch axis.
    """
    served = {
        key: np.asarray(value if row is None else value[row]) for key, value in served.items()
    }
    count = int(served["num_detections"])
    assert (int(served["status"]), count) == (0, len(expected["boxes"]))
    assert count > 0, "a comparison of nothing"
    scores, boxes = (served[f"detection_{name}"][:count] for name in ("scores", "boxes"))
    order = in_order(scores, boxes, expected["scores"], expected["boxes"], digits=6)
    np.testing.assert_array_equal(served["detection_classes"][order], expected["labels"])
    names = [getattr(n, "decode", lambda n=n: n)() for n in served["detection_class_names"]]
    assert [names[i] for i in order] == expected["names"] and not any(names[count:])
    np.testing.assert_allclose(boxes[order], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(scores[order], expected["scores"], atol=1e-4)
