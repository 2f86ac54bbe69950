"""The samplers as a model uses them: rows, order, limits, presets, serialisation."""

import inspect
import json

import keras
import numpy as np
import pytest
from draws import same_frequencies, standard_errors
from keras import ops

from libra_keras.functional.matching import Match
from libra_keras.functional.random_keys import random_keys
from libra_keras.models import GroundTruth
from libra_keras.models.proposals import Proposals
from libra_keras.models.targets import match_proposals
from libra_keras.samplers import (
    CombinedSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
    RandomSampler,
)

ALL = [
    RandomSampler(32, 0.25),
    IoUBalancedSampler(32, 0.25),
    InstanceBalancedSampler(32, 0.25),
    CombinedSampler.preset("mmdet", 32, 0.25),
]


def by_name(sampler):
    return type(sampler).__name__


def sample(sampler, max_iou, owners=None, ignored=False, seed=0):
    """Samples; positives are those of IoU >= 0.5. Returns the three results in NumPy."""
    max_iou = np.asarray(max_iou, "float32")
    owners = np.zeros(max_iou.shape, "int32") if owners is None else owners
    images, num = max_iou.shape
    keys = random_keys(seed, 0, ops.arange(images), num)
    counts = np.logical_not(ignored)
    positive, negative = (max_iou >= 0.5) & counts, (max_iou < 0.5) & counts
    found = Match(*map(ops.convert_to_tensor, (owners, max_iou, positive, negative)))
    result = tuple(ops.convert_to_numpy(part) for part in sampler(found, keys))
    check_rows(*result, positive, negative, sampler.num)
    return result


def check_rows(indices, is_positive, weights, positive, negative, num):
    """What every sampler promises of its rows."""
    assert indices.shape == is_positive.shape == weights.shape == (len(positive), num)
    assert (indices.dtype, is_positive.dtype, weights.dtype) == ("int32", bool, "float32")
    for row in range(len(indices)):
        ours, is_ours, weight = indices[row], is_positive[row], weights[row]
        rank = np.where(weight == 0, 2, np.where(is_ours, 0, 1))
        assert np.all(np.diff(rank) >= 0), "positives, negatives, padding"
        assert set(np.unique(weight)) <= {0.0, 1.0}
        real = ours[weight > 0]
        assert len(set(real.tolist())) == len(real), "no box twice"
        assert positive[row][ours[rank == 0]].all() and negative[row][ours[rank == 1]].all()
        assert not ours[rank == 2].any() and not is_ours[rank == 2].any()


def overlaps(rng, images, positives, negatives):
    """IoUs `(images, positives + negatives)`, shuffled within each image."""
    rows = [
        np.concatenate([rng.uniform(0.5, 1, (images, positives)),
                        rng.uniform(0, 0.49, (images, negatives))], 1)
    ]  # fmt: skip
    return rng.permuted(rows[0], axis=1).astype("float32")


