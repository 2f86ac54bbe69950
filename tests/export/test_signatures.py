"""The signatures of an exported detector: what `detect` finds, whatever comes along with it."""

import numpy as np
import pytest
from hostile_files import bad_files, encoded, scene
from PIL import Image
from untrained import make

from libra_keras.data import read_image

tf = pytest.importorskip("tensorflow")
saved_model = pytest.importorskip("libra_keras.export.saved_model")
options = pytest.importorskip("libra_keras.export.options")


@pytest.fixture(scope="module")
def served(served_folder):
    """The signatures of the small detector, loaded once."""
    return Served(served_folder / "1")


class Served:
    """A loaded export whose signatures take and return arrays."""

    def __init__(self, folder):
        self.loaded = tf.saved_model.load(str(folder))

    def __call__(self, signature="serving_default", **inputs):
        found = self.loaded.signatures[signature](
            **{name: tf.constant(value) for name, value in inputs.items()}
        )
        return {name: value.numpy() for name, value in found.items()}


def assert_row(found, row, expected, atol=0.01):
    """Row `row` of what was served is what `detect` found; the rest of it is padding."""
    num = len(expected["labels"])
    assert found["status"][row] == 0 and found["num_detections"][row] == num
    np.testing.assert_allclose(found["detection_boxes"][row, :num], expected["boxes"], atol=atol)
    np.testing.assert_allclose(found["detection_scores"][row, :num], expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(found["detection_classes"][row, :num], expected["labels"])
    names = [name.decode() for name in found["detection_class_names"][row, :num]]
    assert names == expected["names"]
    assert not found["detection_boxes"][row, num:].any()
    assert not found["detection_scores"][row, num:].any()
    assert (found["detection_classes"][row, num:] == -1).all()
    assert (found["detection_class_names"][row, num:] == b"").all()


def assert_same_set(found, row, expected):
    """As `assert_row`, in any order and but for a twentieth.

    In files of one grey, anchors have the same scores but for rounding, and each test session
    trains a detector of its own: now and then rounding decides which of two boxes stays.
    """
    assert found["status"][row] == 0
    num = found["num_detections"][row]
    names = ("boxes", "scores", "classes")
    boxes, scores, labels = (found[f"detection_{name}"][row, :num] for name in names)
    same = np.abs(boxes[:, None] - expected["boxes"]).max(-1) < 0.01
    same &= np.abs(scores[:, None] - expected["scores"]) < 1e-5
    same &= labels[:, None] == expected["labels"]
    missing, more = (~same.any(0)).sum(), (~same.any(1)).sum()
    assert num > 0 and max(missing, more) <= max(1, 0.05 * num), (row, num, missing, more)


def assert_empty(found, row, status):
    assert found["status"][row] == status and found["num_detections"][row] == 0
    assert not found["detection_boxes"][row].any() and not found["detection_scores"][row].any()
    assert (found["detection_classes"][row] == -1).all()
    assert (found["detection_class_names"][row] == b"").all()


def assert_same_row(found, row, others, other):
    """Equal up to the order in which batches of other sizes are summed."""
    for name, values in found.items():
        if values.dtype == np.float32:
            np.testing.assert_allclose(values[row], others[name][other], atol=1e-3)
        else:
            np.testing.assert_array_equal(values[row], others[name][other])


def detect(model, images, **given):
    """What the model finds, without a threshold beside its own."""
    found = model.detect(images, score_threshold=0.0, **given)
    assert all(len(one["labels"]) for one in found), "nothing is compared"
    return found


@pytest.fixture(scope="module")
def photos(photographs):
    """Files of real photographs: landscapes and portraits."""
    files = sorted((photographs("coco_mini") / "val2017").glob("*.jpg"))
    by_shape = {True: [], False: []}
    for file in files:
        with Image.open(file) as image:
            by_shape[image.height > image.width].append(file.read_bytes())
    assert min(map(len, by_shape.values())) >= 3
    landscapes, portraits = by_shape[False], by_shape[True]
    return [file for pair in zip(landscapes[:3], portraits[:3], strict=True) for file in pair]


@pytest.mark.slow
def test_photographs_of_mixed_orientation(served_model, served, photos):
    expected = detect(served_model, photos)
    found = served(image_bytes=photos)
    for row, one in enumerate(expected):
        assert_row(found, row, one)
    assert_row(served(image_bytes=photos[1:2]), 0, expected[1])


@pytest.mark.slow
def test_arrays(served_model, served, photos):
    image = read_image(photos[0])
    pair = np.stack([image, image[:, ::-1]])
    expected = detect(served_model, list(pair))
    found = served("images", images=pair)
    rounded = served("images_float", images=np.maximum(pair - np.float32(0.4), 0))
    for row, one in enumerate(expected):
        assert_row(found, row, one)
        assert_row(rounded, row, one)
    prepared = [served_model.input_policy.prepare(one) for one in pair]
    x = {
        "images": np.stack([image for image, _ in prepared]),
        "image_sizes": np.array([size for _, size in prepared], "int32"),
    }
    found, wanted = served("prepared", **x), served_model.predict_on_batch(x)
    assert set(found) == set(served_model.OUTPUTS)
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], atol=0.01)


