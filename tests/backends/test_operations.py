"""Every single operation gives the same numbers on TensorFlow, JAX and PyTorch."""

import keras
import numpy as np
import pytest
from processes import need, run_on

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow compares"),
]
LIMIT = 1e-5
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
def test_equals_tensorflow(other, results, capsys):
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
    worst = max(differences, key=differences.get)
    with capsys.disabled():
        print(
            f"\n{other:6} largest of {len(differences)}: {differences[worst]:.1e} {worst}", end=" "
        )
    assert differences[worst] < LIMIT
