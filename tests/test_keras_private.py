"""What Keras calls private: that it is where `keras_private` looks, and that nobody else looks."""

import ast
import inspect
import re
from pathlib import Path

import keras
import pytest

import libra_keras
from libra_keras import keras_private

PACKAGE = Path(libra_keras.__file__).parent
FUNCTIONS = [f for _, f in inspect.getmembers(keras_private, inspect.isfunction)]


@pytest.fixture(scope="module")
def places():
    """Objects of Keras by what `keras_private` calls them, with all that a training makes."""
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(1)(inputs)
    model = keras.Model(inputs, outputs)
    options = {"use_ema": True, "gradient_accumulation_steps": 2}
    model.compile(keras.optimizers.AdamW(0.01, **options), "mse")
    model.optimizer.build(model.trainable_variables)
    found = {"model": model, "layer": model.layers[-1], "optimizer": model.optimizer}
    return {**found, "tensor": outputs, "operation": model.layers[-1]}


def names_of(function):
    """Pairs of an object and a private name that a function asks of it."""
    found = re.findall(r"\b(\w+)(?:\.|, \")(_[a-z]\w*)", inspect.getsource(function))
    return [(where, name) for where, name in found]


@pytest.mark.parametrize(
    ("where", "name"), sorted({pair for function in FUNCTIONS for pair in names_of(function)})
)
def test_keras_has(places, where, name):
    if name.startswith("_jax"):
        pytest.skip("only on JAX, while `fit` runs: tests/training/test_callbacks.py looks there")
    assert hasattr(places[where], name), f"Keras {keras.__version__} has moved {name} of a {where}"


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in keras_private.OVERRIDDEN.items() for name in names],
)
def test_keras_calls(owner, name):
    assert callable(getattr(owner, name, None)), f"Keras {keras.__version__} has moved {name}"


def test_values(places):
    model, optimizer, layer = (places[name] for name in ("model", "optimizer", "layer"))
    assert keras_private.layers_in(model)[0] is model
    assert layer in keras_private.layers_in(model, include_self=False)
    assert keras_private.own_variables(layer) == [layer.kernel, layer.bias]
    assert keras_private.call_that_made(places["tensor"]).operation is layer
    assert not keras_private.has_compiled_metrics(model)
    assert int(keras_private.batches_of(optimizer)) == 0
    assert keras_private.trained_by(optimizer) == [layer.kernel, layer.bias]
    assert keras_private.place_of(optimizer, layer.bias) == 1
    for of_all in (keras_private.averages_of(optimizer), keras_private.gradient_sums(optimizer)):
        assert [tuple(each.shape) for each in of_all] == [(2, 1), (1,)]
    assert [tuple(m.shape) for m in keras_private.adam_moments(optimizer, 0)] == [(2, 1)] * 2


def test_nobody_else_looks():
    """Every private name of Keras in the package is in `keras_private`, or overridden."""
    listed = {name for function in FUNCTIONS for _, name in names_of(function)}
    listed |= {name for names in keras_private.OVERRIDDEN.values() for name in names}
    others = [file for file in PACKAGE.rglob("*.py") if file.name != "keras_private.py"]
    for file in others:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in listed:
                assert ast.unparse(node.value) == "super()", f"{file}:{node.lineno}: {node.attr}"
            if isinstance(node, ast.Constant):  # of `getattr`
                assert node.value not in listed, f"{file}:{node.lineno}: {node.value}"
            if isinstance(node, ast.ImportFrom):
                assert not f"{node.module}.".startswith("keras.src."), f"{file}:{node.lineno}"
