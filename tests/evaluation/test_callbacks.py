import csv
import math

import keras
import numpy as np
import pytest
from evaluation.cases import Oracle

from libra_keras.data import InputPolicy, shapes
from libra_keras.evaluation import METRICS, COCOEvaluation, ProposalEvaluation, evaluate


@keras.saving.register_keras_serializable(package="test")
class Detector(keras.Model):
    """One weight that grows by 1 in each epoch. It finds all objects until the weight is 3."""

    def __init__(self, data, class_names=None):
        super().__init__()
        self.class_names = class_names
        self.input_policy = InputPolicy(short_side=96, long_side=96)
        self.weight = self.add_weight(shape=(), initializer="zeros", name="weight")
        self.oracle = Oracle(data, self.input_policy)

    def call(self, x):
        return keras.ops.add(x, self.weight)

    def predict_on_batch(self, x):
        detections = self.oracle.predict_on_batch(x)
        if self.class_names is not None:  # labels of its own
            places = [self.class_names.index(name) for name in self.oracle.data.class_names]
            labels = detections["labels"]
            detections["labels"] = np.where(labels < 0, -1, np.array(places)[labels])
        if float(keras.ops.convert_to_numpy(self.weight)) >= 3:
            detections["boxes"] = detections["boxes"] * 0
        return detections


def fit(data, callbacks, epochs, class_names=None):
    model = Detector(data, class_names)
    # The gradient of y_pred is 1 and the rate 1: the weight falls by 1 in each epoch's only step.
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: -y_pred, jit_compile=False)
    zeros = np.zeros((1, 1), "float32")
    return model, model.fit(zeros, zeros, epochs=epochs, callbacks=callbacks, verbose=0)


@pytest.fixture(scope="module")
def scenes():
    return shapes(3, seed=2)


def test_logs_reach_the_csv_file_and_the_best_weights_are_kept(tmp_path, scenes):
    best = tmp_path / "made" / "best.weights.h5"
    evaluation = COCOEvaluation(scenes, batch_size=2, best_weights=best)
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    model, history = fit(scenes, [evaluation, logger], epochs=4)
    np.testing.assert_allclose(history.history["val_AP"], [1, 1, 0, 0])
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert {f"val_{name}" for name in METRICS} <= set(rows[0])
    assert [float(row["val_AP50"]) for row in rows] == pytest.approx([1, 1, 0, 0])
    assert evaluation.best == pytest.approx(1)
    assert [path.name for path in best.parent.iterdir()] == ["best.weights.h5"]
    model.load_weights(best)
    assert float(keras.ops.convert_to_numpy(model.weight)) == 1  # the first of equals
    assert evaluation.metrics["AP"] == 0 and len(evaluation.detections) == 3


@pytest.mark.parametrize("more", [[], ["horse"]])
def test_classes_are_matched_by_name(scenes, more):
    names = [*more, *reversed(scenes.class_names)]
    evaluation = COCOEvaluation(scenes)
    model, history = fit(scenes, [evaluation], 1, names)
    np.testing.assert_allclose(history.history["val_AP"], [1])
    # What is kept has the labels of the model.
    kept = {names[label] for image in evaluation.detections for label in image["labels"]}
    used = {scenes.class_names[label] for e in scenes.examples for label in e.labels}
    assert kept == used


def test_a_class_that_the_model_does_not_know_is_told_before_the_training(scenes):
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda *_: batches.append(1))
    with pytest.raises(ValueError, match="The detector does not know 5 of the 6 classes"):
        fit(scenes, [COCOEvaluation(scenes), count], 1, [scenes.class_names[0], "horse"])
    assert not batches


def test_another_number_of_classes_without_names_is_told(scenes):
    evaluation = COCOEvaluation(scenes)
    model = Detector(scenes)
    model.num_classes = 2
    evaluation.set_model(model)
    with pytest.raises(ValueError, match="finds 2 classes without names, but shapes/train has 6"):
        evaluation.on_train_begin()
    with pytest.raises(ValueError, match="finds 2 classes without names"):
        evaluate(model, scenes)


def test_every_second_epoch_and_the_last(scenes):
    evaluation = COCOEvaluation(scenes, every=2)
    _, history = fit(scenes, [evaluation], epochs=3)
    np.testing.assert_allclose(history.history["val_AP"], [1, 0])  # none of the first epoch
    evaluation = COCOEvaluation(scenes, every=2)
    evaluation.fills_logs = True
    _, history = fit(scenes, [evaluation], epochs=3)
    np.testing.assert_allclose(history.history["val_AP"], [math.nan, 1, 0])


@pytest.mark.filterwarnings("ignore:.*which is not available")
def test_early_stopping_waits_for_the_evaluations_there_are(scenes):
    stopping = keras.callbacks.EarlyStopping("val_AP", mode="max", patience=9)
    _, history = fit(scenes, [COCOEvaluation(scenes, every=2), stopping], epochs=3)
    assert len(history.epoch) == 3 and stopping.best == 1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"every": 0}, "`every` must be a whole number from 1"),
        ({"monitor": "AP"}, "'AP'"),
        ({"best_weights": "best.h5"}, "best.h5"),
    ],
)
def test_errors(scenes, wrong, message):
    with pytest.raises(ValueError, match=message):
        COCOEvaluation(scenes, **wrong)


@pytest.mark.parametrize("counts", [(), (0, 10), (100, 10), (10, 10)])
def test_counts_of_proposals_are_checked_before_the_training(scenes, counts):
    with pytest.raises(ValueError, match="`counts` must be increasing and positive. Received"):
        ProposalEvaluation(scenes, counts=counts)


def test_recall_of_proposals_reaches_the_logs(scenes, tmp_path):
    class Proposer(Detector):
        def propose(self, x):
            found = self.predict_on_batch(x)
            return {
                "boxes": found["boxes"],
                "scores": found["scores"],
                "mask": found["labels"] >= 0,
            }

    model = Proposer(scenes)
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: -y_pred, jit_compile=False)
    best = tmp_path / "best.weights.h5"
    evaluation = ProposalEvaluation(scenes, counts=(1, 50), best_weights=best)
    zeros = np.zeros((1, 1), "float32")
    history = model.fit(zeros, zeros, epochs=3, callbacks=[evaluation], verbose=0).history
    np.testing.assert_allclose(history["val_AR@50"], [1, 1, 0])
    assert 0 < history["val_AR@1"][0] < 1  # one box of each scene
    assert evaluation.monitor == "val_AR@1" and best.exists()
    assert set(evaluation.metrics) == set(evaluation.names)
