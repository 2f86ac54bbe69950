"""Which test compares which array of mmdetection's outputs, and which are left out, and why.

Compared, but known to differ, are these behaviours of the reference; their tests show by how much:

* With `min_pos_iou=0` an object that overlaps nothing claims every candidate without overlap. Ours
  claims nothing. (functional/test_matching.py)
* Its mark for candidates inside ignored regions is an overlap of -1. Ours is a mask, and 0.
  (functional/test_matching.py)
* The instance-balanced sampler fills up with boxes that it may have drawn before, and so can fall
  short of the number asked for. Ours never does. (functional/test_sampling.py)
* The IoU-balanced sampler with `floor_thr=-1` draws boxes without overlap as any others on the
  first call, and only to fill up on all later ones. Ours has no memory: `include_zero` says which.
  (functional/test_sampling_iou_balanced.py)
* The order of equal scores is whatever its sort leaves. Ours goes by index.
  (functional/test_nms.py)
* It keeps classes apart in suppression by moving their boxes, which rounds them; ours compares
  classes. On these boxes nothing is decided otherwise. (functional/test_nms.py)
* With `sampling_ratio=0` its RoIAlign takes any number of samples. Ours has a maximum, which the
  tests raise above what these boxes need. (functional/test_roi_align.py)
* Anchors count as inside an image up to the padding of its batch. Ours go by each image's own size,
  rounded up, which is the same here. (functional/test_anchors.py, models/test_reference_*.py)
* Its backward pass of a non-local block of the mode "concatenation" raises an error; the gradients
  here are of the same formula written otherwise. (layers/test_non_local_block.py)
"""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE

