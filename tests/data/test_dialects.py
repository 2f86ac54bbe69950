"""The dialects of others: every box format by hand, padding, ragged boxes, samples, tf.data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from libra_keras.data import box_formats, dialects

# One box of a 100 x 200 image (height, width): x from 20 to 60, y from 10 to 40.
XYXY = [20.0, 10.0, 60.0, 40.0]
BY_HAND = {
    "xyxy": [20, 10, 60, 40],
    "yxyx": [10, 20, 40, 60],
    "xywh": [20, 10, 40, 30],
    "center_xywh": [40, 25, 40, 30],
    "center_yxhw": [25, 40, 30, 40],
    "rel_xyxy": [0.1, 0.1, 0.3, 0.4],
    "rel_yxyx": [0.1, 0.1, 0.4, 0.3],
    "rel_xywh": [0.1, 0.1, 0.2, 0.3],
    "rel_center_xywh": [0.2, 0.25, 0.2, 0.3],
    "rel_center_yxhw": [0.25, 0.2, 0.3, 0.2],
}
SIZE = (100, 200)


def numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def ragged_boxes(rows):
    """Ragged boxes and float classes, as KerasCV's layers return them."""
    boxes = [np.reshape(row, (-1, 4)) for row in rows]
    lengths = [len(row) for row in boxes]
    values = tf.constant(np.concatenate(boxes), tf.float32)
    classes = tf.range(sum(lengths), dtype=tf.float32)
    of = tf.RaggedTensor.from_row_lengths
    return {"boxes": of(values, lengths), "classes": of(classes, lengths)}


class TestBoxFormats:
    def test_all_are_tested(self):
        assert set(BY_HAND) == set(box_formats.FORMATS)

    @pytest.mark.portable
    @pytest.mark.parametrize("name", BY_HAND)
    def test_by_hand_there_and_back(self, name):
        theirs = ops.convert_to_tensor([[BY_HAND[name]]], "float32")
        ours = numpy(box_formats.to_xyxy(theirs, name, SIZE))
        np.testing.assert_allclose(ours, [[XYXY]], rtol=1e-6)
        back = numpy(box_formats.from_xyxy(ours, name.upper(), SIZE))
        np.testing.assert_allclose(back, theirs, rtol=1e-5)
        assert ours.dtype == back.dtype == "float32"

    @pytest.mark.portable
    @pytest.mark.parametrize("name", ["xywh", "yxyx", "center_xywh", "rel_yxyx", "rel_xywh"])
    def test_same_as_keras(self, name, rng):
        boxes = rng.uniform(0, 50, (2, 3, 4)).astype("float32")
        convert = keras.utils.bounding_boxes.convert_format
        expected = convert(boxes, source="xyxy", target=name, height=100, width=200)
        ours = box_formats.from_xyxy(boxes, name, SIZE)
        np.testing.assert_allclose(numpy(ours), numpy(expected), rtol=1e-5, atol=1e-5)

    @pytest.mark.portable
    def test_every_image_has_its_own_size(self):
        boxes = np.full((2, 1, 4), 0.5, "float32")
        sizes = np.array([[100, 200], [10, 20]])
        ours = numpy(box_formats.to_xyxy(boxes, "rel_xyxy", sizes))
        assert ours[:, 0].tolist() == [[100, 50, 100, 50], [10, 5, 10, 5]]

    def test_unknown_format(self):
        with pytest.raises(ValueError, match="must be one of.*'xxyy'"):
            box_formats.to_xyxy(np.zeros((1, 4)), "xxyy")

    def test_relative_needs_a_size(self):
        with pytest.raises(ValueError, match="image_size"):
            box_formats.from_xyxy(np.zeros((1, 4)), "rel_xyxy")


