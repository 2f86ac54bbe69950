"""Figures of the paper: their numbers against NumPy, and pictures drawn from what is stored."""

import argparse
import importlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from untrained import make

from libra_keras import data, runs
from libra_keras.functional.matching import Match
from libra_keras.losses import balanced_l1
from libra_keras.models import faster_rcnn_small
from libra_keras.samplers import IoUBalancedSampler, RandomSampler

FOLDER = Path(__file__).parents[2] / "recipes" / "figures"
PICTURES = FOLDER / "pictures"
NAMES = ("fig3", "fig5", "fig6", "pyramid", "attention")
MOST_BYTES = 800_000


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """Recipes import each other, as `python recipes/figures/<name>.py` does."""
    monkeypatch.syspath_prepend(str(FOLDER))


def module(name):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def model():
    return make("libra_faster_rcnn_small")


@pytest.fixture(scope="module")
def scenes():
    return data.shapes("val", num=3)


@pytest.fixture
def photo(model, scenes):
    return module("subject").photograph(model, scenes, 0)


def found_by_hand(iou, losses=None):
    """Candidates of one image, negatives all, whose overlaps are known."""
    iou = np.array([iou], "float32")
    index, never = np.zeros(iou.shape, "int32"), np.zeros(iou.shape, bool)
    boxes = np.zeros((iou.size, 4), "float32")
    losses = np.zeros(iou.size, "float32") if losses is None else np.array(losses, "float32")
    return module("subject").Candidates(boxes, Match(index, iou, never, ~never), losses)


# Fig. 5


def test_fig5_is_equations_7_to_9():
    numbers = module("fig5").measure(None)
    x = np.array(numbers["x"])
    for own in numbers["balanced_l1"]:
        alpha, gamma = own["alpha"], own["gamma"]
        b = np.exp(gamma / alpha) - 1
        slopes = np.where(x < 1, alpha * np.log(b * x + 1), gamma)
        curved = alpha / b * (b * x + 1) * np.log(b * x + 1) - alpha * x
        values = np.where(x < 1, curved, gamma * x + gamma / b - alpha)
        np.testing.assert_allclose(own["gradient"], slopes, atol=1e-5)
        np.testing.assert_allclose(own["loss"], values, atol=1e-5)
    np.testing.assert_allclose(numbers["smooth_l1"]["gradient"], np.minimum(x, 1), atol=1e-5)
    values = np.where(x < 1, x * x / 2, x - 0.5)
    np.testing.assert_allclose(numbers["smooth_l1"]["loss"], values, atol=1e-5)


def test_fig5_has_the_default():
    fig5 = module("fig5")
    defaults = inspect.signature(balanced_l1).parameters
    assert fig5.DEFAULT in fig5.LOOKS
    assert fig5.DEFAULT == (defaults["alpha"].default, defaults["gamma"].default)


# Fig. 3


def test_fig3_distribution_by_hand():
    found = module("fig3").distribution(np.array([0, 0, 0.05, 0.06, 0.31, 0.49]), limit=0.5)
    assert (found["boxes"], found["above"], found["zero"]) == (6, 0.5, round(2 / 6, 4))
    np.testing.assert_allclose(np.array(found["shares"]) * 6, [2, 2, 0, 0, 0, 0, 1, 0, 0, 1], 1e-3)


def test_fig3_groups_by_hand():
    iou = [0.0] * 8 + [0.02, 0.1, 0.2, 0.4]
    found = found_by_hand(iou, losses=[0, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 7])
    samplers = {
        "random": RandomSampler(12, 0.25),  # as many as there are
        "paper_text": IoUBalancedSampler.preset("paper_text", 3, 0.25),  # one of each bin
    }
    groups = module("fig3").overlaps_of(found, samplers, draws=5, image=0)
    np.testing.assert_allclose(np.sort(groups["hard"]), [0, 0.1, 0.4])
    np.testing.assert_allclose(np.sort(groups["random"]), np.sort(np.repeat(iou, 5)))
    bins = np.digitize(groups["paper_text"], [1 / 6, 1 / 3])
    assert np.bincount(bins).tolist() == [5, 5, 5]


