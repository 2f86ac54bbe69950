import numpy as np
import pytest
from keras import ops

from libra_keras.functional.anchors import base_anchors, pyramid_anchors


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


def test_wrong_number_of_strides_is_refused():
    with pytest.raises(ValueError, match="2 sizes and strides"):
        pyramid_anchors([(2, 2), (1, 1)], strides=(8,))


@pytest.mark.parametrize(
    ("net", "strides", "scales"),
    [
        ("rpn", (4, 8, 16, 32, 64), (8.0,)),
        ("retina", (8, 16, 32, 64, 128), (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3))),
    ],
)
def test_anchors_equal_the_reference(reference, net, strides, scales):
    golden = reference("anchors.npz")
    sizes = sorted({key.split("/")[1] for key in golden if key.startswith(net) and "x" in key})
    assert sizes
    for size in sizes:
        height, width = map(int, size.split("x"))
        cells = [(-(-height // s), -(-width // s)) for s in strides]
        for i, level in enumerate(pyramid_anchors(cells, strides, scales)):
            np.testing.assert_allclose(
                ops.convert_to_numpy(level), golden[f"{net}/{size}/anchors{i}"], atol=2e-4
            )