class TestToTargets:
    @pytest.mark.portable
    @pytest.mark.parametrize("key", ["labels", "classes"])
    def test_padding_is_known_by_its_label_alone(self, key):
        # The box of -1 is real, as its label says; that of sane numbers is padding.
        theirs = {"boxes": [[[1, 2, 3, 4], [0, 0, 10, 10]]], key: [[2, -1]]}
        y = numpy(dialects.to_targets(theirs, "xyxy", SIZE))
        assert y["boxes"].tolist() == [[[1, 2, 3, 4], [0, 0, 0, 0]]]
        assert y["labels"].tolist() == [[2, -1]] and y["labels"].dtype == "int32"

    @pytest.mark.portable
    def test_clips_and_drops_what_was_cropped_away(self):
        boxes = [[-5, 10, 30, 150], [190, 0, 250, 20], [201, 0, 230, 20], [7, 7, 7.5, 20]]
        y = numpy(dialects.to_targets({"boxes": [boxes], "labels": [[0, 1, 2, 3]]}, "xyxy", SIZE))
        assert y["boxes"][0, :2].tolist() == [[0, 10, 30, 100], [190, 0, 200, 20]]
        assert y["labels"].tolist() == [[0, 1, -1, -1]]

    @pytest.mark.portable
    def test_small_objects_stay_if_asked_for(self):
        theirs = {"boxes": [[[7, 7, 7.5, 20]]], "labels": [[3]]}
        y = numpy(dialects.to_targets(theirs, "xyxy", SIZE, min_side=0.1))
        assert y["labels"].tolist() == [[3]]

    @pytest.mark.portable
    @pytest.mark.parametrize("is_batch", [True, False])
    def test_padding_takes_no_place_of_a_box(self, is_batch):
        """The second row is padding, the third is outside of the image."""
        inside = [[10.0 * i, 0.0, 10.0 * i + 5, 5.0] for i in range(3)]
        boxes = [inside[0], [0.0, 0, 9, 9], [-9.0, -9, -5, -5], inside[1], inside[2]]
        theirs = {"boxes": [boxes], "labels": [[4, -1, 5, 6, 7]]}
        if not is_batch:
            theirs = {key: value[0] for key, value in theirs.items()}
        y = numpy(dialects.to_targets(theirs, "xyxy", SIZE, max_boxes=2))
        assert y["labels"].reshape(-1).tolist() == [4, 6]
        assert y["boxes"].reshape(-1, 4).tolist() == inside[:2]
        y = numpy(dialects.to_targets(theirs, "xyxy", SIZE, max_boxes=4))
        assert y["labels"].reshape(-1).tolist() == [4, 6, 7, -1]

    @pytest.mark.portable
    @pytest.mark.parametrize("rows", [1, 2, 5])
    def test_cut_or_filled_up_to_max_boxes(self, rows):
        theirs = {"boxes": [[XYXY, XYXY]], "labels": [[4, 5]]}
        y = numpy(dialects.to_targets(theirs, "xyxy", SIZE, max_boxes=rows))
        assert y["boxes"].shape == (1, rows, 4)
        assert y["labels"].tolist() == [([4, 5] + [-1] * 3)[:rows]]

    @pytest.mark.portable
    def test_one_image(self):
        y = numpy(dialects.to_targets({"boxes": [XYXY], "labels": [1]}, "xyxy", SIZE, max_boxes=2))
        assert y["boxes"].tolist() == [XYXY, [0] * 4] and y["labels"].tolist() == [1, -1]

    def test_ragged(self):
        theirs = ragged_boxes([[XYXY, XYXY], [], [XYXY]])
        y = numpy(dialects.to_targets(theirs, "xyxy", SIZE))
        assert y["labels"].tolist() == [[0, 1], [-1, -1], [2, -1]]
        assert y["boxes"][2].tolist() == [XYXY, [0] * 4]

    def test_ragged_without_any_box(self):
        y = numpy(dialects.to_targets(ragged_boxes([[], []]), "xyxy", SIZE, max_boxes=3))
        assert y["boxes"].shape == (2, 3, 4) and np.all(y["labels"] == -1)

    def test_missing_key(self):
        with pytest.raises(ValueError, match="'labels' or 'classes'.*'boxes'"):
            dialects.to_targets({"boxes": np.zeros((1, 1, 4))}, "xyxy", SIZE)


