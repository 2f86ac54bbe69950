import dataclasses
import re

import numpy as np
import pytest
from convert.golden_checkpoints import as_era_1, as_plain, checkpoint
from keras import ops
from reference_detector import rgb_batch

from libra_keras.convert import load
from libra_keras.convert.canonical import named_variables
from libra_keras.convert.mmdetection import from_mmdetection
from libra_keras.layers import PathAggregationPyramid
from libra_keras.losses import BalancedL1Loss, SmoothL1Loss
from libra_keras.models import FastRCNN, RegionProposalNetwork, RetinaNet


@pytest.fixture(scope="module")
def weights(reference):
    return reference("libra_frcnn_r50b8_weights.npz")


def values_of(model):
    return {name: ops.convert_to_numpy(v) for name, v in named_variables(model).items()}


def assert_same_values(model, other):
    ours, theirs = values_of(model), values_of(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.parametrize(
    "name", [pytest.param("libra_frcnn_r50b8", marks=pytest.mark.slow), "libra_frcnn_r18b16"]
)
def test_a_converted_detector_finds_what_the_reference_finds(reference, name):
    features, heads = reference(f"{name}_features.npz"), reference(f"{name}_heads.npz")
    conversion = load(checkpoint(reference(f"{name}_weights.npz")))
    model = conversion.model
    # The reference was run with fewer proposals than its configuration has.
    model.rpn.settings = dataclasses.replace(model.rpn.settings, pre_nms_test=300, post_nms=150)
    outputs = model(rgb_batch([features["image_bgr_u8"]], 256, 320))
    found = {key: ops.convert_to_numpy(outputs[key])[0] for key in ("boxes", "scores", "labels")}
    np.testing.assert_array_equal(found["labels"], heads["det_labels"])
    np.testing.assert_allclose(found["boxes"], heads["det_bboxes"], atol=0.01)
    np.testing.assert_allclose(found["scores"], heads["det_scores"], atol=1e-5)
    assert model.class_names[0] == "person" and len(model.class_names) == 80
    unused = conversion.record["unused"]
    assert unused and all(name.endswith("num_batches_tracked") for name in unused)


def test_a_converted_retinanet_finds_what_the_reference_finds(reference):
    features = reference("libra_retina_r50b8_features.npz")
    heads = reference("libra_retina_r50b8_heads.npz")
    model = load(checkpoint(reference("libra_retina_r50b8_weights.npz"))).model
    assert isinstance(model, RetinaNet) and model.head.box_loss.beta == 0.11
    model.head.settings = dataclasses.replace(model.head.settings, pre_nms=300)
    outputs = model(rgb_batch([features["image_bgr_u8"]], 256, 320))
    found = {key: ops.convert_to_numpy(outputs[key])[0] for key in ("boxes", "scores", "labels")}
    np.testing.assert_array_equal(found["labels"], heads["det_labels"])
    np.testing.assert_allclose(found["boxes"], heads["det_bboxes"], atol=0.01)
    assert model.class_names[0] == "aeroplane"  # 20 classes: those of VOC


def test_era_1_has_the_same_values_and_legacy_geometry(weights, rng):
    modern = load(checkpoint(weights)).model
    conversion = load(checkpoint(as_era_1(weights, rng)))
    model = conversion.model
    assert_same_values(model, modern)
    assert {model.rpn.settings.geometry, model.box_head.settings.geometry} == {"legacy"}
    assert (model.box_head.roi_align.aligned, model.box_head.roi_align.sampling_ratio) == (False, 2)
    assert model.rpn.box_loss.beta == pytest.approx(1 / 9)
    assert conversion.record["taken_for"] == "mmdetection 1.x"
    assert any("Background first" in note for note in conversion.record["notes"])


def test_the_backgrounds_rows_go_from_the_front_of_weight_and_bias():
    # Two classes. mmdetection's own script takes the last four of the bias: [0, 1, .., 7] there.
    tensors = {
        "bbox_head.fc_reg.bias": np.arange(12.0),
        "bbox_head.fc_reg.weight": np.arange(12.0)[:, None] * [1.0, 10.0],
        "bbox_head.fc_cls.bias": np.array([7.0, 8.0, 9.0]),
    }
    result = from_mmdetection(checkpoint(tensors)).tensors
    head = "roi_head.bbox_head"
    assert result[f"{head}.fc_reg.bias"].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert result[f"{head}.fc_reg.weight"][0].tolist() == [4, 40]
    assert result[f"{head}.fc_cls.bias"].tolist() == [8, 9, 7]


def test_names_of_the_first_releases(reference):
    weights = reference("libra_retina_r50b8_weights.npz")
    old = {
        re.sub(r"(_convs\.\d+)\.conv", r"\1", name).replace("conv_out", "conv_mask"): tensor
        for name, tensor in weights.items()
    }
    assert "bbox_head.cls_convs.0.weight" in old and "neck.1.refine.conv_mask.conv.bias" in old
    model = load(checkpoint(old)).model
    assert_same_values(model, load(checkpoint(weights)).model)
    assert model.head.settings.geometry == "legacy"


@pytest.mark.parametrize(
    ("meta", "era", "geometry"),
    [
        ({"mmdet_version": "1.0.0"}, None, "legacy"),
        ({"mmdet_version": "0.6.0+abc"}, None, "legacy"),
        ({"mmdet_version": "2.1.0"}, None, "continuous"),
        ({"mmdet_version": "2.1.0"}, "1.x", "legacy"),
        ({"mmdet_version": "1.0.0", "config": "num_classes=20"}, None, "continuous"),
        ({"mmdet_version": "1.0.0", "config": "num_classes=21"}, None, "legacy"),
        ({"mmdet_version": "1.0.0", "config": "anchor_generator=dict()"}, None, "continuous"),
        ({"config": "num_classes=21"}, None, "legacy"),
        ({}, "2.x", "continuous"),
        ({}, None, "continuous"),
    ],
)
def test_eras_of_a_retinanet(reference, meta, era, geometry):
    tensors = reference("libra_retina_r50b8_weights.npz")
    result = from_mmdetection(checkpoint(tensors, meta=meta), era)
    assert result.geometry == geometry
    unsure = any("2.x or 3.x is assumed" in note for note in result.notes)
    assert unsure == (not meta and era is None)
    # Shortly before 2.0, files of its form had versions that count as 1.x.
    only_version = meta in ({"mmdet_version": "1.0.0"}, {"mmdet_version": "0.6.0+abc"})
    assert any("Only its version" in note for note in result.notes) == only_version


def test_published_one_stage_detectors_are_known_by_their_hash(reference):
    tensors = reference("libra_retina_r50b8_weights.npz")
    source = checkpoint(tensors, meta={"mmdet_version": "1.0.0"}, sha256="804d94ce" + "0" * 56)
    assert from_mmdetection(source).geometry == "continuous"


def test_an_unknown_era(weights):
    with pytest.raises(ValueError, match=r"`era` must be one of .*'1.x', '2.x'.*'4'"):
        from_mmdetection(checkpoint(weights), era="4")


def test_an_era_that_the_names_contradict(weights, rng):
    with pytest.raises(ValueError, match=r"names of mmdetection 2.x, not of 1.x"):
        load(checkpoint(weights), era="1.x")
    with pytest.raises(ValueError, match=r"names of mmdetection 1.x, not of 2.x"):
        load(checkpoint(as_era_1(weights, rng)), era="2.x")


def test_plain_detector(weights):
    model = load(checkpoint(as_plain(weights))).model
    assert len(model.neck) == 1 and isinstance(model.box_head.box_loss, SmoothL1Loss)
    assert model.rpn.sampler.max_negatives_per_positive is None


def test_first_and_second_stage_alone(weights):
    rpn = {k: v for k, v in weights.items() if not k.startswith("roi_head.")}
    model = load(checkpoint(rpn, meta={"mmdet_version": "2.0"})).model
    assert isinstance(model, RegionProposalNetwork) and model.rpn.settings.pre_nms_test == 2000
    fast = {k: v for k, v in weights.items() if not k.startswith("rpn_head.")}
    model = load(checkpoint(fast)).model
    assert isinstance(model, FastRCNN) and isinstance(model.box_head.box_loss, BalancedL1Loss)


def test_path_aggregation_and_a_convolution_as_refiner(weights, rng):
    tensors = {k: v for k, v in weights.items() if "refine" not in k}
    for kind in ("downsample_convs", "pafpn_convs"):
        for i in range(3):
            tensors[f"neck.0.{kind}.{i}.conv.weight"] = rng.normal(size=(32, 32, 3, 3))
            tensors[f"neck.0.{kind}.{i}.conv.bias"] = rng.normal(size=32)
    tensors["neck.1.refine.conv.weight"] = rng.normal(size=(32, 32, 3, 3))
    tensors["neck.1.refine.conv.bias"] = rng.normal(size=32)
    model = load(checkpoint(tensors)).model
    assert isinstance(model.neck[0], PathAggregationPyramid)
    kernel = ops.convert_to_numpy(model.neck[1].refiner.kernel)
    expected = np.transpose(tensors["neck.1.refine.conv.weight"], (2, 3, 1, 0))
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "key", [{"CLASSES": ("a", "b")}, {"dataset_meta": {"classes": ["a", "b"]}}]
)
def test_class_names_of_the_file(key):
    tensors = {"roi_head.bbox_head.fc_cls.bias": np.zeros(3)}
    assert from_mmdetection(checkpoint(tensors, meta=key)).class_names == ["a", "b"]
    tensors = {"roi_head.bbox_head.fc_cls.bias": np.zeros(4)}  # three classes: not those names
    assert from_mmdetection(checkpoint(tensors, meta=key)).class_names is None


