"""Variations of images: pixels and boxes move together, draws are pure, wrong ones are named."""

import dataclasses

import numpy as np
import pytest
from bright_scenes import BOX, POLICY, bright, samples, scene
from PIL import Image

from libra_keras import data
from libra_keras.data import Augmentation
from libra_keras.data.augmenter import Augmenter, Place
from libra_keras.data.batches import TrainingSource, mirrored, placed
from libra_keras.data.colors import color_map, recolored
from libra_keras.data.image_cache import ImageCache
from libra_keras.data.images import RESIZE_KERNELS
from libra_keras.data.views import View

FLAT = data.InputPolicy(32, 64)
KERNEL = RESIZE_KERNELS["antialias"]


def frame(pixels, threshold=127):
    """The box around the bright pixels of an image."""
    rows, columns = (np.flatnonzero(pixels[..., 0].max(axis) > threshold) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def assert_equal(mine, others):
    for one, other in zip(mine, others, strict=True):
        for array, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, expected)


# Of a box (20, 10, 50, 30) in 96 x 64. A turn by 90 degrees takes x to y and y to 96 - x.
TURNED = {
    (0, False): [20, 10, 50, 30],
    (1, False): [10, 46, 30, 76],
    (2, False): [46, 34, 76, 54],
    (3, False): [34, 20, 54, 50],
    (0, True): [20, 34, 50, 54],
    (1, True): [10, 20, 30, 50],
    (2, True): [46, 10, 76, 30],
    (3, True): [34, 46, 54, 76],
}


@pytest.mark.parametrize(("way", "expected"), TURNED.items())
def test_turns_and_flips(way, expected):
    view = View((64, 96), (64, 96), (0, 0, 64, 96), (64, 96), *way)
    pixels = np.asarray(view.image(scene(), KERNEL))
    assert view.boxes(BOX).tolist() == [expected] and frame(pixels) == expected
    assert pixels.shape == (*view.size, 3) == ((96, 64, 3) if way[0] % 2 else (64, 96, 3))


def test_a_window_of_an_enlarged_image():
    # Twice as large, the box is (40, 20, 100, 60); 30 px are cut away at the left, 24 above.
    view = View((64, 96), (128, 192), (24, 30, 64, 96), (64, 96))
    assert view.boxes(BOX).tolist() == [[10, 0, 70, 36]] and view.seen(BOX).all()
    for image in (scene(), Image.fromarray(scene()).resize((48, 32), KERNEL)):
        np.testing.assert_allclose(
            frame(np.asarray(view.image(image, KERNEL))), [10, 0, 70, 36], atol=1
        )


def test_what_is_left_of_boxes():
    # The window is (32, 0, 64, 64) of an image that is not scaled.
    view = View((64, 96), (64, 96), (0, 32, 64, 64), (64, 64))
    boxes = np.array(
        [
            [0, 0, 30, 30],  # outside
            [28, 0, 33.3, 20],  # 1.3 of 5.3 px are left: under a quarter
            [31, 0, 33, 20],  # half is left, but no more than 1 px of it
            [30, 0, 34, 20],  # half of it, 2 px
            [20, 0, 36, 20],  # just a quarter
            [40, 5, 50, 15],
        ],
        "float32",
    )
    seen = view.seen(boxes)
    assert seen.tolist() == [False, False, False, True, True, True]
    left = [[0, 0, 2, 20], [0, 0, 4, 20], [8, 5, 18, 15]]
    np.testing.assert_array_equal(view.boxes(boxes[seen]), left)
    whole = View((64, 96), (32, 48), (0, 0, 32, 48), (64, 96))
    assert whole.seen(np.array([[0, 0, 1, 1]], "float32")).all()  # nothing is cut: all are kept


def test_scale_shrinks_and_cuts_within_the_padded_size():
    augmenter = Augmenter(Augmentation(scale=(0.5, 2.0)), POLICY, seed=1)
    views = [augmenter.view((64, 96), Place(0, step, 0), turns=0) for step in range(400)]
    factors = np.array([view.scaled[0] / 64 for view in views])
    assert 0.5 <= factors.min() < 0.52 and 1.98 < factors.max() <= 2 and 1.2 < factors.mean() < 1.3
    for view in views:
        top, left, height, width = view.window
        assert (height, width) == (min(64, view.scaled[0]), min(96, view.scaled[1]))
        assert 0 <= top <= view.scaled[0] - height and 0 <= left <= view.scaled[1] - width
        assert view.padded == (64, 96)
    shares = np.array([v.window[1] / (v.scaled[1] - 96) for v in views if v.scaled[1] > 96])
    assert shares.min() < 0.05 and shares.max() > 0.95


