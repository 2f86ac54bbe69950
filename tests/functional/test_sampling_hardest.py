import keras
import numpy as np
import pytest
from draws import keys_of, masks
from keras import ops

from libra_keras.functional.sampling import choose_hardest, hardest_first

pytestmark = pytest.mark.portable


def chosen_by(losses, candidates, num, count=None, keys=None):
    losses = np.asarray(losses, "float32")
    keys = keys_of(*losses.shape) if keys is None else ops.convert_to_tensor(keys)
    tensors = (ops.convert_to_tensor(x) for x in (losses, np.asarray(candidates)))
    return choose_hardest(keys, *tensors, num, count)


def test_by_hand():
    losses = [[0.5, 2.0, 9.0, 1.0, 0.1], [3.0, 1.0, 2.0, 5.0, 4.0]]
    candidates = [[True, True, False, True, True], [True] * 5]
    indices, chosen = chosen_by(losses, candidates, num=3, count=ops.convert_to_tensor([2, 3]))
    assert ops.convert_to_numpy(indices).tolist() == [[1, 3, 0], [3, 4, 0]]  # hardest first
    assert ops.convert_to_numpy(chosen).tolist() == [[True, True, False], [True, True, True]]


def test_keys_decide_between_equal_losses():
    keys = np.array([[0.9, 0.2, 0.5, 0.1]], "float32")
    indices, _ = chosen_by([[1, 1, 1, 0]], [[True] * 4], num=3, keys=keys)
    assert ops.convert_to_numpy(indices)[0].tolist() == [1, 2, 0]


def test_equal_losses_are_drawn_evenly():
    mask = masks(chosen_by(np.ones((400, 8)), np.ones((400, 8), bool), num=2), 8)
    # A binomial of 400 draws with p = 2 / 8: standard deviation 8.7.
    assert np.all(np.abs(mask.sum(0) - 100) < 40)


def test_against_a_sort(rng):
    losses = rng.normal(size=(4, 300)).astype("float32") ** 2
    candidates = rng.uniform(size=(4, 300)) < [[0.5], [0.1], [0.01], [0.0]]
    mask = masks(chosen_by(losses, candidates, num=40), 300)
    for row in range(4):
        best = sorted(np.flatnonzero(candidates[row]), key=lambda i: -losses[row, i])[:40]
        assert set(np.flatnonzero(mask[row])) == set(best)


def test_hardest_first_ranks(rng):
    losses = rng.integers(0, 9, (3, 50)).astype("float32")
    keys = keys_of(3, 50)
    ranks = ops.convert_to_numpy(hardest_first(keys, ops.convert_to_tensor(losses))) * 2**24
    for loss, key, rank in zip(losses, ops.convert_to_numpy(keys), ranks, strict=True):
        order = np.lexsort((key, -loss))
        assert rank[order].tolist() == list(range(50))


def test_losses_that_are_not_finite():
    losses = [[np.nan, 1.0, np.inf, -np.inf, 2.0]]
    indices, chosen = chosen_by(losses, [[True] * 5], num=5)
    indices = ops.convert_to_numpy(indices)[0].tolist()
    assert set(indices[:2]) == {0, 2} and indices[2:] == [4, 1, 3]
    assert ops.convert_to_numpy(chosen).all()


def test_fewer_candidates_than_wanted():
    _, chosen = chosen_by(np.ones((2, 3)), [[True, False, True], [False] * 3], num=5)
    assert ops.convert_to_numpy(chosen).sum(1).tolist() == [2, 0]
    _, chosen = chosen_by(np.ones((2, 0)), np.ones((2, 0), bool), num=5)
    assert not ops.convert_to_numpy(chosen).any()


def test_half_precision_losses():
    losses = ops.convert_to_tensor([[1.0, 3.0, 2.0]], "bfloat16")
    indices, _ = choose_hardest(keys_of(1, 3), losses, ops.ones((1, 3), "bool"), 3)
    assert ops.convert_to_numpy(indices)[0].tolist() == [1, 2, 0]


@pytest.mark.slow
def test_unknown_shapes_in_a_graph(rng):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("unknown shapes are TensorFlow's")
    import tensorflow as tf

    kinds = ("float32", "float32", "bool")
    graph = tf.function(
        lambda *inputs: choose_hardest(*inputs, num=5),
        input_signature=[tf.TensorSpec((None, None), kind) for kind in kinds],
    )
    inputs = [keys_of(2, 9), rng.normal(size=(2, 9)).astype("float32"), np.ones((2, 9), bool)]
    for ours, theirs in zip(graph(*inputs), choose_hardest(*inputs, num=5), strict=True):
        np.testing.assert_array_equal(ours, theirs)
