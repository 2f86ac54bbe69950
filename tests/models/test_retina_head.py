import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.functional import native
from libra_keras.losses import BalancedL1Loss, FocalLoss
from libra_keras.models import GroundTruth, RetinaHead, RetinaHeadSettings
from libra_keras.models.retina_head import find_dense_targets

SETTINGS = RetinaHeadSettings(
    channels=8, num_convs=1, strides=(8, 16), base_scale=2.0, scales_per_octave=1, ratios=(1.0,)
)
SIZES = np.array([[32, 48]], "int32")
ANCHORS = np.array([[0, 0, 20, 20], [0, 0, 20, 9], [0, 0, 20, 4], [40, 0, 60, 20]], "float32")


def truth(boxes, labels):
    return GroundTruth.of({"boxes": np.array(boxes, "float32"), "labels": np.array(labels)})


def dense_targets(anchors, objects, sizes, **settings):
    settings = RetinaHeadSettings(**settings)
    found = find_dense_targets(
        anchors, objects.boxes, objects.labels, objects.mask, np.array(sizes), settings
    )
    return [ops.convert_to_numpy(part)[0] for part in found]


def test_targets_by_hand():
    objects = truth([[[0, 0, 20, 20], [0, 0, 0, 0]]], [[5, -1]])
    labels, boxes, positive, weights = dense_targets(ANCHORS, objects, [[64, 64]])
    # overlaps 1, 9/20 (between 0.4 and 0.5: not trained), 1/5 and 0
    assert positive.tolist() == [True, False, False, False]
    assert weights.tolist() == [1, 0, 1, 1]
    assert labels[0] == 5 and boxes[0].tolist() == [0, 0, 20, 20]


def test_an_object_that_no_anchor_fits_gets_its_best():
    objects = truth([[[0, 0, 20, 4.5], [100, 100, 110, 110]]], [[1, 2]])
    _, _, positive, weights = dense_targets(ANCHORS[[0, 1, 3]], objects, [[128, 128]])
    # 4.5/9 of the second anchor; the other object touches no anchor, and claims none
    assert positive.tolist() == [False, True, False]
    assert weights.tolist() == [1, 1, 1]
    _, _, positive, weights = dense_targets(ANCHORS[[0, 3]], objects, [[128, 128]])
    assert positive.tolist() == [True, False] and weights.tolist() == [1, 1]  # 4.5/20 is best


def test_anchors_in_the_padding_are_not_trained():
    objects = truth([[[0, 0, 0, 0]]], [[-1]])
    _, _, positive, weights = dense_targets(ANCHORS, objects, [[20, 30]])
    # the image counts as 32 x 32; the last anchor is centred on 50
    assert not positive.any() and weights.tolist() == [1, 1, 1, 0]


def small_head(**parts):
    head = RetinaHead(3, SETTINGS, **parts)
    head.build([(None, None, None, 4)] * 2)
    return head


def outputs_of(head, rng, batch=1):
    sizes = [(4, 6), (2, 3)]
    return head([rng.normal(size=(batch, *size, 4)).astype("float32") for size in sizes])


def losses_of(head, outputs, objects, sizes=SIZES):
    """Class and box loss without compilation, which takes a second for every new shape."""
    with native.portable():
        return to_floats(head.compute_losses(outputs, objects, sizes))


def to_floats(losses):
    return [float(ops.convert_to_numpy(loss)) for loss in losses]


def test_every_class_starts_at_the_prior_probability():
    head = RetinaHead(3, RetinaHeadSettings(channels=8, num_convs=1, prior_probability=0.02))
    outputs = head([np.zeros((1, 2, 2, 4), "float32")] * 5)
    scores = ops.convert_to_numpy(ops.sigmoid(outputs["logits"][0]))
    np.testing.assert_allclose(scores, 0.02, rtol=1e-5)


def test_anchors_and_answers_have_one_order(rng):
    head = small_head()
    outputs = outputs_of(head, rng)
    anchors = ops.convert_to_numpy(outputs["anchors"][0])
    assert anchors.shape == (24, 4) and outputs["logits"][0].shape == (1, 24, 3)
    assert anchors[7].tolist() == [0, 0, 16, 16]  # row 1, column 1 of stride 8: centred on (8, 8)
    kernel = np.zeros(head.class_logits.kernel.shape, "float32")
    kernel[1, 1, 0, 2] = 1.0  # class 2 of a cell is what the first channel has there
    head.class_logits.kernel.assign(kernel)
    head.class_logits.bias.assign(np.zeros(3))
    hidden = rng.random((1, 4, 6, 4)).astype("float32")
    expected = ops.convert_to_numpy(head.class_convs[0](hidden))[0, :, :, 0].ravel()
    logits = ops.convert_to_numpy(head([hidden, hidden[:, :2, :3]])["logits"][0])
    np.testing.assert_allclose(logits[0, :, 2], expected, atol=1e-6)
    assert not logits[0, :, :2].any()