@pytest.mark.parametrize("meta", [{"CLASSES": 7}, {"dataset_meta": "x"}, {"CLASSES": None}])
def test_class_names_that_are_none(meta):
    tensors = {"roi_head.bbox_head.fc_cls.bias": np.zeros(81)}
    result = from_mmdetection(checkpoint(tensors, meta=meta))
    assert result.class_names[0] == "person"
    assert "those of COCO are assumed" in result.notes[0]


@pytest.mark.slow
def test_caffe_style(weights):
    conversion = load(checkpoint(weights, meta={"cfg": "backbone=dict(style='caffe')"}))
    model = conversion.model
    assert model.backbone.style == "caffe"
    assert model.normalization.channel_order == "bgr" and model.normalization.std is None
    assert conversion.record["preprocessing"]["normalization"]["mean"] == (103.53, 116.28, 123.675)
    assert load(checkpoint(weights), backbone_style="caffe").model.backbone.style == "caffe"
    assert load(checkpoint(weights)).model.backbone.style == "pytorch"


def test_all_that_does_not_fit_is_listed_at_once(weights):
    wrong = dict(weights)
    del wrong["rpn_head.rpn_cls.bias"], wrong["backbone.layer2.1.bn2.running_mean"]
    wrong["roi_head.mask_head.conv.weight"] = np.zeros((2, 2))
    wrong["rpn_head.rpn_reg.weight"] = np.zeros((8, 32, 1, 1), "float32")
    with pytest.raises(ValueError) as caught:
        load(checkpoint(wrong, "mask.pth"))
    message = str(caught.value)
    assert message.startswith("mask.pth cannot be converted: 4 tensor(s) do not fit:")
    for line in (
        "missing: rpn_head.rpn_cls.bias",
        "missing: backbone.layer2.1.bn2.running_mean",
        "surplus: roi_head.mask_head.conv.weight",
        "misshaped: rpn_head.rpn_reg.weight is (8, 32, 1, 1), which becomes (1, 1, 32, 8); "
        "expected (1, 1, 32, 12)",
    ):
        assert f"\n  {line}" in message


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (r"backbone\.layer3\.5\.", r"no known ResNet has blocks of \(3, 4, 5, 3\)"),
        (r"roi_head\.bbox_head\.fc_cls\.weight", "no tensor roi_head.bbox_head.fc_cls.weight"),
        (r"(roi|rpn)_head\.", "neither a detector from mmdetection or torchvision"),
    ],
)
def test_what_tells_the_sizes_must_be_there(weights, drop, message):
    kept = {name: tensor for name, tensor in weights.items() if not re.match(drop, name)}
    with pytest.raises(ValueError, match=message):
        load(checkpoint(kept))


