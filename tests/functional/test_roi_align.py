import contextlib
import itertools
import math

import keras
import numpy as np
import pytest
from conftest import random_boxes
from gradients import gradient, layer_gradients
from keras import ops
from parity import different, norm_error, scaled_error

from libra_keras.functional import native
from libra_keras.functional.roi_align import multilevel_roi_align, roi_align, roi_levels

# Other backends than TensorFlow have one way only.
WAYS = ["native", "gpu", "portable"] if keras.backend.backend() == "tensorflow" else ["portable"]
ways = pytest.mark.parametrize("way", WAYS, indirect=True)


@pytest.fixture
def way(request, monkeypatch):
    """Runs the test with the native twins (where there are any), of CPUs and GPUs, and without."""
    if request.param == "gpu":
        monkeypatch.setattr(native, "has_sparse_pooling", lambda: False)
    with native.portable() if request.param == "portable" else contextlib.nullcontext():
        yield request.param


def slow_bilinear(feature, y, x):
    height, width = feature.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(feature.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = feature[top, left] * (left + 1 - x) + feature[top, right] * (x - left)
    lower = feature[bottom, left] * (left + 1 - x) + feature[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def slow_roi_align(feature, box, stride, size, ratio, aligned, most):
    """The definition with loops, for one box."""
    x1, y1, x2, y2 = np.asarray(box, "float64") / stride - (0.5 if aligned else 0)
    extents = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
    counts = [ratio or math.ceil(extent / size) for extent in extents]
    counts = [n if n <= most or ratio else (most + 1) // 2 for n in counts]
    pooled = np.zeros((size, size, feature.shape[-1]))
    for i, j in itertools.product(range(size), repeat=2):
        for k, m in itertools.product(range(counts[0]), range(counts[1])):
            y = y1 + extents[0] / size * (i + (k + 0.5) / counts[0])
            x = x1 + extents[1] / size * (j + (m + 0.5) / counts[1])
            pooled[i, j] += slow_bilinear(feature, y, x) / (counts[0] * counts[1])
    return pooled


@ways
@pytest.mark.parametrize(
    ("ratio", "most", "aligned"),
    [
        (1, 16, True),
        pytest.param(2, 16, True, marks=pytest.mark.portable),
        (2, 16, False),
        (3, 16, True),
        (0, 16, True),
        (0, 2, True),
        pytest.param(0, 3, False, marks=pytest.mark.portable),
    ],
)
def test_equals_the_definition(rng, way, ratio, most, aligned):
    features = rng.normal(size=(2, 9, 12, 3)).astype("float32")
    # Also beyond the borders, up to 10 cells per bin, which exceeds the smaller maxima.
    boxes = random_boxes(rng, 2, 4, height=90, width=130) - 15
    boxes[:, 3] = [-30, 10, 130, 30]
    found = roi_align(features, boxes, 8, 3, ratio, aligned, most)
    assert tuple(found.shape) == (2, 4, 3, 3, 3)
    for b, n in itertools.product(range(2), range(4)):
        expected = slow_roi_align(features[b], boxes[b, n], 8, 3, ratio, aligned, most)
        np.testing.assert_allclose(
            ops.convert_to_numpy(found[b, n]), expected, rtol=1e-5, atol=2e-5
        )


def by_image(rois, *arrays):
    """Sorts rows `(image, box)` into `(B, N, 4)`, zero-padded, and the other arrays likewise."""
    rows = [np.flatnonzero(rois[:, 0] == b) for b in range(2)]
    length = max(map(len, rows))
    place = [np.pad(row, (0, length - len(row)), constant_values=-1) for row in rows]
    place = np.array(place)
    padding = place < 0
    sorted_arrays = [np.where(padding[(..., *[None] * (x.ndim - 1))], 0, x[place]) for x in arrays]
    return ~padding, np.where(padding[..., None], 0, rois[place, 1:]), *sorted_arrays


@pytest.mark.parametrize(
    ("way", "ratio", "aligned"),
    [
        ("native", 0, 0),
        ("native", 0, 1),
        ("native", 2, 0),
        ("native", 2, 1),
        pytest.param("portable", 0, 1, marks=pytest.mark.slow),
        pytest.param("portable", 2, 1, marks=pytest.mark.portable),
    ],
    indirect=["way"],
)
def test_equals_the_reference(reference, record_error, way, ratio, aligned):
    arrays, name = reference("roi_align.npz"), f"sr{ratio}_al{aligned}"
    real, boxes, cotangent, expected = by_image(
        arrays["rois"], arrays["cot"], arrays[f"out_{name}"]
    )

    def pool(features):
        # The largest box, of 1400 pixels, has 25 cells per bin.
        return roi_align(features, boxes, 8, 7, ratio, bool(aligned), max_sampling_ratio=25)

    pooled = ops.convert_to_numpy(pool(arrays["feat"]))[real]
    record_error("RoIAlign", scaled_error(pooled, expected[real]), 1e-5)
    if way == "native" or ratio:  # 676 taps are slow to differentiate one by one
        slope = gradient(lambda x: ops.multiply(pool(x), cotangent), arrays["feat"])
        record_error("RoIAlign: gradient", norm_error(slope, arrays[f"gfeat_{name}"]), 1e-5)


@pytest.mark.parametrize(
    ("way", "scale"), [("native", 56), ("native", 14), ("portable", 56)], indirect=["way"]
)
def test_pyramid_equals_the_reference(reference, record_error, way, scale):
    arrays = reference("roi_extractor.npz")
    levels = [arrays[f"feat{i}"] for i in range(4)]
    real, boxes, cotangent, expected, chosen = by_image(
        arrays["rois"], arrays["cot"], arrays[f"fs{scale}/out"], arrays[f"fs{scale}/level"]
    )
    found = ops.convert_to_numpy(roi_levels(boxes, 4, scale))
    record_error("RoI levels: differing", different(found[real], chosen[real]), 0)

    class Pool(keras.layers.Layer):
        def call(self, levels):
            options = {"sampling_ratio": 0, "finest_scale": scale, "max_sampling_ratio": 10}
            return multilevel_roi_align(levels, boxes, **options)

    layer = Pool()
    layer(levels)  # builds it
    pooled, slopes, _ = layer_gradients(layer, levels, cotangent)
    record_error("RoIAlign", scaled_error(pooled[real], expected[real]), 1e-5)
    for i in range(4):
        error = norm_error(slopes[i], arrays[f"fs{scale}/gfeat{i}"])
        record_error("RoIAlign: gradient", error, 1e-5)


@pytest.mark.portable
def test_levels_equal_the_reference(reference, record_error):
    arrays = reference("roi_levels.npz")
    found = ops.convert_to_numpy(roi_levels(arrays["boxes"][None], 4))
    record_error("RoI levels: differing", different(found[0], arrays["level"]), 0)


def test_levels_of_odd_boxes():
    inf, nan = float("inf"), float("nan")
    boxes = [[[5, 5, 5, 9], [9, 9, 2, 2], [0, 0, nan, 9], [0, 0, inf, 9], [0, 0, 448, 448]]]
    boxes = np.array(boxes, "float32")
    boxes[0, 1, 2] = 20  # inverted in y only: the product of the sides is negative
    assert ops.convert_to_numpy(roi_levels(boxes, 4)).tolist() == [[0, 0, 0, 3, 3]]
    assert ops.convert_to_numpy(roi_levels(boxes, 2)).tolist() == [[0, 0, 0, 1, 1]]


@ways
def test_a_ramp_gives_the_centres_of_the_bins(way):
    # Cell x has its centre at pixel 4x + 2 and holds 4x + 2: pooling returns pixel positions.
    ramp = np.broadcast_to((4.0 * np.arange(20) + 2)[None, None, :, None], (1, 20, 20, 1))
    box = np.array([[[10, 10, 38, 38]]], "float32")  # bins of 4 pixels
    found = ops.convert_to_numpy(roi_align(ramp.astype("float32"), box, 4))
    np.testing.assert_allclose(found[0, 0, 3, :, 0], [12, 16, 20, 24, 28, 32, 36], rtol=1e-6)


@ways
def test_samples_beyond_the_border(way):
    # One bin, one sample, without the half-cell shift: the sample is the middle of the box.
    feature = np.ones((1, 4, 6, 1), "float32")
    middles = {-1.0: 1, -1.01: 0, 6.0: 1, 6.01: 0}
    boxes = np.array([[[x - 1, 1, x + 1, 3] for x in middles]], "float32")
    found = roi_align(feature, boxes, 1, 1, 1, aligned=False)
    assert ops.convert_to_numpy(found).ravel().tolist() == list(middles.values())


@ways
@pytest.mark.parametrize("ratio", [0, pytest.param(2, marks=pytest.mark.portable)])
def test_odd_boxes_give_finite_features(rng, way, ratio):
    features = rng.normal(size=(1, 6, 6, 2)).astype("float32")
    inf, nan = float("inf"), float("nan")
    boxes = np.array([[[nan, 0, 9, 9], [0, 0, inf, 9], [3, 3, 3, 3], [0, 0, 0, 0]]], "float32")
    found = ops.convert_to_numpy(roi_align(features, boxes, 4, 2, ratio))
    assert np.isfinite(found).all() and not found[0, :2].any()
    # A box without area has no samples if they are counted per cell, else all at one place.
    assert found[0, 2].any() == (ratio > 0)


@ways
@pytest.mark.portable
def test_no_boxes_and_no_images(way):
    no_boxes = roi_align(ops.ones((2, 4, 4, 3)), ops.zeros((2, 0, 4)), 4)
    assert tuple(no_boxes.shape) == (2, 0, 7, 7, 3)
    no_images = roi_align(ops.ones((0, 4, 4, 3)), ops.zeros((0, 5, 4)), 4)
    assert tuple(no_images.shape) == (0, 5, 7, 7, 3)
    slope = gradient(
        lambda x: roi_align(x, ops.zeros((2, 0, 4)), 4), np.ones((2, 4, 4, 3), "float32")
    )
    assert slope.shape == (2, 4, 4, 3) and not slope.any()


@ways
def test_sums_are_float32_whatever_keras_default_is(rng, way):
    features, boxes = rng.normal(size=(1, 8, 8, 2)).astype("float32"), [[[2.0, 3, 20, 30]]]
    expected = ops.convert_to_numpy(roi_align(features, boxes, 4))
    keras.config.set_floatx("bfloat16")
    try:
        found = ops.convert_to_numpy(roi_align(features, boxes, 4))
    finally:
        keras.config.set_floatx("float32")
    np.testing.assert_array_equal(found, expected)


@ways
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_features(rng, way, dtype):
    features = rng.normal(size=(1, 8, 8, 2)).astype("float32")
    boxes = random_boxes(rng, 1, 3, height=30, width=30)
    found = roi_align(ops.cast(features, dtype), boxes, 4)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(
        found, ops.convert_to_numpy(roi_align(features, boxes, 4)), atol=0.03
    )


@ways
def test_the_gradient_of_low_precision_features_sums_in_float32(rng, way):
    """A bin of each of 600 equal boxes adds 1/4 to a cell; in bfloat16 that ends at 64."""
    box = [[[2.0, 2.0, 6.0, 6.0]]]  # one cell, between the centres of four
    boxes = np.repeat(np.float32(box), 600, axis=1)

    def pool(features):
        return roi_align(ops.cast(features, "bfloat16"), boxes, 4, output_size=1, sampling_ratio=1)

    slope = gradient(lambda x: ops.cast(pool(x), "float32"), np.zeros((1, 2, 2, 1), "float32"))
    np.testing.assert_array_equal(slope, np.full((1, 2, 2, 1), 150.0))


@pytest.mark.portable
def test_no_gradient_reaches_boxes(rng):
    features = rng.normal(size=(1, 8, 8, 2)).astype("float32")

    def pool(boxes):  # adding the sum of the boxes makes the gradient exist: ones
        return ops.sum(roi_align(features, boxes, 4)) + ops.sum(boxes)

    slope = gradient(pool, random_boxes(rng, 1, 3, height=30, width=30))
    np.testing.assert_array_equal(slope, np.ones((1, 3, 4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": np.zeros((2, 4))}, r"\(B, N, 4\).*\(2, 4\)"),
        ({"boxes": np.zeros((3, 1, 4))}, r"B being 2 as in `features`.*\(3, 1, 4\)"),
        ({"features": np.zeros((2, 4, 4))}, r"\(B, H, W, C\)"),
        ({"output_size": 0}, "output_size=0"),
        ({"sampling_ratio": -1}, "sampling_ratio=-1"),
        ({"max_sampling_ratio": 0}, "max_sampling_ratio=0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    usual = {"features": np.zeros((2, 4, 4, 1)), "boxes": np.zeros((2, 1, 4)), "stride": 4}
    with pytest.raises(ValueError, match=message):
        roi_align(**{**usual, **arguments})


def test_fewer_levels_than_strides_are_refused():
    with pytest.raises(ValueError, match="1 levels"):
        multilevel_roi_align([np.zeros((1, 4, 4, 1))], np.zeros((1, 1, 4)), strides=(4, 8))
