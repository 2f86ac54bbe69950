"""The order of a run."""

import numpy as np
import pytest

from libra_keras.data import BatchPlan

PORTRAIT = [False] * 7 + [True] * 5


def test_a_batch_has_one_orientation_and_an_epoch_no_repeats():
    plan = BatchPlan(PORTRAIT, 2, seed=3)
    assert plan.steps_per_epoch == 3 + 2
    for epoch in range(5):
        batches = plan.batches(epoch)
        assert batches.shape == plan.flips(epoch).shape == (5, 2)
        assert len(set(batches.ravel())) == 10
        orientation = plan.is_portrait[batches]
        assert (orientation[:, 0] == orientation[:, 1]).all()


def test_pure_function_of_seed_and_epoch():
    first, second = BatchPlan(PORTRAIT, 2, seed=3), BatchPlan(PORTRAIT, 2, seed=3)
    second.batches(0)
    np.testing.assert_array_equal(first.batches(9), second.batches(9))
    np.testing.assert_array_equal(first.flips(9), second.flips(9))
    assert (first.batches(1) != first.batches(2)).any()
    assert (first.batches(1) != BatchPlan(PORTRAIT, 2, seed=4).batches(1)).any()


def test_orientations_are_mixed_and_remainders_change():
    plan = BatchPlan([False] * 21 + [True] * 21, 4)
    kinds = [plan.is_portrait[plan.batches(epoch)[:, 0]].tolist() for epoch in range(6)]
    assert len({tuple(kind) for kind in kinds}) == 6
    used = {i for epoch in range(30) for i in plan.batches(epoch).ravel().tolist()}
    assert used == set(range(42))


def test_share_of_flips():
    for flip in (0.0, 0.3, 1.0):
        plan = BatchPlan([False] * 1000, 10, flip=flip)
        assert abs(plan.flips(0).mean() - flip) < 0.05


def test_an_orientation_that_fills_no_batch():
    with pytest.warns(UserWarning, match="the 1 portrait"):
        assert BatchPlan([False] * 4 + [True], 4).steps_per_epoch == 1
    with pytest.raises(ValueError, match="3 landscape and 0 portrait"):
        BatchPlan([False] * 3, 4)
    for wrong in ({"batch_size": 0}, {"batch_size": 1, "flip": 1.5}):
        with pytest.raises(ValueError, match="at least 1 and `flip` in 0..1. Received"):
            BatchPlan([False] * 3, **wrong)
