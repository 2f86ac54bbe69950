import numpy as np
import pytest
from keras import ops

from libra_keras.functional.ranking import top_k


@pytest.mark.portable
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_equal_entries_come_by_index(rng, dtype):
    x = rng.integers(0, 5, (3, 200)).astype(dtype)  # 40 of each value
    values, indices = (ops.convert_to_numpy(part) for part in top_k(ops.convert_to_tensor(x), 70))
    expected = np.argsort(-x, axis=1, kind="stable")[:, :70]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(x, expected, 1))
    assert values.dtype == dtype and indices.dtype == "int32"


@pytest.mark.portable
def test_nothing_is_last_and_zero_are_enough():
    values, indices = top_k(ops.convert_to_tensor([[-np.inf, 2.0, -np.inf]]), 3)
    assert ops.convert_to_numpy(indices).tolist() == [[1, 0, 2]]
    assert ops.convert_to_numpy(values).tolist() == [[2.0, -np.inf, -np.inf]]
    assert tuple(top_k(ops.ones((2, 3)), 0)[1].shape) == (2, 0)
