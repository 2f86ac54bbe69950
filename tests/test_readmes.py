"""What the READMEs say can be done: commands are parsed, links lead somewhere, Python runs."""

import contextlib
import io
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from convert.published_files import narrow_detector, publish
from safetensors.numpy import save
from voc_folder import write_voc

from libra_keras.cli import parser

ROOT = Path(__file__).resolve().parents[1]
READMES = sorted({ROOT / "README.md", *ROOT.glob("libra_keras/*/README.md")})
READMES += sorted(ROOT.glob("recipes/**/README.md"))
IDS = [str(path.parent.relative_to(ROOT)) for path in READMES]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a reader has, and less to wait for: texts of the blocks, and what stands there in the test.
STAND_INS = {
    'data.shapes("train"), data.shapes("val")': "data.shapes(8), data.shapes(4)",
    "epochs=2,": "epochs=1,",
    "epochs=1, steps=100": "epochs=1, steps=2",
    'val_split="100"': 'train_split="8", val_split="4"',
    "tile=1024": "tile=64",
    'weights="imagenet", input_shape': "weights=None, input_shape",
}
# Blocks that are not run, by a word in them, and what tests the same calls.
ELSEWHERE = {
    "data.tfds(": "tests/data/test_tfds.py",
    "onnxruntime": "tests/export/test_runtimes.py",
    "saved_model.load": "tests/export/test_saved_model.py",
    "label_encoder": "recipes/integrations/, which tests/integrations runs",
}


def blocks(path, *languages):
    return [code for language, code in BLOCK.findall(path.read_text()) if language in languages]


def commands(path):
    """Every command of the shell's blocks, with its words."""
    for code in blocks(path, "bash", "sh"):
        lines = code.replace("\\\n", " ").splitlines()
        for line in lines:
            for part in re.split(r"&&|\|(?!\w)", line):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):  # of the environment
                    words = words[1:]
                if words:
                    yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


@pytest.mark.parametrize("path", READMES, ids=IDS)
def test_its_length(path):
    most = 180 if path.parent == ROOT else 200
    assert len(path.read_text().splitlines()) <= most


@pytest.mark.parametrize("path", READMES, ids=IDS)
def test_its_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    inside = [link for link in links if not link.startswith("http")]
    assert [link for link in inside if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", READMES, ids=IDS)
def test_its_commands_are_understood(path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for words in commands(path):
        if words[0] == "libra-keras":
            parser().parse_args([word for word in words[1:] if word not in ("...",)])
        elif words[0] in ("python", "python3") and words[1].endswith(".py"):
            script = ROOT / words[1]
            assert script.is_file(), words[1]
            sources = "".join(each.read_text() for each in script.parent.glob("*.py"))
            sources += "".join(p.read_text() for p in (ROOT / "libra_keras/cli").glob("*.py"))
            for option in (word for word in words[2:] if word.startswith("--")):
                name = option.partition("=")[0]
                known = name in sources or name[2:].replace("-", "_") in sources
                assert known, f"{words[1]} has no {name}"
        elif words[0] == "pip":
            named = {
                e
                for word in words
                for e in re.findall(r"[\w-]+", "".join(re.findall(r"^\.\[(.*)\]$", word)))
            }
            assert named <= extras["optional-dependencies"].keys()
            assert not any(word.startswith("libra-keras") for word in words)  # it is on no index


def test_stand_ins_stand_for_something():
    code = "".join(c for path in READMES for c in blocks(path, "python"))
    assert [text for text in STAND_INS if text not in code] == []


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory, run_folder):
    """A folder with what the blocks name: photographs, their annotations, a run."""
    folder = tmp_path_factory.mktemp("reader")
    boxes = [(5, 5, 60, 40)], [(30, 10, 90, 60)]
    write_voc(folder / "my_photos", size=(96, 64), suffix="jpg", train=boxes, val=boxes)
    photograph = next((folder / "my_photos" / "JPEGImages").iterdir())
    for name in ("street.jpg", "photo.jpg"):
        shutil.copy(photograph, folder / name)
    shutil.copytree(run_folder, folder / "runs/mine")
    return folder


def shortened(code):
    for text, stand_in in STAND_INS.items():
        code = code.replace(text, stand_in)
    return code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The longest object")  # the run's are large for its tiles
@pytest.mark.parametrize("path", READMES, ids=IDS)
def test_its_python_runs(path, surroundings, monkeypatch, eagerly):
    monkeypatch.chdir(surroundings)
    monkeypatch.setenv("KERAS_HOME", str(surroundings))
    own = surroundings / "published"
    own.mkdir(exist_ok=True)
    content = save(narrow_detector())
    (own / publish(monkeypatch, "libra_faster_rcnn_r50_fpn_1x_coco", content)).write_bytes(content)
    monkeypatch.setenv("LIBRA_KERAS_WEIGHTS", str(own))
    names: dict = {}  # a later block may go on with what an earlier one has made
    for code in blocks(path, "python"):
        if any(word in code for word in ELSEWHERE):
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(shortened(code), str(path), "exec"), names)
