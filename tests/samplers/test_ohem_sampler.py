import json

import keras
import numpy as np
import pytest
from draws import keys_of
from gradients import gradient
from keras import ops

from libra_keras.functional.matching import Match
from libra_keras.layers import MultilevelROIAlign
from libra_keras.models import BoxHead, BoxHeadSettings, GroundTruth, faster_rcnn_small
from libra_keras.models.proposals import Proposals
from libra_keras.models.targets import sample_targets
from libra_keras.samplers import CombinedSampler, OHEMSampler, RandomSampler
from libra_keras.training import SGD

# Positives 0, 1, 2; negatives 3..7; box 8 is neither.
MAX_IOU = np.array([[0.9, 0.6, 0.7, 0.1, 0.0, 0.3, 0.2, 0.4, 0.45]], "float32")
LOSSES = np.array([[0.1, 3.0, 2.0, 0.5, 4.0, 0.2, 0.9, 0.3, 99.0]], "float32")
POSITIVE = MAX_IOU >= 0.5
NEGATIVE = MAX_IOU < 0.45


def sample(sampler, losses=LOSSES, positive=POSITIVE, negative=NEGATIVE, seed=0):
    found = Match(np.zeros(MAX_IOU.shape, "int32"), MAX_IOU, positive, negative)
    found = Match(*map(ops.convert_to_tensor, found))
    result = sampler(found, keys_of(*MAX_IOU.shape, seed), ops.convert_to_tensor(losses))
    return tuple(ops.convert_to_numpy(part)[0] for part in result)


@pytest.mark.portable
def test_hardest_of_either_kind_by_hand():
    # int(5 * 0.4) = 2 positives, of losses 3 and 2, and 3 negatives, of losses 4, 0.9 and 0.5.
    indices, is_positive, weights = sample(OHEMSampler(5, 0.4))
    assert indices.tolist() == [1, 2, 4, 6, 3]
    assert is_positive.tolist() == [True, True, False, False, False]
    assert weights.tolist() == [1, 1, 1, 1, 1]


@pytest.mark.portable
def test_counts_are_exact():
    for num, fraction, ratio, counts in [
        (8, 0.5, None, (3, 5)),  # as many as there are
        (20, 0.5, None, (3, 5)),
        (4, 0.0, None, (0, 4)),
        (3, 1.0, None, (3, 0)),
        (8, 0.25, 1.5, (2, 3)),  # int(1.5 * 2) negatives
    ]:
        indices, is_positive, weights = sample(OHEMSampler(num, fraction, ratio))
        assert (is_positive.sum(), (weights > 0).sum() - is_positive.sum()) == counts
        assert len(set(indices[weights > 0])) == sum(counts) and not indices[weights == 0].any()


@pytest.mark.portable
def test_all_padding():
    none = np.zeros_like(POSITIVE)
    indices, is_positive, weights = sample(OHEMSampler(4, 0.5), positive=none, negative=none)
    assert not indices.any() and not is_positive.any() and not weights.any()


def test_keys_decide_between_equal_losses():
    draws = {tuple(sample(OHEMSampler(3, 0.34), np.ones_like(LOSSES), seed=s)[0]) for s in range(9)}
    assert len(draws) > 3


def test_losses_must_be_given():
    found = Match(np.zeros(MAX_IOU.shape, "int32"), MAX_IOU, POSITIVE, NEGATIVE)
    with pytest.raises(TypeError, match="must be called with the `losses`"):
        OHEMSampler(4, 0.5)(found, MAX_IOU)


def test_it_is_no_part_of_a_combination():
    part, ohem = RandomSampler(4, 0.5), OHEMSampler(4, 0.5)
    with pytest.raises(TypeError, match="`negatives` must not require losses.*OHEMSampler"):
        CombinedSampler(part, ohem, 4, 0.5)
    with pytest.raises(TypeError, match="`positives` must not require losses"):
        CombinedSampler(ohem, part, 4, 0.5)


def test_config_round_trip():
    config = OHEMSampler(7, 0.3, 2.5).get_config()
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(OHEMSampler(**config))))
    loaded = keras.saving.deserialize_keras_object(saved)
    assert type(loaded) is OHEMSampler and loaded.get_config() == config


def test_targets_take_losses():
    truth = GroundTruth.of({"boxes": [[[0.0, 0.0, 8.0, 8.0]]], "labels": [[2]]})
    tensors = (MAX_IOU, POSITIVE, NEGATIVE)
    max_iou, positive, negative = (ops.convert_to_tensor(x) for x in tensors)
    found = Match(ops.zeros((1, 9), "int32"), max_iou, positive, negative)
    losses = ops.convert_to_tensor(LOSSES)
    indices, targets = sample_targets(found, truth, OHEMSampler(4, 0.25), max_iou, losses)
    assert ops.convert_to_numpy(indices)[0].tolist() == [1, 4, 6, 3]
    assert ops.convert_to_numpy(targets.labels)[0, 0] == 2


