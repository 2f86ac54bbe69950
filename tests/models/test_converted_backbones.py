"""Backbones from converted files: what the record beside them decides, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from configs import resolved

from libra_keras.backbones import ResNet
from libra_keras.data import shapes
from libra_keras.models.constructors.converted import converted_backbone, is_converted
from libra_keras.models.constructors.parts import NETWORKS
from libra_keras.runs.building import build_model

RECORD = {"network": "resnet50", "style": "caffe", "normalization": "torch", "epsilon": 1e-3}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setitem(NETWORKS, "resnet50", {"depth": 50, "width": 4})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The path of a narrow network's weights with a record beside it, and the network."""
    path = tmp_path_factory.mktemp("converted") / "r50.weights.h5"
    backbone = ResNet(50, width=4, style="caffe")
    images = keras.Input((None, None, 3))
    keras.Model(images, backbone(images)).save_weights(path)
    write(path, RECORD)
    return path, backbone


def write(path, record):
    path.with_name(path.name.replace(".weights.h5", ".json")).write_text(json.dumps(record))


def config_with(path, *arguments):
    own = ["--model", "retinanet_resnet50", "--backbone-weights", str(path)]
    return resolved(*own, *arguments)


def test_train_takes_network_style_and_normalization_from_the_record(saved):
    path, backbone = saved
    model = build_model(config_with(path, "--no-train-affine"), shapes(1))
    config = model.backbone.get_config()
    assert (config["style"], config["epsilon"], config["batch_norm"]) == ("caffe", 1e-3, "frozen")
    assert (config["frozen_stages"], config["train_affine"]) == (1, False)
    assert model.normalization.channel_order == "rgb"
    for ours, theirs in zip(model.backbone.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_style_or_network_is_refused(saved):
    path, _ = saved
    with pytest.raises(ValueError, match="contains a network of caffe style; expected a pytorch"):
        build_model(config_with(path, "--backbone-style", "pytorch"), shapes(1))
    with pytest.raises(ValueError, match="contains a resnet50; expected a resnext101_64x4d"):
        converted_backbone(path, "resnext101_64x4d")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "expected an object"),
        (
            {"network": "resnet50"},
            "is not a record of a converted backbone: 'style' must be caffe or pytorch",
        ),
        ({**RECORD, "normalization": "gray"}, "must be torch or caffe. Received: 'gray'"),
    ],
)
def test_wrong_records_are_refused(tmp_path, record, message):
    path = tmp_path / "a.weights.h5"
    write(path, record)
    assert is_converted(path)
    with pytest.raises(ValueError, match=message):
        converted_backbone(path, "resnet50")


@pytest.mark.slow
def test_wrong_files_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    write(path, RECORD)
    with pytest.raises(ValueError, match="there is no file"):
        converted_backbone(path, "resnet50")
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read: "):
        converted_backbone(path, "resnet50")


def test_other_weights_have_no_record(tmp_path):
    for weights in (None, "imagenet", tmp_path / "a.weights.h5", tmp_path / "a.h5"):
        assert not is_converted(weights)
