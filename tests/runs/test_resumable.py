"""A run that is killed at any moment and started again equals one that was not, bit for bit."""

import itertools
import math
import shutil
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from libra_keras.devices import Devices
from libra_keras.files import atomic
from libra_keras.runs import moments
from libra_keras.runs.folder import Checkpoints, RunFolder
from libra_keras.runs.moments import EarlyStop, Moments, TimeIsUp
from libra_keras.runs.resumable import Pace, ResumableFit
from libra_keras.runs.stopping import Stopped
from libra_keras.training import (
    SGD,
    LearningRateLogger,
    StepLogger,
    StopOnNonFinite,
    WarmupMultiStep,
)
from libra_keras.training.averages import averaged_weights

STEPS, EPOCHS = 5, 3


class Killed(BaseException):
    """What no handler in between catches."""


class Evaluation(keras.callbacks.Callback):
    """Stands for an evaluation: the second epoch is the best."""

    def __init__(self):
        super().__init__()
        self.best = -math.inf
        self.candidate = None

    def on_epoch_end(self, epoch, logs=None):
        logs["val_AP"] = (0.1, 0.3, 0.2)[epoch]
        if logs["val_AP"] > self.best:
            self.best = logs["val_AP"]
            atomic.save_weights(self.model, self.candidate)

    def get_state(self):
        return {"best": self.best}

    def set_state(self, state):
        self.best = state["best"]


