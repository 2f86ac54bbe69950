import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.backbones import ResNet
from libra_keras.data import InputPolicy
from libra_keras.functional import replicas
from libra_keras.layers import FeaturePyramid, ImageNormalization
from libra_keras.losses import BalancedL1Loss, SmoothL1Loss
from libra_keras.models import (
    RetinaHead,
    RetinaHeadSettings,
    RetinaNet,
    libra_retinanet_resnet50,
    libra_retinanet_small,
    retinanet_resnet50,
    retinanet_small,
)
from libra_keras.training import SGD

NAMES = ["one", "two", "three"]


def batch(rng, num=2, objects=3):
    """Noise with `objects` boxes in the first image and none in the others."""
    boxes = np.zeros((num, 4, 4), "float32")
    labels = np.full((num, 4), -1, "int32")
    for i in range(objects):
        boxes[0, i] = [8 + 20 * i, 10, 40 + 20 * i, 44]
        labels[0, i] = i
    x = {
        "images": rng.integers(0, 255, (num, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96], [50, 90]][:num], "int32"),
    }
    return x, {"boxes": boxes, "labels": labels}


def tiny_model():
    """Every argument of the model, its head and settings away from its default."""
    keras.utils.set_random_seed(7)
    settings = RetinaHeadSettings(
        channels=8,
        num_convs=1,
        strides=(8, 16, 32),
        base_scale=2.0,
        ratios=(1.0,),
        pre_nms=20,
        score_threshold=0.001,
        max_detections=7,
    )
    return RetinaNet(
        backbone=ResNet(18, width=8, batch_norm="trainable", frozen_stages=-1),
        neck=FeaturePyramid(8, num_levels=3, start_level=1),
        head=RetinaHead(3, settings, box_loss=BalancedL1Loss(beta=0.11)),
        normalization=ImageNormalization.caffe_style(),
        input_policy=InputPolicy(64, 96),
        class_names=NAMES,
        seed=3,
        name="custom",
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def values(model):
    return [ops.convert_to_numpy(v) for v in model.weights]


def test_total_is_the_sum_of_the_two_losses(rng, model):
    x, y = batch(rng)
    model.reset_metrics()
    total = model.compute_loss(x, y, model(x, training=True))
    losses = {metric.name: float(metric.result()) for metric in model.loss_means}
    assert sorted(losses) == ["box_loss", "class_loss"] and min(losses.values()) > 0
    assert float(total) == pytest.approx(sum(losses.values()), rel=1e-6)


def test_replicas_share_the_losses_of_layers(rng, model, monkeypatch):
    # Gradients of two replicas are added: a weight's penalty of 3 must count once, not twice.
    ours = ops.convert_to_tensor(1.0), ops.convert_to_tensor(2.0)
    monkeypatch.setattr(RetinaNet, "compute_losses", lambda *_: ours)
    monkeypatch.setattr(RetinaNet, "losses", [ops.convert_to_tensor(3.0)])
    monkeypatch.setattr(replicas, "num_replicas", lambda: 2)
    monkeypatch.setattr(replicas, "sum_over_replicas", lambda x: 2 * x)  # the other has the same
    assert float(model.compute_loss(*batch(rng), y_pred={}, training=False)) == 1 + 2 + 3 / 2


def test_images_without_objects_have_no_box_loss(rng, model):
    x, y = batch(rng, objects=0)
    model.reset_metrics()
    model.compute_loss(x, y, model(x, training=True))
    losses = {metric.name: float(metric.result()) for metric in model.loss_means}
    assert losses["box_loss"] == 0 and losses["class_loss"] > 0


def test_predict_gives_detections_of_a_fixed_size(rng, model):
    x, _ = batch(rng)
    found = model.predict_on_batch(x)
    assert sorted(found) == ["boxes", "labels", "num_detections", "scores"]
    found = {key: np.asarray(value) for key, value in found.items()}
    assert found["boxes"].shape == (2, 7, 4)
    assert ((found["labels"] >= 0).sum(1) == found["num_detections"]).all()
    height, width = x["image_sizes"][1]
    assert found["num_detections"][1] > 0
    assert (found["boxes"][1] <= [width, height, width, height]).all()


@pytest.mark.slow
def test_steps_train_every_weight_and_make_none(rng):
    model = tiny_model()
    before = values(model)
    model.compile(SGD(0.01), run_eagerly=True)
    logs = model.train_on_batch(*batch(rng), return_dict=True)
    assert sorted(logs) == ["box_loss", "class_loss", "loss", "positives"]
    assert np.isfinite(list(logs.values())).all()
    after = values(model)
    assert len(after) == len(before)
    still = [
        v.path
        for v, a, b in zip(model.weights, before, after, strict=True)
        if v.trainable and np.array_equal(a, b)
    ]
    assert still == []


@pytest.mark.slow
def test_a_saved_model_detects_the_same_in_a_fresh_process(rng, tmp_path, model):
    image = rng.integers(0, 255, (70, 100, 3), "uint8")
    found = model.detect(image, score_threshold=0.0)
    assert len(found["scores"]) == 7
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    code = (
        "import keras, numpy as np, libra_keras.models\n"
        "model = keras.saving.load_model('model.keras')\n"
        "found = model.detect(np.load('image.npy'), score_threshold=0.0)\n"
        "config = model.get_config()\n"
        "assert config['seed'] == 3 and config['class_names'][1] == 'two', config\n"
        "np.savez('found.npz', **{k: found[k] for k in ('boxes', 'scores', 'labels')})\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    loaded = np.load(tmp_path / "found.npz")
    for key in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(loaded[key], found[key], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_sizes_may_be_unknown_while_tracing(rng, model):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces sizes that it does not know")
    import tensorflow as tf

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 3), "uint8"),
            tf.TensorSpec((None, 2), "int32"),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None), "int32"),
        ]
    )
    def traced(images, image_sizes, boxes, labels):
        x, y = {"images": images, "image_sizes": image_sizes}, {"boxes": boxes, "labels": labels}
        loss = model.compute_loss(x, y, model(x, training=True), training=False)
        return loss, model(x)["boxes"]

    x, y = batch(rng)
    loss, boxes = traced(x["images"], x["image_sizes"], y["boxes"], y["labels"])
    eager = model.compute_loss(x, y, model(x, training=True), training=False)
    assert float(loss) == pytest.approx(float(eager), rel=1e-4)
    assert boxes.shape == (2, 7, 4)