def test_losses_are_those_of_numpy(rng):
    head = small_head(box_loss=BalancedL1Loss(beta=0.11))
    outputs = outputs_of(head, rng, batch=2)
    objects = truth([[[2, 1, 17, 18], [20, 8, 45, 30]], [[0, 0, 0, 0]] * 2], [[1, 2], [-1, -1]])
    sizes = np.array([[32, 48], [32, 20]])
    anchors = ops.concatenate(outputs["anchors"], axis=0)
    found = find_dense_targets(
        anchors, objects.boxes, objects.labels, objects.mask, sizes, SETTINGS
    )
    labels, boxes, positive, weights = (ops.convert_to_numpy(part) for part in found)
    assert positive[0].sum() > 1 and not positive[1].any() and (weights == 0).any()
    logits, deltas = (
        np.concatenate([ops.convert_to_numpy(level) for level in outputs[key]], axis=1)
        for key in ("logits", "deltas")
    )
    one_hot = (labels[..., None] == np.arange(3)) & positive[..., None]
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    focal = np.where(one_hot, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
    count = positive[0].sum() + 1  # an image without positives counts as one
    class_loss, box_loss = losses_of(head, outputs, objects, sizes)
    expected = (focal.sum(-1) * weights).sum() / count
    assert class_loss == pytest.approx(expected, rel=1e-5)

    own = ops.convert_to_numpy(anchors)[positive[0]]
    size, centre = own[:, 2:] - own[:, :2], (own[:, 2:] + own[:, :2]) / 2
    goal = boxes[0][positive[0]]
    shift = ((goal[:, 2:] + goal[:, :2]) / 2 - centre) / size
    goal = np.concatenate([shift, np.log((goal[:, 2:] - goal[:, :2]) / size)], axis=1)
    terms = BalancedL1Loss(beta=0.11).call(goal, deltas[0][positive[0]])
    expected = ops.convert_to_numpy(terms).sum() / count
    assert box_loss == pytest.approx(expected, rel=1e-5)


def test_deltas_are_divided_by_the_stds(rng):
    objects = truth([[[2, 1, 17, 18]]], [[1]])
    stds = (0.1, 0.1, 0.2, 0.2)
    head, divided = small_head(), RetinaHead(3, dataclasses.replace(SETTINGS, stds=stds))
    outputs = outputs_of(head, rng)
    outputs["deltas"] = [ops.zeros_like(deltas) for deltas in outputs["deltas"]]
    # answers of 0: the terms of the goals grow by 10 (shifts) and by 5 (sizes)
    plain, larger = (losses_of(own, outputs, objects)[1] for own in (head, divided))
    assert 5 * plain < larger < 10 * plain


def test_islands_do_not_change_the_losses(rng):
    head = small_head()
    outputs = outputs_of(head, rng)
    objects = truth([[[2, 1, 17, 18]]], [[1]])
    compiled = to_floats(head.compute_losses(outputs, objects, SIZES))
    assert compiled == pytest.approx(losses_of(head, outputs, objects), rel=1e-5)


def test_only_positives_have_a_box_loss(rng):
    objects = truth([[[0, 0, 0, 0]]], [[-1]])
    class_loss, box_loss = losses_of(small_head(), outputs_of(small_head(), rng), objects)
    assert box_loss == 0 and class_loss > 0


def test_another_class_loss(rng):
    outputs, objects = outputs_of(small_head(), rng), truth([[[2, 1, 17, 18]]], [[1]])
    losses = [
        losses_of(small_head(class_loss=loss), outputs, objects)[0]
        for loss in (FocalLoss(), FocalLoss(gamma=0.0))
    ]
    assert losses[0] < losses[1]
    head = small_head(class_loss=FocalLoss())
    for gamma in (0.0, 2.0):  # of a compiled loss, changed in place
        head.class_loss.gamma = gamma
        found = to_floats(head.compute_losses(outputs, objects, SIZES))[0]
        assert found == pytest.approx(losses[gamma == 0], rel=1e-5)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="Received: 0"):
        RetinaHead(0)
    with pytest.raises(ValueError, match="`prior_probability` must be .* Received: 1.0"):
        RetinaHeadSettings(prior_probability=1.0)
    with pytest.raises(ValueError, match="`positive_iou` must be .* Received: 1.5"):
        RetinaHeadSettings(positive_iou=1.5)


def test_config_round_trip():
    head = RetinaHead(3, SETTINGS, FocalLoss(alpha=0.3), BalancedL1Loss(beta=0.11), name="head")
    config = keras.saving.serialize_keras_object(head)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.settings == SETTINGS and copy.class_loss.alpha == 0.3
    assert copy.box_loss.beta == 0.11 and copy.get_config() == head.get_config()