class MortalFit(ResumableFit):
    """Dies before its `die_at`-th act; an act is one call of the callbacks, or one file."""

    def __init__(self, *args, die_at=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.die_at = die_at
        self.acts = 0

    def _act(self, act, *arguments):
        self.acts += 1
        if self.acts == self.die_at:
            raise Killed
        return act(*arguments)

    def _call(self, method, *arguments):
        for callback in self.callbacks:
            self._act(getattr(callback, method), *arguments)

    def save(self):
        self._act(super().save)

    def _publish(self):
        self._act(super()._publish)


def make_model(**options):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    rate = WarmupMultiStep(0.1, warmup_steps=4, drops=(11,))
    model.compile(SGD(rate, **options), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def batches_from(number):
    for batch in itertools.count(number):
        x = np.random.default_rng(batch).normal(size=(4, 2)).astype("float32")
        yield x, x[:, :1]


def make_run(path, callbacks=(), save_every=2, moments=None, **options):
    folder, evaluation = RunFolder(path), Evaluation()
    log, steps = folder.tables
    loggers = [
        LearningRateLogger(),
        keras.callbacks.CSVLogger(log, append=True),
        StepLogger(steps, every=3, append=True),
    ]
    pace = Pace(STEPS, EPOCHS, save_every, moments or Moments())
    run = MortalFit(folder, [*callbacks, evaluation, *loggers], pace, **options)
    evaluation.candidate = run.candidate
    return run


class Numbered(keras.utils.PyDataset):
    """The same batches, asked for by their number, as of our data sets on JAX and PyTorch."""

    num_batches = None

    def __init__(self, first):
        super().__init__()
        self.first = first

    def __getitem__(self, index):
        return next(batches_from(self.first + index))


def train(folder, callbacks=(), optimizer=None, batches=batches_from, **options):
    run, model = make_run(folder, callbacks, **options), make_model(**(optimizer or {}))
    run.open(model)
    run.fit(model, batches(run.batches))
    return run


def result(folder, **optimizer):
    """All that a run leaves: weights and optimizer of the last and the best epoch, and tables."""
    found = {name: (folder / name).read_text() for name in ("log.csv", "steps.csv")}
    for name in ("last.weights.h5", "best.weights.h5"):
        model = make_model(**optimizer)
        model.load_weights(folder / name)
        variables = [*model.variables, *model.optimizer.variables]
        found[name] = [keras.ops.convert_to_numpy(v).tolist() for v in variables]
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(folder, save_every=0)
    return result(folder)


def test_tables_of_a_run(expected):
    rows = expected["log.csv"].strip().split("\n")
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2"]
    rows = expected["steps.csv"].strip().split("\n")
    assert [row.split(",")[1:3] for row in rows[1:]] == [
        [f"{i}", f"{i + 2}"] for i in range(1, 15, 3)
    ]


@pytest.mark.slow
def test_kills_one_after_the_other(tmp_path, expected):
    for die_at in (58, 3, 40, 25):
        with pytest.raises(Killed):
            train(tmp_path, die_at=die_at)
    train(tmp_path)
    assert result(tmp_path) == expected


def test_batches_that_are_asked_for_by_their_number(tmp_path, expected):
    with pytest.raises(Killed):
        train(tmp_path, batches=Numbered, die_at=40)
    assert Checkpoints(tmp_path / "checkpoints").read()["step"]  # in the middle of an epoch
    train(tmp_path, batches=Numbered)
    assert result(tmp_path) == expected


@pytest.mark.parametrize("left", ["nothing", "a file", "another folder"])
def test_a_folder_that_is_gone_is_not_made_anew(tmp_path, left):
    path = tmp_path / "run"

    def remove(batch, logs):
        if batch == 3:
            shutil.rmtree(path)
            if left == "a file":
                path.touch()
            elif left == "another folder":
                (path / "checkpoints").mkdir(parents=True)
                (path / "checkpoints/lock").touch()
            there[:] = sorted(tmp_path.rglob("*"))

    there, model = [], make_model()
    run = make_run(path, [keras.callbacks.LambdaCallback(on_train_batch_end=remove)])
    run.folder.hold()
    run.open(model)
    with pytest.raises(OSError, match=f"folder {path} is gone: it was deleted, moved or replaced"):
        run.fit(model, batches_from(0))
    assert sorted(tmp_path.rglob("*")) == there and run.step == 4
    run.folder.release()


class Predict(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        with averaged_weights(self.model):
            self.model.predict(np.ones((1, 2), "float32"), verbose=0)


@pytest.mark.slow
def test_averages_go_on_too(tmp_path):
    options = {"use_ema": True, "gradient_accumulation_steps": 2}
    train(tmp_path / "whole", [Predict()], options)
    with pytest.raises(Killed):
        train(tmp_path / "killed", [Predict()], options, save_every=1, die_at=47)
    assert train(tmp_path / "killed", [Predict()], options).batches == STEPS * EPOCHS
    expected = result(tmp_path / "whole", **options)
    assert result(tmp_path / "killed", **options) == expected


@pytest.mark.slow
def test_a_kill_before_any_act(tmp_path, expected):
    acts = train(tmp_path / "whole").acts
    assert acts > 100
    for die_at in range(1, acts + 1, 8):  # all of them take three minutes
        folder = tmp_path / str(die_at)
        with pytest.raises(Killed):
            train(folder, die_at=die_at)
        train(folder)
        assert result(folder) == expected, die_at
    train(folder)  # nothing is left to do
    assert result(folder) == expected


class Worse(keras.callbacks.Callback):
    """Stands for evaluations that get worse and worse."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_AR"] = -epoch


def test_a_run_that_ends_early_ends_at_the_same_step_when_it_is_killed(tmp_path):
    def killed(logs):
        raise Killed

    def callbacks():
        return [Worse(), EarlyStop("val_AR", 1)]

    acts = train(tmp_path / "whole", callbacks()).acts
    with pytest.raises(Killed):  # in the second epoch, which is worse than the first
        train(tmp_path / "killed", callbacks(), die_at=acts - 30)
    with pytest.raises(Killed):  # behind its evaluation
        last = keras.callbacks.LambdaCallback(on_train_end=killed)
        train(tmp_path / "killed", [*callbacks(), last])
    run = train(tmp_path / "killed", callbacks())
    assert run.batches == 2 * STEPS < EPOCHS * STEPS
    assert result(tmp_path / "killed") == result(tmp_path / "whole")


class At(keras.callbacks.Callback):
    """Does something in a batch of an epoch, or without a batch in the epoch's evaluation."""

    def __init__(self, epoch, batch, act, *arguments):
        super().__init__()
        self.moment = epoch, batch
        self.act = lambda: act(*arguments)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self._epoch, batch) == self.moment:
            self.act()

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.moment:
            self.act()


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signals_wait_for_the_step_and_save(tmp_path, expected, capsys, signum):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as stopped:
        train(tmp_path, [At(1, 2, signal.raise_signal, signum)], save_every=0)
    assert stopped.value.status == 128 + signum
    assert "Stopping after this step" in capsys.readouterr().err
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert Checkpoints(tmp_path / "checkpoints").read()["batches"] == STEPS + 3
    train(tmp_path)
    assert result(tmp_path) == expected


def test_a_signal_behind_the_last_step_of_an_epoch_waits_for_no_evaluation(
    tmp_path, expected, monkeypatch
):
    save, ended = Checkpoints.save, []

    def interrupted(self, model, state):
        save(self, model, state)
        if state["step"] == STEPS:
            signal.raise_signal(signal.SIGINT)

    class Evaluation(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ended.append(epoch)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", interrupted)
        with pytest.raises(Stopped):
            train(tmp_path, [Evaluation()], save_every=0)
    assert not ended and Checkpoints(tmp_path / "checkpoints").read()["batches"] == STEPS
    train(tmp_path)
    assert result(tmp_path) == expected


def test_a_stopped_run_gives_its_averages_the_name_of_the_last_weights(tmp_path):
    options = {"use_ema": True}
    with pytest.raises(Stopped):
        train(tmp_path, [At(1, 2, signal.raise_signal, signal.SIGINT)], options)
    model, own = make_model(**options), make_model(**options)
    model.load_weights(tmp_path / "last.weights.h5")
    averages = model.optimizer._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (variable, average)))
    own.load_weights(Checkpoints(tmp_path / "checkpoints").weights)
    assert not np.array_equal(model.layers[1].get_weights()[0], own.layers[1].get_weights()[0])


def test_averages_have_their_name_before_an_evaluation_and_are_written_once(tmp_path):
    file, seen = tmp_path / "last.weights.h5", []
    notes = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(file.stat()))
    train(tmp_path, [notes], {"use_ema": True})
    assert len({each.st_mtime_ns for each in (*seen, file.stat())}) == EPOCHS == len(seen)


