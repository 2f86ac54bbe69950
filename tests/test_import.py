"""`import libra_keras` is cheap, and asks for no optional package."""

import json
import os
import subprocess
import sys

import pytest
from processes import need

PROBE = """
import json, sys, time
import keras
before = set(sys.modules)
start = time.perf_counter()
import libra_keras
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "added": sorted(set(sys.modules) - before)}))
"""
IMPORT_ALL = """
import importlib, json, sys
import keras  # imports matplotlib by itself where there is one
before = set(sys.modules)
import libra_keras
for name in libra_keras.__all__:
    importlib.import_module(f"libra_keras.{name}")
from libra_keras.cli import parser
parser()
optional = ["tensorflow_datasets", "keras_cv", "keras_hub", "matplotlib"]
if keras.backend.backend() != "tensorflow":
    optional.append("tensorflow")
print(json.dumps([name for name in optional if name in set(sys.modules) - before]))
"""


def in_new_process(code, **environment):
    command, environment = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_import_is_fast():
    report = in_new_process(PROBE)
    assert report["seconds"] < 0.5
    assert "tensorflow_datasets" not in report["added"]
    assert "matplotlib" not in report["added"]


def test_all_subpackages_import_without_optional_packages():
    assert in_new_process(IMPORT_ALL) == []


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.slow)])
def test_other_backends_import_no_tensorflow(backend):
    need(backend)
    assert in_new_process(IMPORT_ALL, KERAS_BACKEND=backend) == []


def test_unknown_attribute_is_an_attribute_error():
    import libra_keras

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        libra_keras.nothing  # noqa: B018
