"""`import libra_keras` is cheap, and asks for no optional package."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import need

import libra_keras

PROBE = """
import json, sys, time
import keras
before = set(sys.modules)
start = time.process_time()  # of a busy machine the clock would tell nothing
import libra_keras
seconds = time.process_time() - start
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


# Importing a part of the package alone, each in a process that has no other part. Keras is loaded
# beforehand, which takes the most time, and then forgotten, so that the part itself imports it.
REGISTERED = """
import json, os, sys
import keras

def registered(statement):
    receiver, sender = os.pipe()
    if not os.fork():
        exec(statement, {})
        names = []
        if "keras" in sys.modules:
            names = [n for n in keras.saving.get_custom_objects() if n.startswith("libra_keras>")]
        os.write(sender, json.dumps(sorted(names)).encode())
        os._exit(0)
    os.close(sender)
    with open(receiver) as file:
        return json.loads(file.read() or "null")

every = {"keras, libra_keras": registered("import keras, libra_keras")}
del sys.modules["keras"]
for name in sys.argv[1:]:
    every[name] = registered(f"import libra_keras.{name}")
print(json.dumps(every))
"""
# Whoever imports one of these and nothing else has no Keras to load a file with.
WITHOUT_KERAS = {"export", "files", "runs"}


def in_new_process(code, *arguments, **environment):
    command, environment = [sys.executable, "-c", code, *arguments], {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_import_is_fast():
    report = in_new_process(PROBE)
    assert report["seconds"] < 0.5
    assert "tensorflow_datasets" not in report["added"]
    assert "matplotlib" not in report["added"]


@pytest.mark.slow
def test_all_subpackages_import_without_optional_packages():
    assert in_new_process(IMPORT_ALL) == []


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.slow)])
def test_other_backends_import_no_tensorflow(backend):
    need(backend)
    assert in_new_process(IMPORT_ALL, KERAS_BACKEND=backend) == []


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        libra_keras.nothing  # noqa: B018


def decorated_classes():
    """Names under which the classes of this package are registered, by their source."""
    for file in Path(libra_keras.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ClassDef):
                continue
            for call in node.decorator_list:
                if "register_keras_serializable" in ast.unparse(call):
                    given = {keyword.arg: keyword.value.value for keyword in call.keywords}
                    yield f"{given['package']}>{given.get('name', node.name)}"


@pytest.mark.slow
def test_every_part_registers_all_that_a_file_can_name():
    # The backend that imports fastest: what is registered does not depend on it.
    found = in_new_process(REGISTERED, *libra_keras.__all__, KERAS_BACKEND="tensorflow")
    every = set(found["keras, libra_keras"])
    assert set(decorated_classes()) <= every and len(set(decorated_classes())) > 30
    for name in libra_keras.__all__:
        assert found[name] == ([] if name in WITHOUT_KERAS else sorted(every)), name
