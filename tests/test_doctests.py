"""Every example in a docstring runs and prints what it says; every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import libra_keras

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(libra_keras.__path__, "libra_keras.")
    if not module.name.endswith("__main__")  # runs the command
)
DETECTORS = "libra_keras.models."  # whose examples build some, for half a minute in all
# Names whose example is text, each with the reason.
NOT_RUN = {
    "libra_keras.convert.convert": "it needs a checkpoint; tests/convert does it",
    "libra_keras.export.export_saved_model": "writing takes half a minute; tests/export does it",
    "libra_keras.export.export_onnx": "it needs another package; tests/export does it",
    "libra_keras.export.export_openvino": "it needs other packages; tests/export does it",
    "libra_keras.runs.Run": "it needs a run; tests/runs/test_training.py does it",
    "libra_keras.runs.open": "it needs a run; tests/runs/test_training.py does it",
    "libra_keras.runs.train": "it takes minutes; tests/runs/test_training.py does it",
    "libra_keras.data.from_supervision": "it needs a package; tests/data has it",
    "libra_keras.data.to_supervision": "it needs a package; tests/data has it",
    "libra_keras.data.detections_from_supervision": "it needs a package; tests/data has it",
    "libra_keras.data.dialects.from_dataset": "it needs TensorFlow; tests/data has it",
    "libra_keras.export.export_litert": "writing takes half a minute; tests/export does it",
}


def public_names(path):
    """Yields the paths of the functions and classes that a package offers, also by modules."""
    package = importlib.import_module(path)
    for name in package.__all__:
        public = getattr(package, name)
        if not inspect.ismodule(public):
            yield f"{path}.{name}"
            continue
        for member, value in vars(public).items():
            is_own = getattr(value, "__module__", None) == public.__name__
            if is_own and callable(value) and not member.startswith("_"):
                yield f"{path}.{name}.{member}"


PUBLIC = sorted(
    path for name in libra_keras.__all__ for path in public_names(f"libra_keras.{name}")
)


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions too."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(DETECTORS)) for n in MODULES],
)
def test_examples_of_module(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    lines = []
    for test in Finder().find(module, name):
        runner.run(test, out=lines.append)
    assert runner.failures == 0, "".join(lines)


@pytest.mark.parametrize("path", PUBLIC)
def test_public_name_has_docstring_with_example(path):
    owner, _, name = path.rpartition(".")
    public = getattr(importlib.import_module(owner), name)
    if not callable(public):  # a tuple of names, say
        return
    text = public.__doc__ or ""  # not getdoc: that of a parent class does not count
    assert text, f"{path} has no docstring"
    assert (">>>" in text) != (path in NOT_RUN), f"{path} has no example that runs"
    assert path not in NOT_RUN or "```python" in text, f"{path} has no example"


def test_public_names_are_found_inside_modules():
    assert "libra_keras.functional.boxes.iou" in PUBLIC
    assert "libra_keras.layers.NonLocalBlock" in PUBLIC
    assert set(PUBLIC) >= set(NOT_RUN)
