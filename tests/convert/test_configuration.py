"""What configurations of mmdetection say, in the three formats that files hold."""

import numpy as np
import pytest
from convert.golden_checkpoints import checkpoint

from libra_keras.convert import load, mmdetection

FIRST = """# model settings
model = dict(
    backbone=dict(type='ResNet', style='pytorch'),
    rpn_head=dict(
        type='RPNHead', anchor_scales=[4], anchor_ratios=[0.5, 1.0, 2.0],
        anchor_strides=[4, 8, 16, 32, 64], target_means=[.0, .0, .0, .0],
        target_stds=[1.0, 1.0, 1.0, 1.0]),
    bbox_head=dict(num_classes=21, target_stds=[0.1, 0.1, 0.2, 0.2]))
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [dict(type='Resize', img_scale=(1333, 640), keep_ratio=True)]
test_pipeline = [
    dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False, transforms=[])]
"""
THIRD = """data_preprocessor=dict(
    bgr_to_rgb=False,
    mean=[
        103.53,
        116.28,
        123.675,
    ],
    std=[
        57.375,
        57.12,
        58.395,
    ]),
bbox_head=dict(
    anchor_generator=dict(
        octave_base_scale=2,
        ratios=[
            1.0,
        ],
        scales_per_octave=3,
        type='AnchorGenerator'),
    bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], type='DeltaXYWHBBoxCoder'),
    num_classes=20)
test_pipeline = [dict(keep_ratio=True, scale=(1000, 600), type='Resize')]
tta_pipeline = [dict(transforms=[[dict(scale=(2000, 1200), type='Resize')]])]
"""
# As mmengine writes them since 0.8.4: sorted, so that the region proposal network comes last.
SORTED = """model = dict(
    backbone=dict(depth=50, style='caffe', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            123.675,
            116.28,
            103.53,
        ],
        std=[
            58.395,
            57.12,
            57.375,
        ],
        type='DetDataPreprocessor'),
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                ],
                target_stds=[
                    0.1,
                    0.1,
                    0.2,
                    0.2,
                ],
                type='DeltaXYWHBBoxCoder'),
            num_classes=20,
            type='Shared2FCBBoxHead'),
        type='StandardRoIHead'),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[
                0.5,
                1.0,
            ],
            scales=[
                4,
            ],
            type='AnchorGenerator'),
        bbox_coder=dict(
            target_stds=[
                1.0,
                1.0,
                1.0,
                1.0,
            ],
            type='DeltaXYWHBBoxCoder'),
        type='RPNHead'),
    type='FasterRCNN')
test_pipeline = [
    dict(keep_ratio=True, scale=(
        1000,
        600,
    ), type='Resize'),
]
train_pipeline = [dict(keep_ratio=True, scale=(1333, 640), type='Resize')]
"""
SECOND = """model = dict(
    rpn_head=dict(
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[1.0, 1.0, 1.0, 1.0])),
    roi_head=dict(bbox_head=dict(
        num_classes=80,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.05, 0.05, 0.1, 0.1]))))
"""


def test_first_era():
    assert mmdetection.normalization(FIRST) == {
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "channel_order": "rgb",
    }
    assert mmdetection.image_sides(FIRST) == (600, 1000)
    assert mmdetection.anchors(FIRST) == {"scales": (4.0,), "ratios": (0.5, 1.0, 2.0)}
    assert mmdetection.box_stds(FIRST) == (0.1, 0.1, 0.2, 0.2)
    assert mmdetection.configured_classes(FIRST) == 21
    assert mmdetection.keeps_ratio(FIRST) and mmdetection.keeps_ratio(THIRD)
    stretched = (FIRST.replace("flip=", "keep_ratio="), THIRD.replace("ratio=True", "ratio=False"))
    assert not any(map(mmdetection.keeps_ratio, stretched))
    octave = "anchor_generator=dict(octave_base_scale=4.5, scales_per_octave=3)"
    assert mmdetection.anchors(octave) == {"base_scale": 4.5, "scales_per_octave": 3}


def test_third_era_and_a_dict():
    quoted = str({"anchor_generator": {"scales": [8], "ratios": [2.0]}, "num_classes": 7})
    assert mmdetection.anchors(quoted) == {"scales": (8.0,), "ratios": (2.0,)}
    assert mmdetection.configured_classes(quoted) == 7
    assert mmdetection.normalization(THIRD)["channel_order"] == "bgr"
    assert mmdetection.normalization(THIRD)["std"] == (57.375, 57.12, 58.395)
    assert mmdetection.image_sides(THIRD) == (600, 1000)
    anchors = {"ratios": (1.0,), "base_scale": 2.0, "scales_per_octave": 3}
    assert mmdetection.anchors(THIRD) == anchors


