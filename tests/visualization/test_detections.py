import numpy as np
import pytest
from PIL import Image

from libra_keras.visualization import class_color, draw_detections, gallery, save_image

BLACK = np.zeros((100, 120, 3), "uint8")


def test_colors_of_classes_are_distinct():
    colors = np.array([class_color(label) for label in range(20)], "float64")
    distances = np.linalg.norm(colors[:, None] - colors, axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 25
    assert distances[:6, :6][~np.eye(6, dtype=bool)].min() > 80


def test_box_edges_are_where_the_box_is():
    # Half-open: the box covers the pixels 20..69 by 40..89.
    picture = draw_detections(BLACK, [[20, 40, 70, 90]], [3], class_names="abcd")
    color = list(class_color(3))
    edges = picture[89, 20:70], picture[40:90, 20], picture[40:90, 69]
    assert all((edge == color).all() for edge in edges)
    assert not picture[90:].any() and not picture[:, 70:].any() and not picture[:, :20].any()
    assert not picture[41:89, 21:69].any()
    assert not BLACK.any()  # a copy was drawn on


def test_the_name_is_above_the_box_or_inside_at_the_top():
    above = draw_detections(BLACK, [[20, 40, 70, 90]], [0], [0.5], ["cell"])
    assert above[:40].any()
    inside = draw_detections(BLACK, [[20, 2, 70, 90]], [0], [0.5], ["cell"])
    assert not inside[:2].any() and inside[3:15, 25:60].any()


def test_names_at_the_right_edge_are_not_cut():
    """The same text, moved to the left, shows the same number of inked pixels."""
    left, right = (
        draw_detections(BLACK, [[x, 40, x + 8, 48]], [0], [0.5], ["long name"]) for x in (10, 112)
    )
    assert np.count_nonzero(left[:40].any(-1)) == np.count_nonzero(right[:40].any(-1))


def test_low_scores_and_padding_are_left_out_and_the_best_is_on_top():
    boxes, labels = [[20, 40, 70, 90]] * 4, [0, 1, 2, -1]
    picture = draw_detections(BLACK, boxes, labels, [0.6, 0.9, 0.1, 0.99], min_score=0.5)
    only = draw_detections(BLACK, boxes[:1], [1], [0.9])
    assert (picture[89, 20:70] == class_color(1)).all()
    assert (picture[:40] == only[:40]).all()  # the name of the other one is inside
    nothing = draw_detections(BLACK, np.zeros((0, 4)), [], [])
    np.testing.assert_array_equal(nothing, BLACK)


def test_where_no_score_is_high_enough_the_best_are_grey_and_a_word_says_so():
    boxes, labels = [[10, 40, 40, 70], [50, 40, 80, 70], [85, 40, 115, 70]], [0, 1, 2]
    own = {"class_names": ["a", "b", "c"], "min_score": 0.5}
    few = draw_detections(BLACK, boxes, labels, [0.1, 0.3, 0.2], **own, best_below=2)
    assert (few[69, 50:80] == 150).all() and (few[69, 85:115] == 150).all()
    assert not few[69, :40].any() and few[:12, :60].any()
    nothing = draw_detections(BLACK, [], [], [], **own, best_below=2)
    assert nothing[:12].any() and not nothing[40:].any()
    enough = draw_detections(BLACK, boxes, labels, [0.1, 0.3, 0.6], **own, best_below=2)
    one = draw_detections(BLACK, boxes[2:], labels[2:], [0.6], **own)
    np.testing.assert_array_equal(enough, one)


def test_lines_are_as_thick_as_suits_the_image_and_a_small_object():
    widths = []
    for side in (240, 1200):
        picture = draw_detections(np.zeros((side, side, 3), "uint8"), [[0, 0, side, side]], [0])
        widths.append(np.count_nonzero(picture[side // 2, : side // 2].any(-1)))
    assert widths == [1, 5]
    small = draw_detections(np.zeros((1200, 1200, 3), "uint8"), [[600, 600, 616, 616]], [0])
    assert np.count_nonzero(small[608, 600:616].any(-1)) == 2  # 12 of 16 pixels would be hidden


def test_boxes_outside_and_degenerate_ones_do_not_fail():
    boxes = [[-20, -20, 500, 500], [10, 10, 10, 10], [119, 99, 130, 130], [300, 300, 310, 310]]
    assert draw_detections(BLACK, boxes, [0, 1, 2, 3]).shape == BLACK.shape


def test_enlarging_scales_image_and_boxes():
    picture = draw_detections(BLACK + 9, [[20, 40, 70, 90]], [0], enlarge=3)
    assert picture.shape == (300, 360, 3)
    assert (picture[269, 60:210] == class_color(0)).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((BLACK.astype("float32"), [], []), "float32"),
        ((BLACK[..., 0], [], []), r"\(100, 120\)"),
        ((BLACK, [[0, 0, 1, 1]], [0, 1]), "1 boxes, 2 labels"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(*arguments)


def test_gallery_centres_images_of_different_sizes():
    sizes = (4, 6), (2, 2), (4, 4)
    images = [np.full((*size, 3), value, "uint8") for value, size in enumerate(sizes, 1)]
    picture = gallery(images, columns=2, gap=1, background=9)
    assert picture.shape == (9, 13, 3)
    plane = picture[..., 0]
    assert (plane[:4, :6] == 1).all() and (plane[1:3, 9:11] == 2).all()
    assert (plane[5:9, 1:5] == 3).all()
    assert np.count_nonzero(plane == 9) == 9 * 13 - 24 - 4 - 16
    assert gallery(images[:1], columns=4).shape == (4, 6, 3)
    with pytest.raises(ValueError, match="at least one"):
        gallery([])


def test_saved_as_png(tmp_path, rng):
    image = rng.integers(0, 256, (5, 7, 3)).astype("uint8")
    save_image(image, tmp_path / "made" / "picture.png")
    np.testing.assert_array_equal(Image.open(tmp_path / "made" / "picture.png"), image)