def test_a_box_still_frames_its_object():
    """All kinds at once, mirrored and padded: what is bright lies in the box, to a pixel."""
    augment = Augmentation((48, 64), (0.7, 1.5), (0.9, 1.1), vertical_flip=0.5, quarter_turns=1.0)
    checked = 0
    for sample in samples(bright(7), 60, augment=augment):
        if sample[5][0] == 0:
            np.testing.assert_allclose(frame(sample[0]), sample[4][0], atol=1)
            checked += 1
        assert sample[0][sample[1][0] :].sum() == sample[0][:, sample[1][1] :].sum() == 0
    assert checked > 30


def test_nothing_changes_where_nothing_is_asked_for():
    read = bright(5, [(150, 80), (80, 150), (90, 90)])
    source = TrainingSource(read, POLICY, 2, seed=3, augment="none")
    for number in range(9):
        (step, slot), epoch = divmod(number % (2 * source.steps_per_epoch), 2), number // 4
        rng = np.random.default_rng([3, epoch])
        assert source.steps_per_epoch == 2
        rng.permutation(5), rng.permutation(2)  # the images, and the batches
        is_mirrored = rng.random((2, 2))[step, slot] < 0.5
        image, _, _, image_id, boxes, _ = source.sample(number)
        own = read.examples[image_id - 1]
        content = POLICY.resized(scene(own.width, own.height))
        expected = placed(content, POLICY.bucket_size(own.height, own.width), is_mirrored)
        np.testing.assert_array_equal(image, expected)
        scaled = data.scale_boxes(BOX, (own.height, own.width), content.shape[:2])
        scaled = mirrored(scaled, content.shape[1]) if is_mirrored else scaled
        np.testing.assert_array_equal(boxes, scaled)


def test_a_kind_that_is_added_changes_no_other():
    read = bright(8)
    plain = samples(read, augment=Augmentation(scale=(0.5, 2.0)))
    colored = samples(
        read, augment=Augmentation(scale=(0.5, 2.0), hue=(-0.1, 0.1), contrast=(1, 2))
    )
    for one, other in zip(plain, colored, strict=True):
        assert_equal([one[1:]], [other[1:]])
    colors, places = Augmentation(brightness=(0.5, 1)), [Place(1, 2, slot) for slot in range(3)]
    view = View((64, 96), (64, 96), (0, 0, 64, 96), (64, 96))
    levels = [Augmenter(colors, POLICY, 7).pixels(scene(), view, place).max() for place in places]
    assert len(set(levels)) == 3 and min(levels) >= 127
    more = dataclasses.replace(colors, scale=(0.5, 2.0), vertical_flip=0.5, short_sides=(32, 64))
    again = [Augmenter(more, POLICY, 7).pixels(scene(), view, place).max() for place in places]
    assert again == levels
    for flip in (0.0, 1.0):  # and `flip` draws as ever
        before = TrainingSource(read, POLICY, 2, flip).plan.batches(3)
        varied = TrainingSource(read, POLICY, 2, flip, augment="strong").plan.batches(3)
        np.testing.assert_array_equal(before, varied)


VARIED = Augmentation(
    (48, 64), (0.5, 2.0), (0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1), 0.5, 1.0
)


@pytest.mark.parametrize("kind", ["tf", "py"])
def test_any_sample_alone_is_that_of_the_run(kind):
    if kind == "tf":
        pytest.importorskip("tensorflow", reason="batches for Keras on TensorFlow")
    read = bright(7, [(96, 64), (64, 96), (80, 80)])
    source = TrainingSource(read, POLICY, 2, augment=VARIED)
    options = {"kind": kind, "epochs": 2, "start_epoch": 1, "start_step": 1, "augment": VARIED}
    batches = data.training_batches(read, POLICY, 2, **options)
    first = 2 * (source.steps_per_epoch + 1)
    for i, (x, y) in enumerate(batches):
        for slot in range(2):
            mine = [np.asarray(array)[slot] for array in (*x.values(), *y.values())]
            assert_equal([mine], [source.sample(first + 2 * i + slot)])
    assert i == 2 * source.steps_per_epoch - 2


