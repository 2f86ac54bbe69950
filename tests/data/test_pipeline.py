"""Batches as tf.data."""

import numpy as np
import pytest

from libra_keras import data

tf = pytest.importorskip("tensorflow", reason="batches for Keras on TensorFlow")
POLICY = data.InputPolicy(40, 60, pad_multiple=8)  # buckets 40 x 64 and 64 x 40


def test_shapes_and_dtypes(files):
    batches = data.training_batches(files([(60, 40)] * 4 + [(40, 60)] * 2), POLICY, 2, epochs=2)
    x, y = batches.element_spec
    assert x["images"] == tf.TensorSpec((2, None, None, 3), tf.uint8)
    assert x["image_sizes"] == x["original_sizes"] == tf.TensorSpec((2, 2), tf.int32)
    assert x["image_ids"] == tf.TensorSpec((2,), tf.int64)
    assert y["boxes"] == tf.TensorSpec((2, 1, 4), tf.float32)
    assert y["labels"] == tf.TensorSpec((2, 1), tf.int32)
    sizes = [tuple(x["images"].shape[1:3]) for x, _ in batches]
    assert len(sizes) == len(batches) == 6 and set(sizes) == {(40, 64), (64, 40)}
    assert sizes.count((64, 40)) == 2


def test_order_is_that_of_the_plan_and_resumes(files):
    read = files([(60, 40)] * 5)
    ids = [x["image_ids"].numpy() for x, _ in data.training_batches(read, POLICY, 2, epochs=3)]
    plan = data.BatchPlan([False] * 5, 2)
    np.testing.assert_array_equal(ids, np.concatenate([plan.batches(e) for e in range(3)]) + 1)
    later = data.training_batches(read, POLICY, 2, epochs=1, start_epoch=2)
    np.testing.assert_array_equal([x["image_ids"] for x, _ in later], ids[4:])
    later = data.training_batches(read, POLICY, 2, epochs=2, start_epoch=1, start_step=1)
    np.testing.assert_array_equal([x["image_ids"] for x, _ in later], ids[3:])


def test_endless(files):
    batches = data.training_batches(files([(60, 40)] * 2), POLICY, 2)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    assert batches.source.steps_per_epoch == 1
    assert len(list(batches.take(5))) == 5


def test_images_without_boxes(files):
    scenes = data.shapes(20)
    assert not scenes.examples[19].num_boxes
    policy = data.InputPolicy(64, 64)
    kept = data.training_batches(scenes, policy, 10, epochs=1)
    dropped = data.training_batches(scenes, policy, 10, epochs=1, drop_empty=True)
    assert (len(kept), len(dropped)) == (2, 1)
    assert any((y["labels"].numpy() == -1).all(-1).any() for _, y in kept)


def test_damage_keeps_the_number_of_steps_and_too_much_stops(files):
    read = files([(60, 40)] * 6)
    read.examples[2].file.write_bytes(b"damaged")
    batches = data.training_batches(read, POLICY, 2, epochs=2)
    assert len(list(batches)) == 6
    assert list(batches.source.damaged) == [str(read.examples[2].file)]
    read.examples[3].file.unlink()
    with pytest.raises(tf.errors.OpError, match=r"2 of 6 images are damaged"):
        list(data.training_batches(read, POLICY, 2, epochs=1))


def test_evaluation_shows_every_image_once(files):
    read = files([(60, 40)] * 3 + [(40, 60)] * 2)
    batches = data.evaluation_batches(read, POLICY, 2)
    ids = [x["image_ids"].numpy().tolist() for x in batches]
    assert ids == [[1, 2], [3], [4, 5]] and len(batches) == 3
    assert batches.element_spec["images"] == tf.TensorSpec((None, None, None, 3), tf.uint8)
    with pytest.raises(ValueError, match="files"):
        data.evaluation_batches(read.subset([]), POLICY, 2)


def test_pixels_and_boxes_agree():
    # In training as in evaluation a filled square's box is full of its colour.
    scenes = data.shapes(40)
    policy = data.InputPolicy(320, 320)
    label = scenes.class_names.index("filled square")
    checked = 0
    for x, y in data.training_batches(scenes, policy, 4, epochs=1):
        rows = y["boxes"].numpy(), y["labels"].numpy()
        for image, boxes, labels in zip(x["images"].numpy(), *rows, strict=True):
            for x1, y1, x2, y2 in boxes[labels == label][-1:].astype(int):
                inside = image[y1:y2, x1:x2].reshape(-1, 3)
                edge = np.median(inside, 0)
                checked += np.mean(np.abs(inside - edge).max(-1) < 80) > 0.5
    assert checked >= 20


def test_photographs_have_no_padding(photographs):
    read = data.voc(photographs("bccd"), "test").subset(range(8))
    batches = data.training_batches(read, data.InputPolicy(288, 384), 4, epochs=1)
    x, y = next(iter(batches))
    assert x["images"].shape == (4, 288, 384, 3)
    assert (x["image_sizes"].numpy() == [288, 384]).all()
    assert (x["original_sizes"].numpy() == [480, 640]).all()
    real = y["labels"].numpy() >= 0
    boxes = y["boxes"].numpy()
    assert (boxes[real][:, 2:] > boxes[real][:, :2]).all() and (boxes[~real] == 0).all()
