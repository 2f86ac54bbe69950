"""Files of the published names and shapes: which detector each becomes. Their values are zeros."""

import io

import numpy as np
import pytest
from convert import key_lists
from convert.golden_checkpoints import checkpoint
from convert.published_files import publish, random_tensors
from file_server import file_server
from reference_detector import named_variables

from libra_keras import models
from libra_keras.convert import convert, load
from libra_keras.data import InputPolicy
from libra_keras.layers import MultilevelROIAlign

pytestmark = pytest.mark.slow  # networks of up to 120 million parameters are built
READY_MADE = {
    "libra-faster-rcnn_r101": "libra_faster_rcnn_resnet101",
    "libra-faster-rcnn_x101-64x4d": "libra_faster_rcnn_resnext101_64x4d",
    "libra-retinanet_r50": "libra_retinanet_resnet50",
    "faster-rcnn_r50": "faster_rcnn_resnet50",
    "faster-rcnn_r50_pafpn": "faster_rcnn_pafpn_resnet50",
    "retinanet_r50": "retinanet_resnet50",
    "rpn_r50": "rpn_resnet50",
}


def test_a_published_name_gives_the_boxes_of_convert(torch, tmp_path, monkeypatch, rng):
    """Of a file of the real name, form, tensors' names and shapes, from a server."""
    name, written = "libra_faster_rcnn_r50_fpn_1x_coco", io.BytesIO()
    tensors = random_tensors(key_lists.MMDETECTION["libra-faster-rcnn_r50"]())
    tensors = {key: torch.from_numpy(tensor) for key, tensor in tensors.items()}
    torch.save({"meta": {"mmdet_version": "2.0.0"}, "state_dict": tensors}, written)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LIBRA_KERAS_WEIGHTS", raising=False)
    with file_server() as server:
        file = publish(monkeypatch, name, written.getvalue(), server.address)
        server.files[file] = written.getvalue()
        preset = models.FasterRCNN.from_preset(name)
    (tmp_path / file).write_bytes(written.getvalue())
    conversion = convert(tmp_path / file, tmp_path / "converted")
    assert conversion.record["model"] == "libra_faster_rcnn_resnet50"
    assert preset.input_policy == conversion.model.input_policy
    photo = rng.integers(0, 256, (60, 90, 3), "uint8").repeat(4, 0).repeat(4, 1)
    found = []
    for model in (preset, conversion.model):
        model.input_policy = InputPolicy(256, 384)  # a fourteenth of the work
        found.append(model.detect(photo))
    assert len(found[0]["scores"]) > 20
    for key, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][key], key)


def zeros(keys):
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in keys.items()}


@pytest.mark.parametrize("name", READY_MADE)
def test_becomes_the_ready_made_detector(name):
    conversion = load(checkpoint(zeros(key_lists.MMDETECTION[name]())))
    assert conversion.record["model"] == READY_MADE[name]
    constructor = getattr(models, READY_MADE[name])
    # RoIAlign as in the reference, which is not the default.
    second_stage = "faster" in name
    roi_align = {"roi_align": MultilevelROIAlign(sampling_ratio=0)} if second_stage else {}
    expected = constructor(**roi_align)
    assert conversion.record["parameters"] == expected.count_params()
    # Each has a name in the reference, but for the number of trained steps.
    assert len(named_variables(expected)) == len(expected.weights) - 1
    ours = without_names(conversion.model.get_config())
    theirs = without_names(expected.get_config())
    assert ours.pop("class_names", None) is not None or name == "rpn_r50"
    theirs.pop("class_names", None)
    assert ours == theirs


@pytest.mark.parametrize("name", ["libra_faster_rcnn_r50 of 1.x", "libra_retinanet_r50 of 1.x"])
def test_first_era(name):
    keys = key_lists.first_release(key_lists.MMDETECTION[name]())
    conversion = load(checkpoint(zeros(keys)))
    assert conversion.record["taken_for"] == "mmdetection 1.x"
    assert conversion.record["preprocessing"]["geometry"] == "legacy"
    assert len(conversion.model.class_names) == 80


@pytest.mark.parametrize("network", ["resnet101", "resnext50_32x4d", "resnext101_64x4d"])
def test_classifiers_of_torchvision_and_timm(network):
    conversion = load(checkpoint(zeros(key_lists.torchvision_classifier(network))))
    assert conversion.record["network"] == network
    assert {"fc.weight", "fc.bias"} < set(conversion.record["unused"])


def without_names(config):
    """A config without the numbers that Keras gives to layers, and what only a name says."""
    if isinstance(config, dict):
        return {k: without_names(v) for k, v in config.items() if k != "name"}
    if isinstance(config, (list, tuple)):
        return [without_names(value) for value in config]
    return config
