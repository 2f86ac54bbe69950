"""What is frozen stays so in a saved model, and whatever is built after it was frozen."""

import contextlib

import keras
import numpy as np
import pytest
from gradients import to_numpy

from libra_keras.backbones import ResNet
from libra_keras.layers import (
    BalancedFeaturePyramid,
    FeaturePyramid,
    NonLocalBlock,
    PathAggregationPyramid,
)
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    FasterRCNN,
    RetinaHead,
    RetinaHeadSettings,
    RPNHead,
    RPNSettings,
)
from libra_keras.models.fine_tuning import freeze, parts
from libra_keras.training import SGD


def detector(**options):
    keras.utils.set_random_seed(2)
    settings = RPNSettings(channels=8, pre_nms_train=30, pre_nms_test=20, post_nms=10)
    return FasterRCNN(
        ResNet(18, width=8, batch_norm="trainable", frozen_stages=-1),
        [FeaturePyramid(8), BalancedFeaturePyramid(2, refiner="non_local")],
        RPNHead(settings),
        BoxHead(2, BoxHeadSettings(channels=8)),
        **options,
    )


def batch():
    images = np.random.default_rng(1).integers(0, 255, (1, 64, 96, 3), "uint8")
    x = {"images": images, "image_sizes": np.array([[64, 96]], "int32")}
    return x, {"boxes": np.float32([[[5, 3, 30, 28]]]), "labels": np.array([[1]], "int32")}


def values(layers):
    return [to_numpy(v).copy() for layer in layers for v in layer.weights]


def paths(variables):
    return [variable.path.split("/", 1)[-1] for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize("names", [["backbone"], ["neck", "rpn"], ["backbone", "box_head"]])
def test_frozen_parts_stay_so_in_a_saved_model(tmp_path, names):
    model = detector()
    freeze(model, names)
    model.compile(SGD(0.01, momentum=0.9), run_eagerly=True)
    model.train_on_batch(*batch())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    old, new = model.optimizer.variables, loaded.optimizer.variables
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(to_numpy(before), to_numpy(after))
    kept = {name: values(layers) for name, layers in parts(loaded).items()}
    loaded.train_on_batch(*batch())
    for name, layers in parts(loaded).items():  # statistics of batch normalisation included
        pairs = zip(kept[name], values(layers), strict=True)
        moved = [not np.array_equal(before, after) for before, after in pairs]
        assert any(moved) == (name not in names), name


def test_a_detector_that_is_frozen_as_a_whole_stays_so(tmp_path):
    model = detector()
    trained = len(model.trainable_variables)
    model.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.trainable and not any(v.trainable for v in loaded.weights)
    freeze(loaded, [])  # all of it trains again
    assert len(loaded.trainable_variables) == trained
    assert detector(trainable=False).trainable_variables == []


def test_freezing_reaches_what_trains_inside_a_frozen_part():
    model = detector()
    model.backbone.trainable = False
    model.backbone.stem.trainable = True
    freeze(model, ["backbone"])
    assert not any(v.trainable for v in model.backbone.weights)


def test_building_thaws_nothing():
    model = detector()
    model.backbone.blocks[0].trainable = False
    copy = FasterRCNN(model.backbone, model.neck, model.rpn, model.box_head)
    assert copy.backbone.trainable and not copy.backbone.blocks[0].trainable
    assert paths(copy.trainable_variables) == paths(model.trainable_variables)


@pytest.mark.parametrize("start", ["random", "frozen by hand", "trained", "all trains"])
def test_features_that_are_random_and_frozen_are_told(start):
    options = {"frozen_stages": -1} if start in ("frozen by hand", "all trains") else {}
    backbone = ResNet(18, width=8, **options)
    model = FasterRCNN(backbone, FeaturePyramid(8), RPNHead(), BoxHead(2))
    if start == "frozen by hand":
        freeze(model, ["backbone"])
    if start == "trained":
        backbone.stem.moving_mean.assign(np.full(8, 0.25))
    random = start in ("random", "frozen by hand")
    told = pytest.warns(UserWarning, match="features are random and do not train")
    # Warnings are errors in tests. The model is not compiled, which is found out after the warning.
    with told if random else contextlib.nullcontext(), pytest.raises(ValueError, match="compile"):
        model.fit(*batch(), verbose=0)


STAGES = {f"C{i}": (None, None, None, 8 * i) for i in (2, 3, 4, 5)}
LEVELS = [(None, None, None, 8)] * 5
RETINA = RetinaHeadSettings(channels=8, num_convs=1)
LAYERS = {
    "resnet": (lambda **kw: ResNet(18, width=8, frozen_stages=1, **kw), (None, None, None, 3)),
    "bottlenecks": (lambda **kw: ResNet(50, width=8, **kw), (None, None, None, 3)),
    "fpn": (lambda **kw: FeaturePyramid(8, 6, extra_levels="on_input", **kw), STAGES),
    "pafpn": (lambda **kw: PathAggregationPyramid(8, **kw), STAGES),
    "bfp": (lambda **kw: BalancedFeaturePyramid(refiner="conv", **kw), LEVELS),
    "bfp of a layer": (lambda **kw: BalancedFeaturePyramid(refiner=NonLocalBlock(), **kw), LEVELS),
    "non-local": (lambda **kw: NonLocalBlock(mode="concatenation", **kw), LEVELS[0]),
    "rpn": (lambda **kw: RPNHead(RPNSettings(channels=8), **kw), LEVELS),
    "box head": (lambda **kw: BoxHead(2, BoxHeadSettings(channels=8), **kw), LEVELS),
    "retina head": (lambda **kw: RetinaHead(2, RETINA, **kw), LEVELS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_is_frozen_before_it_is_built(name):
    make, shapes = LAYERS[name]
    plain, frozen, late = make(), make(trainable=False), make()
    late.trainable = False
    for layer in (plain, frozen, late):
        layer.build(shapes)
    expected = [v.trainable for v in plain.weights]
    for layer in (frozen, late):
        # A detector asks each variable, not the layer.
        assert not any(v.trainable for v in layer.weights)
        layer.trainable = True
        assert [v.trainable for v in layer.weights] == expected
