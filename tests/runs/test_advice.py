"""Sentences about numbers, the callback that finds them in logs, and what it measures."""

import json
import math

import numpy as np
import pytest
from configs import resolved, write_unnamed

from libra_keras import data
from libra_keras.cli import main
from libra_keras.data import InputPolicy
from libra_keras.evaluation import COCOEvaluation, ProposalEvaluation
from libra_keras.functional.anchors import base_anchors
from libra_keras.models import RPNSettings, libra_faster_rcnn_small, retinanet_small
from libra_keras.runs import ModelConfig, TrainConfig, advice, label_fit, resolve
from libra_keras.runs.advice import Advisor
from libra_keras.runs.defaults import usual_rate
from libra_keras.training import SGD

FINE = {"loss": 1.0, "class_loss": 0.6, "box_loss": 0.4, "positives": 20.0, "rpn_positives": 9.0}
RESNET = ("--model", "faster_rcnn_resnet50")


def test_a_term_drowns_others_above_nine_tenths():
    assert advice.drowning_term({"a": 9.0, "b": 1.0}) is None
    assert advice.drowning_term({"a": 9.1, "b": 0.9}).startswith("a is 91% of the loss (9.1 of 10)")
    assert advice.drowning_term({"a": 5.0}) is None  # a region proposal's only term has no others
    assert advice.drowning_term({"a": 0.0, "b": 0.0}) is None
    assert advice.drowning_term({"a": math.nan, "b": 1.0}) is None  # another callback stops


@pytest.mark.parametrize(
    "said",
    [
        advice.stalled_loss(2.0, 1.9),
        advice.few_positives("positives", 1.0),
        advice.few_positives("positives", math.nan),
        advice.low_recall(0.5, 8),
        advice.low_recall(math.nan, 8),
        advice.high_rate(0.01, 0.0025),  # four times: people do that with success
        advice.high_rate(1.0, None),
        advice.too_many_objects([0, 100], 100),
        advice.too_many_objects([], 100),
    ],
)
def test_nothing_is_said_at_the_limits(said):
    assert said is None


def test_every_sentence_has_its_number():
    assert "2 in the first steps of the run, 1.97 in the last" in advice.stalled_loss(2.0, 1.97)
    assert "positives: 0.5 per image" in advice.few_positives("positives", 0.5)
    assert "cover 49% of the objects of 8" in advice.low_recall(0.49, 8)
    assert "1 of 2 images" in advice.too_many_objects([100, 101], 100)
    assert "--learning-rate 0.02 is 8 times" in advice.high_rate(0.02, 0.0025)


def run(advisor, losses, epochs=1, **logs):
    """Shows an advisor epochs of steps with these losses, as `fit` would: running means."""
    advisor.set_params({"steps": len(losses), "epochs": epochs})
    for epoch in range(epochs):
        advisor.on_epoch_begin(epoch)
        for batch in range(len(losses)):
            advisor.on_train_batch_end(batch, {"loss": np.mean(losses[: batch + 1])})
        advisor.on_epoch_end(epoch, {**FINE, "loss": np.mean(losses), **logs})
    return advisor.warnings


def test_a_sound_run_hears_nothing(capsys):
    losses = np.linspace(2, 1, 24)
    assert run(Advisor(["class_loss", "box_loss"], lambda: (0.9, 8)), losses, 2, val_AP=0.1) == {}
    assert capsys.readouterr().err == ""


def test_quarters_of_an_epoch_are_compared():
    # The whole epoch's mean, 2.5, is below the first quarter's, 3; the last quarter's is not.
    warnings = run(Advisor(), [3.0] * 6 + [2.0] * 12 + [3.0] * 6)
    assert "3 in the first steps of the run, 3 in the last" in warnings["stalled"]["message"]
    assert run(Advisor(), [3.0] * 16) == {}  # of so few steps, chance decides
    assert run(Advisor(), [3.0] * 6 + [2.0] * 18) == {}


def test_each_warning_comes_once_with_its_epoch(capsys):
    calls = []

    def recall():
        calls.append(1)
        return 0.25, 4

    advisor = Advisor(["class_loss", "box_loss"], recall, {"rate": "Too high", "data": None})
    logs = {"class_loss": 99.0, "positives": 0.1, "val_AP": 0.0}
    warnings = run(advisor, [1.0], epochs=3, **logs)
    assert [(name, value["epoch"]) for name, value in warnings.items()] == [
        ("rate", 0),
        ("losses", 1),
        ("positives", 1),
        ("recall", 1),
    ]
    assert capsys.readouterr().err.count("Warning: ") == 4
    assert len(calls) == 1


def test_recall_is_measured_when_an_evaluation_was():
    warnings = run(Advisor(recall=lambda: 1 / 0), [1.0], val_AP=math.nan)  # never called
    assert warnings == {}