def test_turned_images_are_in_batches_of_what_they_become():
    read = bright(11, [(96, 64), (96, 64), (64, 96), (80, 80)])
    source = TrainingSource(
        read, data.InputPolicy(32, 64), 3, augment=Augmentation(quarter_turns=1)
    )
    assert source.steps_per_epoch == 11 // 3
    turns = np.concatenate([source.plan.turns(epoch).ravel() for epoch in range(40)])
    np.testing.assert_allclose(np.bincount(turns) / len(turns), 0.25, atol=0.06)
    for number in range(0, 36, 3):
        batch = [source.sample(number + slot) for slot in range(3)]
        assert len({sample[0].shape for sample in batch}) == 1
        for image, size, *_ in batch:
            assert image.shape[:2] == ((64, 32) if size[0] > size[1] else (32, 64))


@pytest.mark.parametrize("turns", [0.02, 0.5, 1.0])
def test_turns_leave_no_batch_out(turns):
    for portrait, square in ((0, 0), (5, 0), (3, 4), (0, 12)):
        is_portrait = np.arange(13) < portrait
        is_square = np.arange(13) >= 13 - square
        plan = data.BatchPlan(is_portrait, 4, quarter_turns=turns, is_square=is_square)
        assert plan.steps_per_epoch == 3
        for epoch in range(30):
            batches = plan.batches(epoch)
            assert batches.shape == plan.turns(epoch).shape == (3, 4)
            assert len(set(batches.ravel().tolist())) == 12
            kinds = plan.turned(0)[batches] ^ (plan.turns(epoch) % 2 & ~is_square[batches])
            assert (kinds == kinds[:, :1]).all()


def test_a_damaged_image_is_replaced_by_one_that_turns_alike(tmp_path):
    read = bright(9, [(96, 64), (80, 80), (64, 96)], tmp_path)
    read.examples[0].file.write_bytes(b"damaged")
    source = TrainingSource(
        read, data.InputPolicy(32, 64), 3, augment=Augmentation(quarter_turns=1)
    )
    shapes = [source.sample(number)[0].shape for number in range(90)]
    assert all(len(set(shapes[i : i + 3])) == 1 for i in range(0, 90, 3))
    assert len(source.damaged) == 1


def test_all_images_of_a_batch_share_one_short_side():
    policy = data.InputPolicy(64, 96, pad_multiple=8)
    source = TrainingSource(bright(4), policy, 2, augment=Augmentation(short_sides=(32, 48, 64)))
    sizes = [source.sample(number)[0].shape[:2] for number in range(60)]
    assert sizes[::2] == sizes[1::2] and set(sizes) == {(32, 48), (48, 72), (64, 96)}
    assert sizes[:4] != sizes[4:8] or sizes[:4] != sizes[8:12]  # other ones in other epochs


def test_tensorflow_traces_once_for_all_sizes():
    tf = pytest.importorskip("tensorflow", reason="batches for Keras on TensorFlow")
    traces, shapes = [], set()

    @tf.function
    def step(iterator):
        traces.append(1)
        return tf.shape(next(iterator)[0]["images"])

    read = bright(6, [(96, 64), (64, 96)])
    augment = Augmentation(short_sides=(32, 64, 96), scale=(0.5, 2.0), quarter_turns=1.0)
    batches = iter(data.training_batches(read, POLICY, 2, kind="tf", augment=augment))
    for _ in range(30):
        shapes.add(tuple(step(batches).numpy().tolist()))
    assert len(traces) == 1 and len(shapes) == 3 * 2  # what JAX would compile


