"""What `stop_by` and `keep_at` of `runs.train` can be."""

import math
from types import SimpleNamespace

import pytest

from libra_keras import runs
from libra_keras.runs.moments import EarlyStop, Moments


def test_steps_and_names_of_kept_weights():
    kept = Moments(keep_at=(1, 0.7, 0.75, 1e-4)).kept(10)
    assert kept == {
        1: ["kept-0.0001.weights.h5"],
        7: ["kept-0.7.weights.h5"],  # although 0.7 * 10 is a little more
        8: ["kept-0.75.weights.h5"],
        10: ["kept-1.weights.h5"],
    }
    assert Moments(keep_at=(0.5, 0.6)).kept(1) == {
        1: ["kept-0.5.weights.h5", "kept-0.6.weights.h5"]
    }


def test_times():
    assert not Moments().is_time and not Moments(stop_by=math.inf).is_time
    assert Moments(stop_by=0).is_time


@pytest.mark.parametrize(("patience", "stops_after"), [(1, 3), (2, 6), (3, None), (0, None)])
def test_evaluations_without_a_better_one_end_a_run(patience, stops_after):
    nan = math.nan  # of epochs without an evaluation, which do not count
    stop = EarlyStop("val_AP", patience)
    model = SimpleNamespace(stop_training=False)
    stop.set_model(model)
    ended = []
    for epoch, value in enumerate([0.1, nan, 0.1, 0.2, 0.2, 0.1, 0.3], 1):
        stop.on_epoch_end(epoch - 1, {"val_AP": value})
        ended += [epoch] if model.stop_training else []
    assert (ended or [None])[0] == stops_after


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stop_by": "noon"}, TypeError, "`stop_by` must be a number. Received: 'noon'"),
        ({"stop_by": True}, TypeError, "`stop_by` must be a number"),
        ({"stop_by": math.nan}, ValueError, "`stop_by` must be a time"),
        ({"keep_at": 0.5}, TypeError, "`keep_at` must be a tuple of fractions. Received: 0.5"),
        ({"keep_at": "0.5"}, TypeError, "`keep_at` must be a tuple of fractions"),
        ({"keep_at": ("0.5",)}, TypeError, "`keep_at` must be a number"),
        ({"keep_at": (0.5, 0)}, ValueError, r"`keep_at` must lie in \(0, 1\]. Received: 0"),
        ({"keep_at": [1.5]}, ValueError, r"`keep_at` must lie in \(0, 1\]. Received: 1.5"),
        ({"keep_at": (math.nan,)}, ValueError, r"`keep_at` must lie in \(0, 1\]"),
    ],
)
def test_other_moments_are_refused_before_anything_runs(tmp_path, arguments, error, message):
    config = runs.TrainConfig(run=runs.RunConfig(tmp_path / "run"))
    with pytest.raises(error, match=message):
        runs.train(config, **arguments)
    assert not (tmp_path / "run").exists()


def test_a_cluster_does_not_stop():
    config = runs.TrainConfig(devices=runs.DeviceConfig(cluster=True))
    with pytest.raises(ValueError, match="the other workers would wait"):
        runs.train(config, stop_by=0.0)
