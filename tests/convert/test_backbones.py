import json

import keras
import numpy as np
import pytest
from convert.golden_checkpoints import checkpoint
from keras import ops

from libra_keras.backbones import ResNet
from libra_keras.convert import convert, load

SIZES = {  # depth, width, groups, style
    "r18_b8": (18, 8, 1, "pytorch"),
    "r50_b8_pytorch": (50, 8, 1, "pytorch"),
    "r50_b8_caffe": (50, 8, 1, "caffe"),
    "x50_b8_4x2d": (50, 8, 4, "pytorch"),
}


@pytest.mark.parametrize("name", SIZES)
def test_features_equal_the_references(reference, name):
    arrays = reference("backbones.npz")
    source = checkpoint(reference(f"backbone_{name}_weights.npz"), f"{name}.pth")
    conversion = load(source)  # the file's name says which one is of Caffe
    for level, outputs in conversion.model(arrays["x"]).items():
        expected = arrays[f"{name}/{level.lower()}"]
        error = np.abs(ops.convert_to_numpy(outputs) - expected).max() / np.abs(expected).max()
        assert error < 1e-4, level
    backbone = next(layer for layer in conversion.model.layers if isinstance(layer, ResNet))
    sizes = (backbone.depth, backbone.width, backbone.groups, backbone.style)
    assert sizes == SIZES[name]


def test_the_file_gives_the_features_to_a_backbone_of_the_recipes(reference, tmp_path):
    source = checkpoint(reference("backbone_x50_b8_4x2d_weights.npz"))
    source.tensors["fc.weight"] = np.zeros((1000, 256), "float32")
    conversion = convert(source, tmp_path / "x50.weights.h5")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x50.json", "x50.weights.h5"]
    record = json.loads((tmp_path / "x50.json").read_text())
    assert record["unused"]["fc.weight"] == "the classifier of ImageNet"
    assert (record["style"], record["normalization"]) == ("pytorch", "torch")
    backbone = ResNet(50, width=8, groups=4, base_width=4)  # as in recipes/coco
    images = keras.Input((None, None, 3))
    model = keras.Model(images, backbone(images))
    model.load_weights(tmp_path / "x50.weights.h5")
    x = reference("backbones.npz")["x"]
    np.testing.assert_array_equal(model(x)["C5"], conversion.model(x)["C5"])


def test_variants_of_timm_are_refused(reference):
    tensors = dict(reference("backbone_r50_b8_pytorch_weights.npz"))
    tensors["layer1.0.se.fc1.weight"] = np.zeros((4, 32, 1, 1), "float32")
    with pytest.raises(ValueError, match="surplus: layer1.0.se.fc1.weight"):
        load(checkpoint(tensors))


@pytest.mark.slow
def test_resnet_of_keras_applications(tmp_path, rng):
    shape = (None, None, 3)
    network = keras.applications.ResNet101(include_top=False, weights=None, input_shape=shape)
    network.save_weights(tmp_path / "r101.weights.h5")
    conversion = convert(tmp_path / "r101.weights.h5", tmp_path / "ours.weights.h5")
    record = json.loads((tmp_path / "ours.json").read_text())
    assert (record["network"], record["style"]) == ("resnet101", "caffe")
    x = rng.normal(size=(1, 64, 96, 3)).astype("float32")
    expected = ops.convert_to_numpy(network(x))
    ours = ops.convert_to_numpy(conversion.model(x)["C5"])
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()


def test_no_network_of_keras_applications(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(
        tmp_path / "dense.weights.h5"
    )
    with pytest.raises(ValueError, match="is no ResNet50, ResNet101 or ResNet152"):
        load(tmp_path / "dense.weights.h5")
    (tmp_path / "text.h5").write_text("not found")
    with pytest.raises(ValueError, match="text.h5 is no HDF5 file, or it is damaged"):
        load(tmp_path / "text.h5")
