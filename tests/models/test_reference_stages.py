"""Three detectors beside mmdetection's, from pixels to boxes: stage by stage, and as a whole.

Every stage gets what the reference's own stage before it gave, so that its error is its own; then
the order of proposals and detections is the reference's too. From pixels on, the order of boxes
whose scores are nearly equal is left open, and nothing else: no box may differ.
"""

import numpy as np
import pytest
from keras import ops
from parity import different, partners, pixel_error, relative_error, scaled_error
from reference_detector import (
    load_reference_weights,
    rgb_batch,
    small_libra_faster_rcnn,
    small_libra_retinanet,
)

from libra_keras.models.detections import select_detections
from libra_keras.models.proposals import Proposals

pytestmark = pytest.mark.portable
FASTER = {"libra_frcnn_r50b8": (50, 8), "libra_frcnn_r18b16": (18, 16)}
RETINA = "libra_retina_r50b8"
EVERY = [*FASTER, RETINA]
SIZES = np.array([[250, 310]], "int32")  # height and width before padding
PADDED, SCALE = (256, 320), 1.25
GIVEN = {"img_shape": SIZES[0], "pad_shape": PADDED, "scale_factor_wh": [SCALE, SCALE]}
LEVELS = range(5)
DETECTIONS = ("boxes", "scores", "labels")


@pytest.fixture(scope="module")
def detector(reference):
    """Returns a function that gives a detector with the reference's weights, and its outputs."""
    loaded = {}

    def load(name):
        if name not in loaded:
            outputs = {**reference(f"{name}_features.npz"), **reference(f"{name}_heads.npz")}
            settings = {"pre_nms_test": 300, "post_nms": 150}
            model = (
                small_libra_retinanet()
                if name == RETINA
                else small_libra_faster_rcnn(*FASTER[name], rpn_settings=settings)
            )
            load_reference_weights(model, reference(f"{name}_weights.npz"))
            for key, value in GIVEN.items():  # not in all files
                np.testing.assert_array_equal(outputs.get(key, value), value)
            loaded[name] = model, outputs
        return loaded[name]

    return load


def levels(golden, name):
    return [golden[f"{name}{i}"] for i in LEVELS]