@pytest.mark.parametrize("sampler", ALL, ids=by_name)
class TestEverySampler:
    @pytest.mark.portable
    def test_positives_up_to_their_share(self, sampler, rng):
        # int(32 * 0.25) = 8 positives, and 24 negatives.
        _, is_positive, weights = sample(sampler, overlaps(rng, 3, 20, 60))
        assert is_positive.sum(1).tolist() == [8, 8, 8] and weights.all()

    def test_negatives_stand_in_for_positives(self, sampler, rng):
        _, is_positive, weights = sample(sampler, overlaps(rng, 2, 3, 60))
        assert is_positive.sum(1).tolist() == [3, 3] and weights.all()
        _, is_positive, weights = sample(sampler, overlaps(rng, 2, 0, 60))
        assert not is_positive.any() and weights.all()

    def test_positives_never_stand_in_for_negatives(self, sampler, rng):
        _, is_positive, weights = sample(sampler, overlaps(rng, 2, 60, 5))
        assert is_positive.sum(1).tolist() == [8, 8] and weights.sum(1).tolist() == [13, 13]

    def test_padding_and_ignored_boxes_are_never_chosen(self, sampler, rng):
        max_iou = overlaps(rng, 3, 10, 30)
        ignored = np.arange(40) >= np.array([[40], [5], [0]])
        max_iou[ignored] = 0
        _, _, weights = sample(sampler, max_iou, ignored=ignored)
        assert weights.sum(1)[1:].tolist() == [5 - max(0, (max_iou[1, :5] >= 0.5).sum() - 8), 0]

    def test_fewer_boxes_than_rows(self, sampler, rng):
        _, _, weights = sample(sampler, overlaps(rng, 2, 3, 7))
        assert weights.sum(1).tolist() == [10, 10]

    def test_no_boxes(self, sampler):
        _, _, weights = sample(sampler, np.zeros((2, 0)))
        assert not weights.any()

    def test_images_of_a_batch_follow_the_same_rule(self, sampler, rng):
        # mmdetection's negatives of the second image follow another rule than the first's.
        images = 400
        max_iou = np.repeat(overlaps(rng, 1, 20, 100), images, 0)
        owners = np.repeat(rng.integers(0, 4, (1, 120)), images, 0).astype("int32")
        indices, _, _ = sample(sampler, max_iou, owners)
        chosen = np.zeros((images, 120))
        np.put_along_axis(chosen, indices, 1, axis=1)
        first, second = chosen[::2].mean(0), chosen[1::2].mean(0)
        p = (first + second) / 2
        error = np.sqrt(p * (1 - p) * 4 / images)
        assert np.all(np.abs(first - second) <= 4.5 * error)
        assert not np.array_equal(chosen[0], chosen[1])

    def test_keys_decide_alone(self, sampler, rng):
        max_iou = overlaps(rng, 2, 20, 60)
        first, again = (sample(sampler, max_iou)[0] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, sample(sampler, max_iou, seed=1)[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's")
@pytest.mark.parametrize("sampler", [ALL[0], ALL[3]], ids=by_name)  # the last holds the others
def test_graph_of_unknown_shape(sampler, rng):
    import tensorflow as tf

    kinds = ["float32", "int32", "bool", "bool", "float32"]
    graph = tf.function(
        sampler.__call__, input_signature=[tf.TensorSpec((None, None), kind) for kind in kinds]
    )
    max_iou = overlaps(rng, 2, 10, 30)
    keys = random_keys(0, 0, ops.arange(2), 40)
    owners = rng.integers(0, 3, (2, 40)).astype("int32")
    inputs = [max_iou, owners, max_iou >= 0.5, max_iou < 0.5, keys]
    inputs = [tf.constant(x) for x in inputs]
    for ours, theirs in zip(graph(*inputs), sampler(*inputs), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shares_of_zero_and_one(rng):
    max_iou = overlaps(rng, 2, 20, 20)
    _, is_positive, weights = sample(RandomSampler(16, 0), max_iou)
    assert not is_positive.any() and weights.all()
    _, is_positive, _ = sample(RandomSampler(16, 1.0), max_iou)
    assert is_positive.all()


@pytest.mark.portable
def test_negatives_per_positive(rng):
    # At most int(2.5 * max(p, 1)) negatives: p = 3 gives 7, p = 0 gives 2, p = 8 fills up to 24.
    for positives, negatives in [(3, 7), (0, 2), (8, 20), (20, 20)]:
        sampler = RandomSampler(32, 0.25, max_negatives_per_positive=2.5)
        _, is_positive, weights = sample(sampler, overlaps(rng, 2, positives, 60))
        assert np.all(weights.sum(1) - is_positive.sum(1) == negatives)
    _, _, weights = sample(RandomSampler(32, 0.25, 0), overlaps(rng, 2, 5, 60))
    assert weights.sum(1).tolist() == [5, 5]


def test_a_combination_takes_each_part_from_its_sampler():
    # One object owns 40 positives, one owns 1; negatives: 100 zeros, 12 harder ones.
    max_iou = np.repeat([0.8, 0.9, 0.0, 0.2], [40, 1, 100, 12])[None]
    owners = (np.arange(153) == 40).astype("int32")[None]
    sampler = CombinedSampler(InstanceBalancedSampler(), IoUBalancedSampler(), 40, 0.5)
    indices, is_positive, _ = sample(sampler, max_iou, owners)
    assert is_positive.sum() == 20 and 40 in indices[0, :20]
    assert set(range(141, 153)) <= set(indices[0].tolist())
    # Shares of parts do not count, nor does it matter who has the number, or how deep it lies.
    parts = InstanceBalancedSampler(40, 1.0), IoUBalancedSampler(40, 0.0)
    for same in (
        CombinedSampler(*parts, 40, 0.5),
        CombinedSampler(CombinedSampler(*parts, 40, 0.1), parts[1], 40, 0.5),
    ):
        np.testing.assert_array_equal(sample(same, max_iou, owners)[0], indices)


def test_libra_preset():
    sampler = CombinedSampler.preset("mmdet")
    assert (sampler.num, sampler.positive_fraction) == (512, 0.25)
    assert isinstance(sampler.positives, InstanceBalancedSampler)
    assert isinstance(sampler.negatives, IoUBalancedSampler)
    assert sampler.positives.num is sampler.negatives.num is None


def test_presets():
    # Equal to the table of the class: where bins end, and whether zeros are in them.
    expected = {"mmdet": ("all", False), "paper_code": ("all", True), "paper_text": (0.5, True)}
    for name, options in expected.items():
        sampler = IoUBalancedSampler.preset(name, 8, 0.5, 3)
        assert (sampler.upper, sampler.include_zero) == options
        assert (sampler.num_bins, sampler.floor_thr, sampler.floor_fraction) == (3, 0, 0)
        assert (sampler.num, sampler.positive_fraction) == (8, 0.5)
        assert sampler.max_negatives_per_positive == 3
    for cls in (IoUBalancedSampler, CombinedSampler):
        with pytest.raises(ValueError, match="name='paper'"):
            cls.preset("paper", 8, 0.5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"floor_thr": -1}, "include_zero=True"),
        ({"floor_thr": 1.0}, "floor_thr=1.0"),
        ({"upper": "most"}, "upper='most'"),
        ({"upper": 0.2, "floor_thr": 0.2}, "upper=0.2, floor_thr=0.2"),
        ({"upper": 1.5}, "upper=1.5"),
        ({"upper": None}, "`upper` must be a number"),
        ({"floor_thr": "0"}, "`floor_thr` must be a number"),
    ],
)
def test_limits_of_the_bins(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        IoUBalancedSampler(8, 0.5, **options)


def test_parts_of_a_combination_are_checked():
    good = RandomSampler(8, 0.5)
    with pytest.raises(TypeError, match="`negatives` must be a sampler"):
        CombinedSampler(good, "random", 8, 0.5)
    with pytest.raises(ValueError, match="positives.num=9, num=8"):
        CombinedSampler(RandomSampler(9, 0.5), good, 8, 0.5)


CHANGED = [
    RandomSampler(7, 0.3, 2.5),
    IoUBalancedSampler(9, 0.4, 3, 5, "negatives", True, 0.1, 0.2),
    IoUBalancedSampler(9, 0.4, upper=0.6),
    InstanceBalancedSampler(6, 0.1, 4),
    CombinedSampler(
        InstanceBalancedSampler(6, 0.1, 4), IoUBalancedSampler(6, 0.2, num_bins=4), 6, 0.7, 5
    ),
    CombinedSampler(RandomSampler(), IoUBalancedSampler.preset("paper_text"), 6, 0.7),
]


@pytest.mark.parametrize("sampler", CHANGED, ids=by_name)
def test_config_round_trip(sampler):
    config = sampler.get_config()
    assert set(config) == set(inspect.signature(type(sampler)).parameters)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(sampler)))
    assert keras.saving.deserialize_keras_object(saved).get_config() == config
    live = {name: getattr(sampler, name) for name in config}
    assert type(sampler).from_config(live).get_config() == config


