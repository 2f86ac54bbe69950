"""Every public function of tensors says which argument has a wrong shape or kind."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras import functional
from libra_keras.functional import nms
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.roi_align import Taps
from libra_keras.typing import Tensor

pytestmark = pytest.mark.portable

BOXES, SCORES = np.ones((2, 5, 4), "float32"), np.ones((2, 5), "float32")
MASK, OWNERS = np.ones((2, 5), bool), np.zeros((2, 5), "int32")
MAPS = np.ones((2, 8, 8, 3), "float32")
TAPS = Taps(*[np.zeros((1, 1, 1), "int32")] * 4, None, None)
CHOICE = {"keys": SCORES, "candidates": MASK}
# Of each function the tensors, and the rest of its arguments.
CALLS = {
    "attention.weights": ({"queries": BOXES, "keys": BOXES}, {}),
    "attention.attend": ({"queries": BOXES, "keys": BOXES, "values": BOXES}, {}),
    "boxes.area": ({"boxes": BOXES}, {}),
    "boxes.iou": ({"boxes": BOXES, "others": BOXES}, {}),
    "boxes.iof": ({"boxes": BOXES, "regions": BOXES}, {}),
    "boxes.has_sides": ({"boxes": BOXES}, {}),
    "boxes.clip": ({"boxes": BOXES, "image_sizes": np.ones((2, 2), "int32")}, {}),
    "boxes.encode": ({"boxes": BOXES, "anchors": BOXES}, {}),
    "boxes.decode": ({"deltas": BOXES, "anchors": BOXES}, {}),
    "gathering.take": ({"indices": OWNERS}, {"x": SCORES}),
    "gathering.take_rows": ({"indices": OWNERS}, {"x": BOXES}),
    "gathering.add_rows": (
        {"x": SCORES, "indices": OWNERS[:, 0], "rows": SCORES},
        {},
    ),
    "sampling.hardest_first": ({"keys": SCORES, "losses": SCORES}, {}),
    "sampling.choose_hardest": ({**CHOICE, "losses": SCORES}, {"num": 2}),
    "matching.match": (
        {
            "iou": np.ones((2, 5, 3), "float32"),
            "gt_mask": np.ones((2, 3), bool),
            "candidate_mask": MASK,
        },
        {"positive_iou": 0.5, "negative_iou": 0.4},
    ),
    "nms.nms": (
        {"boxes": BOXES, "scores": SCORES, "groups": OWNERS, "mask": MASK},
        {"iou_threshold": 0.5, "max_output": 2},
    ),
    "random_keys.random_keys": (
        {"positions": np.arange(2, dtype="int32")},
        {"seed": 0, "step": 0, "num": 3},
    ),
    "random_keys.renew": ({"keys": SCORES}, {"stream": 1}),
    "ranking.top_k": ({"x": SCORES}, {"k": 2}),
    "resize.resize_nearest": ({"x": MAPS}, {"size": (4, 4)}),
    "resize.adaptive_max_pool": ({"x": MAPS}, {"size": (4, 4)}),
    "roi_align.roi_levels": ({"boxes": BOXES}, {"num_levels": 2}),
    "roi_align.roi_align": ({"features": MAPS, "boxes": BOXES}, {"stride": 4}),
    "roi_align.multilevel_roi_align": (
        {"levels": [MAPS, MAPS], "boxes": BOXES},
        {"strides": (4, 8)},
    ),
    "sampling.choose_random": (CHOICE, {"num": 2}),
    "sampling.choose_iou_balanced": ({**CHOICE, "max_iou": SCORES}, {"num": 2}),
    "sampling.choose_instance_balanced": ({**CHOICE, "matched_gt": OWNERS}, {"num": 2}),
    "sampling.look_up": ({"count": OWNERS}, {"function": abs, "num": 2}),
    "roi_align.find_taps": (
        {"boxes": BOXES, "levels": OWNERS, "sizes": np.ones((1, 2), "int32")},
        {"strides": (4,), "size": 2, "sampling_ratio": 2, "aligned": True, "max_sampling_ratio": 4},
    ),
    "roi_align.weighted_sum": ({"source": SCORES}, {"taps": TAPS}),
    "roi_align.looped_sum": ({"source": SCORES}, {"taps": TAPS}),
    "roi_align.weighted_sum_of_used": ({"source": SCORES}, {"taps": TAPS}),
    "native.sparse_pooling": ({"source": SCORES}, {"taps": TAPS}),
}
ANY_SHAPE = {"gathering.take", "random_keys.renew", "sampling.look_up"}
ANY_KIND = {"resize.resize_nearest"}
UNCHECKED = {"native.in_turn", "native.by_filters", "native.add_bias"}  # their callers have checked


def test_all_functions_are_here():
    every = {
        f"{module}.{name}"
        for module in functional.__all__
        for name, function in inspect.getmembers(getattr(functional, module), inspect.isfunction)
        if function.__module__ == f"libra_keras.functional.{module}" and not name.startswith("_")
        if Tensor in {p.annotation for p in inspect.signature(function).parameters.values()}
    }
    assert every - UNCHECKED == set(CALLS)


@pytest.mark.parametrize("path", CALLS)
def test_wrong_tensors_are_named(path):
    module, _, name = path.partition(".")
    function = getattr(getattr(functional, module), name)
    tensors, rest = CALLS[path]
    if "taps" not in rest:
        function(**tensors, **rest)
    for name, good in tensors.items():
        is_list = isinstance(good, list)
        good, argument = (good[1], rf"`{name}\[1\]`") if is_list else (good, f"`{name}`")
        wrong_kind = good.astype("int32" if good.dtype == bool else bool)
        wrong = [(wrong_kind, "must hold .* dtype=(int32|bool)")] * (path not in ANY_KIND)
        if path not in ANY_SHAPE:
            wrong.append((good[..., 0, 0] if good.ndim > 1 else good[0], r"must have shape \(.*\("))
        for x, message in wrong:
            call = {**tensors, name: [tensors[name][0], x] if is_list else x}
            with pytest.raises(ValueError, match=f"{argument} {message}"):
                function(**call, **rest)


def test_one_image_is_told_what_to_do():
    with pytest.raises(ValueError) as error:
        nms.nms(BOXES[0], SCORES[0], 0.5, 2)
    message = "`boxes` must have shape (B, N, 4). Received: shape=(5, 4); of one image, pass "
    assert str(error.value) == message + "`boxes[None]`"


def test_sizes_of_one_name_are_equal():
    with pytest.raises(ValueError, match=r"`scores` .*\(B, N\), N being 5 as in `boxes`.*\(2, 4\)"):
        nms.nms(BOXES, SCORES[:, :4], 0.5, 2)
    level = MAPS[:, ::2, ::2]
    check_arguments({"a (B, H_l, W_l, C)": MAPS, "b (B, H_l, W_l, C)": level})
    with pytest.raises(ValueError, match="`b` must .* H being 8 as in `a`"):
        check_arguments({"a (B, H, W, C)": MAPS, "b (B, H, W, C)": level})


def test_lists_tensors_and_symbols():
    symbol = keras.KerasTensor((None, 5, 4))
    for good in ([[[0, 0, 4, 4]]], ops.ones((1, 2, 4)), symbol, np.ones((1, 2, 4)), None):
        check_arguments({"boxes (B, N, 4)": good})
    for bad in ([[0, 0, 4, 4]], [ops.ones(4)], keras.KerasTensor((None, 4)), 3.0):
        with pytest.raises(ValueError, match=r"`boxes` must have shape \(B, N, 4\)"):
            check_arguments({"boxes (B, N, 4)": bad})
    with pytest.raises(ValueError, match="`mask` must hold booleans. Received: dtype=float32"):
        check_arguments({"mask bool": symbol})


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's")
def test_a_graph_gets_no_operation_and_what_is_unknown_passes():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec((None, None, 4))])
    def check(scores, boxes):
        check_arguments({"scores (B, N)": scores, "boxes (B, N, 4)": boxes, "sizes (2)": [3, 4]})

    graph = check.get_concrete_function().graph
    assert [op.type for op in graph.get_operations() if op.type != "NoOp"] == ["Placeholder"] * 2