def test_a_resumed_run_goes_on(capsys):
    losses = [2.0] * 24
    whole = Advisor(at_start={"rate": "Too high"})
    expected = run(whole, losses, 1)
    first, second = Advisor(at_start={"rate": "Too high"}), Advisor(at_start={"rate": "Too high"})
    for advisor, batches in ((first, range(19)), (second, range(19, 24))):
        advisor.set_params({"steps": 24})
        advisor.on_epoch_begin(0)
        if advisor is second:
            second.set_state(first.get_state())
        for batch in batches:
            advisor.on_train_batch_end(batch, {"loss": 2.0})
    second.on_epoch_end(0, FINE | {"loss": 2.0})
    assert second.warnings == expected
    assert list(expected) == ["rate", "stalled"]


class Settings:
    """Looks like a detector with these settings of its first head."""

    def __init__(self, settings, side):
        self.settings, self.input_policy = settings, InputPolicy(side, side)
        self.max_detections = 100

    def heads(self):
        return [self]


def test_rates_are_compared_with_the_default_for_as_many_images(tmp_path):
    model, train = Settings(RPNSettings(scales=(8.0,)), 320), data.shapes(4)
    for given in ("", "--batch 16", "--batch 16 --learning-rate 0.02", "--accumulate 8"):
        config = resolved(*RESNET, *given.split())
        assert advice.at_start(config, train, model)["learning_rate"] is None
    config = resolved(*RESNET, "--learning-rate", "0.02")
    said = advice.at_start(config, train, model)["learning_rate"]
    assert "0.02 is 8 times the default for this number of images (0.0025)" in said
    other = resolved(*RESNET, *"--optimizer adamw --learning-rate 1e-4 --weight-decay 0.05".split())
    assert usual_rate(other) is None  # there is no default of it
    write_unnamed(tmp_path / "mine.keras")
    unnamed = TrainConfig(model=ModelConfig(init=str(tmp_path / "mine.keras")))
    assert usual_rate(resolve(unnamed)) is None


def test_anchors_and_levels_are_those_of_the_model():
    settings = RPNSettings(strides=(4, 8), scales=(2.0, 3.0), ratios=(0.5, 1.0))
    boxes = [np.asarray(base_anchors(s, (2.0, 3.0), (0.5, 1.0))) for s in (4, 8)]
    expected = np.concatenate([box[:, 2:] - box[:, :2] for box in boxes])
    shapes = np.array(label_fit.anchors_of(Settings(settings, 64)).shapes())[:, 1:]
    for one, other in zip(
        *(np.array(sorted(map(tuple, x))) for x in (shapes, expected)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert label_fit.anchors_of(Settings(object(), 64)) is None
    statistics = label_fit.statistics_for(data.shapes(2), libra_faster_rcnn_small(6))
    assert len(statistics["roi_levels"]) == 4 and statistics["anchors"]["best"][0]["stride"] == 4


def test_small_objects_are_found_at_the_size_of_the_input():
    train = data.shapes(20)
    fine, tiny = (Settings(RPNSettings(), side) for side in (800, 32))
    config = resolved(*RESNET)
    assert advice.at_start(config, train, fine)["anchors"] is None
    assert "finest anchors (32 pixels)" in advice.at_start(config, train, tiny)["anchors"]


def test_recall_of_proposals_that_were_evaluated_is_not_measured_again():
    shapes = data.shapes(2)
    evaluation = ProposalEvaluation(shapes)
    recall = advice.recall_of(None, evaluation)
    evaluation.detections = [{"image_id": e.image_id, "boxes": e.boxes} for e in shapes.examples]
    assert recall() == (1.0, 2)
    assert advice.recall_of(retinanet_small(6), COCOEvaluation(shapes)) is None  # it has none


@pytest.mark.slow
def test_recall_is_that_of_the_averages_where_they_are_measured(monkeypatch):
    model = libra_faster_rcnn_small(num_classes=6)
    model.compile(SGD(0.0, use_ema=True))
    model.optimizer.build(model.trainable_variables)
    variable = model.trainable_variables[0]
    model.optimizer._model_variables_moving_average[0].assign(np.full(variable.shape, 7.0))
    model.optimizer._iterations.assign(1)
    seen = []

    def collect(model, batches, verbose):
        seen.append(model.trainable_variables[0].numpy().max())
        return []

    monkeypatch.setattr(advice, "collect_proposals", collect)
    monkeypatch.setattr(advice, "proposal_coverage", lambda data, found: 0.5)
    evaluation = COCOEvaluation(data.shapes(2), batch_size=2)
    assert advice.recall_of(model, evaluation)() == (0.5, 2)
    assert seen == [7.0] and variable.numpy().max() < 7


@pytest.mark.slow
def test_a_run_tells_and_keeps_its_warnings(tmp_path, capsys, eagerly):
    folder = tmp_path / "run"
    command = "train shapes --train-split 4 --val-split 2 --short-side 64 --long-side 64 --batch 2"
    given = [*command.split(), "--epochs", "1", "--learning-rate", "0.01", "--to", str(folder)]
    assert main(given) == 0
    told = capsys.readouterr()
    assert "Warning: --learning-rate 0.01 is 10 times" in told.err
    warnings = json.loads((folder / "metrics.json").read_text())["warnings"]
    assert warnings["learning_rate"]["epoch"] == 0
    for warning in warnings.values():
        assert warning["message"] in told.err
    assert "images_per_second" not in (folder / "log.csv").read_text()
