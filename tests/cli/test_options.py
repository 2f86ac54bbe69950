"""From the fields of a config to options and back; what help, lists and versions show."""

import re
import subprocess
import sys

import pytest
from configs import another, given

import libra_keras
from libra_keras import models
from libra_keras.cli import expand_home, main, parser
from libra_keras.cli import models as verb
from libra_keras.cli.options import config_of
from libra_keras.runs import TrainConfig
from libra_keras.runs.config import settings

HELP = """
import contextlib, io, sys
from libra_keras.cli import main
for arguments in (["--help"], ["train", "--help"], ["--version"]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main(arguments)
print([name for name in ("keras", "tensorflow", "numpy") if name in sys.modules])
"""


@pytest.fixture
def train_help(capsys):
    """The text before the examples, without the usage."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    return capsys.readouterr().out.partition("\n\n")[2].split("examples:")[0]


def command(field, name, value):
    """The arguments that give an option a value."""
    flag = f"--{name.replace('_', '-')}"
    if name == "data":
        return [value]
    if value is True:
        return [flag]
    return [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def test_options_and_fields_are_one_to_one(train_help):
    shown = re.findall(r"^  (?:--([a-z-]+)|(DATA) )", train_help, re.MULTILINE)
    shown = [(flag or name.lower()).replace("-", "_") for flag, name in shown]
    assert sorted(shown) == sorted(name for name, _, _ in TrainConfig().options())
    assert len(set(shown)) == len(shown)


def test_an_option_sets_its_field_and_no_other():
    plain = settings(TrainConfig())
    assert given() == TrainConfig()
    for name, group, field in TrainConfig().options():
        value = another(field)
        config = given(*command(field, name, value))
        assert getattr(getattr(config, group), field.name) == value
        assert [each for each, v in settings(config).items() if v != plain[each]] == [name]


def test_a_switch_that_has_two_sides():
    assert given("--no-train-affine").model.train_affine is False
    assert given("--train-affine").model.train_affine is True
    assert given("--devices", "2").devices.count == 2


def test_a_home_that_the_shell_left_alone_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = parser().parse_args(["train", "~/photos", "--init=~/pets", "--to=~/run"])
    expand_home(options)
    config = config_of(options)
    found = (config.data.source, config.model.init, config.run.folder)
    assert found == ("/home/me/photos", "/home/me/pets", "/home/me/run")


def test_help_of_train_has_no_list_of_models(train_help):
    assert "--model NAME " in train_help
    named = {name for name in models.list() if re.search(rf"\b{name}\b", train_help)}
    assert named == {"libra_faster_rcnn_small"}  # the default
    assert "default: 0.002 | 0.0025 | 0.00125, " in " ".join(train_help.split())


def test_models_are_listed_with_a_line_each(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == models.list()
    for line in lines:
        name, text = line.split(maxsplit=1)
        assert getattr(models, name).__doc__.startswith(text)
    assert main(["models", "libra_retinanet_*"]) == 0
    some = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in some] == models.list("libra_retinanet_*")


def test_no_model_of_that_name(capsys):
    assert main(["models", "yolo*"]) == 1
    assert "no detector matches yolo*" in capsys.readouterr().err


def test_an_unknown_model_is_refused_with_the_nearest(tmp_path, capsys):
    to = tmp_path / "run"
    assert main(["train", "--model", "libra_retinanet_resnet5", "--to", str(to)]) == 1
    err = capsys.readouterr().err
    assert "--model 'libra_retinanet_resnet5' is unknown" in err
    assert "did you mean 'libra_retinanet_resnet50'?" in err and "libra-keras models lists" in err
    assert not to.exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),  # PyTorch
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating"),  # TensorFlow
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),  # JAX
    ],
)
def test_a_lack_of_memory_is_said_in_a_line(monkeypatch, capsys, error):
    def run(options):
        raise error

    monkeypatch.setattr(verb, "run", run)
    assert main(["models"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"libra-keras models: not enough memory ({type(error).__name__}). ")


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(verb, "run", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"libra-keras {libra_keras.__version__}\n"


def test_help_needs_neither_keras_nor_numpy():
    """So that it comes at once."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[]\n"
