"""NMS and RoIAlign as operations of ONNX, run by other runtimes, are ours."""

import numpy as np
import pytest
from conftest import random_boxes
from export.test_runtimes import RUNNERS, need

from libra_keras.functional import native
from libra_keras.functional.control_flow import straight_line
from libra_keras.functional.nms import nms
from libra_keras.functional.roi_align import multilevel_roi_align, roi_levels

tf = pytest.importorskip("tensorflow")
operations = pytest.importorskip("libra_keras.export.onnx_operations")
onnx = pytest.importorskip("libra_keras.export.onnx")
openvino = pytest.importorskip("libra_keras.export.openvino")


@pytest.fixture
def runtimes(tmp_path):
    """A function that gives what runs a function of tensors: onnxruntime, OpenVINO."""
    need("onnx", "openvino")

    def convert(function, inputs):
        file = tmp_path / "graph.onnx"
        signature = [
            tf.TensorSpec((None, *value.shape[1:]), value.dtype, name)
            for name, value in inputs.items()
        ]
        placeholders = operations.Placeholders()
        with native.portable(), straight_line(placeholders.operations):
            traced = tf.function(function, input_signature=signature, autograph=False)
            traced.get_concrete_function()
        file.write_bytes(onnx.converted(traced, placeholders).SerializeToString())
        openvino.convert(file, file.with_suffix(".xml"))
        return RUNNERS["onnx"](file), RUNNERS["openvino"](file.with_suffix(".xml"))

    return convert


def hard_cases(rng, count=320, size=40):
    """Boxes that overlap, with ties, copies, no area, swapped corners and NaN; scores, groups and
    masks, some without anything."""
    boxes = random_boxes(rng, count, size, height=60.0, width=60.0, smallest=8.0)
    boxes[::2] = boxes[::2].round()  # whose overlaps are often equal to each other
    copies = rng.random((count, size)) < 0.2
    boxes[copies] = boxes[:, :1].repeat(size, axis=1)[copies]
    boxes[rng.random((count, size)) < 0.05, 2] = 0.0
    flat = rng.random((count, size)) < 0.1
    boxes[flat, 2:] = boxes[flat, :2]
    scores = rng.uniform(size=(count, size)).round(rng.integers(1, 4)).astype("float32")
    scores[rng.random((count, size)) < 0.02] = np.nan
    boxes[rng.random((count, size)) < 0.02, 1] = np.nan
    mask = rng.random((count, size)) < rng.choice([0.0, 0.5, 1.0], (count, 1))
    return {
        "boxes": boxes.astype("float32"),
        "scores": scores,
        "groups": rng.integers(0, 3, (count, size)).astype("int32"),
        "mask": mask,
    }


def test_nms(rng, runtimes):
    """In hundreds of cases, images of one batch, nothing differs."""

    def search(boxes, scores, groups, mask):
        apart = nms(boxes, scores, 0.5, 12, groups, mask, num_groups=3)
        together = nms(boxes, scores, 0.3, 40, mask=mask)
        names = "indices", "kept", "all_indices", "all_kept"
        return dict(zip(names, (*apart, *together), strict=True))

    x = hard_cases(rng)
    with native.portable():
        expected = {name: value.numpy() for name, value in search(**x).items()}
    assert 0 < expected["kept"].mean() < 0.9 and not expected["kept"].any(axis=1).all()
    for run in runtimes(search, x):
        for count in (320, 1):
            found = run({name: value[:count] for name, value in x.items()})
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values[:count], err_msg=name)


BOXES = [
    [[4, 4, 30, 20], [9, 9, 9, 9], [0, 8, 95, 12], [8, 0, 12, 63], [-80, -80, 90, 70]],
    [[0, 0, 96, 64], [-40, 5, 40, 60], [300, 300, 320, 310], [1, 2, np.inf, 4], [np.nan] * 4],
]


def test_roi_align(rng, runtimes):
    """Of boxes on both levels and on one, which may be of any size, or none."""

    def pool(fine, coarse, boxes):
        options = {
            "two": {"sampling_ratio": 2},
            "older": {"sampling_ratio": 2, "aligned": False},
            "three": {"sampling_ratio": 3, "output_size": 2},
            "free": {"sampling_ratio": 0},
        }
        given = {"strides": (4, 8), "finest_scale": 20.0, "output_size": 3}
        levels = [fine, coarse]
        return {
            name: multilevel_roi_align(levels, boxes, **{**given, **more})
            for name, more in options.items()
        }

    x = {
        "fine": rng.normal(size=(2, 16, 24, 5)).astype("float32"),
        "coarse": rng.normal(size=(2, 8, 12, 5)).astype("float32"),
        "boxes": np.array(BOXES, "float32"),
    }
    assert set(np.unique(roi_levels(x["boxes"], 2, 20.0))) == {0, 1}
    small = np.full_like(x["boxes"], 4.0) + np.array([0, 0, 9, 7], "float32")
    for run in runtimes(pool, x):
        for boxes in (x["boxes"], small):
            with native.portable():
                expected = pool(**{**x, "boxes": boxes})
            found = run({**x, "boxes": boxes})
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, atol=2e-6, err_msg=name)
                assert values.numpy().any()


def test_samples_without_our_limit_need_no_memory(rng, runtimes):
    """A box of any size ends near the map."""

    def pool(x, boxes):
        return {"pooled": multilevel_roi_align([x], boxes, (4,), 2, 0, max_sampling_ratio=2)}

    boxes = [[[-9e6, -9e6, 9e6, 9e6], [9, 9, -9e6, -9e6]]]
    x = {"x": rng.normal(size=(1, 8, 8, 2)).astype("float32"), "boxes": np.array(boxes, "float32")}
    for run in runtimes(pool, x):
        found = run(x)["pooled"]
        assert np.isfinite(found).all() and found[0, 0].any() and not found[0, 1].any()
