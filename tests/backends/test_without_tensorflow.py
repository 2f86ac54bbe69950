"""An environment without TensorFlow: import, `fit`, evaluate, detect and the command on JAX."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("without_tensorflow.py")
SCENES = "shapes --train-split 4 --val-split 3 --batch 2 --epochs 1 --short-side 64 --long-side 96"
# What pip says when there is nobody to ask.
UNREACHABLE = ("No matching distribution found", "Could not find a version", "Connection")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a new environment with the wheel and all that it requires, except
    TensorFlow."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [name for name in project["dependencies"] if not name.startswith("tensorflow")]
    install(python, *required, *project["optional-dependencies"]["jax"])
    install(python, "--no-deps", ROOT)
    return python


def install(python, *what):
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", *what]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip(f"a package index is not reachable: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(python, tmp_path_factory):
    """Returns a function that runs the interpreter on JAX; what is compiled once is kept."""
    cache = tmp_path_factory.mktemp("compiled")
    settings = {"KERAS_BACKEND": "jax", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings

    def run(*arguments, **changes):
        command = list(map(str, [python, *arguments]))
        return subprocess.run(
            command, capture_output=True, text=True, env={**environment, **changes}, cwd=cache
        )

    return run


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run("-m", "libra_keras", "train", *SCENES.split(), "--to", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_there_is_no_tensorflow(run):
    assert "No module named 'tensorflow'" in run("-c", "import tensorflow").stderr


def test_the_description_links_to_no_file_but_names_what_the_wheel_holds(run):
    code = "import importlib.metadata as m; print(m.metadata('libra-keras').get_payload())"
    description = run("-c", code).stdout
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert links and all(link.startswith("https://") for link in links)
    named = re.findall(r"`(libra_keras/\w+/README.md)`", description)
    code = "import libra_keras; print(libra_keras.__file__)"
    package = Path(run("-c", code).stdout.strip()).parent
    assert ROOT not in package.parents
    assert len(named) == 5 and all((package.parent / name).is_file() for name in named)


def test_train_evaluates_and_fills_the_folder(trained):
    record = json.loads((trained / "metrics.json").read_text())
    assert (record["trained_steps"], record["images"]) == (2, 3)
    versions = json.loads((trained / "config.json").read_text())["versions"]
    assert "jax" in versions and "tensorflow" not in versions


def test_a_program_imports_all_loads_fits_evaluates_and_detects(run, trained):
    done = run(PROGRAM, trained)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"tensorflow": False, "problems": []}


def test_predict_draws(run, trained, tmp_path):
    from PIL import Image

    from libra_keras.data import shapes

    photo = tmp_path / "scene.png"
    Image.fromarray(shapes(1).read_image(0)).save(photo)
    done = run("-m", "libra_keras", "predict", trained, photo, "--to", tmp_path / "found")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "found" / "scene.png").is_file()


def test_what_needs_tensorflow_says_so(run, trained, tmp_path):
    done = run("-m", "libra_keras", "export", trained, "--to", tmp_path / "exported")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "A SavedModel is written with KERAS_BACKEND=tensorflow" in done.stderr
    assert not (tmp_path / "exported").exists()
    done = run("-m", "libra_keras", "evaluate", trained, "shapes", KERAS_BACKEND="tensorflow")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "TensorFlow is not installed" in done.stderr and "KERAS_BACKEND=jax" in done.stderr
