"""Counts are exact, draws are uniform, and numbers agree with those of mmdetection."""

import keras
import numpy as np
import pytest
from draws import (
    DRAWS,
    keys_of,
    masks,
    repeated,
    same_frequencies,
    standard_errors,
    uniform_error,
)
from keras import ops

from libra_keras.functional.sampling import (
    choose_instance_balanced,
    choose_iou_balanced,
    choose_random,
)


class TestRandom:
    @pytest.mark.portable
    def test_smallest_keys_in_the_order_of_keys_then_of_indices(self):
        keys = [[0.5, 0.25, 0.5, 0.0, 0.25, 0.75]]
        indices, chosen = choose_random(keys, ops.ones((1, 6), "bool"), 5)
        assert ops.convert_to_numpy(indices).tolist() == [[3, 1, 4, 0, 2]]
        assert ops.convert_to_numpy(chosen).all()

    @pytest.mark.portable
    def test_counts_of_each_image(self):
        # Candidates 10, 3, 0 of 10; wanted 4 of each, then 2, 8, 8.
        candidates = np.arange(10) < np.array([[10], [3], [0]])
        mask = masks(choose_random(keys_of(3, 10), candidates, 4), 10)
        assert mask.sum(1).tolist() == [4, 3, 0]
        assert not (mask & ~candidates).any()
        mask = masks(choose_random(keys_of(3, 10), candidates, 8, np.array([2, 8, 8])), 10)
        assert mask.sum(1).tolist() == [2, 3, 0]
        mask = masks(choose_random(keys_of(3, 10), candidates, 8, 2), 10)
        assert mask.sum(1).tolist() == [2, 2, 0]

    def test_fewer_boxes_than_wanted(self):
        mask = masks(choose_random(keys_of(2, 3), np.ones((2, 3), bool), 7), 3)
        assert mask.all()

    def test_no_boxes_and_no_images(self):
        indices, chosen = choose_random(ops.zeros((2, 0)), np.ones((2, 0), bool), 4)
        assert indices.shape == (2, 4) and not ops.convert_to_numpy(chosen).any()
        indices, _ = choose_random(ops.zeros((0, 6)), np.ones((0, 6), bool), 4)
        assert indices.shape == (0, 4)

    def test_uniform(self):
        images = 3000
        mask = masks(choose_random(keys_of(images, 30), np.ones((images, 30), bool), 6), 30)
        assert mask.sum() == 6 * images
        assert uniform_error(mask) < 4

    def test_num_of_zero(self):
        with pytest.raises(ValueError, match="num=0"):
            choose_random(keys_of(1, 3), np.ones((1, 3), bool), 0)


def instance_balanced(owners, num, images=DRAWS):
    """Chooses among boxes of which the i-th object owns `owners[i]`; counts per object too."""
    matched = np.concatenate([np.repeat(np.arange(len(owners)), owners), [0, 1, 2]])
    is_positive = np.arange(len(matched)) < sum(owners)
    shuffled = np.random.default_rng(0).permutation(len(matched))
    matched, is_positive = matched[shuffled], is_positive[shuffled]
    keys = keys_of(images, len(matched))
    result = choose_instance_balanced(
        keys, repeated(is_positive, images), repeated(matched, images), num
    )
    mask = masks(result, len(matched))
    assert not mask[:, ~is_positive].any()
    per_owner = [mask[:, is_positive & (matched == i)].sum(1) for i in range(len(owners))]
    return mask[:, is_positive], np.stack(per_owner, 1)


