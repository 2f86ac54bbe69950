import json
import pickle
import re

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


TO_DETECTRON2 = [
    (r"^conv1", "stem.conv1"), (r"^bn1", "stem.conv1.norm"), (r"^fc", "stem.fc"),
    (r"^layer1", "res2"), (r"^layer2", "res3"), (r"^layer3", "res4"), (r"^layer4", "res5"),
    (r"\.bn(\d)\.", r".conv\1.norm."), (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
]  # fmt: skip


def renamed_for_detectron2(tensors):
    for pattern, new in TO_DETECTRON2:
        tensors = {re.sub(pattern, new, name): value for name, value in tensors.items()}
    return tensors


@pytest.mark.parametrize("is_detector", [False, True])
def test_resnet_of_detectron2(reference, tmp_path, is_detector):
    """In its own file, and in that of a detector, which is pickled without PyTorch."""
    tensors = reference("backbone_r50_b8_pytorch_weights.npz")
    expected = load(checkpoint(tensors))
    tensors = renamed_for_detectron2({**tensors, "fc.bias": np.zeros(1000, "float32")})
    if is_detector:
        tensors = {f"backbone.bottom_up.{name}": value for name, value in tensors.items()}
        tensors["roi_heads.box_predictor.cls_score.bias"] = np.zeros(81, "float32")
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": tensors, "__author__": "Detectron2 Model Zoo"}))
    found = load(path)
    assert found.record["style"] == "pytorch"
    assert len(found.record["unused"]) == 1 + is_detector
    for ours, theirs in zip(found.model.weights, expected.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    words = r"a backbone \(detectron2, the ResNet of a detector\)" if is_detector else "detectron2"
    with pytest.raises(ValueError, match=f"{words}.* must be written to a file NAME.weights.h5"):
        convert(path, tmp_path / "run")


def test_resnets_of_detectron2_that_came_from_caffe(reference):
    """Their statistics are in the weights: early files leave them out."""
    tensors = renamed_for_detectron2(reference("backbone_r50_b8_caffe_weights.npz"))
    folded = {name: value for name, value in tensors.items() if "running" not in name}
    record = load(checkpoint(folded)).record
    assert (record["style"], record["normalization"]) == ("caffe", "caffe")
    tensors = renamed_for_detectron2(reference("backbone_x50_b8_4x2d_weights.npz"))
    folded = {name: value for name, value in tensors.items() if "running" not in name}
    found = load(checkpoint(folded))  # ResNeXts have the stride where PyTorch has it
    assert (found.record["style"], found.record["normalization"]) == ("pytorch", "torch")
    backbone = next(layer for layer in found.model.layers if isinstance(layer, ResNet))
    kernel = np.transpose(folded["stem.conv1.weight"], (2, 3, 1, 0))
    np.testing.assert_array_equal(backbone.stem.kernel, kernel[:, :, ::-1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.0.conv.weight", "a YOLO of ultralytics"),
        ("model.model.22.cv2.0.0.conv.weight", "a YOLO of ultralytics"),
        ("res2_0_branch2a_bn_s", r"Caffe2 \(Detectron\)"),
        ("model.backbone.conv_encoder.model.conv1.weight", "a transformer such as DETR"),
        ("blocks.0.attn.qkv.weight", "a transformer of images such as ViT or Swin"),
        ("backbone.stem.conv.conv.weight", "another detector, such as mmdetection's"),
        ("backbone.bottom_up.blocks.0.norm1.weight", "a network of detectron2"),
        ("features.0.weight", "torchvision network that is not a ResNet"),
        ("encoder_q.conv1.weight", "nor a ResNet; its tensors"),
    ],
)
def test_other_networks_are_named(name, words):
    with pytest.raises(ValueError, match=words):
        load(checkpoint({name: np.zeros((8, 3, 3, 3), "float32")}))


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
    with pytest.raises(ValueError, match="there is no file missing.h5"):
        load("missing.h5")
    with pytest.raises(ValueError, match="is not a ResNet50, ResNet101 or ResNet152"):
        load(tmp_path / "dense.weights.h5")
    (tmp_path / "text.h5").write_text("not found")
    with pytest.raises(ValueError, match="text.h5 cannot be read: "):
        load(tmp_path / "text.h5")
