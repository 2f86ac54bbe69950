"""The order of a run, and its single samples, mirrored and replaced."""

import dataclasses

import numpy as np
import pytest

from libra_keras import data
from libra_keras.data.batches import (
    BatchPlan,
    TrainingSource,
    mirrored,
    placed,
)
from libra_keras.data.findings import TooManyDamagedImages

POLICY = data.InputPolicy(40, 60)  # bucket 64 x 64
PORTRAIT = [False] * 7 + [True] * 5


def damage(example):
    example.file.write_bytes(example.file.read_bytes()[:60])


def test_a_batch_has_one_orientation_and_an_epoch_no_repeats():
    plan = BatchPlan(PORTRAIT, 2, seed=3)
    assert plan.steps_per_epoch == 3 + 2
    for epoch in range(5):
        batches = plan.batches(epoch)
        assert batches.shape == plan.flips(epoch).shape == (5, 2)
        assert len(set(batches.ravel())) == 10
        orientation = plan.is_portrait[batches]
        assert (orientation[:, 0] == orientation[:, 1]).all()


def test_pure_function_of_seed_and_epoch():
    first, second = BatchPlan(PORTRAIT, 2, seed=3), BatchPlan(PORTRAIT, 2, seed=3)
    second.batches(0)
    np.testing.assert_array_equal(first.batches(9), second.batches(9))
    np.testing.assert_array_equal(first.flips(9), second.flips(9))
    assert (first.batches(1) != first.batches(2)).any()
    assert (first.batches(1) != BatchPlan(PORTRAIT, 2, seed=4).batches(1)).any()


def test_orientations_are_mixed_and_remainders_change():
    plan = BatchPlan([False] * 21 + [True] * 21, 4)
    kinds = [plan.is_portrait[plan.batches(epoch)[:, 0]].tolist() for epoch in range(6)]
    assert len({tuple(kind) for kind in kinds}) == 6
    used = {i for epoch in range(30) for i in plan.batches(epoch).ravel().tolist()}
    assert used == set(range(42))


def test_share_of_flips():
    for flip in (0.0, 0.3, 1.0):
        plan = BatchPlan([False] * 1000, 10, flip=flip)
        assert abs(plan.flips(0).mean() - flip) < 0.05


def test_an_orientation_that_fills_no_batch():
    with pytest.warns(UserWarning, match="the 1 portrait"):
        assert BatchPlan([False] * 4 + [True], 4).steps_per_epoch == 1
    with pytest.raises(ValueError, match="3 landscape and 0 portrait"):
        BatchPlan([False] * 3, 4)
    for wrong in ({"batch_size": 0}, {"batch_size": 1, "flip": 1.5}):
        with pytest.raises(ValueError, match="1, `flip` and `quarter_turns` in 0..1. Received"):
            BatchPlan([False] * 3, **wrong)


def test_a_sample_has_the_image_and_boxes_of_the_plan(files):
    read = files([(60, 40)] * 4)
    source = TrainingSource(read, POLICY, 2, flip=0.0, max_boxes=3)
    image, size, original, image_id, boxes, labels = source.sample(5)  # epoch 1, step 0, place 1
    index = source.plan.batches(1)[0, 1]
    assert image_id == index + 1 and image.shape == (64, 64, 3)
    assert image[0, 0, 2] == index and image[0, :60, 0].tolist() == list(range(60))
    assert size.tolist() == original.tolist() == [40, 60]
    np.testing.assert_array_equal(boxes, [[2, 4, 12, 14], [0] * 4, [0] * 4])
    assert labels.tolist() == [index % 2, -1, -1]
    assert source.batch_files(1, 0)[1] == str(read.examples[index].file)


def test_mirroring_stays_within_the_content(files):
    source = TrainingSource(files([(60, 40)] * 2), POLICY, 2, flip=1.0)
    image, _, _, _, boxes, _ = source.sample(0)
    assert image[0, :60, 0].tolist() == list(range(59, -1, -1)) and image[:, 60:].sum() == 0
    np.testing.assert_array_equal(boxes[0], [48, 4, 58, 14])  # 60 - 12, 60 - 2


def test_mirroring_twice_is_nothing(rng):
    image = rng.integers(0, 255, (6, 7, 3), "uint8")
    boxes = np.array([[1.0, 2, 5, 6], [0, 0, 7, 6]])
    once = placed(image, (8, 9), is_mirrored=True)
    assert not once[6:].any() and not once[:, 7:].any()
    np.testing.assert_array_equal(once[:6, :7], image[:, ::-1])
    np.testing.assert_array_equal(placed(once[:6, :7], (6, 7), is_mirrored=True), image)
    np.testing.assert_array_equal(mirrored(mirrored(boxes, 7), 7), boxes)


def test_boxes_are_scaled_with_their_image(files):
    source = TrainingSource(files([(120, 80)] * 2), POLICY, 2, flip=0.0)
    boxes = source.sample(0)[4]
    np.testing.assert_array_equal(boxes[0], [1, 2, 6, 7])


def test_ignored_boxes_are_left_out_and_the_largest_kept(files):
    read = files([(60, 40)] * 2)
    boxes = np.array([[0, 0, 40, 40], [0, 0, 5, 5], [0, 0, 9, 9], [0, 0, 8, 8]], "float32")
    ignore = np.array([True, False, False, False])
    labels = np.array([0, 1, 0, 1], "int32")
    full = dataclasses.replace(read.examples[0], boxes=boxes, labels=labels, ignore=ignore)
    read = dataclasses.replace(read, examples=[full, full])
    source = TrainingSource(read, POLICY, 2, flip=0.0)
    assert source.max_boxes == read.max_boxes == 3
    assert source.sample(0)[4][:, 2].tolist() == [5, 9, 8]
    source = TrainingSource(read, POLICY, 2, flip=0.0, max_boxes=2)
    assert source.sample(0)[4][:, 2].tolist() == [9, 8]
    assert source.sample(0)[5].tolist() == [0, 1]


def test_a_damaged_image_is_replaced_by_one_of_its_orientation(files):
    read = files([(60, 40), (40, 60)] * 3)
    damage(read.examples[4])
    source = TrainingSource(read, POLICY, 3, flip=0.0)
    samples = [source.sample(i) for i in range(6)]
    ids = sorted(int(sample[3]) for sample in samples)
    assert ids == [1, 1, 2, 3, 4, 6]  # id 5 became id 1, the next landscape image
    assert list(source.damaged) == [str(read.examples[4].file)]
    # A batch's files are those that were in it, in its order.
    for step in (0, 1):
        held = [int(sample[3]) for sample in samples[3 * step : 3 * step + 3]]
        files_held = [str(read.examples[i - 1].file) for i in held]
        assert source.batch_files(0, step) == files_held
    again = TrainingSource(read, POLICY, 3, flip=0.0)
    np.testing.assert_array_equal([again.sample(i)[3] for i in range(6)], [s[3] for s in samples])


def test_too_many_damaged_images_stop(files):
    read = files([(60, 40)] * 4)
    damage(read.examples[0])
    damage(read.examples[1])
    source = TrainingSource(read, POLICY, 4)
    with pytest.raises(TooManyDamagedImages, match=r"2 of 4 .*1%:\n.*\.png"):
        [source.sample(i) for i in range(4)]
