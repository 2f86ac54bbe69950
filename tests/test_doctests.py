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
PUBLIC = sorted(
    (name, public)
    for name in libra_keras.__all__
    for public in importlib.import_module(f"libra_keras.{name}").__all__
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    lines = []
    for test in doctest.DocTestFinder().find(module, name):
        runner.run(test, out=lines.append)
    assert runner.failures == 0, "".join(lines)


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_public_name_has_docstring_with_example(package, name):
    public = getattr(importlib.import_module(f"libra_keras.{package}"), name)
    if not callable(public):  # a tuple of names, say
        return
    text = inspect.getdoc(public) or ""
    assert text, f"libra_keras.{package}.{name} has no docstring"
    assert ">>>" in text or "```python" in text, f"libra_keras.{package}.{name} has no example"