@pytest.mark.parametrize("name", EVERY)
def test_pixels_to_input(detector, record_error, name):
    model, golden = detector(name)
    batch = rgb_batch([golden["image_bgr_u8"]], *PADDED)
    found = model.normalization(batch["images"], batch["image_sizes"])
    error = relative_error(found, golden["input"], floor=0.1)
    record_error("stage: pixels to input", error, 1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_input_to_stages(detector, record_error, name):
    model, golden = detector(name)
    for level, found in model.backbone(ops.convert_to_tensor(golden["input"])).items():
        error = scaled_error(found, golden[level.lower()])
        record_error("stage: input to backbone's outputs", error, 1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_stages_to_pyramid(detector, record_error, name):
    model, golden = detector(name)
    stages = {f"C{i}": ops.convert_to_tensor(golden[f"c{i}"]) for i in (2, 3, 4, 5)}
    for found, expected in zip(in_order(model.neck[0](stages)), levels(golden, "fpn"), strict=True):
        record_error("stage: backbone's outputs to FPN", scaled_error(found, expected), 1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_pyramid_to_balanced_pyramid(detector, record_error, name):
    model, golden = detector(name)
    pyramid = model.neck[1](list(map(ops.convert_to_tensor, levels(golden, "fpn"))))
    for found, expected in zip(in_order(pyramid), levels(golden, "bfp"), strict=True):
        record_error("stage: FPN to BFP", scaled_error(found, expected), 1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_balanced_pyramid_to_first_answers(detector, record_error, name):
    model, golden = detector(name)
    head = model.head if name == RETINA else model.rpn
    outputs = head(list(map(ops.convert_to_tensor, levels(golden, "bfp"))))
    theirs = answers(golden, name)
    for kind in ("logits", "deltas"):
        for found, expected in zip(outputs[kind], theirs[kind], strict=True):
            record_error(f"stage: BFP to {kind}", scaled_error(found, expected), 1e-4)


@pytest.mark.parametrize("name", FASTER)
def test_first_answers_to_proposals(detector, record_error, name):
    model, golden = detector(name)
    outputs = with_anchors(model.rpn, answers(golden, name), golden)
    found = model.rpn.propose(outputs, SIZES)
    boxes, scores = golden["proposals"][None], golden["proposal_scores"][None]
    record_error("stage: logits to proposals, pixels", pixel_error(found.boxes, boxes), 0.01)
    record_error("stage: logits to proposals, scores", pixel_error(found.scores, scores), 1e-5)
    assert ops.convert_to_numpy(found.mask).all()


@pytest.mark.parametrize("name", FASTER)
def test_proposals_to_second_answers(detector, record_error, name):
    model, golden = detector(name)
    assert not golden["rois"][:, 0].any()  # all of the one image
    rois = ops.convert_to_tensor(golden["rois"][None, :, 1:])
    pyramid = list(map(ops.convert_to_tensor, levels(golden, "bfp")))
    logits, deltas = model.box_head(pyramid, rois)
    expected = golden["bbox_pred"].reshape(1, -1, 80, 4)
    record_error("stage: RoIs to class logits", scaled_error(logits[0], golden["cls_score"]), 1e-4)
    record_error("stage: RoIs to deltas", scaled_error(deltas, expected), 1e-4)


@pytest.mark.parametrize("name", FASTER)
def test_second_answers_to_detections(detector, record_error, name):
    model, golden = detector(name)
    boxes, scores = golden["proposals"][None], golden["proposal_scores"][None]
    found = select_detections(
        ops.convert_to_tensor(golden["cls_score"][None]),
        ops.convert_to_tensor(golden["bbox_pred"].reshape(1, -1, 80, 4)),
        Proposals(*map(ops.convert_to_tensor, (boxes, scores, scores > 0))),
        SIZES,
        model.box_head.settings,
    )
    check_detections(record_error, "stage: class logits to detections", found, golden)


def test_dense_answers_to_detections(detector, record_error):
    model, golden = detector(RETINA)
    outputs = with_anchors(model.head, answers(golden, RETINA), golden)
    found = model.head.detect(outputs, SIZES)
    check_detections(record_error, "stage: dense logits to detections", found, golden)


@pytest.mark.parametrize("name", EVERY)
def test_pixels_to_detections(detector, record_error, name):
    model, golden = detector(name)
    outputs = model(rgb_batch([golden["image_bgr_u8"]], *PADDED))
    for found, expected in zip(outputs["pyramid"], levels(golden, "bfp"), strict=True):
        record_error(f"{name}: pyramid", scaled_error(found, expected), 1e-4)
    theirs, ours = answers(golden, name), outputs["head" if name == RETINA else "rpn"]
    for kind in ("logits", "deltas"):
        for found, expected in zip(ours[kind], theirs[kind], strict=True):
            record_error(f"{name}: {kind}", scaled_error(found, expected), 1e-4)
    if name in FASTER:
        boxes = ops.convert_to_numpy(outputs["proposals"]["boxes"])[0]
        boxes = boxes[partners(boxes, golden["proposals"])]
        record_error(f"{name}: proposals, pixels", pixel_error(boxes, golden["proposals"]), 0.01)
    boxes, labels = (ops.convert_to_numpy(outputs[key])[0] for key in ("boxes", "labels"))
    theirs = golden["det_bboxes"], golden["det_labels"]
    order = partners(np.c_[boxes, 1000 * labels], np.c_[theirs[0], 1000 * theirs[1]])
    found = {key: ops.convert_to_numpy(outputs[key])[:, order] for key in DETECTIONS}
    check_detections(record_error, f"{name}: detections", found, golden, scores_limit=1e-4)


def answers(golden, name):
    """What the reference's RPN or RetinaNet head says, in the form of ours; 20 classes there."""
    parts, shapes = ("cls", "reg"), ((1, -1, 20), (1, -1, 4))
    if name in FASTER:
        parts, shapes = ("rpn_cls", "rpn_reg"), ((1, -1), (1, -1, 4))
    logits, deltas = (
        [level.reshape(shape) for level in levels(golden, part)]
        for part, shape in zip(parts, shapes, strict=True)
    )
    return {"logits": logits, "deltas": deltas}


def with_anchors(head, outputs, golden):
    """The anchors of the levels, as a head gives them, beside the reference's answers."""
    pyramid = list(map(ops.convert_to_tensor, levels(golden, "bfp")))
    given = {kind: list(map(ops.convert_to_tensor, parts)) for kind, parts in outputs.items()}
    return {**head(pyramid), **given}


def check_detections(record_error, component, found, golden, scores_limit=1e-5):
    boxes, scores, labels = (ops.convert_to_numpy(found[key])[0] for key in DETECTIONS)
    record_error(f"{component}, labels: differing", different(labels, golden["det_labels"]), 0)
    record_error(f"{component}, pixels", pixel_error(boxes, golden["det_bboxes"]), 0.01)
    record_error(f"{component}, scores", pixel_error(scores, golden["det_scores"]), scores_limit)
    # In pixels of an image that was enlarged before it came here.
    boxes = boxes / SCALE
    record_error(f"{component}, pixels", pixel_error(boxes, golden["det_rescaled_bboxes"]), 0.01)
    np.testing.assert_array_equal(labels, golden["det_rescaled_labels"])
    error = pixel_error(scores, golden["det_rescaled_scores"])
    record_error(f"{component}, scores", error, scores_limit)


def in_order(pyramid):
    return list(pyramid.values()) if isinstance(pyramid, dict) else list(pyramid)