def test_wrong_number_of_names_is_refused():
    with pytest.raises(ValueError, match="6 classes. Received: 1 names"):
        retinanet_small(num_classes=6, class_names=["one"])


@pytest.mark.parametrize(
    ("plain", "libra"),
    [(retinanet_resnet50, libra_retinanet_resnet50), (retinanet_small, libra_retinanet_small)],
)
def test_plain_and_libra_differ_in_pyramid_and_box_loss_alone(plain, libra):
    plain, libra = plain(3, ResNet(18, width=8)), libra(3, ResNet(18, width=8))
    assert plain.head.settings == libra.head.settings
    assert plain.input_policy == libra.input_policy
    pyramids = [model.neck[0].get_config() for model in (plain, libra)]
    assert {**pyramids[0], "name": ""} == {**pyramids[1], "name": ""}
    assert pyramids[0]["num_levels"] == len(plain.head.settings.strides)
    assert len(plain.neck) == 1 and type(libra.neck[1]).__name__ == "BalancedFeaturePyramid"
    assert libra.head.settings.strides[libra.neck[1].refine_level] == 16
    assert isinstance(plain.head.box_loss, SmoothL1Loss) and plain.head.box_loss.beta == 0
    assert isinstance(libra.head.box_loss, BalancedL1Loss) and libra.head.box_loss.beta == 0.11
