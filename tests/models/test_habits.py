"""What users of Keras, KerasCV and KerasHub do by habit."""

import keras
import numpy as np
import pytest
from untrained import make

from libra_keras.data import shapes
from libra_keras.evaluation import COCOEvaluation, ProposalEvaluation
from libra_keras.models import retinanet_small
from libra_keras.models.habits import check_monitors
from libra_keras.runs.defaults import FAMILIES, RESNET, RETINANET, SMALL
from libra_keras.runs.usual import usual_optimizer
from libra_keras.training import SGD, AdamW

IMAGES = np.zeros((2, 64, 64, 3), "uint8")
Y = {"boxes": np.float32([[[4, 4, 40, 40]]] * 2), "labels": np.int32([[0], [1]])}


@pytest.fixture(scope="module")
def model():
    return make("retinanet_small")


def test_the_optimizer_of_the_family_is_chosen_and_told(model, capsys):
    for given in ({}, {"optimizer": "auto", "loss": "auto", "metrics": "auto"}):
        model.compile(**given)
        assert isinstance(model.optimizer, AdamW)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.002)
        assert capsys.readouterr().out == (
            "AdamW, learning rate 0.002 for 4 images per step, weight decay 0.01, gradients "
            "clipped to 10\n"
        )
    again = type(model).from_config(model.get_config())
    again.compile_from_config(model.get_compile_config())
    assert isinstance(again.optimizer, AdamW) and not capsys.readouterr().out


def test_every_family_has_its_optimizer():
    class Frozen:
        batch_norm = "frozen"

    kinds = {"FasterRCNN": RESNET, "RetinaNet": RETINANET}
    for name, family in kinds.items():
        optimizer = usual_optimizer(type(name, (), {"backbone": Frozen})())
        assert isinstance(optimizer, SGD)
        assert float(optimizer.learning_rate) == pytest.approx(family.schedule.learning_rate)
        assert optimizer.weight_decay == family.optimizer.weight_decay
    assert {*FAMILIES} == {SMALL, *kinds.values()}


def test_the_form_of_boxes_belongs_to_the_data(model):
    words = r"from_dataset\(dataset, bounding_box_format='xywh'\)"
    for call in (
        lambda **given: retinanet_small(num_classes=2, **given),
        lambda **given: type(model)(model.backbone, model.neck, model.head, **given),
        model.compile,
        lambda **given: model.fit(IMAGES, Y, **given),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call(bounding_box_format="xywh")


def test_samples_of_kerascv_hold_their_truth(model, monkeypatch):
    given = []
    boxes = {"boxes": Y["boxes"], "classes": Y["labels"].astype("float32")}
    monkeypatch.setattr(
        model, "compute_losses", lambda x, truth, *rest: given.append(truth) or (0.0, 0.0)
    )
    model.compute_loss({"images": IMAGES, "bounding_boxes": boxes}, None, {}, training=False)
    model.compute_loss(IMAGES, Y, {}, training=False)
    for own, expected in zip(*given, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (own, expected)))


def test_labels_of_unknown_classes_are_named_before_a_graph_is_made(model):
    model.compile("sgd")
    y = {**Y, "labels": np.int32([[0], [2]])}
    words = r"^Labels must be in 0\.\.1, or -1 for padding. Received: 2 for image 1$"
    for call in (
        lambda: model.fit(IMAGES, y),
        lambda: model.fit({"images": IMAGES, "bounding_boxes": y}),
        lambda: model.fit(IMAGES, Y, validation_data=(IMAGES, y)),
        lambda: model.evaluate(IMAGES, y),
        lambda: model.train_on_batch(IMAGES, y),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_weights_of_classes_and_images_are_refused(model):
    model.compile("sgd")
    of_classes = {0: 1.0, 1: 2.0}
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="Detectors do not support `class_weight`.*rare"):
            call(IMAGES, Y, class_weight=of_classes)
        with pytest.raises(ValueError, match="Detectors take no `sample_weight`"):
            call(IMAGES, Y, sample_weight=np.ones(2))


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ((IMAGES, Y, np.ones(2)), "Detectors take no `sample_weight`"),
        ((IMAGES, np.zeros((2, 1))), "`y` must be a dict .* Received: ndarray"),
    ],
)
def test_data_to_validate_on_are_refused_before_the_first_epoch(model, held_out, words):
    model.compile("sgd")
    with pytest.raises(ValueError, match=words):
        model.fit(IMAGES, Y, validation_data=held_out)
    assert int(model.trained_steps) == 0


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        ("val_AP", r"EarlyStopping reads 'val_AP', which nothing .*COCOEvaluation\(data\)` before"),
        ("val_AR@100", "put `evaluation.ProposalEvaluation"),
    ],
)
def test_a_number_that_nothing_makes_stops_before_the_first_epoch(model, monitor, words):
    model.compile("sgd")
    with pytest.raises(ValueError, match=words):
        model.fit(IMAGES, Y, callbacks=[keras.callbacks.EarlyStopping(monitor)])


def test_callbacks_in_the_right_order_go_on(model):
    evaluation, stop = COCOEvaluation(shapes(1)), keras.callbacks.EarlyStopping("val_AP50")
    with pytest.raises(
        ValueError, match="which COCOEvaluation computes: put that before it, not after"
    ):
        check_monitors(model, [stop, evaluation])
    check_monitors(model, [evaluation, stop, keras.callbacks.EarlyStopping("val_loss")])
    assert stop.mode == "max"  # Keras cannot know
    wrong = keras.callbacks.ReduceLROnPlateau("val_AP60")
    with pytest.raises(
        ValueError, match="'val_AP60', but the callbacks before it compute val_AP, "
    ):
        check_monitors(model, [evaluation, wrong])
    stop = keras.callbacks.EarlyStopping("val_AR@100", mode="min")
    check_monitors(model, [ProposalEvaluation(shapes(1)), stop])
    assert stop.mode == "min"

    adds = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(val_AP=1.0))
    check_monitors(model, [adds, keras.callbacks.EarlyStopping("val_AP", mode="max")])

    class Own(keras.callbacks.Callback):
        """May log anything."""

    check_monitors(model, [Own(), keras.callbacks.EarlyStopping("val_AP")])