def test_fig3_draws_differ_and_repeat():
    found = found_by_hand(np.linspace(0, 0.49, 50))
    drawn = module("subject").drawn
    first, again = (drawn(found, RandomSampler(10, 0.5), draws=2)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(first) == 20 and set(first[:10]) != set(first[10:])


def test_losses_of_candidates_are_those_of_the_head(model, photo):
    found = module("subject").candidates(model, photo)
    pyramid = model.pyramid(photo.batch["images"], photo.batch["image_sizes"])
    logits, _ = model.box_head(pyramid, found.boxes[None])
    logits = np.asarray(logits, "float64")[0]
    expected = np.log(np.exp(logits).sum(-1)) - logits[:, -1]
    np.testing.assert_allclose(found.losses, expected, atol=1e-5)
    # The objects stand before the proposals, and are their own matches.
    count = len(photo.boxes)
    np.testing.assert_allclose(found.boxes[:count], photo.boxes)
    assert np.all(found.iou[:count] == 1) and found.negatives.min() >= count
    assert np.all(found.iou[found.negatives] < 0.5)


# Pyramid and attention


def test_pyramids_are_those_of_the_detector(model, photo):
    found = module("subject").pyramids(model, photo)
    assert found.names == ["P2", "P3", "P4", "P5", "P6"]
    expected = model.pyramid(photo.batch["images"], photo.batch["image_sizes"])
    for own, level in zip(found.after, expected, strict=True):
        np.testing.assert_allclose(own, level, atol=1e-6)
    # What is added at the middle level is the refined average.
    added = np.asarray(found.after[2]) - np.asarray(found.before[2])
    np.testing.assert_allclose(added, found.layer.refiner(found.average), atol=1e-5)


def test_pyramid_needs_a_balanced_one(photo, scenes):
    plain = faster_rcnn_small(input_policy=data.InputPolicy(64, 96))
    with pytest.raises(ValueError, match="balanced pyramid"):
        module("subject").pyramids(plain, photo)


def test_maps_are_norms(rng):
    level = rng.normal(size=(1, 3, 4, 5)).astype("float32")
    found = module("pyramid").norms(level)
    values = np.sqrt((level[0] ** 2).sum(-1))
    step = (found["high"] - found["low"]) / 100
    np.testing.assert_allclose(
        found["low"] + step * np.array(found["map"]), values, atol=0.51 * step
    )
    assert module("pyramid").norms(np.ones((1, 2, 2, 3)))["map"] == [[0, 0], [0, 0]]


def test_similarity_by_hand():
    first = np.zeros((1, 1, 2, 2))
    first[..., 0] = 3  # everywhere along one axis
    second = first[..., ::-1]  # everywhere along the other
    similarity = module("pyramid").similarity
    assert similarity([first, 2 * first]) == 1
    assert similarity([first, second]) == 0
    np.testing.assert_allclose(similarity([first, first, second]), 1 / 3)


def test_attention_is_a_softmax(model, photo):
    found = module("subject").pyramids(model, photo)
    block, average = found.layer.refiner, found.average
    for conv in (block.theta, block.phi):  # with biases, which are 0 at first
        conv.bias.assign(np.linspace(-1, 1, conv.bias.shape[0]))
    x = np.asarray(average, "float64")[0].reshape(-1, average.shape[-1])
    theta, phi = (
        x @ np.asarray(conv.kernel)[0, 0] + np.asarray(conv.bias)
        for conv in (block.theta, block.phi)
    )
    products = np.exp(theta @ phi.T)
    expected = products / products.sum(1, keepdims=True)
    points, padded = [(0, 0), (95, 63)], photo.batch["images"].shape[1:3]
    first, last = module("attention").attention(found.layer, average, points, padded)
    np.testing.assert_allclose(first.ravel(), expected[0], atol=1e-6)
    np.testing.assert_allclose(last.ravel(), expected[-1], atol=1e-6)
    np.testing.assert_allclose([first.sum(), last.sum()], 1, atol=1e-5)


def test_cells_and_centres_by_hand():
    attention = module("attention")
    cells = [attention.cell(p, (40, 60), (4, 6)) for p in ((0, 0), (15, 9.9), (0, 10), (60, 40))]
    assert cells == [0, 1, 6, 23]
    boxes = np.array([[0, 0, 4, 2], [10, 10, 30, 40], [1, 1, 2, 3]], "float32")
    assert attention.extremes(boxes) == [(20, 25), (1.5, 2)]


# From a run to a picture


@pytest.mark.parametrize("name", ["fig3", "fig6", "pyramid", "attention"])
def test_measures_and_draws(name, model, scenes, tmp_path, monkeypatch):
    subject, drawing = module("subject"), module(name).DRAWING
    monkeypatch.setattr(subject, "opened", lambda options: (model, scenes, {"model": "tiny"}))
    more = {"fig3": ["--images", "2", "--draws", "2"], "attention": ["--point", "10", "300"]}
    assert drawing.main(["RUN", *more.get(name, ()), "--to", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / f"{name}.json").read_text())
    assert numbers["from"]["model"] == "tiny"
    if name == "fig3":
        assert all(np.isclose(sum(g["shares"]), 1, atol=1e-3) for g in numbers["groups"].values())
    if name == "fig6":
        for own in numbers["samples"].values():
            positives = np.array(own["is_positive"])
            assert len(own["boxes"]) == 64 and sum(own["thirds"]) == np.sum(~positives)
            assert np.all((np.array(own["iou"]) >= 0.5) == positives)
    if name == "attention":
        height, width = numbers["photograph"]["size"]
        assert numbers["points"] == [[10 * width / 320, 300 * height / 320]]
        np.testing.assert_allclose(np.sum(numbers["maps"]), 1, atol=1e-4)
    assert (tmp_path / f"{name}.png").exists() and (tmp_path / f"{name}.svg").exists()


def test_what_a_run_says_of_itself(model, scenes, monkeypatch):
    config = runs.TrainConfig(
        data=runs.DataConfig("shapes", val_split="3"),
        model=runs.ModelConfig("libra_faster_rcnn_small"),
        schedule=runs.ScheduleConfig(epochs=4, batch=2),
    )
    run = types.SimpleNamespace(
        config=config, model=model, record=lambda name: {"steps_per_epoch": 25}
    )
    monkeypatch.setattr(runs, "open", lambda path, weights: run)
    options = argparse.Namespace(run="a", data=None, split=None, weights="kept-0.5")
    _, found, origin = module("subject").opened(options)
    assert len(found) == 3 and (origin["steps"], origin["batch"], origin["seed"]) == (100, 2, 0)
    assert origin["learned_from"] == "shapes" and origin["weights"] == "kept-0.5"
    run.config = None
    with pytest.raises(ValueError, match="DATA is required"):
        module("subject").opened(options)


def test_photographs_are_found_by_name(model, scenes):
    chosen = module("subject").chosen
    name = Path(scenes.examples[1].file).name
    assert chosen(model, scenes, name).name == name
    assert chosen(model, scenes, str(scenes.examples[2].image_id)).name != name
    with pytest.raises(ValueError, match="no image nowhere.jpg"):
        chosen(model, scenes, "nowhere.jpg")
    ranges = [
        np.ptp(np.log(np.prod(e.boxes[:, 2:] - e.boxes[:, :2], axis=1))) for e in scenes.examples
    ]
    assert chosen(model, scenes, None).name == Path(scenes.examples[np.argmax(ranges)].file).name


def test_a_wrong_run_is_an_error(tmp_path, capsys):
    drawing = module("fig6").DRAWING
    assert drawing.main([str(tmp_path / "none"), "--to", str(tmp_path)]) == 2
    assert "there is no" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        drawing.main([])
    assert "RUN is required" in capsys.readouterr().err


def test_a_wrong_preset_is_an_error_at_once(capsys):
    with pytest.raises(SystemExit):
        module("fig6").DRAWING.main(["RUN", "--preset", "paper"])
    assert "invalid choice: 'paper'" in capsys.readouterr().err


def test_the_page_trains_the_run_of_the_pictures(monkeypatch):
    page, trained = (FOLDER / "README.md").read_text(), []
    monkeypatch.setattr(runs, "train", lambda config, keep_at: trained.append((config, keep_at)))
    exec(re.search(r"```py\n(.*?)```", page, re.DOTALL)[1], {})
    [(config, keep_at)] = trained
    stored = json.loads((PICTURES / "fig3.json").read_text())["from"]
    assert config.model.name == stored["model"] and f"kept-{keep_at[0]}" == stored["weights"]
    assert config.schedule.epochs * 292 // 4 == stored["steps"]  # photographs, in fours
    assert config.run.seed == stored["seed"]
    assert f"{stored['steps']} steps" in " ".join(page.split())


# What is stored


@pytest.mark.parametrize("name", NAMES)
def test_stored_numbers_are_readable_and_of_no_place(name):
    numbers = json.loads((PICTURES / f"{name}.json").read_text())
    assert numbers["from"]
    assert not any(str(value).startswith(("/", "~")) for value in numbers["from"].values())
    assert (PICTURES / f"{name}.svg").read_text().startswith("<?xml")
    with Image.open(PICTURES / f"{name}.png") as picture:
        assert picture.width == 800


def test_stored_pictures_are_small():
    files = [file for file in PICTURES.iterdir() if file.suffix != ".json"]
    assert {file.suffix for file in files} == {".png", ".svg", ".jpg"}
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


def test_stored_curves_are_those_of_the_losses():
    stored = json.loads((PICTURES / "fig5.json").read_text())
    measured = module("fig5").measure(None)["balanced_l1"]
    for own, kept in zip(measured, stored["balanced_l1"], strict=True):
        assert (own["alpha"], own["gamma"]) == (kept["alpha"], kept["gamma"])
        np.testing.assert_allclose(own["gradient"], kept["gradient"], atol=2e-6)


@pytest.mark.slow
def test_draws_without_tensorflow(tmp_path):
    program = (
        "import importlib, sys\n"
        f"for name in {NAMES}:\n"
        "    drawing = importlib.import_module(name).DRAWING\n"
        "    assert drawing.main(['--draw', '--to', sys.argv[1]]) == 0\n"
        "assert not {'tensorflow', 'keras', 'libra_keras'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    subprocess.run(command, check=True, env=environment, timeout=100)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg"))
    # The same numbers give the same files, also in another process.
    drawing = module("attention").DRAWING
    assert drawing.main(["--draw", "--to", str(tmp_path / "again")]) == 0
    for file in ("attention.png", "attention.svg"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_svgs_have_short_paths_and_small_images(rng, tmp_path):
    style = module("style")
    with style.look():
        drawn = style.figure(2)
        left, right = drawn.subplots(1, 2)
        left.imshow(rng.integers(0, 256, (20, 30, 3)).astype("uint8"))
        right.imshow(np.eye(3))
        style.save(drawn, tmp_path / "drawn")
    text = (tmp_path / "drawn.svg").read_text()
    ElementTree.fromstring(text)
    assert re.findall(r"data:image/(\w+)", text) == ["jpeg", "png"]
    assert not re.search(r"\.\d{3}", "".join(re.findall(r' d="([^"]+)"', text)))
    assert "scale(0.015625)" in text  # of letters: only paths are rounded


def test_few_colours_keep_a_picture(rng):
    style = module("style")
    pixels = rng.integers(0, 8, (6, 9, 3)).astype("uint8")[:, :, :1].repeat(3, -1) * 30
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    smaller = Image.open(io.BytesIO(style.with_palette(buffer.getvalue()))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(smaller), pixels)
    smooth = np.add.outer(np.arange(40), np.arange(60))[..., None].repeat(3, -1).astype("uint8")
    np.testing.assert_allclose(style.decoded(style.encoded(smooth)), smooth, atol=4)
