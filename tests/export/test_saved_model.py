"""A SavedModel in another process gives the boxes of `predict`, without XLA-compiled parts."""

import json
import subprocess
import sys

import numpy as np
import pytest

from libra_keras import models
from libra_keras.cli import main
from libra_keras.cli.runs import load_detector
from libra_keras.data import InputPolicy
from libra_keras.export import export_saved_model, saved_model

# No libra_keras here: what a server has is TensorFlow alone.
SERVE = """
import sys
import numpy as np
import tensorflow as tf
sys.modules["libra_keras"] = None
detect = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
given = np.load(sys.argv[2])
for name in ("first", "second"):
    images, sizes = given[f"{name}_images"], given[f"{name}_sizes"]
    found = detect(images=tf.constant(images), image_sizes=tf.constant(sizes))
    np.savez(f"{sys.argv[3]}/{name}.npz", **{key: value.numpy() for key, value in found.items()})
"""


@pytest.fixture(scope="module")
def model(run_folder):
    return load_detector(run_folder)


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "detector"
    assert main(["export", str(run_folder), "--to", str(folder)]) == 0
    return folder


@pytest.fixture
def batches():
    """Two batches of other numbers and sizes of images, padded ones among them."""
    rng = np.random.default_rng(0)
    return {
        "first_images": rng.integers(0, 255, (2, 64, 96, 3)).astype("uint8"),
        "first_sizes": np.array([[64, 96], [50, 96]], "int32"),
        "second_images": rng.integers(0, 255, (1, 96, 64, 3)).astype("uint8"),
        "second_sizes": np.array([[96, 60]], "int32"),
    }


@pytest.mark.slow
def test_equal_boxes_in_another_process(model, exported, batches, tmp_path):
    np.savez(tmp_path / "given.npz", **batches)
    command = [sys.executable, "-c", SERVE, exported, tmp_path / "given.npz", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("first", "second"):
        served = dict(np.load(tmp_path / f"{name}.npz"))
        x = {"images": batches[f"{name}_images"], "image_sizes": batches[f"{name}_sizes"]}
        expected = model.predict_on_batch(x)
        assert expected["num_detections"].min() > 0
        np.testing.assert_array_equal(served["num_detections"], expected["num_detections"])
        np.testing.assert_array_equal(served["labels"], expected["labels"])
        np.testing.assert_allclose(served["boxes"], expected["boxes"], atol=1e-2)
        np.testing.assert_allclose(served["scores"], expected["scores"], atol=1e-5)


def test_graph_has_no_xla_islands(exported):
    graph = (exported / "saved_model.pb").read_bytes()
    assert b"_XlaMustCompile" not in graph
    assert b"EagerPyFunc" not in graph


def test_note_beside_the_graph(exported):
    note = json.loads((exported / "detector.json").read_text())
    assert note["class_names"] == ["cat"]
    assert note["input_policy"]["long_side"] == 96


def test_folder_in_use_is_refused(model, exported, tmp_path):
    with pytest.raises(ValueError, match="is not empty"):
        export_saved_model(model, exported)
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="no SavedModel"):
        export_saved_model(model, tmp_path, overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def test_an_export_that_fails_keeps_the_old_one(model, tmp_path, monkeypatch):
    def failing(model):
        raise RuntimeError("no space left")

    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "saved_model.pb").write_text("old")
    monkeypatch.setattr(saved_model, "_archive", failing)
    with pytest.raises(RuntimeError):
        export_saved_model(model, tmp_path / "detector", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]
    assert (tmp_path / "detector" / "saved_model.pb").read_text() == "old"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rpn_small", "fast_rcnn_small", "retinanet_small"])
def test_every_kind_of_detector(name, tmp_path, batches):
    import tensorflow as tf

    options = {} if name == "rpn_small" else {"num_classes": 2}
    model = getattr(models, name)(input_policy=InputPolicy(64, 96), **options)
    if name == "retinanet_small":
        bias = model.head.class_logits.bias  # untrained, it would find nothing
        bias.assign(np.zeros(bias.shape))
    export_saved_model(model, tmp_path / "detector")
    detect = tf.saved_model.load(str(tmp_path / "detector")).signatures["serving_default"]
    x = {"images": batches["first_images"], "image_sizes": batches["first_sizes"]}
    if name == "fast_rcnn_small":
        boxes = [[[4, 4, 40, 30], [50, 10, 90, 60]], [[8, 8, 60, 40], [0, 0, 0, 0]]]
        x["proposals"] = np.array(boxes, "float32")
    served = detect(**{key: tf.constant(value) for key, value in x.items()})
    expected = model.predict_on_batch(x)
    assert set(served) == set(expected) == set(model.OUTPUTS)
    assert expected["boxes"].any()
    for key, values in expected.items():
        np.testing.assert_allclose(served[key], values, rtol=1e-4, atol=1e-2, err_msg=key)
