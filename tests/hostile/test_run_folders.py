"""Run folders whose files are damaged: what opens, reports and goes on with them."""

import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from configs import resolved
from hypothesis import given
from hypothesis import strategies as st
from mutations import SLOW, cases, damaged_bytes, damaged_values

from libra_keras import data
from libra_keras.data import InputPolicy
from libra_keras.models import RegionProposalNetwork, RPNSettings
from libra_keras.runs import Run, resuming
from libra_keras.runs.config import settings
from libra_keras.runs.explaining import Origin, page
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.measuring import Measured
from libra_keras.runs.resumable import Pace, ResumableFit
from libra_keras.training import SGD, StepLogger
from libra_keras.visualization import plots

RECORDS = {
    "config.json": {
        "command": ["libra-keras", "train", "shapes"],
        "versions": {"keras": "3.15.1", "python": "3.12.1"},
        "train": "shapes/train: 9 images", "class_names": ["cat"], "steps_per_epoch": 4,
    },
    "metrics.json": {
        "metrics": {"AP": 0.5, "AP50": None}, "images": 4,
        "warnings": {"loss": {"epoch": 1, "message": "it grows"}},
    },
}  # fmt: skip
TABLES = {
    "log.csv": "epoch,loss,learning_rate,val_AP\n0,2.5,0.02,nan\n1,1.5,0.02,0.3\n",
    "steps.csv": "epoch,first_step,last_step,loss,learning_rate\n1,1,2,2.5,0.02\n2,3,4,1.5,0.02\n",
}


@pytest.fixture(scope="module")
def config():
    return resolved("shapes", "--epochs", "2")


@pytest.fixture(scope="module")
def contents(config):
    """What JSON files and tables hold."""
    own = {"config": config.to_dict(), "settings": settings(config)}
    return {**RECORDS, "config.json": {**RECORDS["config.json"], **own}}


@st.composite
def damage(draw, contents):
    """The name of a file of a run, and its bytes."""
    name = draw(st.sampled_from([*contents, *TABLES]))
    if name in TABLES:
        return name, draw(damaged_bytes(TABLES[name].encode()))
    if draw(st.integers(0, 3)):
        return name, json.dumps(draw(damaged_values(contents[name]))[0]).encode()
    return name, draw(damaged_bytes(json.dumps(contents[name]).encode()))


@pytest.fixture
def is_right(tmp_path, guarded, monkeypatch, config, contents):
    """A check: a damaged file of a run is an error that names it, or does not matter."""
    monkeypatch.setattr(plots, "missing", lambda: "pip install")  # drawing takes long
    files = {**TABLES, **{name: json.dumps(record) for name, record in contents.items()}}
    own, scenes = RunFolder(tmp_path), Measured(data.shapes(1), [], {})
    uses = [
        lambda: Run(tmp_path).config,
        lambda: Run(tmp_path).metrics,
        lambda: resuming.differences(resuming.recorded_settings(own), settings(config)),
        lambda: page(Network(), scenes, Origin("run", folder=own)),
    ]

    def check(name, content):
        for each, sound in files.items():
            (tmp_path / each).write_text(sound)
        (tmp_path / name).write_bytes(content)
        guarded.forget()
        for use in uses:
            try:
                use()
            except (ValueError, OSError) as error:
                assert str(tmp_path / name) in str(error)
                assert "\n" not in str(error) and len(str(error)) < 1000
        guarded()

    for name, sound in files.items():
        (tmp_path / name).write_text(sound)
    for use in uses:
        use()  # what is imported late is imported now
    return check


class Network(RegionProposalNetwork):
    """Says of itself what a report asks, and has no layers."""

    input_policy = InputPolicy(32, 48)

    def __init__(self):
        keras.Model.__init__(self)

    def heads(self):
        return [SimpleNamespace(settings=RPNSettings())]

    def count_params(self):
        return 1


@cases(SLOW)
@given(data=st.data())
def test_folders(is_right, contents, data):
    is_right(*data.draw(damage(contents)))


class Trained:
    """A run of a small network that was stopped in its second epoch, again and again."""

    def __init__(self, folder):
        self.folder = folder
        self.model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        self.model.compile(SGD(0.1), "mse")
        self.model.optimizer.build(self.model.trainable_variables)
        self.model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=1, verbose=0)
        run = self.run()
        run.open(self.model)
        run.set_params({})
        run.on_train_begin()
        run.on_epoch_begin(0)
        run.epoch, run.step = 1, 2
        run.save()
        self.state = run.checkpoints.state_file
        self.weights = run.checkpoints.weights

    def run(self):
        folder = RunFolder(self.folder)
        return ResumableFit(folder, [StepLogger(folder.tables[1], 3)], Pace(steps=4, epochs=3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("run"))


@cases(SLOW)
@given(data=st.data())
def test_going_on(data, trained, tmp_path, guarded):
    """The run goes on where it was saved, or an error names what is damaged of it."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained.folder, folder)
    kinds = {
        trained.weights.name: damaged_bytes(trained.weights.read_bytes()),
        "state.json": st.one_of(
            damaged_values(json.loads(trained.state.read_text())).map(as_bytes),
            damaged_bytes(trained.state.read_bytes()),
        ),
    }
    name = data.draw(st.sampled_from(sorted(kinds)))
    damaged = folder / "checkpoints" / name
    damaged.write_bytes(data.draw(kinds[name]))
    run = Trained.run(SimpleNamespace(folder=folder))
    guarded.forget()
    try:
        run.open(trained.model)
        run.on_train_begin()
        run.on_epoch_begin(1)
    except (ValueError, OSError) as error:
        assert str(damaged) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert run.batches == 6 and run.seconds >= 0
        assert all(np.isfinite(values).all() for values in trained.model.get_weights())
    guarded(may_write=lambda path: path.startswith(str(folder)))


def as_bytes(pair):
    return json.dumps(pair[0]).encode()