def test_a_file_from_when_parts_had_numbers(rng):
    def saved(module, class_name, **config):
        numbers = {"num": 32, "positive_fraction": 0.25, "max_negatives_per_positive": None}
        return {
            "module": f"libra_keras.samplers.{module}",
            "class_name": class_name,
            "config": config | numbers,
            "registered_name": f"libra_keras>{class_name}",
        }

    bins = {"num_bins": 3, "upper": "all", "include_zero": False}
    floor = {"floor_thr": 0.0, "floor_fraction": 0.0}
    negatives = saved("iou_balanced_sampler", "IoUBalancedSampler", **bins, **floor)
    positives = saved("instance_balanced_sampler", "InstanceBalancedSampler")
    parts = {"positives": positives, "negatives": negatives}
    loaded = keras.saving.deserialize_keras_object(
        saved("combined_sampler", "CombinedSampler", **parts)
    )
    assert (loaded.num, loaded.positives.num, loaded.negatives.positive_fraction) == (32, 32, 0.25)
    max_iou = overlaps(rng, 2, 20, 60)
    for old, new in zip(sample(loaded, max_iou), sample(ALL[3], max_iou), strict=True):
        np.testing.assert_array_equal(old, new)


def test_libra_draws_as_mmdetection(reference, record_error):
    data = reference("combined_sampler.npz")
    draws = 300
    max_iou = np.repeat(data["max_overlaps"][None], draws, 0)
    owners = np.repeat(data["gt_inds"][None], draws, 0).astype("int32")
    keys = random_keys(0, 0, ops.arange(draws), max_iou.shape[1])
    indices, is_positive, weights = CombinedSampler.preset("mmdet")(
        ops.convert_to_tensor(max_iou), ops.convert_to_tensor(owners - 1),
        ops.convert_to_tensor(owners > 0), ops.convert_to_tensor(owners == 0), keys,
    )  # fmt: skip
    indices, is_positive = ops.convert_to_numpy(indices), ops.convert_to_numpy(is_positive)
    check_rows(indices, is_positive, ops.convert_to_numpy(weights), owners > 0, owners == 0, 512)
    negatives = ops.convert_to_numpy(weights).sum(1) - is_positive.sum(1)
    for counts, theirs in ((is_positive.sum(1), data["npos"]), (negatives, data["nneg"])):
        assert np.ptp(theirs) == 0 and np.all(counts == theirs[0])  # 128 and 384 in every draw

    chosen = np.zeros(max_iou.shape)
    np.put_along_axis(chosen, indices, 1, axis=1)
    theirs = data["freq"]
    assert same_frequencies(chosen, theirs)
    for low, high in [(0, 1e-9), (1e-9, 1 / 3), (1 / 3, 0.5)]:  # the bins of the negatives
        inside = (data["gt_inds"] == 0) & (max_iou[0] >= low) & (max_iou[0] < high)
        counts = chosen[:, inside].sum(1)
        error = standard_errors(counts, theirs[inside].sum(), rounding=1e-3)
        record_error("Libra sampling: bins, standard errors", error, 4)


def test_candidates_of_libra_as_in_mmdetection(reference):
    data = reference("combined_sampler.npz")
    objects = {"boxes": data["gt_bboxes"][None], "labels": np.zeros((1, 6), "int32")}
    proposals = Proposals(data["proposals"][None], np.ones((1, 2000)), np.ones((1, 2000), bool))
    _, found = match_proposals(proposals, GroundTruth.of(objects), positive_iou=0.5)
    matched, max_iou, positive, negative = (ops.convert_to_numpy(part)[0] for part in found)
    np.testing.assert_array_equal(np.where(positive, matched + 1, 0), data["gt_inds"])
    np.testing.assert_allclose(max_iou, data["max_overlaps"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(negative, ~positive)