class TestSamples:
    @pytest.mark.portable
    @pytest.mark.parametrize("key", ["labels", "classes"])
    @pytest.mark.parametrize("name", ["xyxy", "rel_yxyx", "center_xywh"])
    def test_there_and_back(self, name, key):
        x = {"images": np.ones((2, 100, 200, 3), "uint8"), "image_ids": np.arange(2)}
        y = {"boxes": np.array([[XYXY, [0] * 4]] * 2, "float32"), "labels": [[3, -1]] * 2}
        sample = dialects.to_sample(x, y, name, key)
        assert np.all(numpy(sample["bounding_boxes"])["boxes"][:, 1] == -1)
        new_x, new_y = numpy(dialects.from_sample(sample, name))
        assert set(x) == {"images", "image_ids"}, "the caller's dict stays as it was"
        assert new_x["image_sizes"].tolist() == [[100, 200]] * 2
        assert new_x["image_ids"].tolist() == [0, 1] and new_x["images"].dtype == "uint8"
        np.testing.assert_allclose(new_y["boxes"], y["boxes"], rtol=1e-5)
        assert new_y["labels"].tolist() == y["labels"]

    @pytest.mark.portable
    def test_one_image(self):
        boxes = {"boxes": [XYXY], "labels": [1]}
        sample = {"images": np.zeros((100, 200, 3)), "bounding_boxes": boxes}
        x, y = numpy(dialects.from_sample(sample, "xyxy", max_boxes=2))
        assert x["image_sizes"].tolist() == [100, 200] and y["labels"].tolist() == [1, -1]

    def test_in_tf_data_with_unknown_shapes(self):
        def images():
            boxes = [[BY_HAND["rel_xywh"]] * 2] * 2
            yield np.zeros((2, 100, 200, 3), "float32"), boxes, [[-1, 1], [-1, -1]]

        specs = [tf.TensorSpec(s) for s in ((None, None, None, 3), (None, None, 4), (None, None))]
        dataset = tf.data.Dataset.from_generator(images, output_signature=tuple(specs))
        dataset = dataset.map(
            lambda i, b, c: {"images": i, "bounding_boxes": {"boxes": b, "classes": c}}
        ).map(lambda sample: dialects.from_sample(sample, "rel_xywh", max_boxes=3))
        spec = dataset.element_spec[1]
        assert spec["boxes"].shape[1:] == (3, 4) and spec["labels"].shape[1:] == (3,)
        ((x, y),) = dataset
        assert x["image_sizes"].numpy().tolist() == [[100, 200]] * 2
        np.testing.assert_allclose(y["boxes"][0, 0], XYXY, rtol=1e-5)
        assert y["labels"].numpy().tolist() == [[1, -1, -1], [-1, -1, -1]]

    def test_on_another_backend_tf_data_gets_tensorflow(self, monkeypatch):
        # Inside tf.data tensors are TensorFlow's, on whatever backend Keras computes.
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        boxes = tf.constant([[XYXY]])
        assert box_formats.operations(boxes) is tf and box_formats.operations([1.0]) is ops
        sample = {
            "images": tf.zeros((1, 100, 200, 3)),
            "bounding_boxes": {"boxes": boxes, "labels": tf.constant([[2]])},
        }

        def both_ways(sample):
            x, y = dialects.from_sample(sample, "xyxy", max_boxes=2)
            again = dialects.to_sample(x, y, "rel_xyxy", "classes")
            return dialects.from_sample(again, "rel_xyxy")

        one = {**sample["bounding_boxes"], "labels": tf.constant([[-1, 5, 6]])}
        one["boxes"] = tf.constant([[XYXY] * 3])
        first = dialects.to_targets(one, "xyxy", SIZE, max_boxes=1)
        assert first["labels"].numpy().tolist() == [[5]]
        assert first["boxes"].numpy().tolist() == [[XYXY]]
        ((x, y),) = tf.data.Dataset.from_tensors(sample).map(both_ways)
        np.testing.assert_allclose(y["boxes"][0, 0], XYXY, rtol=1e-5)
        assert x["image_sizes"].numpy().tolist() == [[100, 200]]

    def test_ragged_images_are_refused(self):
        images = tf.ragged.stack([tf.zeros((2, 3, 3)), tf.zeros((4, 3, 3))])
        with pytest.raises(ValueError, match="dense"):
            dialects.from_sample({"images": images, "bounding_boxes": {}}, "xyxy")

    def test_errors(self):
        with pytest.raises(ValueError, match="'images' and 'bounding_boxes'.*'images'"):
            dialects.from_sample({"images": np.zeros((1, 2, 2, 3))}, "xyxy")
        x, y = {"images": np.zeros((1, 2, 2, 3))}, {"boxes": [[XYXY]], "labels": [[0]]}
        with pytest.raises(ValueError, match="label_key.*'class'"):
            dialects.to_sample(x, y, "xyxy", "class")


@pytest.mark.portable
@pytest.mark.parametrize("key", ["labels", "classes"])
def test_predictions_there_and_back(key):
    ours = {
        "boxes": np.array([[XYXY, [0] * 4]], "float32"),
        "scores": np.array([[0.9, 0.0]], "float32"),
        "labels": np.array([[5, -1]], "int32"),
        "num_detections": np.array([1], "int32"),
    }
    theirs = dialects.to_predictions(ours, "rel_xywh", SIZE, key)
    assert set(theirs) == {"boxes", "confidence", key, "num_detections"}
    np.testing.assert_allclose(numpy(theirs["boxes"])[0, 0], BY_HAND["rel_xywh"], rtol=1e-5)
    assert np.all(numpy(theirs["boxes"])[0, 1] == -1) and numpy(theirs["confidence"])[0, 1] == -1
    back = numpy(dialects.from_predictions(theirs, "rel_xywh", SIZE))
    for name, values in ours.items():
        np.testing.assert_allclose(back[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("is_pair", [True, False])
def test_data_sets_of_others(is_pair):
    boxes = tf.constant([[BY_HAND["xywh"], [-1] * 4]], tf.float32)
    truth, images = {"boxes": boxes, "labels": [[3.0, -1.0]]}, np.zeros((1, *SIZE, 3), "uint8")
    sample = (images, truth) if is_pair else {"images": images, "bounding_boxes": truth}
    for dataset in (d := tf.data.Dataset.from_tensor_slices(sample)), d.batch(1):
        x, y = next(iter(dialects.from_dataset(dataset, bounding_box_format="xywh")))
        assert y["boxes"].numpy().reshape(-1, 4).tolist() == [XYXY, [0, 0, 0, 0]]
        assert y["labels"].numpy().reshape(-1).tolist() == [3, -1]
        assert x["image_sizes"].numpy().reshape(-1).tolist() == [*SIZE]
