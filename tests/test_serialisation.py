"""Every registered object, no argument at its default, through a file and into a fresh process."""

import inspect
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from libra_keras import backbones, data, functional, layers, losses, models, samplers, training
from libra_keras.models.distributed import LossScaleOptimizer

RPN = models.RPNSettings(
    channels=8,
    strides=(8, 16),
    scales=(2.0, 4.0),
    ratios=(1.0,),
    positive_iou=0.6,
    negative_iou=0.2,
    min_positive_iou=0.1,
    pre_nms_train=30,
    pre_nms_test=20,
    post_nms=10,
    nms_iou=0.5,
    pad_multiple=16,
    geometry="torchvision",
)
BOX_HEAD = models.BoxHeadSettings(
    channels=16,
    positive_iou=0.4,
    stds=(0.2, 0.2, 0.3, 0.3),
    score_threshold=0.01,
    nms_iou=0.6,
    max_candidates=50,
    max_detections=7,
    geometry="legacy",
)
RETINA_HEAD = models.RetinaHeadSettings(
    channels=8,
    num_convs=1,
    strides=(8, 16),
    base_scale=2.0,
    scales_per_octave=2,
    ratios=(1.0,),
    positive_iou=0.6,
    negative_iou=0.3,
    min_positive_iou=0.1,
    stds=(0.1, 0.1, 0.2, 0.2),
    prior_probability=0.05,
    pre_nms=20,
    score_threshold=0.01,
    nms_iou=0.6,
    max_detections=7,
    pad_multiple=16,
    geometry="torchvision",
)
IOU_BALANCED = samplers.IoUBalancedSampler.preset("paper_text", num=16, positive_fraction=0.5)
INSTANCE_BALANCED = samplers.InstanceBalancedSampler(16, 0.5, max_negatives_per_positive=3)
ALIGN = layers.MultilevelROIAlign(
    output_size=3, sampling_ratio=0, strides=(8, 16), finest_scale=28.0, name="align"
)
NON_LOCAL = layers.NonLocalBlock(
    reduction=1,
    mode="dot_product",
    use_scale=False,
    sub_sample=True,
    start="xavier",
    block=64,
    name="block",
)
UPDATES = {
    "global_clipnorm": 2.0,
    "use_ema": True,
    "ema_momentum": 0.9,
    "ema_overwrite_frequency": 3,
    "gradient_accumulation_steps": 4,
    "rate_multipliers": {"backbone": 0.1},
}

images = keras.Input((None, None, 3), name="images")
maps = [keras.layers.MaxPooling2D(s, padding="same", name=f"by{s}")(images) for s in (4, 8, 16, 32)]
NETWORK = keras.Model(images, maps, name="network")

OBJECTS = {
    "rpn_settings": RPN,
    "box_head_settings": BOX_HEAD,
    "retina_head_settings": RETINA_HEAD,
    "input_policy": data.InputPolicy(64, 96, pad_multiple=16),
    "random": samplers.RandomSampler(16, 0.3, max_negatives_per_positive=2),
    "iou_balanced": IOU_BALANCED,
    "instance_balanced": INSTANCE_BALANCED,
    "ohem": samplers.OHEMSampler(16, 0.3, max_negatives_per_positive=2),
    "sampled_matcher": samplers.SampledBoxMatcher(
        keras.layers.Identity(name="inner"),  # stands for a BoxMatcher
        IOU_BALANCED,
        seed=3,
        positive_value=5,
        negative_value=0,
        ignored_value=-1,
        name="sampled",
    ),
    "combined": samplers.CombinedSampler(INSTANCE_BALANCED, IOU_BALANCED, 16, 0.4, 5),
    "balanced_l1": losses.BalancedL1Loss(
        alpha=0.2, gamma=1.0, beta=0.11, form="continuous", reduction="sum", name="loss"
    ),
    "focal": losses.FocalLoss(alpha=0.3, gamma=1.5, reduction="sum", name="class_loss"),
    "smooth_l1": losses.SmoothL1Loss(beta=0.3, reduction="sum", name="smooth"),
    "schedule": training.WarmupMultiStep(
        0.3, warmup_steps=7, warmup_factor=0.2, drops=(9, 12), drop_factor=0.5
    ),
    "sgd": training.SGD(0.3, momentum=0.5, weight_decay=0.1, **UPDATES),
    "adamw": training.AdamW(0.3, weight_decay=0.1, beta_1=0.8, **UPDATES),
    "loss_scale": LossScaleOptimizer(
        training.SGD(0.3, **UPDATES), initial_scale=8.0, dynamic_growth_steps=5, name="scaled"
    ),
    "conv": backbones.ConvBatchNorm(
        4,
        3,
        2,
        relu=False,
        batch_norm="trainable",
        train_kernel=False,
        train_affine=False,
        groups=2,
        epsilon=0.001,
    ),
    "adapter": backbones.BackboneAdapter(
        NETWORK, batch_norm="trainable", frozen_stages=2, trainable=False, name="network"
    ),
    "resnet": backbones.ResNet(
        34, 8, "caffe", batch_norm="trainable", train_affine=False, frozen_stages=2, name="body"
    ),
    "resnext": backbones.ResNet(50, 8, groups=2, base_width=3, epsilon=0.0, name="resnext"),
    "fpn": layers.FeaturePyramid(8, 4, 1, extra_levels="on_input", extra_relu=True, name="fpn"),
    "pafpn": layers.PathAggregationPyramid(
        8, 4, 1, extra_levels="on_input", extra_relu=True, name="pafpn"
    ),
    "bfp": layers.BalancedFeaturePyramid(refine_level=1, refiner=NON_LOCAL, name="bfp"),
    "bfp_conv": layers.BalancedFeaturePyramid(refine_level=1, refiner="conv", name="bfp_conv"),
    "non_local": NON_LOCAL,
    "align": ALIGN,
    "normalization": layers.ImageNormalization.caffe_style(name="bgr"),
    "rpn": models.RPNHead(RPN, INSTANCE_BALANCED, losses.SmoothL1Loss(beta=0.2), name="rpn"),
    "box_head": models.BoxHead(
        3, BOX_HEAD, IOU_BALANCED, losses.BalancedL1Loss(beta=0.5), ALIGN, name="head"
    ),
    "retina_head": models.RetinaHead(
        3,
        RETINA_HEAD,
        class_loss=losses.FocalLoss(gamma=1.0),
        box_loss=losses.BalancedL1Loss(beta=0.11),
        name="retina_head",
    ),
}
# Their own tests save them with weights.
COMPOSED = {"FasterRCNN", "FastRCNN", "RegionProposalNetwork", "RetinaNet"}

