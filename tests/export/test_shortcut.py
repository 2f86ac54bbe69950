"""`model.export`: at the place, under the names and in the forms of `keras.Model.export`."""

import keras
import numpy as np
import pytest
from export.test_runtimes import RUNNERS, batches, check, need
from untrained import make

from libra_keras.export import onnx, shortcut

tf = pytest.importorskip("tensorflow")
IMAGES = keras.layers.InputSpec(dtype="float32", shape=(1, 64, 96, 3))


@pytest.fixture(scope="module")
def model():
    return make("rpn_small")


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "exported"
    model.export(path, verbose=False)
    return path


@pytest.mark.slow
def test_serve(model, exported):
    """What `predict` takes and gives."""
    assert [entry.name for entry in exported.parent.iterdir()] == ["exported"]
    loaded = tf.saved_model.load(exported)
    x = next(batches(model))
    expected, unpadded = model.predict_on_batch(x), model.predict_on_batch(x["images"])
    assert_same(loaded.serve(x), expected)
    for images in (x["images"], x["images"].astype("float32")):
        assert_same(loaded.serve(images), unpadded)
        assert_same(loaded.serve({"images": images}), unpadded)
    assert set(loaded.signatures) == {"serve", "serving_default"}
    tensors = {name: tf.constant(value) for name, value in x.items()}
    assert_same(loaded.signatures["serving_default"](**tensors), expected)
    nothing = loaded.serve({name: value[:0] for name, value in x.items()})
    assert nothing["boxes"].shape == (0, 200, 4)


@pytest.mark.slow
def test_layer_of_keras(model, exported):
    layer, x = keras.layers.TFSMLayer(exported), next(batches(model))
    assert_same(layer(x), model.predict_on_batch(x))
    assert_same(layer(x["images"]), model.predict_on_batch(x["images"]))


@pytest.mark.slow
def test_an_earlier_export_is_replaced(model, exported, tmp_path, monkeypatch, capsys):
    written = []
    monkeypatch.setitem(shortcut._WRITERS, "tf_saved_model", lambda *given: written.append(given))
    model.export(exported)
    assert f"Saved artifact at '{exported}'" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is not empty"):
        model.export(exported, overwrite=False)
    (exported / "photo.jpg").write_text("precious")
    with pytest.raises(ValueError, match="photo.jpg, which no export has written"):
        model.export(exported)
    (exported / "photo.jpg").unlink()
    (tmp_path / "saved_model.pb").write_text("of another program")
    with pytest.raises(ValueError, match="contains something other than an earlier export"):
        model.export(tmp_path)
    assert len(written) == 1


@pytest.mark.slow
def test_input_signature(model, tmp_path):
    model.export(tmp_path / "exported", verbose=False, input_signature=[IMAGES])
    loaded = tf.saved_model.load(tmp_path / "exported")
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    assert_same(loaded.serve(images), model.predict_on_batch(images))
    [spec] = loaded.signatures["serve"].structured_input_signature[1].values()
    assert (spec.name, spec.shape.as_list(), spec.dtype) == ("images", [1, 64, 96, 3], tf.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [("onnx", "model"), ("openvino", "m.xml"), ("litert", "m.tflite")]
)
def test_files_of_other_runtimes(model, kind, name, tmp_path, capsys, monkeypatch):
    need(kind)
    model.export(tmp_path / name, format=kind, verbose=False)
    written = []
    monkeypatch.setitem(shortcut._WRITERS, kind, lambda *given: written.append(given))
    model.export(tmp_path / name, format=kind, verbose=False, overwrite=True)
    assert len(written) == 1  # an earlier file of the kind does not stop it
    assert not capsys.readouterr().out
    beside = {"m.bin"} if kind == "openvino" else set()
    assert {entry.name for entry in tmp_path.iterdir()} == {name} | beside
    check(model, RUNNERS[kind](tmp_path / name), is_fixed=kind == "litert")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"format": "torch"}, "cannot be exported as a PyTorch program; .* format='onnx'"),
        ({"format": "h5"}, "`format` must be one of tf_saved_model, onnx, openvino, litert"),
        ({"opset_version": 18}, "takes input_signature, verbose, .* Received: opset_version"),
        ({"format": "openvino", "rounds": 3}, "as openvino takes .* Received: rounds"),
        ({"input_signature": [IMAGES, IMAGES]}, "`input_signature` must be a spec of the images"),
        ({"input_signature": {"image": IMAGES}}, "for images, image_sizes. Received: .'image'"),
        ({"format": "litert"}, r"must end in \.tflite. Received: .*there"),
    ],
)
def test_what_is_not_known_is_refused_by_name(model, given, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        model.export(tmp_path / "there", **given)
    assert not any(tmp_path.iterdir())


def test_free_sizes_are_refused_for_litert(model, tmp_path):
    free = keras.layers.InputSpec(dtype="float32", shape=(1, None, None, 3))
    with pytest.raises(ValueError, match="LiteRT requires fixed heights and widths"):
        model.export(tmp_path / "m.tflite", format="litert", input_signature=free)


@pytest.mark.parametrize(
    ("kind", "name"), [("onnx", "photo.jpg"), ("openvino", "m.xml"), ("litert", "m.tflite")]
)
def test_files_of_others_stay(model, kind, name, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "MODULES", ())
    monkeypatch.setattr("libra_keras.export.openvino.MODULES", ())
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=f"is no file of {kind}, and is not overwritten"):
        model.export(tmp_path / name, format=kind)
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    "given",
    [
        *({"mode": mode} for mode in ("int8", "int4", "float8")),
        {"config": keras.quantizers.Int8QuantizationConfig()},
        {"config": keras.quantizers.GPTQConfig(dataset=["cat"], tokenizer=str.split)},
    ],
)
def test_quantizing_is_refused_with_a_word_on_the_export(model, given):
    with pytest.raises(ValueError, match="loaded again. Export it: `model.export"):
        model.quantize(**given)
