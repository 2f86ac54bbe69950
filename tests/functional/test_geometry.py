"""Anchors and boxes as torchvision and mmdetection 1.x compute them."""

import keras
import numpy as np
import pytest
from conftest import random_boxes
from keras import ops

from libra_keras.functional import boxes
from libra_keras.functional.anchors import base_anchors, pyramid_anchors
from libra_keras.functional.argument_checks import GEOMETRIES

pytestmark = pytest.mark.portable
RETINA_SCALES = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))
STDS = (0.1, 0.1, 0.2, 0.2)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def levels(height, width, strides, **options):
    cells = [(-(-height // stride), -(-width // stride)) for stride in strides]
    return [numpy(level) for level in pyramid_anchors(cells, strides, **options)]


def test_legacy_anchors_by_hand():
    # 32 pixels around 1.5, the middle of the pixels 0..3: -14..17, which end at 18
    assert base_anchors(4, (8.0,), (1.0,), "legacy") == [(-14.0, -14.0, 18.0, 18.0)]
    # 45.25 by 22.63: 1.5 -+ 22.13 and 1.5 -+ 10.81 are rounded, then ended by a pixel more
    assert base_anchors(4, (8.0,), (0.5,), "legacy") == [(-21.0, -9.0, 25.0, 13.0)]
    (level,) = pyramid_anchors([(2, 3)], (4,), ratios=(1.0,), geometry="legacy")
    assert numpy(level)[4].tolist() == [-10, -10, 22, 22]  # row 1, column 1


def test_halves_are_rounded_to_even():
    # 5 pixels wide and high: corners of 2.5 in one geometry; 6 around 2 in the other, 2 -+ 2.5
    assert base_anchors(5, (1.0,), (1.0,), "torchvision") == [(-2.0, -2.0, 2.0, 2.0)]
    assert base_anchors(5, (1.2,), (1.0,), "legacy") == [(0.0, 0.0, 5.0, 5.0)]


def test_torchvision_anchors_by_hand():
    # 32 / sqrt(0.5) = 45.25 wide and 22.63 high, half of each rounded
    assert base_anchors(4, (8.0,), (0.5,), "torchvision") == [(-23.0, -11.0, 23.0, 11.0)]
    # sides 40.3 and 50.8 are cut off to 40 and 50
    square = base_anchors(8, RETINA_SCALES, (1.0,), "torchvision")
    assert [corners[2] for corners in square] == [16.0, 20.0, 25.0]


def test_torchvisions_own_anchors_of_a_retinanet():
    """Numbers printed by torchvision 0.16.2, its `AnchorGenerator` for a 480 x 640 image."""
    options = {"scales": RETINA_SCALES, "geometry": "torchvision"}
    finest, _, _, p6, p7 = levels(480, 640, (8, 16, 32, 64, 128), **options)
    assert finest[:9].tolist() == [
        [-23, -11, 23, 11],
        [-28, -14, 28, 14],
        [-35, -18, 35, 18],
        [-16, -16, 16, 16],
        [-20, -20, 20, 20],
        [-25, -25, 25, 25],
        [-11, -23, 11, 23],
        [-14, -28, 14, 28],
        [-18, -35, 18, 35],
    ]
    # 8 rows and 10 columns of 480 // 8 = 60 and 640 // 10 = 64 pixels
    assert p6.shape == (720, 4)
    assert p6[9].tolist() == [-117, -91, 245, 91]
    assert p6[90].tolist() == [-181, -31, 181, 151]
    assert p6[-1].tolist() == [432, 133, 720, 707]
    assert p7[-1].tolist() == [225, -214, 799, 934]


def test_torchvisions_own_anchors_of_a_proposal_network():
    """Numbers printed by torchvision 0.16.2, as above."""
    p6 = levels(480, 640, (4, 8, 16, 32, 64), geometry="torchvision")[-1]
    assert p6.shape == (240, 4)
    assert p6[[0, 3, 30]].tolist() == [
        [-362, -181, 362, 181],
        [-298, -181, 426, 181],
        [-362, -121, 362, 241],
    ]
    assert p6[-1].tolist() == [395, 58, 757, 782]


def test_anchors_of_unknown_sizes():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces sizes that it does not know")
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None)), tf.TensorSpec((None, None))])
    def traced(fine, coarse):
        cells = [ops.shape(fine), ops.shape(coarse)]
        return pyramid_anchors(cells, (8, 16), geometry="torchvision")

    for found, expected in zip(
        traced(tf.zeros((3, 7)), tf.zeros((2, 4))),
        pyramid_anchors([(3, 7), (2, 4)], (8, 16), geometry="torchvision"),
        strict=True,
    ):
        np.testing.assert_array_equal(numpy(found), numpy(expected))
    # 24 // 2 = 12 pixels down, 56 // 4 = 14 to the right: 128 pixels around (14, 12)
    assert numpy(found)[16].tolist() == [-50, -52, 78, 76]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_decode_inverts_encode(rng, geometry):
    some, anchors = (random_boxes(rng, 2, 40, smallest=8.0) for _ in range(2))
    deltas = boxes.encode(some, anchors, STDS)
    np.testing.assert_allclose(
        numpy(boxes.decode(deltas, anchors, STDS, geometry)), some, atol=2e-4
    )