@pytest.mark.slow
def test_files_of_all_kinds(served_model, served):
    files = [encoded(scene(40, 60), "PNG"), encoded(scene(60, 40).convert("L"), "JPEG")]
    files += [encoded(scene(50, 50).convert(mode), "PNG") for mode in ("RGBA", "P", "1", "LA")]
    files += [encoded(scene(1, 1), "PNG"), encoded(scene(1, 300), "PNG")]
    found = served(image_bytes=files)
    for row, one in enumerate(served_model.detect(files, score_threshold=0.0)):
        assert_same_set(found, row, one)


@pytest.mark.slow
def test_bad_files_change_no_other_row(served, photos):
    bad = bad_files()
    alone = served(image_bytes=photos)
    mixed, places = [], []
    for i, (data, _) in enumerate(bad.values()):
        mixed.append(data)
        if i < len(photos):
            places.append(len(mixed))
            mixed.append(photos[i])
    found = served(image_bytes=mixed)
    for row, place in enumerate(places):
        assert_same_row(found, place, alone, row)
    others = [row for row in range(len(mixed)) if row not in places]
    for row, (_, status) in zip(others, bad.values(), strict=True):
        assert_empty(found, row, status)
    only = served(image_bytes=[data for data, _ in bad.values()])
    assert only["status"].tolist() == [status for _, status in bad.values()]
    assert not only["num_detections"].any()


@pytest.mark.slow
def test_bad_arrays(served_model, served):
    good = np.asarray(scene(), "float32")
    images = np.stack([good] * 6)
    images[1, 3, 4, 0] = np.nan
    images[2, 3, 4, 1] = 300.0
    images[3, 0, 0, 2] = -1.0
    images[4, 0, 0, 0] = np.inf
    found = served("images_float", images=images)
    assert found["status"].tolist() == [0, 5, 5, 5, 5, 0]
    [expected] = detect(served_model, [np.asarray(scene())])
    for row in (0, 5):
        assert_row(found, row, expected)
    for row in (1, 2, 3, 4):
        assert_empty(found, row, 5)
    assert served("images", images=np.zeros((2, 0, 5, 3), "uint8"))["status"].tolist() == [1, 1]


@pytest.mark.slow
def test_empty_batches(served):
    found = served(image_bytes=np.zeros((0,), object).astype("S1"))
    assert all(len(value) == 0 for value in found.values())
    assert found["detection_boxes"].shape[2] == 4
    images = np.zeros((0, 48, 64, 3), "uint8")
    for signature, given in (
        ("images", {"images": images}),
        ("images_float", {"images": images.astype("float32")}),
        ("prepared", {"images": images, "image_sizes": np.zeros((0, 2), "int32")}),
    ):
        found = served(signature, **given)
        assert all(len(value) == 0 for value in found.values()), signature


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signature", "given"),
    [
        ("serving_default", {"image_bytes": [[b"rank 2"]]}),
        ("serving_default", {"image_bytes": [1, 2]}),
        ("images", {"images": np.zeros((48, 64, 3), "uint8")}),
        ("images", {"images": np.zeros((1, 48, 64, 1), "uint8")}),
        ("images", {"images": np.zeros((1, 48, 64, 3), "float32")}),
        ("images_float", {"images": np.zeros((1, 48, 64, 3), "uint8")}),
        ("prepared", {"images": np.zeros((1, 64, 96, 3), "uint8")}),
    ],
)
def test_wrong_inputs_are_errors_of_the_signature(served, signature, given):
    errors = TypeError, ValueError, tf.errors.InvalidArgumentError
    with pytest.raises(errors, match=r"signature|Binding|expected|missing|shape|cannot compute"):
        served(signature, **given)


