"""Labels that hide neither each other nor small objects."""

import numpy as np

from libra_keras.visualization.label_places import free_corner, label_places

SIZE = [(40, 10)]


def test_the_usual_places_come_first():
    # Above; inside where there is no room above; below where a box is too small for that, too.
    boxes = np.array([[20, 50, 120, 100], [20, 2, 120, 100], [150, 0, 170, 20]])
    for box, corner in zip(boxes, [(20, 40), (20, 2), (150, 20)], strict=True):
        assert label_places(box[None], [SIZE], 200, 200) == [
            (*corner, corner[0] + 40, corner[1] + 10)
        ]
    # At the right edge it is moved to the left.
    assert label_places(np.array([[190, 50, 200, 60]]), [SIZE], 200, 200) == [(160, 40, 200, 50)]


def test_a_shorter_label_is_taken_where_there_is_no_room_and_none_at_last():
    box = np.array([[0, 0, 30, 30]])
    assert label_places(box, [[(40, 10), (20, 10)]], 30, 50) == [(0, 30, 20, 40)]
    assert label_places(box, [SIZE], 30, 50) == [None]
    twice = label_places(np.repeat(box, 4, 0), [[(30, 10)]] * 4, 30, 50)
    assert twice == [(0, 30, 30, 40), None, None, None]  # below, once


def shared(one, other):
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return np.prod(np.maximum(sides, 0))


def test_in_a_crowd_no_label_hides_another_one_or_a_small_box(rng):
    corners, sides = rng.uniform(0, 300, (60, 2)), rng.uniform(6, 60, (60, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, 320)], -1)
    places = label_places(boxes, [SIZE] * 60, 320, 320)
    found = [np.array(place) for place in places if place]
    assert 25 < len(found) < 60
    assert all(0 <= place.min() and place.max() <= 320 for place in found)
    for i, place in enumerate(found):
        assert sum(shared(place, other) for other in found[:i]) == 0
        hidden = [shared(place, box) / np.prod(box[2:] - box[:2]) for box in boxes]
        assert max(hidden) <= 0.15


def test_a_word_stands_in_the_corner_that_is_free():
    boxes = np.array([[0, 0, 100, 50], [0, 90, 20, 100]])
    assert free_corner((30, 10), boxes, 100, 100) == (70, 90, 100, 100)
    assert free_corner((30, 10), np.zeros((0, 4)), 100, 100) == (0, 0, 30, 10)
