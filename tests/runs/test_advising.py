"""What `libra-keras train` warns of before it begins, and the recall that it measures."""

import json

import numpy as np
import pytest
from configs import resolved

from libra_keras import data
from libra_keras.cli import main
from libra_keras.data import InputPolicy
from libra_keras.evaluation import COCOEvaluation, ProposalEvaluation
from libra_keras.functional.anchors import base_anchors
from libra_keras.models import RPNSettings, libra_faster_rcnn_small
from libra_keras.runs import ModelConfig, TrainConfig, advising, resolve
from libra_keras.runs.defaults import usual_rate
from libra_keras.training import SGD

RESNET = ("--model", "faster_rcnn_resnet50")


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
        assert advising.at_start(config, train, model)["learning_rate"] is None
    config = resolved(*RESNET, "--learning-rate", "0.02")
    said = advising.at_start(config, train, model)["learning_rate"]
    assert "0.02 is 8 times the default for so many images (0.0025)" in said
    other = resolved(*RESNET, *"--optimizer adamw --learning-rate 1e-4 --weight-decay 0.05".split())
    assert usual_rate(other) is None  # there is no default of it
    unnamed = TrainConfig(model=ModelConfig(init=str(tmp_path / "mine.keras")))
    assert usual_rate(resolve(unnamed)) is None


def test_anchors_are_those_of_the_model():
    settings = RPNSettings(strides=(4, 8), scales=(2.0, 3.0), ratios=(0.5, 1.0))
    boxes = [np.asarray(base_anchors(s, (2.0, 3.0), (0.5, 1.0))) for s in (4, 8)]
    expected = np.concatenate([box[:, 2:] - box[:, :2] for box in boxes])
    found = advising.anchor_sizes(Settings(settings, 64))
    for one, other in zip(
        *(np.array(sorted(map(tuple, x))) for x in (found, expected)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert len(advising.anchor_sizes(Settings(object(), 64))) == 0


def test_small_objects_are_found_at_the_size_of_the_input():
    train = data.shapes(20)
    fine, tiny = (Settings(RPNSettings(), side) for side in (800, 32))
    config = resolved(*RESNET)
    assert advising.at_start(config, train, fine)["anchors"] is None
    assert "anchors measure 32 to 512" in advising.at_start(config, train, tiny)["anchors"]


def test_recall_of_proposals_that_were_evaluated_is_not_measured_again():
    shapes = data.shapes(2)
    evaluation = ProposalEvaluation(shapes)
    recall = advising.recall_of(None, evaluation)
    evaluation.detections = [{"image_id": e.image_id, "boxes": e.boxes} for e in shapes.examples]
    assert recall() == (1.0, 2)


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

    monkeypatch.setattr(advising, "collect_proposals", collect)
    monkeypatch.setattr(advising, "proposal_coverage", lambda data, found: 0.5)
    evaluation = COCOEvaluation(data.shapes(2), batch_size=2)
    assert advising.recall_of(model, evaluation)() == (0.5, 2)
    assert seen == [7.0] and variable.numpy().max() < 7


@pytest.mark.slow
def test_a_run_tells_and_keeps_its_warnings(tmp_path, capsys):
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