FRESH = """
import json, keras
import libra_keras.models, libra_keras.training  # register the classes that the configs name
objects = {
    name: keras.saving.deserialize_keras_object(config)
    for name, config in json.load(open("objects.json")).items()
}
configs = {name: keras.saving.serialize_keras_object(o) for name, o in objects.items()}
json.dump(configs, open("again.json", "w"))
"""


def plain(config):
    return json.loads(json.dumps(config))


def test_every_registered_class_is_here():
    registered = {
        value.__name__
        for key, value in keras.saving.get_custom_objects().items()
        if key.startswith("libra_keras>")
        and value.__module__.startswith("libra_keras.")
        and isinstance(value, type)
    }
    here = {type(value).__name__ for value in OBJECTS.values()} | COMPOSED
    internal = {"ResidualBlock"}  # built by ResNet, never saved by itself
    assert registered - internal == here


def test_objects_survive_a_file_and_a_fresh_process(tmp_path):
    configs = {name: keras.saving.serialize_keras_object(o) for name, o in OBJECTS.items()}
    (tmp_path / "objects.json").write_text(json.dumps(configs))
    subprocess.run([sys.executable, "-c", FRESH], cwd=tmp_path, check=True, capture_output=True)
    again = json.loads((tmp_path / "again.json").read_text())
    for name, config in configs.items():
        assert again[name] == plain(config), name


def pyramid_model():
    """The layers with weights, in one functional model."""
    images = keras.Input((None, None, 3), name="images")
    features = OBJECTS["resnet"](OBJECTS["normalization"](images))
    pyramid = OBJECTS["bfp"](OBJECTS["fpn"](features))
    outputs = OBJECTS["bfp_conv"](list(pyramid.values()))
    return keras.Model(images, outputs)


def test_weights_survive_a_file_and_a_fresh_process(tmp_path, rng):
    model = pyramid_model()
    for variable in model.weights:
        variable.assign(rng.uniform(0.01, 0.05, variable.shape))
    images = rng.uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    expected = model(images)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy as np, libra_keras.models\n"
        "outputs = keras.saving.load_model('model.keras')(np.load('images.npy'))\n"
        "np.savez('outputs.npz', *[keras.ops.convert_to_numpy(o) for o in outputs])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    loaded = np.load(tmp_path / "outputs.npz")
    assert len(loaded.files) == len(expected)
    for ours, theirs in zip(expected, loaded.values(), strict=True):
        np.testing.assert_allclose(theirs, keras.ops.convert_to_numpy(ours), rtol=1e-5)


LOSSES = [getattr(losses, name) for name in losses.__all__ if name.islower()]
FUNCTIONS = [
    function
    for name in functional.__all__
    for module in [getattr(functional, name)]
    for _, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not function.__name__.startswith("_")
]


@pytest.mark.parametrize("function", [*LOSSES, *FUNCTIONS], ids=lambda f: f.__name__)
def test_functions_are_found_by_their_names(function):
    """No two share a name, nor with a class: the later one would take the place of the other."""
    name = keras.saving.get_registered_name(function)
    assert name.startswith("libra_keras>")
    assert keras.saving.get_registered_object(name) is function
    config = keras.saving.serialize_keras_object(keras.layers.Lambda(function))
    assert keras.saving.deserialize_keras_object(config).function is function


def test_functions_are_found_by_the_names_of_older_files():
    found = keras.saving.get_registered_object("libra_keras>hard_examples.choose_hardest")
    assert found is functional.sampling.choose_hardest


@pytest.mark.slow
def test_loss_functions_survive_as_loss_and_as_metric(tmp_path, rng):
    assert len(LOSSES) == 3
    x, y = rng.normal(size=(4, 5)).astype("float32"), rng.random((4, 3, 4)).round()
    np.savez(tmp_path / "batch.npz", x=x, y=y)
    expected = {}
    for function in LOSSES:
        layers = [keras.layers.Dense(12), keras.layers.Reshape((3, 4))]
        model = keras.Sequential([keras.Input((5,)), *layers])
        model.compile("sgd", function, metrics=[function])
        expected[function.__name__] = model.evaluate(x, y, verbose=0)
        model.save(tmp_path / f"{function.__name__}.keras")
    code = (
        "import json, keras, numpy as np\n"
        "from libra_keras import data, models\n"  # as README loads a model
        "x, y = np.load('batch.npz').values()\n"
        "load = keras.saving.load_model\n"
        f"names = {list(expected)}\n"
        "found = {n: load(n + '.keras').evaluate(x, y, verbose=0) for n in names}\n"
        "json.dump(found, open('found.json', 'w'))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    for name, values in expected.items():
        assert len(values) == 2 and values[0] > 0
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
