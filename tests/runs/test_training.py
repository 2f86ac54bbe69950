"""A run from Python: what `train` returns and raises, and what `open` gives back."""

import json
import signal

import numpy as np
import pytest
from eager import without_graphs

from libra_keras import data, models, runs
from libra_keras.runs import DataConfig, DeviceConfig, ModelConfig, RunConfig, ScheduleConfig
from libra_keras.runs.resumable import ResumableFit

TINY = ScheduleConfig(batch=2, steps=2, epochs=1, eval_every=0)
SIDES = {"short_side": 64, "long_side": 64}


def config_of(folder, **groups):
    own = {
        "data": DataConfig("shapes", train_split="4", val_split="2"),
        "model": ModelConfig("rpn_small", **SIDES),
        "schedule": TINY,
        "run": RunConfig(folder, save_every=1),
    }
    return runs.TrainConfig(**{**own, **groups})


def small_detector():
    policy, names = data.InputPolicy(64, 64), data.shapes(1).class_names
    return models.retinanet_small(6, input_policy=policy, class_names=list(names))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of a detector of one's own on data of one's own."""
    config = config_of(tmp_path_factory.mktemp("runs") / "mine", model=ModelConfig())
    with without_graphs():
        return runs.train(config, data.shapes(4), data.shapes("val", 2), small_detector())


@pytest.mark.slow
def test_a_run_with_live_data_and_detector(run):
    assert run.model.trained_steps == 2 and run.metrics["AP"] >= 0
    assert run.config.data.source == "shapes-train" and run.config.model.name is None
    # Nobody says which detector it is: the rate is the default of its kind, for 2 images.
    assert run.config.schedule.learning_rate == 0.00125
    assert runs.resolve(run.config, run.model) == run.config


@pytest.mark.slow
def test_open_gives_the_run_back(run):
    again = runs.open(run.folder)
    assert again.metrics == run.metrics and again.config == run.config
    for ours, theirs in zip(again.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert runs.open(run.folder / "model.keras").metrics is None
    with pytest.raises(ValueError, match="A detector must be a run folder"):
        runs.open(run.folder.parent)


@pytest.mark.slow
def test_a_run_of_before_there_were_configs_opens(run, tmp_path):
    """`settings`, which every run has, say the same."""
    record = json.loads((run.folder / "config.json").read_text())
    expected = record.pop("config")
    for name in ("model.json", "last.weights.h5"):
        (tmp_path / name).symlink_to(run.folder / name)
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert runs.open(tmp_path).config.to_dict() == expected


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"model": ModelConfig("rpn_small")}, "omit model.name"),
        ({"model": ModelConfig(short_side=64)}, "omit model.short_side"),
        ({"devices": DeviceConfig(2)}, "omit devices.count"),
    ],
)
def test_a_detector_that_is_given_is_trained_as_it_is(tmp_path, group, message):
    config = config_of(tmp_path / "run", **{"model": ModelConfig(), **group})
    with pytest.raises(ValueError, match=message):
        runs.train(config, model=small_detector())


@pytest.mark.slow
def test_a_run_that_was_stopped_is_saved_and_raises(tmp_path, monkeypatch, capsys, eagerly):
    config = config_of(tmp_path / "run")
    own_fit = ResumableFit.fit

    def stopped(self, model, batches):
        self.callbacks[0].on_train_batch_end = lambda *_: signal.raise_signal(signal.SIGTERM)
        own_fit(self, model, batches)

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFit, "fit", stopped)
        with pytest.raises(runs.Stopped) as error:
            runs.train(config)
    assert error.value.status == 128 + signal.SIGTERM and isinstance(error.value, KeyboardInterrupt)
    assert "Interrupted. The run is saved at epoch 1, step 1" in capsys.readouterr().err
    run = runs.train(config)  # the same call goes on
    assert f"Continuing {run.folder} at epoch 1, step 1" in capsys.readouterr().out
    assert int(run.model.trained_steps) == 2 and run.metrics["AR@100"] >= 0


@pytest.mark.slow
def test_a_run_whose_time_is_up_returns_and_goes_on(tmp_path, capsys, eagerly):
    config = config_of(tmp_path / "run").replace(optimizer={"average_last": 0.5})
    detector = {"train": data.shapes(4), "val": data.shapes("val", 2), "model": small_detector()}
    config = config.replace(model={"name": None, "short_side": None, "long_side": None})
    run = runs.train(config, **detector, stop_by=0.0, keep_at=(0.5,))
    assert not run.is_finished and run.metrics is None and run.model.trained_steps == 1
    assert "The time is up. The run is saved at epoch 1, step 1" in capsys.readouterr().err
    run = runs.train(config, **detector)  # the same call goes on
    assert f"Continuing {run.folder} at epoch 1, step 1" in capsys.readouterr().out
    assert run.is_finished and run.metrics["AP"] >= 0
    assert int(runs.open(run.folder).model.trained_steps) == 2
    assert int(runs.open(run.folder, "kept-0.5").model.trained_steps) == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_raises_an_error_of_its_own(tmp_path, eagerly):
    schedule = ScheduleConfig(
        batch=2, steps=3, epochs=1, learning_rate=1e6, warmup_steps=0, drops="none"
    )
    config = config_of(tmp_path / "run", schedule=schedule).replace(optimizer={"clip_norm": 0.0})
    words = "Training stopped at epoch 1, step .* Files of the batch: shapes-train-"
    with pytest.raises(runs.NonFiniteLoss, match=words):
        runs.train(config)
    model = runs.open(tmp_path / "run").model
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