def test_legacy_decoding_is_that_of_counted_pixels():
    # mmdetection 1.x, by hand: the anchor 0..9 has 10 pixels and the centre 4.5. Moved by half a
    # width and twice as wide: 20 pixels around 9.5, which are 0..19. Its edges: 0 and 20.
    anchor = np.array([0, 0, 9 + 1, 9 + 1], "float32")
    moved = boxes.decode(np.array([0.5, 0, np.log(2), 0], "float32"), anchor, geometry="legacy")
    np.testing.assert_allclose(numpy(moved), [0, 0, 19 + 1, 9 + 1], atol=1e-5)


def test_legacy_clipping_leaves_the_last_pixel():
    # x1 and x2 are clipped to 0..19 there: a box to the right becomes 19..19, one to the left 0..0
    outside = np.array([[[30, 2, 40, 5], [-9, 2, -4, 5]]], "float32")
    found = numpy(boxes.clip(outside, np.array([[10, 20]]), "legacy"))[0]
    assert found.tolist() == [[19, 2, 20, 5], [0, 2, 1, 5]]


def test_limits_of_growth():
    # a side of 16 pixels grows to 1000; it shrinks to 16 * 16 / 1000, or, in one, as far as told
    deltas = np.array([[0, 0, 99, 99], [0, 0, -99, -99], [0, 0, -10, -10]], "float32")
    anchor = np.array([-0.5, -0.5, 15.5, 15.5], "float32")
    for geometry in GEOMETRIES:
        result = numpy(boxes.decode(deltas, anchor, geometry=geometry))
        widths = result[:, 2] - result[:, 0]
        least = [0.0, 16 * np.exp(-10)] if geometry == "torchvision" else [0.256, 0.256]
        np.testing.assert_allclose(widths, [1000, *least], rtol=1e-4, atol=2e-6)


def test_torchvisions_own_decoding():
    """Numbers printed by torchvision 0.16.2, its `BoxCoder((10, 10, 5, 5))`."""
    anchor = np.array([10, 20, 42, 36], "float32")
    deltas = np.array([[1, -2, 0.5, -40], [1, -2, 50, -10]], "float32")
    expected = [
        [11.517265319824219, 24.79731559753418, 46.88273620605469, 24.802682876586914],
        [-970.800048828125, 23.717317581176758, 1029.2000732421875, 25.882680892944336],
    ]
    found = boxes.decode(deltas, anchor, STDS, "torchvision")
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ("continuous", [0, 2, 20, 10]),
        ("torchvision", [0, 2, 20, 10]),
        ("legacy", [0, 2, 20, 10]),
    ],
)
def test_clip(geometry, expected):
    outside = np.array([[[-5, 2, 30, 80]]], "float32")
    assert numpy(boxes.clip(outside, np.array([[10, 20]]), geometry)).tolist() == [[expected]]


def test_has_sides():
    some = np.array([[0, 0, 1, 0], [5, 5, 4, 9], [0, 0, 0.25, 9], [0, 0, 0.5, 9]], "float32")
    assert numpy(boxes.has_sides(some)).tolist() == [False, False, True, True]
    assert numpy(boxes.has_sides(some, 0.5)).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    "call",
    [
        lambda name: base_anchors(4, geometry=name),
        lambda name: pyramid_anchors([(1, 1)], (4,), geometry=name),
        lambda name: boxes.decode(np.zeros(4), np.ones(4), geometry=name),
        lambda name: boxes.clip(np.zeros((1, 1, 4)), np.ones((1, 2)), name),
    ],
)
def test_unknown_geometry(call):
    with pytest.raises(ValueError, match="'continuous', 'torchvision', 'legacy'.*'euclidean'"):
        call("euclidean")