class TestInstanceBalanced:
    def test_trimmed(self):
        # Quota round(128 / 3) + 1 = 44 each; 132 in all, of which 4 at random are dropped.
        mask, per_owner = instance_balanced([100, 100, 100], 128)
        assert np.all(mask.sum(1) == 128)
        assert per_owner.max() == 44 and per_owner.min() >= 40
        assert abs(per_owner[:, 0].mean() - 128 / 3) < 4 * per_owner[:, 0].std() / np.sqrt(DRAWS)

    @pytest.mark.portable
    def test_filled_up(self):
        # Quota 65, so 65 + 1; mmdetection's refill repeats boxes and ends with about 108.
        mask, per_owner = instance_balanced([200, 1], 128)
        assert np.all(per_owner == [127, 1])
        assert uniform_error(mask[:, ~mask.all(0)]) < 4  # all but the lone box, always there

    def test_quota_rounds_half_to_even(self):
        # 5 / 2 = 2.5 -> 2, so 3 each, 6 trimmed to 5; 3 / 2 = 1.5 -> 2, so 3 and 1 of 3 + 3.
        _, per_owner = instance_balanced([20, 20], 5)
        assert per_owner.max() == 3 and np.all(per_owner.sum(1) == 5)
        _, per_owner = instance_balanced([20, 20], 3)
        assert per_owner.max() == 3 and per_owner.min() == 0
        # 1 / 2 = 0.5 -> 0, so 1 each.
        _, per_owner = instance_balanced([20, 20], 1)
        assert np.all(per_owner.sum(1) == 1)

    def test_more_objects_than_wanted(self):
        mask, per_owner = instance_balanced([7] * 40, 10)
        assert np.all(mask.sum(1) == 10) and per_owner.max() == 1  # round(0.25) + 1

    def test_owners_without_a_positive_do_not_count(self):
        # Objects 0 and 2 own nothing: quota round(10 / 2) + 1 = 6, not round(10 / 4) + 1.
        _, per_owner = instance_balanced([0, 30, 0, 30], 10)
        assert per_owner[:, 1::2].max() == 6 and np.all(per_owner.sum(1) == 10)

    def test_fewer_than_wanted_gives_all(self):
        mask, _ = instance_balanced([3, 9, 1], 20)
        assert mask.all()

    def test_uniform_within_an_object(self):
        mask, _ = instance_balanced([30], 10, images=3000)
        assert uniform_error(mask) < 4

    @pytest.mark.portable
    def test_counts_of_each_image(self):
        matched = np.tile(np.arange(40) % 3, (4, 1))
        candidates = np.arange(40) < np.array([[40], [40], [5], [0]])
        result = choose_instance_balanced(
            keys_of(4, 40), candidates, matched, 12, np.array([12, 4, 12, 12])
        )
        assert masks(result, 40).sum(1).tolist() == [12, 4, 5, 0]

    @pytest.mark.portable
    def test_no_boxes(self):
        nothing = np.zeros((2, 0), "int32")
        result = choose_instance_balanced(nothing.astype("float32"), nothing > 0, nothing, 4)
        assert masks(result, 0).shape == (2, 0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's")
def test_graphs_of_unknown_shape_give_the_same():
    import tensorflow as tf

    rows = tf.TensorSpec((None, None), "float32")

    @tf.function(input_signature=[rows, rows])
    def graph(keys, iou):
        negative = iou < 0.5
        owners = ops.cast(iou * 5, "int32")
        return (
            choose_random(keys, negative, 8),
            choose_iou_balanced(keys, negative, iou, 8, floor_fraction=0.3),
            choose_instance_balanced(keys, negative, owners, 8),
        )

    for size in (3, 50):
        keys = keys_of(2, size)
        iou = tf.constant(np.random.default_rng(0).beta(0.4, 2, (2, size)), "float32")
        for ours, theirs in zip(
            tf.nest.flatten(graph(keys, iou)),
            tf.nest.flatten(graph.python_function(keys, iou)),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["skew", "even8", "one", "short", "just", "many", "few"])
def test_instance_balanced_draws_as_mmdetection(reference, record_error, name):
    data = reference("instance_pos_sampler.npz")
    owners = data[f"gt_inds/{name}"]
    keys = keys_of(DRAWS, len(owners))
    for num in (64, 128):
        result = choose_instance_balanced(
            keys, repeated(owners > 0), repeated(owners.astype("int32") - 1), num
        )
        mask = masks(result, len(owners))
        assert np.all(mask.sum(1) == min(num, np.sum(owners > 0)))
        per_owner = np.stack([mask[:, owners == i + 1].sum(1) for i in range(owners.max())], 1)
        theirs = data[f"pergt/{name}|num{num}"]
        if data[f"count/{name}|num{num}"][0] == mask.sum(1)[0]:
            assert same_frequencies(mask, data[f"freq/{name}|num{num}"])
            for counts, expected in zip(per_owner.T, theirs, strict=True):
                error = standard_errors(counts, expected, rounding=1e-3)
                record_error("instance-balanced sampling: objects, standard errors", error, 4)
        else:  # mmdetection's refill repeats boxes and falls short: a defect, not reproduced
            total = np.bincount(owners)[1:]
            assert np.all(per_owner.mean(0) >= theirs - 1e-3)
            all_taken = theirs == total
            assert np.all(per_owner[:, all_taken] == total[all_taken])