def test_a_cache_holds_what_is_before_augmentation(tmp_path, roomy_disk):
    (tmp_path / "images").mkdir()
    read = bright(4, [(300, 200), (150, 100)], tmp_path / "images")
    sizes = Augmentation(short_sides=(64, 96))
    for augment in (Augmentation(contrast=(0.5, 1.5)), VARIED, sizes):
        without = samples(read, augment=augment)
        for _ in range(2):
            assert_equal(samples(read, augment=augment, cache=tmp_path / "cache"), without)
    plain = ImageCache(tmp_path / "cache", read, POLICY)
    assert plain.bytes_needed()[1] == 0  # colours need no entries of their own
    source = TrainingSource(read, POLICY, 2, augment=VARIED, cache=tmp_path / "cache")
    (varied,) = source.caches.values()
    # Twice the policy is 128 x 192, so that the larger images are shrunk and the others kept.
    assert varied.bytes_needed() == (4 * 64 + 2 * 3 * (128 * 192 + 100 * 150), 0)
    source = TrainingSource(read, POLICY, 2, augment=sizes, cache=tmp_path / "cache")
    needed = [cache.bytes_needed() for cache in source.caches.values()]
    assert needed == [(4 * (3 * 64 * 96 + 64), 0), (4 * (3 * 96 * 144 + 64), 0)]


def test_proposals_move_as_boxes_do():
    proposals = np.array([[0, 0, 4, 4], [20, 10, 50, 30]], "float32")
    read = bright(4)
    examples = [dataclasses.replace(each, proposals=proposals) for each in read.examples]
    read = dataclasses.replace(read, examples=examples)
    augment = dataclasses.replace(VARIED, scale=(1.2, 2.0))
    found = 0
    for *_, own, boxes, labels in samples(read, 20, augment=augment):
        rows = own[own.any(-1)]
        assert own.shape == (2, 4) and not own[len(rows) :].any()
        if labels[0] == 0:
            np.testing.assert_array_equal(rows[-1], boxes[0])
            found += 1
    assert found
    with pytest.raises(ValueError, match="cannot move proposals. Received: bright"):
        TrainingSource(read, POLICY, 2, augment=Augmentation(functions=(print,)))


@pytest.mark.parametrize(
    ("settings", "before", "after"),
    [
        ((0.5, 1, 1, 0), (200, 100, 0), (100, 50, 0)),
        ((1, 2, 1, 0), (100, 128, 250), (73, 129, 255)),  # 127.5 + 2 * (v - 127.5) = 2 v - 127.5
        ((1, 1, 0, 0), (200, 100, 0), (119, 119, 119)),  # 0.299 * 200 + 0.587 * 100 = 118.5
        ((1, 1, 1, 0.5), (140, 128, 120), (122, 134, 142)),  # 2 * 130.68 - v
        ((1, 1, 1, 0.25), (90, 90, 90), (90, 90, 90)),  # grey has no hue
        ((1, 1, 1, 0), (1, 2, 3), (1, 2, 3)),
    ],
)
def test_colors(settings, before, after):
    image = np.full((2, 2, 3), before, "uint8")
    np.testing.assert_allclose(
        np.asarray(recolored(image, color_map(*settings)))[0, 0], after, atol=1
    )


def test_presets():
    assert Augmentation.preset("none") == Augmentation()
    assert Augmentation.preset("default", 288).short_sides == (224, 256, 288)
    assert Augmentation.preset("default", 320).short_sides == (256, 288, 320)
    assert Augmentation.preset("default", 40).short_sides == (32, 40)
    assert Augmentation.preset("strong", 288).scale == (0.5, 2.0)
    source = TrainingSource(bright(), data.InputPolicy(160, 320), 2, augment="default")
    assert source.augmenter.augmentation.short_sides == (128, 160)
    with pytest.raises(ValueError, match="one of none, default, strong. Received: 'mild'"):
        TrainingSource(bright(), POLICY, 2, augment="mild")
    with pytest.raises(TypeError, match="must be an Augmentation, a name or None"):
        TrainingSource(bright(), POLICY, 2, augment=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"short_sides": (1, 2, 3, 4, 5, 6)}, "at most 5 positive ints"),
        ({"short_sides": (640, 640)}, "each once"),
        ({"short_sides": (0.8,)}, "positive ints"),
        ({"scale": (2.0, 0.5)}, r"`scale` must be \(low, high\), from 0"),
        ({"scale": (0.0, 1.0)}, "`scale` must be positive"),
        ({"hue": (-0.6, 0.0)}, r"`hue` must be \(low, high\), from -0.5"),
        ({"contrast": (1.0, float("nan"))}, "`contrast` must be"),
        ({"vertical_flip": 2}, "`vertical_flip` must be in 0..1. Received: 2"),
        ({"quarter_turns": -1}, "`quarter_turns` must be in 0..1. Received: -1"),
    ],
)
def test_what_is_out_of_range_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        Augmentation(**options)
