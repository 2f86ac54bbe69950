import numpy as np
import pytest
from conftest import random_boxes
from keras import ops
from parity import relative_error

from libra_keras.functional import boxes

pytestmark = pytest.mark.portable


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def slow_iou(a, b):
    """Loops over pairs; the obvious twin of `boxes.iou`."""
    result = np.zeros((len(a), len(b)))
    for i, (ax1, ay1, ax2, ay2) in enumerate(a):
        for j, (bx1, by1, bx2, by2) in enumerate(b):
            width = max(0, min(ax2, bx2) - max(ax1, bx1))
            height = max(0, min(ay2, by2) - max(ay1, by1))
            overlap = width * height
            union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap
            result[i, j] = overlap / union
    return result


def test_area_of_real_and_inverted_boxes():
    # 4 x 3 pixels; x2 < x1 is no box and covers nothing
    assert numpy(boxes.area([[1.0, 1.0, 5.0, 4.0], [5.0, 1.0, 1.0, 4.0]])).tolist() == [12.0, 0.0]


def test_iou_equals_the_loop_twin(rng):
    a, b = random_boxes(rng, 40), random_boxes(rng, 30)
    np.testing.assert_allclose(numpy(boxes.iou(a, b)), slow_iou(a, b), rtol=1e-5, atol=1e-6)


def test_iou_broadcasts_over_a_batch(rng):
    a, b = random_boxes(rng, 1, 7), random_boxes(rng, 3, 5)
    result = numpy(boxes.iou(a, b))
    assert result.shape == (3, 7, 5)
    np.testing.assert_allclose(result[2], numpy(boxes.iou(a[0], b[2])), rtol=1e-6)


def test_empty_boxes_overlap_nothing():
    empty, real = [[3.0, 3.0, 3.0, 3.0]], [[0.0, 0.0, 9.0, 9.0]]
    assert numpy(boxes.iou(empty, empty)).item() == 0.0  # 0 / 0
    assert numpy(boxes.iou(empty, real)).item() == 0.0
    assert numpy(boxes.iof(empty, real)).item() == 0.0


def test_iof_divides_by_the_first_boxes_area():
    inner, outer = [[0.0, 0.0, 2.0, 2.0]], [[0.0, 0.0, 8.0, 8.0]]
    assert numpy(boxes.iof(inner, outer)).item() == 1.0
    assert numpy(boxes.iof(outer, inner)).item() == 4 / 64


def test_clip_uses_each_images_own_size():
    outside = np.array([[[-5, -5, 30, 30]], [[10, 60, 70, 90]]], "float32")
    moved = boxes.clip(outside, np.array([[20, 10], [50, 60]]))
    assert numpy(moved).tolist() == [[[0, 0, 10, 20]], [[10, 50, 60, 50]]]


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_decode_inverts_encode(rng, stds):
    a, anchors = random_boxes(rng, 2, 50, smallest=8.0), random_boxes(rng, 2, 50, smallest=8.0)
    decoded = boxes.decode(boxes.encode(a, anchors, stds), anchors, stds)
    np.testing.assert_allclose(numpy(decoded), a, atol=2e-4)


def test_decode_limits_growth():
    # an anchor of 16 pixels grows to 1000 at most, and shrinks to 16 * 16 / 1000 at least
    anchor = np.array([[-8.0, -8.0, 8.0, 8.0]] * 2, "float32")
    deltas = np.array([[0, 0, 1e4, 0], [0, 0, -1e4, 0]], "float32")
    result = numpy(boxes.decode(deltas, anchor))
    np.testing.assert_allclose(result[:, 2] - result[:, 0], [1000.0, 0.256], rtol=1e-5)


def test_encode_of_padding_is_finite():
    zeros = np.zeros((1, 3, 4), "float32")
    assert np.isfinite(numpy(boxes.encode(zeros, zeros))).all()


STDS = {"std1": (1.0, 1.0, 1.0, 1.0), "std2": (0.1, 0.1, 0.2, 0.2)}
SIZE = np.array([[400, 600]])


@pytest.mark.parametrize("name", STDS)
def test_coder_equals_the_reference(reference, record_error, name):
    golden, stds = reference("coder.npz"), STDS[name]
    encoded = boxes.encode(golden["gt"], golden["proposals"], stds)
    error = relative_error(encoded, golden[f"{name}/encode"], floor=0.5)
    record_error("box encoding", error, 1e-5)
    decoded = boxes.decode(golden["deltas"], golden["proposals"], stds)
    # "clip0" names an image size, but asks not to clip to it.
    for key in ("decode_noshape", "decode_shape400x600_clip0"):
        check_boxes(record_error, decoded, golden[f"{name}/{key}"])
    clipped = boxes.clip(decoded[None], SIZE)[0]
    check_boxes(record_error, clipped, golden[f"{name}/decode_shape400x600_clip1"])


@pytest.mark.parametrize("name", STDS)
def test_class_wise_decoding_equals_the_reference(reference, record_error, name):
    golden = reference("coder.npz")
    deltas = golden["deltas_multi"].reshape(50, 7, 4)
    decoded = boxes.decode(deltas, golden["proposals"][:50, None], STDS[name])
    check_boxes(record_error, decoded, golden[f"{name}/decode_multi_clip0"].reshape(50, 7, 4))
    clipped = boxes.clip(ops.reshape(decoded, (1, -1, 4)), SIZE)[0]
    check_boxes(record_error, clipped, golden[f"{name}/decode_multi_clip1"].reshape(-1, 4))


def check_boxes(record_error, found, expected):
    # Corners are sums of a centre and half a side, of which either can be 1000 pixels.
    record_error("box decoding", relative_error(found, expected, floor=100.0), 1e-5)