def head_and_batch(rng, sampler):
    """A head on one level, with six proposals an image and two objects in the first."""
    align = MultilevelROIAlign(strides=(8,))
    head = BoxHead(3, BoxHeadSettings(channels=8), sampler=sampler, roi_align=align)
    head.build([(None, None, None, 4)])
    head.class_logits.kernel.assign(rng.normal(size=(8, 4)))
    pyramid = [ops.convert_to_tensor(rng.normal(size=(2, 8, 8, 4)).astype("float32"))]
    corner = rng.uniform(0, 30, (2, 6, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 30, (2, 6, 2))], -1)
    boxes[0, 0], boxes[0, 1] = [2, 2, 30, 30], [30, 20, 60, 50]  # these two are positive
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    arrays = boxes.astype("float32"), np.ones((2, 6), "float32"), mask
    proposals = Proposals(*(ops.convert_to_tensor(x) for x in arrays))
    truth = {"boxes": [[[0, 0, 30, 30], [30, 20, 60, 52]], [[0, 0, 0, 0]] * 2],
             "labels": [[1, 2], [-1, -1]]}  # fmt: skip
    return head, pyramid, proposals, GroundTruth.of(truth)


def test_the_head_trains_on_the_hardest(rng):
    # 3 rows an image: in the first one positive of four and two negatives.
    sampler = OHEMSampler(3, 0.34)
    head, pyramid, proposals, truth = head_and_batch(rng, sampler)
    class_loss, _ = head.compute_losses(pyramid, proposals, truth, lambda n: keys_of(2, n))

    boxes = ops.concatenate([truth.boxes, proposals.boxes], axis=1)
    logits, _ = head(pyramid, boxes)
    log_p = ops.convert_to_numpy(ops.log_softmax(logits))
    labels = [[1, 2, 1, 2, 3, 3, 3, 3], [-1, -1, 3, 3, 3, 3, -1, -1]]  # 3 is background
    loss = [
        [-log_p[b, i, k] if k >= 0 else None for i, k in enumerate(labels[b])] for b in range(2)
    ]
    first = [max(loss[0][:4]), *sorted(loss[0][4:])[-2:]]
    second = sorted(loss[1][2:6])[-3:]
    np.testing.assert_allclose(
        ops.convert_to_numpy(class_loss), (sum(first) + sum(second)) / 6, rtol=1e-5
    )


def test_the_extra_pass_has_no_gradient(rng):
    head, pyramid, proposals, truth = head_and_batch(rng, OHEMSampler(3, 0.34))
    losses = []

    class Spy(OHEMSampler):
        def __call__(self, *arguments):
            losses.append(arguments[-1])
            return super().__call__(*arguments)

    head.sampler = Spy(3, 0.34)

    def of_the_pass(x):
        losses.clear()
        head.compute_losses([x], proposals, truth, lambda n: keys_of(2, n))
        return losses[0] + 0.0 * ops.sum(x)  # a path to x, so that a gradient exists

    assert not np.any(gradient(of_the_pass, ops.convert_to_numpy(pyramid[0])))

    def of_the_loss(x):
        return head.compute_losses([x], proposals, truth, lambda n: keys_of(2, n))[0]

    assert np.any(gradient(of_the_loss, ops.convert_to_numpy(pyramid[0])))


def test_other_samplers_do_not_pay_for_it(rng, monkeypatch):
    calls = []
    original = BoxHead.call
    monkeypatch.setattr(
        BoxHead, "call", lambda self, *args: (calls.append(1), original(self, *args))[1]
    )
    for sampler, passes in ((RandomSampler(3, 0.34), 1), (OHEMSampler(3, 0.34), 2)):
        calls.clear()
        head, pyramid, proposals, truth = head_and_batch(rng, sampler)
        head.compute_losses(pyramid, proposals, truth, lambda n: keys_of(2, n))
        assert len(calls) == passes


@pytest.mark.slow
def test_a_detector_trains_with_it(rng):
    model = faster_rcnn_small(num_classes=3)
    model.box_head.sampler = OHEMSampler(64, 0.5)
    model.compile(SGD(0.01), run_eagerly=True)
    boxes = np.array([[[8, 10, 40, 44], [30, 20, 60, 60]]], "float32")
    x = {"images": rng.integers(0, 255, (1, 64, 96, 3), "uint8"),
         "image_sizes": np.array([[64, 96]], "int32")}  # fmt: skip
    y = {"boxes": boxes, "labels": np.array([[0, 2]], "int32")}
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(3)]
    assert all(np.isfinite(value) for log in logs for value in log.values())
    assert logs[2]["class_loss"] < logs[0]["class_loss"]