def test_a_file_that_is_not_what_its_name_says(reference):
    weights = reference("libra_frcnn_r18b16_weights.npz")
    record = load(checkpoint(weights, "libra_r50-3afee3a9.pth")).record
    assert any("ends in the hash 3afee3a9" in note for note in record["notes"])
    same = load(checkpoint(weights, "libra_r50-3afee3a9.pth", sha256="3afee3a9" + "0" * 56)).record
    assert not any("hash" in note for note in same["notes"])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        # A network of this width has 10^13 numbers, and is not built.
        ("backbone.conv1.weight", (100_000, 1, 1, 1), r"expected \(any, 3, 7, 7\)"),
        ("backbone.conv1.weight", (3000, 3, 7, 7), r"downsample.*expected \(12000, 3000, 1, 1\)"),
        ("neck.0.lateral_convs.0.conv.weight", (200_000, 32, 1, 1), "neck.0.fpn_convs.0.*expected"),
        ("roi_head.bbox_head.shared_fcs.0.weight", (200_000, 1), r"expected \(200000, 200000\)"),
        ("backbone.layer1.0.conv2.weight", (8, 0, 3, 3), r"expected \(any, any, 3, 3\)"),
        ("backbone.layer1.0.conv2.weight", (8,), r"is \(8,\); expected"),
        ("roi_head.bbox_head.fc_cls.weight", (0, 64), r"is \(0, 64\); expected"),
        ("roi_head.bbox_head.fc_cls.bias", (), "is a single number"),
    ],
)
def test_shapes_are_checked_before_anything_is_built(weights, name, shape, message):
    odd = {**weights, name: np.broadcast_to(np.float32(0), shape)}
    with pytest.raises(ValueError, match=message):
        load(checkpoint(odd))
