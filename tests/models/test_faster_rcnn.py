import subprocess
import sys

import keras
import numpy as np
import pytest
from gradients import to_numpy
from keras import ops

from libra_keras.data import InputPolicy
from libra_keras.layers import FeaturePyramid, ImageNormalization
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    FasterRCNN,
    RPNHead,
    RPNSettings,
    faster_rcnn_small,
    libra_faster_rcnn_small,
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


def small_model(**options):
    return libra_faster_rcnn_small(num_classes=3, class_names=NAMES, **options)


def values(model):
    return [ops.convert_to_numpy(v) for v in model.weights]


@pytest.mark.slow
def test_a_step_creates_no_variable_and_loads_into_a_new_model(rng, tmp_path):
    model = small_model()
    count = len(model.weights)
    model.compile(SGD(0.01), run_eagerly=True)
    x, y = batch(rng)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert len(model.weights) == count
    assert all(np.isfinite(value) for value in logs.values())
    assert {"loss", "rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss"} <= set(logs)
    path = tmp_path / "trained.weights.h5"
    model.save_weights(path)
    fresh = small_model(seed=5)
    fresh.load_weights(path)
    for ours, loaded in zip(values(model), values(fresh), strict=True):
        np.testing.assert_array_equal(ours, loaded)


def test_backbone_runs_once_in_a_training_step(rng, monkeypatch):
    model = small_model()
    calls = []
    original = type(model.backbone).call
    monkeypatch.setattr(
        type(model.backbone),
        "call",
        lambda self, *args, **kwargs: (calls.append(1), original(self, *args, **kwargs))[1],
    )
    model.compile(SGD(0.01), run_eagerly=True)
    model.train_on_batch(*batch(rng))
    assert len(calls) == 1


