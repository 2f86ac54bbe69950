"""Every single operation gives the same numbers on TensorFlow, JAX and PyTorch."""

import keras
import numpy as np
import pytest
from processes import need, run_on

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow compares"),
]
LIMITS = {
    "box_operations/": 1e-5,
    "features/": 1e-5,
    "loss_values/": 1e-5,
    "layer_values/": 1e-4,  # gradients of weights among them, sums of thousands of terms
}
# The softmax of attention ignores what all keys have in common: this gradient is 0 up to rounding.
WITHOUT_EFFECT = "phi/bias"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Returns a function that gives the results of a backend, each computed once."""
    folder, done = tmp_path_factory.mktemp("operations"), {}

    def of(backend):
        if backend not in done:
            path = folder / f"{backend}.npz"
            run_on(backend, "backends/operations.py", path)
            done[backend] = dict(np.load(path))
        return done[backend]

    return of


@pytest.mark.parametrize("other", ["jax", "torch"])
def test_equals_tensorflow(other, results, record_property):
    need(other)
    expected, found = results("tensorflow"), results(other)
    assert expected.keys() == found.keys() and len(expected) > 100
    differences = {}
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        if array.dtype.kind in "ib" or name.startswith("choices/"):
            np.testing.assert_array_equal(found[name], array, err_msg=name)
        elif WITHOUT_EFFECT not in name:
            apart = np.linalg.norm((found[name] - array).astype("float64"))
            differences[name] = apart / np.linalg.norm(array.astype("float64"))
    for part, limit in LIMITS.items():
        own = {name: value for name, value in differences.items() if name.startswith(part)}
        worst = max(own, key=own.get)
        row = f"{part:18} {other:6} {own[worst]:.1e} {worst.removeprefix(part)}"
        record_property("difference", row)
        assert own[worst] < limit, row