@pytest.mark.slow
def test_names_of_inputs_and_outputs(served):
    wanted = {
        "serving_default": {"image_bytes": tf.string},
        "images": {"images": tf.uint8},
        "images_float": {"images": tf.float32},
        "prepared": {"images": tf.uint8, "image_sizes": tf.int32},
    }
    outputs = {
        "detection_boxes": tf.float32,
        "detection_scores": tf.float32,
        "detection_classes": tf.int32,
        "detection_class_names": tf.string,
        "num_detections": tf.int32,
        "status": tf.int32,
    }
    assert set(served.loaded.signatures) == set(wanted)
    for name, signature in served.loaded.signatures.items():
        inputs = signature.structured_input_signature[1]
        assert {key: spec.dtype for key, spec in inputs.items()} == wanted[name]
        if name != "prepared":
            found = {key: spec.dtype for key, spec in signature.structured_outputs.items()}
            assert found == outputs


@pytest.mark.slow
def test_the_network_is_saved_once(served_folder):
    from tensorflow.core.protobuf import saved_model_pb2

    bundle = saved_model_pb2.SavedModel()
    bundle.ParseFromString((served_folder / "1" / "saved_model.pb").read_bytes())
    functions = bundle.meta_graphs[0].graph_def.library.function
    with_convolutions = [
        function.signature.name
        for function in functions
        if sum(node.op == "Conv2D" for node in function.node_def) > 10
    ]
    assert len(with_convolutions) == 1
    operations = {node.op for function in functions for node in function.node_def}
    assert not any("PyFunc" in name or "Xla" in name for name in operations)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast_rcnn_small", "retinanet_small", "rpn_small"])
def test_every_kind_of_detector(name, tmp_path, photos):
    model = make(name, eager=True)
    served = Served(saved_model.export_saved_model(model, tmp_path / "detector"))
    images = photos[:2]
    given, more = {}, {}
    if name == "fast_rcnn_small":
        boxes = [[[10, 20, 200, 180], [300, 50, 420, 330]], [[50, 60, 300, 400], [0, 0, 99, 80]]]
        given = {"proposals": [np.array(one, "float32") for one in boxes]}
        more = {"proposals": np.pad(np.array(boxes, "float32"), ((0, 0), (0, 3), (0, 0)))}
    expected = detect(model, images, **given)
    found = served(image_bytes=images, **more)
    for row, one in enumerate(expected):
        assert_row(found, row, one, atol=0.02 if name == "rpn_small" else 0.01)
    if given:
        found = served(image_bytes=images, proposals=np.zeros((2, 0, 4), "float32"))
        for row in range(2):
            assert_empty(found, row, 0)


@pytest.mark.slow
def test_settings_of_the_export(tmp_path, photos):
    model = make("libra_faster_rcnn_small", eager=True)
    settings = options.ExportOptions(
        score_threshold=0.4, nms_iou=0.2, max_detections=5, max_pixels=640 * 480
    )
    served = Served(saved_model.export_saved_model(model, tmp_path / "detector", options=settings))
    changed = options.with_options(model, settings)
    changed.run_eagerly = True
    found = served(image_bytes=[photos[0], encoded(scene(481, 640), "JPEG")])
    assert found["detection_boxes"].shape == (2, 5, 4)
    assert_row(found, 0, changed.detect(photos[0], score_threshold=0.0))
    scores = found["detection_scores"]
    assert (scores[scores > 0] > 0.4).all()
    assert_empty(found, 1, 3)
    large = served("images", images=np.zeros((2, 481, 640, 3), "uint8"))
    assert large["status"].tolist() == [3, 3] and not large["num_detections"].any()


@pytest.mark.slow
def test_bfloat16_is_near(tmp_path, photos):
    """Of the same best box; ranks of nearly equal ones may swap."""
    model = make("retinanet_small", eager=True)
    half = options.ExportOptions("bfloat16")
    path = saved_model.export_saved_model(model, tmp_path / "detector", options=half)
    stored = sum(file.stat().st_size for file in (path / "variables").iterdir())
    assert stored < 0.55 * sum(4 * np.prod(weight.shape) for weight in model.weights)
    found = Served(path)(image_bytes=photos[:2])
    for row, one in enumerate(detect(model, photos[:2])):
        assert abs(found["detection_scores"][row, 0] - one["scores"][0]) < 0.02