def test_a_run_whose_time_is_up_goes_on(tmp_path, expected, monkeypatch):
    """In the middle of an epoch, behind its last step, in its evaluation, and before it starts."""
    times, options = [], {"moments": Moments(stop_by=1.0), "save_every": 0}
    monkeypatch.setattr(moments, "time", SimpleNamespace(time=lambda: times[-1]))
    ends = [(0.0, (0, 1), (0, 2)), (0.0, (0, None), (1, 0)), (2.0, (0, 0), (1, 1))]
    for start, end, place in [*ends, (0.0, (1, 4), (1, 5))]:
        times.append(start)
        with pytest.raises(TimeIsUp):
            train(tmp_path, [At(*end, times.append, 1.0)], **options)
        state = Checkpoints(tmp_path / "checkpoints").read()
        assert (state["epoch"], state["step"]) == place
        assert (tmp_path / "last.weights.h5").exists()
    times.append(0.0)
    train(tmp_path, [At(2, None, times.append, 1.0)], **options)  # the last evaluation goes on
    assert result(tmp_path) == expected


def die():
    raise Killed


def test_weights_are_kept_at_their_steps(tmp_path):
    """As they were, or their averages; a kill loses none, and none is written twice."""
    seen, optimizer = {}, {"average_from": 5}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            with averaged_weights(self.model):
                seen[int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))] = (
                    self.model.get_weights()
                )

    steps = {"kept-0.1": 2, "kept-0.5": 8, "kept-1": 15}  # of 15
    options = {"moments": Moments(keep_at=(0.1, 0.5, 1)), "save_every": 0}
    train(tmp_path / "whole", [Watch()], optimizer, **options)
    with pytest.raises(Killed):
        train(tmp_path / "killed", [At(1, 3, die)], optimizer, **options)
    written = (tmp_path / "killed" / "kept-0.5.weights.h5").stat()
    train(tmp_path / "killed", (), optimizer, **options)
    assert (tmp_path / "killed" / "kept-0.5.weights.h5").stat() == written
    for folder in ("whole", "killed"):
        for name, step in steps.items():
            model = make_model(**optimizer)
            model.load_weights(tmp_path / folder / f"{name}.weights.h5")
            for ours, theirs in zip(model.get_weights(), seen[step], strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert result(tmp_path / "killed", **optimizer) == result(tmp_path / "whole", **optimizer)


@pytest.mark.parametrize("fit", [None, Devices().fit], ids=["read at once", "read a batch later"])
def test_a_run_that_was_stopped_over_a_number_is_not_saved(tmp_path, capsys, fit):
    """It goes on before the bad batch, whose number the message has right, although a save is due
    after the batch behind it."""

    def bad():
        for number, (x, y) in enumerate(batches_from(run.batches), run.batches):
            yield x, y * (np.nan if number == STEPS + 3 else 1)

    for save_every in (2, 0):
        guard = StopOnNonFinite(lambda epoch, step: [f"{epoch}_{step}.jpg"])
        run, model = make_run(tmp_path, [guard], save_every=save_every, fit=fit), make_model()
        run.open(model)
        run.fit(model, bad())
        assert "epoch 2, step 4: a gradient" in guard.failure
        assert "Files of the batch: 1_3.jpg." in guard.failure
        assert ("that of the batch after it was" in guard.failure) == (fit is not None)
        assert Checkpoints(tmp_path / "checkpoints").read()["batches"] == STEPS + 3