@pytest.mark.slow
def test_losses_of_an_evaluation_find_no_proposals_again(rng, monkeypatch):
    model = small_model()
    x, y = batch(rng)
    outputs = model(x)
    raw = {key: outputs[key] for key in ("pyramid", "rpn")}
    expected = float(to_numpy(model.compute_loss(x, y, raw, training=False)))
    monkeypatch.setattr(RPNHead, "propose", None)
    found = float(to_numpy(model.compute_loss(x, y, outputs, training=False)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_total_is_the_sum_of_the_four_losses(rng):
    model = small_model()
    x, y = batch(rng)
    total = model.compute_loss(x, y, model(x, training=True))
    parts = [float(metric.result()) for metric in model.loss_means]
    assert float(to_numpy(total)) == pytest.approx(sum(parts), rel=1e-6)


def test_images_without_objects_have_no_box_loss(rng):
    model = small_model()
    x, y = batch(rng, objects=0)
    model.compute_loss(x, y, model(x, training=True))
    losses = {metric.name: float(metric.result()) for metric in model.loss_means}
    assert losses["box_loss"] == 0 and losses["rpn_box_loss"] == 0
    assert losses["class_loss"] > 0 and losses["rpn_class_loss"] > 0


@pytest.mark.slow
def test_sampling_depends_on_seed_and_step_alone(rng):
    x, y = batch(rng)

    def losses(seed, steps):
        keras.utils.set_random_seed(1)
        model = small_model(seed=seed)
        outputs = model(x, training=True)  # equal proposals for all: only the draw differs
        return [float(to_numpy(model.compute_loss(x, y, outputs))) for _ in range(steps)]

    first, again, other = losses(0, 2), losses(0, 2), losses(1, 2)
    assert first == again
    assert first[0] != first[1] and first[0] != other[0]


def test_predict_gives_detections_of_a_fixed_size(rng):
    model = small_model()
    x, _ = batch(rng)
    found = model.predict(x, verbose=0)
    assert sorted(found) == ["boxes", "labels", "num_detections", "scores"]
    assert found["boxes"].shape == (2, 50, 4) and found["num_detections"].shape == (2,)
    real = found["labels"] >= 0
    assert (real.sum(1) == found["num_detections"]).all()
    height, width = x["image_sizes"][1]
    assert (found["boxes"][1] <= [width, height, width, height]).all()


@pytest.mark.slow
def test_a_bare_array_is_enough_to_predict(rng):
    model = small_model()
    images = rng.integers(0, 255, (1, 64, 64, 3), "uint8")
    sized = {"images": images, "image_sizes": np.array([[64, 64]])}
    bare, full = model.predict(images, verbose=0), model.predict(sized, verbose=0)
    np.testing.assert_array_equal(bare["boxes"], full["boxes"])


@pytest.mark.slow
def test_predict_between_two_fits(rng):
    model = small_model()
    model.compile(SGD(0.01))
    x, y = batch(rng)
    model.fit(x, y, batch_size=2, verbose=0)
    before = model.predict(x, verbose=0)
    model.fit(x, y, batch_size=2, verbose=0)
    after = model.predict(x, verbose=0)
    assert int(ops.convert_to_numpy(model.trained_steps)) == 2
    assert before["scores"].shape == after["scores"].shape


@pytest.mark.slow
def test_evaluate_does_not_count_as_training(rng):
    model = small_model()
    model.compile(SGD(0.01), run_eagerly=True)
    x, y = ({k: np.concatenate([v, v[:1]]) for k, v in part.items()} for part in batch(rng))
    logs = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)  # of two images and one
    assert logs["loss"] == pytest.approx(sum(logs[name] for name in model.LOSSES), rel=1e-5)
    assert logs["loss"] > 0 and int(ops.convert_to_numpy(model.trained_steps)) == 0


def test_no_gradient_reaches_proposals(rng):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("uses TensorFlow's tape")
    import tensorflow as tf

    model = small_model()
    x, y = batch(rng)
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        proposals = model.rpn.propose(outputs["rpn"], x["image_sizes"], training=True)
        total = tf.reduce_sum(proposals.boxes) + tf.reduce_sum(proposals.scores)
    variables = [v.value for v in model.trainable_variables]
    assert all(gradient is None for gradient in tape.gradient(total, variables))


def custom_model():
    """Every argument of the model, its heads and settings away from its default."""
    rpn = RPNSettings(channels=8, scales=(2.0, 4.0), ratios=(1.0,), pre_nms_test=20, post_nms=10)
    keras.utils.set_random_seed(7)
    plain = faster_rcnn_small(num_classes=3)
    return FasterRCNN(
        backbone=plain.backbone,
        neck=FeaturePyramid(8),
        rpn=RPNHead(rpn, sampler=plain.rpn.sampler),
        box_head=BoxHead(3, BoxHeadSettings(channels=16, score_threshold=0.01, max_detections=7)),
        normalization=ImageNormalization.caffe_style(),
        input_policy=InputPolicy(64, 96),
        class_names=NAMES,
        seed=3,
        name="custom",
    )


@pytest.mark.slow
def test_a_saved_model_detects_the_same_in_a_fresh_process(rng, tmp_path):
    model = custom_model()
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
def test_a_compiled_model_goes_on_training_after_a_file(rng, tmp_path):
    model = custom_model()
    model.compile(SGD(0.01, momentum=0.5), run_eagerly=True)
    x, y = batch(rng)
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.momentum == 0.5
    pairs = zip(model.optimizer.variables, loaded.optimizer.variables, strict=True)
    for ours, theirs in pairs:  # velocities and counts too
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    losses = [m.train_on_batch(x, y, return_dict=True)["loss"] for m in (model, loaded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_detect_takes_what_a_user_has(rng, tmp_path):
    from PIL import Image

    model = small_model()
    landscape = rng.integers(0, 255, (40, 60, 3), "uint8")
    portrait = np.swapaxes(landscape, 0, 1)
    Image.fromarray(landscape).save(tmp_path / "a.png")
    results = model.detect([tmp_path / "a.png", landscape, portrait], 0.0, batch_size=3)
    np.testing.assert_allclose(results[0]["boxes"], results[1]["boxes"], atol=1e-3)
    assert results[2]["boxes"][:, 3].max() <= 60.01 and results[2]["boxes"][:, 2].max() <= 40.01
    assert set(results[0]["names"]) <= set(NAMES)


def test_wrong_number_of_names_is_refused():
    with pytest.raises(ValueError, match="3 classes. Received: 1 names"):
        libra_faster_rcnn_small(num_classes=3, class_names=["one"])


def test_targets_without_labels_are_refused(rng):
    model = small_model()
    x, y = batch(rng)
    with pytest.raises(ValueError, match=r"Received the keys: \['boxes'\]"):
        model.compute_loss(x, {"boxes": y["boxes"]}, model(x, training=True))


@pytest.mark.slow
def test_both_aspect_buckets_share_one_trace(rng, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends compile one program a shape")
    import tensorflow as tf

    traces = []
    original = FasterRCNN.compute_loss
    monkeypatch.setattr(
        FasterRCNN,
        "compute_loss",
        lambda self, *args, **kwargs: (traces.append(1), original(self, *args, **kwargs))[1],
    )
    wide = batch(rng)
    tall = ({**wide[0], "images": np.swapaxes(wide[0]["images"], 1, 2)}, wide[1])
    tall[0]["image_sizes"] = wide[0]["image_sizes"][:, ::-1]
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec(a.shape, a.dtype), wide)
    spec[0]["images"] = tf.TensorSpec((2, None, None, 3), "uint8")
    batches = tf.data.Dataset.from_generator(lambda: iter([wide, tall]), output_signature=spec)
    batches = batches.apply(tf.data.experimental.assert_cardinality(2))
    model = faster_rcnn_small(num_classes=3)
    model.compile(SGD(0.01))
    logs = model.fit(batches, verbose=0, shuffle=False).history
    assert np.isfinite(logs["loss"][0]) and len(traces) == 1


def test_a_loss_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="Received: loss"):
        small_model().compile(SGD(0.01), loss="mse")
