import numpy as np
import pytest
from keras import ops
from parity import different, relative_error

from libra_keras.functional.anchors import base_anchors, pyramid_anchors
from libra_keras.models import RetinaHeadSettings, RPNSettings
from libra_keras.models.targets import match_anchors


def test_base_anchors_have_the_area_and_ratio_asked_for():
    wide, square, tall = base_anchors(16, scales=(8.0,), ratios=(0.5, 1.0, 2.0))
    assert square == (-64.0, -64.0, 64.0, 64.0)  # 16 * 8 pixels wide and high
    assert wide[2] == pytest.approx(128 / 2**-0.5 / 2) and wide[3] == pytest.approx(45.2548, 1e-4)
    assert tall[2:] == pytest.approx((wide[3], wide[2]))


@pytest.mark.portable
def test_anchors_of_four_cells_written_by_hand():
    (level,) = pyramid_anchors([(2, 2)], strides=(10,), scales=(1.0,), ratios=(1.0,))
    # centres (x, y): (0, 0), (10, 0), (0, 10), (10, 10); half a side is 5
    expected = [[-5, -5, 5, 5], [5, -5, 15, 5], [-5, 5, 5, 15], [5, 5, 15, 15]]
    assert ops.convert_to_numpy(level).tolist() == expected


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="2 sizes and strides"):
        pyramid_anchors([(2, 2), (1, 1)], strides=(8,))
    for wrong in (1, (1, 1, 8)):
        with pytest.raises(ValueError, match=r"`feature_sizes\[1\]` must be a pair .*Received"):
            pyramid_anchors([(2, 2), wrong], strides=(8, 16))


SIZES = {"256x320": np.array([256, 320]), "200x304": np.array([200, 304])}
NETWORKS = {"rpn": RPNSettings(pad_multiple=1), "retina": RetinaHeadSettings(pad_multiple=1)}


@pytest.mark.portable
@pytest.mark.parametrize("net", NETWORKS)
def test_base_anchors_equal_the_reference(reference, record_error, net):
    golden, settings = reference("anchors.npz"), NETWORKS[net]
    for i, stride in enumerate(settings.strides):
        found = np.array(base_anchors(stride, settings.scales, settings.ratios), "float32")
        error = relative_error(found, golden[f"{net}/base{i}"], floor=1.0)
        record_error("base anchors", error, 1e-5)


@pytest.mark.portable
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", NETWORKS)
def test_anchors_equal_the_reference(reference, record_error, net, size):
    golden = reference("anchors.npz")
    for i, level in enumerate(anchors_of(net, size)):
        expected = golden[f"{net}/{size}/anchors{i}"]
        record_error("anchors", relative_error(level, expected, floor=16.0), 1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", NETWORKS)
def test_anchors_inside_an_image_equal_the_reference(reference, record_error, net, size):
    golden = reference("anchors.npz")
    valid = [golden[f"{net}/{size}/valid_pad_minus30x50/{i}"] for i in range(5)]
    # Without objects all anchors inside the image, 30 rows and 50 columns smaller than its batch,
    # are negative, and the others are ignored.
    no_object = np.zeros((1, 1, 4), "float32"), np.zeros((1, 1), bool)
    anchors = ops.concatenate(anchors_of(net, size), axis=0)
    found = match_anchors(anchors, *no_object, SIZES[size] - [[30, 50]], NETWORKS[net])
    error = different(found.is_negative[0], np.concatenate(valid))
    record_error("anchors inside: differing", error, 0)
    assert not ops.convert_to_numpy(found.is_positive).any()


def anchors_of(net, size):
    settings, (height, width) = NETWORKS[net], SIZES[size]
    cells = [(-(-int(height) // stride), -(-int(width) // stride)) for stride in settings.strides]
    return pyramid_anchors(cells, settings.strides, settings.scales, settings.ratios)
