"""The packages that these tests are about, and the recipes that use them."""

import importlib
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "integrations"


@pytest.fixture
def keras_cv():
    return pytest.importorskip("keras_cv", reason="keras-cv is not installed")


@pytest.fixture
def keras_hub():
    return pytest.importorskip("keras_hub", reason="keras-hub is not installed")


@pytest.fixture
def recipe(monkeypatch):
    """Returns a function that imports a recipe, or skips where its package is missing."""
    monkeypatch.syspath_prepend(RECIPES)

    def load(name):
        for prefix, package in (("kerascv", "keras_cv"), ("kerashub", "keras_hub")):
            if name.startswith(prefix):
                pytest.importorskip(package, reason=f"{package.replace('_', '-')} is not installed")
        return importlib.import_module(name)

    return load
