"""Parts that learn nothing, or less; the float16 optimizer that `compile` makes."""

import keras
import numpy as np
import pytest
from gradients import to_numpy

from libra_keras.backbones import ResNet
from libra_keras.layers import FeaturePyramid
from libra_keras.models import RetinaHead, RetinaHeadSettings, RetinaNet
from libra_keras.models.distributed import LossScaleOptimizer
from libra_keras.models.fine_tuning import freeze, parts
from libra_keras.training import SGD, StopOnNonFinite

PARTS = ("backbone", "neck", "head")


def detector(**options):
    keras.utils.set_random_seed(2)
    settings = RetinaHeadSettings(
        channels=8, num_convs=1, strides=(8, 16, 32), base_scale=2.0, ratios=(1.0,), pre_nms=20
    )
    return RetinaNet(
        ResNet(18, width=16, batch_norm="trainable", frozen_stages=-1),
        FeaturePyramid(8, num_levels=3, start_level=1),
        RetinaHead(2, settings),
        **options,
    )


def batch():
    rng = np.random.default_rng(1)
    x = {
        "images": rng.integers(0, 255, (1, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96]], "int32"),
    }
    return x, {"boxes": np.float32([[[5, 3, 30, 28]]]), "labels": np.array([[1]], "int32")}


def values(model, name):
    variables = [v for layer in parts(model)[name] for v in layer.weights]
    return [to_numpy(v).copy() for v in variables]


def largest_change(model, name, before):
    return max(
        np.abs(new - old).max() for old, new in zip(before, values(model, name), strict=True)
    )


def changes(model, optimizer, steps=1):
    """How far each part moves, its statistics included."""
    before = {name: values(model, name) for name in PARTS}
    model.compile(optimizer, run_eagerly=True)
    for _ in range(steps):
        model.train_on_batch(*batch())
    return {name: largest_change(model, name, old) for name, old in before.items()}


def test_frozen_parts_stay_bit_equal():
    model = detector()
    freeze(model, ["backbone", "neck"])
    moved = changes(model, SGD(0.01), steps=2)
    assert moved["backbone"] == moved["neck"] == 0 < moved["head"]
    freeze(model, ["head"])  # the others train again
    moved = changes(model, SGD(0.01))
    assert moved["head"] == 0 < min(moved["backbone"], moved["neck"])


def test_nothing_but_what_it_is_named_is_frozen():
    model = detector()
    kept = model.backbone.stages[0][0]
    kept.trainable = False  # somebody's own choice
    freeze(model, ["neck"])
    assert not kept.trainable and model.backbone.trainable
    assert not any(v.trainable for layer in model.neck for v in layer.weights)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["body"], "A RetinaNet has the parts backbone, neck, head. Received: body"),
        (list(PARTS), "Nothing is left to train"),
    ],
)
def test_wrong_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        freeze(detector(), names)


def kernels(model):
    return [to_numpy(v).copy() for v in model.backbone.trainable_variables]


@pytest.mark.slow
def test_rate_of_the_backbone(tmp_path):
    """With plain SGD a tenth of the rate is a tenth of the way."""
    ways = []
    for multipliers in (None, {"backbone": 0.125}):
        model = detector()
        before = kernels(model)
        options = {"momentum": 0.0, "weight_decay": 0.0, "rate_multipliers": multipliers}
        model.compile(SGD(0.0625, **options), run_eagerly=True)
        model.train_on_batch(*batch())
        ways.append([new - old for old, new in zip(before, kernels(model), strict=True)])
    for full, part in zip(*ways, strict=True):
        np.testing.assert_allclose(part, full / 8, rtol=1e-3, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.rate_multipliers == {"backbone": 0.125}
    assert 0.125 in again.optimizer._own_multipliers and 1.0 in again.optimizer._own_multipliers


def test_rate_of_a_part_that_is_not_there():
    with pytest.raises(ValueError, match="names body, .* There are: backbone, head, neck"):
        detector().compile(SGD(0.1, rate_multipliers={"body": 0.1}))


@pytest.fixture
def half_detector():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return detector()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.slow
def test_scale_of_float16_is_found_without_stopping(half_detector):
    """The first gradients overflow: those updates are left out, and the run goes on."""
    optimizer = SGD(0.01, rate_multipliers={"backbone": 0.1}, use_ema=True)
    half_detector.compile(LossScaleOptimizer(optimizer, initial_scale=2.0**40))
    guard = StopOnNonFinite()
    x, y = batch()
    repeated = {key: np.repeat(value, 30, axis=0) for key, value in {**x, **y}.items()}
    x, y = ({key: repeated[key] for key in part} for part in (x, y))
    half_detector.fit(x, y, batch_size=1, verbose=0, callbacks=[guard])
    assert guard.failure is None
    assert float(half_detector.optimizer.dynamic_scale) < 2.0**40
    assert int(optimizer.nonfinite_updates) == 0 < int(optimizer.iterations) < 30


@pytest.mark.slow
def test_a_scale_that_cannot_be_found_stops(half_detector):
    half_detector.compile(SGD(0.01))
    assert isinstance(half_detector.optimizer, LossScaleOptimizer)
    half_detector.optimizer.dynamic_scale.assign(2.0**-11)
    guard = StopOnNonFinite()
    x, y = batch()
    half_detector.fit(x, y, verbose=0, callbacks=[guard])
    assert "a gradient is not finite. That update was not applied" in guard.failure
