"""Truth of batches: ragged, or without an object in any image, not even one of padding."""

import keras
import numpy as np
import pytest

from libra_keras.data import InputPolicy
from libra_keras.models import GroundTruth, libra_faster_rcnn_small, retinanet_small

NOTHING = {"boxes": np.zeros((2, 0, 4), "float32"), "labels": np.zeros((2, 0), "int32")}
PADDING = {"boxes": np.zeros((2, 1, 4), "float32"), "labels": np.full((2, 1), -1, "int32")}


def images(rng):
    sizes = np.array([[64, 96], [64, 80]], "int32")
    return {"images": rng.integers(0, 255, (2, 64, 96, 3), "uint8"), "image_sizes": sizes}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="ranks are known elsewhere")
def test_a_rank_that_is_unknown_is_named():
    import tensorflow as tf

    @tf.function
    def read(numbers):
        labels = tf.py_function(lambda x: x, [numbers], tf.int32)
        return GroundTruth.of({"boxes": tf.zeros((1, 2, 4)), "labels": labels}).mask

    with pytest.raises(ValueError, match=r"ranks of y\['boxes'\].*`set_shape`"):
        read(tf.zeros((1, 2), tf.int32))


def test_no_rows_become_one_of_padding():
    for part, expected in zip(GroundTruth.of(NOTHING), GroundTruth.of(PADDING), strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (part, expected)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [libra_faster_rcnn_small, retinanet_small])
def test_a_batch_without_rows_trains_like_one_of_padding(rng, make):
    x, losses = images(rng), []
    for y in (NOTHING, PADDING):
        keras.utils.set_random_seed(3)
        model = make(num_classes=2, input_policy=InputPolicy(64, 96))
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
        losses.append(model.train_on_batch(x, y, return_dict=True))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and np.isfinite(losses[0]["loss"])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's graphs")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_batches_and_rows_of_an_unknown_number(rng):
    import tensorflow as tf

    x = images(rng)
    model = libra_faster_rcnn_small(num_classes=2, input_policy=InputPolicy(64, 96))
    model.compile(keras.optimizers.SGD(0.01))
    signature = (
        {key: tf.TensorSpec(value.shape, value.dtype) for key, value in x.items()},
        {"boxes": tf.TensorSpec((2, None, 4)), "labels": tf.TensorSpec((2, None), "int32")},
    )
    for num in (0, 3):
        boxes = np.tile(np.float32([8, 8, 40, 40]), (2, num, 1))
        rows = [(x, {"boxes": boxes, "labels": np.ones((2, num), "int32")})]
        batches = tf.data.Dataset.from_generator(rows.__iter__, output_signature=signature)
        found = model.fit(batches, verbose=0, shuffle=False).history
        assert np.isfinite(found["loss"][0]) and (found["box_loss"][0] > 0) == (num > 0)
        # TensorFlow finds the end of such data in a step that has no batch, and counts for nothing.
        parts = sum(found[name][0] for name in model.LOSSES)
        assert found["loss"][0] == pytest.approx(parts, rel=1e-5)
    assert int(model.trained_steps) == 2 and float(model.rpn.positives.count) == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's tensors")
def test_ragged_boxes_are_filled_up():
    import tensorflow as tf

    boxes = tf.ragged.constant([[[1.0, 2, 3, 4]], [[5.0, 6, 7, 8], [0.0, 0, 9, 9]]], ragged_rank=1)
    truth = GroundTruth.of({"boxes": boxes, "labels": tf.ragged.constant([[3], [1, 0]])})
    assert truth.mask.numpy().tolist() == [[True, False], [True, True]]
    assert truth.labels.numpy().tolist() == [[3, 0], [1, 0]]
    assert truth.boxes.numpy()[0].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