STAGES, FASTER, RETINA = (
    f"models/test_reference_{name}.py" for name in ("stages", "detector", "retinanet")
)
ANCHORS, MATCHING, NMS, COUNTED, INSTANCES, ROIS = (
    f"functional/test_{name}.py"
    for name in ("anchors", "matching", "nms", "sampling_iou_balanced", "sampling", "roi_align")
)
DENSE_ARRAYS = "[abc]/(dense_.*)"
TESTS = {  # file: {arrays: where they are compared or, if they are inputs, used}
    "balanced_l1": {".*": "losses/test_balanced_l1.py::test_equals_the_reference"},
    "bfp_[ABCD]": {".*": "layers/test_balanced_feature_pyramid.py::test_equals_the_reference"},
    "nonlocal": {".*": "layers/test_non_local_block.py::test_equals_the_reference"},
    "roi_align": {".*": f"{ROIS}::test_equals_the_reference"},
    "roi_levels": {".*": f"{ROIS}::test_levels_equal_the_reference"},
    "roi_extractor": {".*": f"{ROIS}::test_pyramid_equals_the_reference"},
    "anchors": {
        ".*/base.": f"{ANCHORS}::test_base_anchors_equal_the_reference",
        ".*x.*/anchors.": f"{ANCHORS}::test_anchors_equal_the_reference",
        ".*/valid_.*": f"{ANCHORS}::test_anchors_inside_an_image_equal_the_reference",
    },
    "coder": {
        "proposals|gt|deltas": "functional/test_boxes.py::test_coder_equals_the_reference",
        "std./(encode|decode_noshape|decode_shape400x600_clip.)": (
            "functional/test_boxes.py::test_coder_equals_the_reference"
        ),
        "deltas_multi|std./decode_multi_clip.": (
            "functional/test_boxes.py::test_class_wise_decoding_equals_the_reference"
        ),
    },
    "assigner": {
        "(rpn|rcnn|retina)(_nogt|_ign_thr-1|_ign_thr.5|_ign_thr.5_wrtgt)?/.*": (
            f"{MATCHING}::test_matches_equal_the_reference"
        ),
        "ties_(rpn|rcnn|retina)/.*": f"{MATCHING}::test_matches_equal_the_reference",
        ".*_nopriors/.*": f"{MATCHING}::test_no_candidates_match_nothing",
    },
    "nms": {
        "(small|mid|dense|exact)/.*": f"{NMS}::test_equals_the_reference_in_order",
        "ties/.*": f"{NMS}::test_equal_scores_are_visited_by_index",
        "multi.*": f"{NMS}::test_every_class_alone_equals_the_reference",
    },
    "iou_neg_sampler": {".*": f"{COUNTED}::test_iou_balanced_draws_as_mmdetection"},
    "instance_pos_sampler": {".*": f"{INSTANCES}::test_instance_balanced_draws_as_mmdetection"},
    "combined_sampler": {
        "freq|npos|nneg": "samplers/test_samplers.py::test_libra_draws_as_mmdetection",
        "gt_bboxes|proposals|gt_inds|max_overlaps": (
            "samplers/test_samplers.py::test_candidates_of_libra_as_in_mmdetection"
        ),
    },
    "backbone_x50.*|backbones": {
        "(?!r).*": "backbones/test_resnext.py::test_equals_mmdetection",
        "r.*": "backbones/test_resnet.py::test_equals_mmdetection",
    },
    "backbone_r.*": {".*": "backbones/test_resnet.py::test_equals_mmdetection"},
    "libra_.*_weights": {".*": f"{STAGES}::detector"},
    "libra_.*_features": {
        "input": f"{STAGES}::test_pixels_to_input",
        "c.": f"{STAGES}::test_input_to_stages",
        "fpn.": f"{STAGES}::test_stages_to_pyramid",
        "bfp.": f"{STAGES}::test_pyramid_to_balanced_pyramid",
        "image_bgr_u8": f"{STAGES}::test_pixels_to_detections",
        "(img|pad)_shape|scale_factor_wh": f"{STAGES}::detector",
    },
    "libra_frcnn_.*_heads": {
        "rpn_(cls|reg).": f"{STAGES}::test_balanced_pyramid_to_first_answers",
        "proposals|proposal_scores": f"{STAGES}::test_first_answers_to_proposals",
        "rois|cls_score|bbox_pred": f"{STAGES}::test_proposals_to_second_answers",
        "det_.*": f"{STAGES}::test_second_answers_to_detections",
    },
    "libra_retina_.*_heads": {
        "(cls|reg).": f"{STAGES}::test_balanced_pyramid_to_first_answers",
        "det_.*": f"{STAGES}::test_dense_answers_to_detections",
    },
    "libra_frcnn_.*_grads": {".*": f"{FASTER}::test_gradients_equal_the_reference"},
    "libra_retina_.*_grads": {".*": f"{RETINA}::test_gradients_equal_the_reference"},
    "libra_frcnn_.*_train": {
        "a/input|[abc]/(img|pad)_shape": f"{FASTER}::test_training_input_equals_the_reference",
        DENSE_ARRAYS: f"{FASTER}::test_anchor_targets_equal_the_reference",
        "[abc]/proposals.": f"{FASTER}::test_training_proposals_equal_the_reference",
        "[abc]/(rois|roi_.*|cls_score)": f"{FASTER}::test_roi_targets_equal_the_reference",
        "[abc]/(image._bgr_u8|gt_(bboxes|labels).)": f"{FASTER}::test_losses_equal_the_reference",
        "[abc]/loss/loss_.*": f"{FASTER}::test_losses_equal_the_reference",
    },
    "libra_retina_.*_train": {
        "a/input": f"{RETINA}::test_training_input_equals_the_reference",
        f"{DENSE_ARRAYS}|./(img|pad)_shape": f"{RETINA}::test_dense_targets_equal_the_reference",
        "[abc]/(image._bgr_u8|gt_(bboxes|labels).)": f"{RETINA}::test_losses_equal_the_reference",
        "[abc]/loss/loss_.*": f"{RETINA}::test_losses_equal_the_reference",
    },
}
LEFT_OUT = {  # file: {arrays: why nothing is compared with them}
    ".*_weights": {".*num_batches_tracked": "a count on which no output depends"},
    "assigner": {
        "ties_rpn_one/.*": "an object claims one of tied candidates: no published detector does so"
    },
    "instance_pos_sampler": {
        "freq/(skew|short|just).*": "drawn with the refill that falls short; counts are compared"
    },
    "libra_frcnn_.*_heads": {"test_cfg": "the settings, as text"},
    "libra_.*_train": {
        ".*/loss/acc": "the share of right classes, which is no loss",
        ".*/gt_ignore.": "without effect there (its threshold is -1), so that we leave them out",
    },
}


def patterns(table, file):
    return {
        key: v
        for name, part in table.items()
        if re.fullmatch(name, file)
        for key, v in part.items()
    }


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"reference data not found: {REFERENCE}")
def test_every_array_is_compared_or_named():
    paths = sorted(REFERENCE.glob("*.npz"))
    assert len(paths) > 30
    for path in paths:
        with np.load(path) as arrays:
            keys = arrays.files
        left_out, tested = patterns(LEFT_OUT, path.stem), patterns(TESTS, path.stem)
        for key in keys:
            found = [p for p in (*left_out, *tested) if re.fullmatch(p, key)]
            assert found, f"no test is named for {path.name}, {key}"
        for pattern in (*left_out, *tested):
            unused = not any(re.fullmatch(pattern, key) for key in keys)
            assert not unused or path.stem.startswith(("libra", "backbone")), (path.name, pattern)


def test_the_tests_named_here_exist():
    for place in {place for part in TESTS.values() for place in part.values()}:
        file, function = place.split("::")
        text = Path(__file__).with_name(file.split("/")[0]).joinpath(file.split("/")[1]).read_text()
        assert f"def {function}(" in text, place