def test_sorted_by_name():
    assert mmdetection.box_stds(SORTED) == (0.1, 0.1, 0.2, 0.2)
    assert mmdetection.anchors(SORTED) == {"scales": (4.0,), "ratios": (0.5, 1.0)}
    assert mmdetection.image_sides(SORTED) == (600, 1000)
    assert mmdetection.normalization(SORTED)["channel_order"] == "rgb"
    assert mmdetection.configured_classes(SORTED) == 20


def test_second_era():
    assert mmdetection.box_stds(SECOND) == (0.05, 0.05, 0.1, 0.1)
    assert mmdetection.anchors(SECOND) == {"scales": (8.0,), "ratios": (0.5, 1.0, 2.0)}
    assert mmdetection.configured_classes(SECOND) == 80


def test_parts_say_nothing_about_each_other():
    _, _, network = SORTED.partition("    rpn_head=")
    assert mmdetection.box_stds(network) is None  # a region proposal network alone
    bare = "roi_head=dict(bbox_head=dict(num_classes=3)), " + network
    assert mmdetection.box_stds(bare) is None and mmdetection.configured_classes(bare) == 3
    mixed = "dict(type='Expand', mean=[0, 0, 0], std=[1, 1, 1], to_rgb=False), " + SORTED
    assert mmdetection.normalization(mixed)["mean"] == (123.675, 116.28, 103.53)
    # Tests at the size of the file: the scale of training is none for them.
    assert mmdetection.image_sides(SORTED.replace("scale=(\n", "factor=(\n")) is None


@pytest.mark.parametrize("text", [SORTED, "{'backbone': {'style': 'caffe'}}"])
def test_style_of_the_backbone(text):
    assert mmdetection.backbone_style(text) == "caffe"
    assert mmdetection.backbone_style(text.replace("caffe", "pytorch")) == "pytorch"
    assert mmdetection.backbone_style("") == "pytorch"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mean=[a, b, c], std=[1, 1, 1], to_rgb=True, test_pipeline=[dict(scale=(w, h))]",
        "mean=[1, 2], std=[1, 1], to_rgb=True, target_stds=[0, 1, 1, 1], scales=[-1]",
        "mean=[1, 2, 3], std=[0, 1, 1], to_rgb=True, target_stds=[0.1], test_pipeline scale=(0, 0)",
        "mean=[], std=[], to_rgb=True, anchor_generator scales=[]",
    ],
)
def test_what_is_not_understood_is_not_said(text):
    assert mmdetection.normalization(text) is None and mmdetection.image_sides(text) is None
    assert mmdetection.anchors(text) == {} and mmdetection.box_stds(text) is None
    assert mmdetection.configured_classes(text) is None


@pytest.mark.slow
def test_a_detector_follows_its_configuration(reference):
    weights = reference("libra_frcnn_r50b8_weights.npz")
    # The era shows in the names; the configuration is read in whatever form it is.
    model = load(checkpoint(weights, meta={"config": FIRST})).model
    assert model.rpn.settings.scales == (4.0,)
    assert (model.input_policy.short_side, model.input_policy.long_side) == (600, 1000)
    for config, words in (
        (FIRST.replace("flip=", "keep_ratio="), "without keeping their aspect ratio"),
        (FIRST.replace("test_pipeline", "inline"), "does not state the image size for testing"),
    ):
        assert words in str(load(checkpoint(weights, meta={"config": config})).record["notes"])
        assert words not in str(load(checkpoint(weights, meta={"config": FIRST})).record["notes"])
    # X101-32x8d of Caffe2 has blocks of the style "pytorch", but images in blue, green, red.
    model = load(checkpoint(weights, meta={"cfg": THIRD.replace("1.0", "0.5, 1.0, 2.0")})).model
    assert model.backbone.style == "pytorch" and model.normalization.channel_order == "bgr"


def test_a_retinanet_follows_its_configuration(reference):
    weights = dict(reference("libra_retina_r50b8_weights.npz"))
    for name in ("cls", "reg"):  # one ratio of three: three anchors of nine
        for kind in ("weight", "bias"):
            key = f"bbox_head.retina_{name}.{kind}"
            weights[key] = weights[key][: len(weights[key]) // 3]
    settings = load(checkpoint(weights, meta={"cfg": THIRD})).model.head.settings
    assert (settings.base_scale, settings.ratios) == (2.0, (1.0,))
    assert settings.stds == (0.1, 0.1, 0.2, 0.2)  # those of FreeAnchor
    assert settings.geometry == "continuous"


def test_a_balanced_pyramid_without_refiner_shows_in_the_names(reference):
    weights = reference("libra_frcnn_r50b8_weights.npz")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("neck.1.")}
    neck = load(checkpoint(kept)).model.neck
    assert len(neck) == 2 and neck[1].refiner is None
    x = {f"P{i}": np.ones((1, 64 >> i, 64 >> i, 32), "float32") for i in range(2, 7)}
    assert neck[1](x).keys() == x.keys()
