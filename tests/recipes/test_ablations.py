"""The paper's tables: what is computed of runs, what the rows build, and a runner that resumes."""

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn_batch
from processes import environment

from libra_keras import data, evaluation, runs
from libra_keras.runs.building import build, build_optimizer

FOLDER = Path(__file__).parents[2] / "recipes" / "ablations"
TABLES = ("table2", "table3", "table4", "table5", "table6", "rpn_limit")


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """Recipes import each other, as `python recipes/ablations/<name>.py` does."""
    monkeypatch.syspath_prepend(str(FOLDER))


def table_of(name):
    return importlib.import_module(name).TABLE


def study(table, tmp_path, *options):
    import runner

    given = runner.parser(table, "").parse_args(
        ["--data", "shapes", "--to", str(tmp_path), *options]
    )
    return runner.study_of(table, vars(given))


def result(row, seed, ap, resampled=None, status="done"):
    metrics = {"AP": ap / 100, "AP50": 0.5}
    own = {"AP": [ap / 100 + shift for shift in resampled or (0.0, 0.0)]}
    return {"row": row, "seed": seed, "status": status, "metrics": metrics, "resampled": own}


# What is computed of runs


def test_paired_difference_by_hand():
    from tables import paired_difference

    first = [result("a", seed, ap) for seed, ap in enumerate((10, 20, 30))]
    second = [result("b", seed, ap) for seed, ap in ((0, 11), (1, 23), (2, 32), (7, 90))]
    found = paired_difference(second, first, "AP")  # gains of 1, 3 and 2; seed 7 has no pair
    assert found["seeds"] == 3 and math.isclose(found["mean"], 2)
    # s = 1, so the error is 1 / sqrt(3); t(0.975, 2) = 4.30265
    half = 4.30265 / math.sqrt(3)
    np.testing.assert_allclose(found["t"], (2 - half, 2 + half), rtol=1e-5)
    # Images do not vary here. One in 27 draws of 3 gains is the lowest three times, more than the
    # 2.5 % left out: the interval is the whole range 1..3, which sqrt(3/2) widens.
    expected = 2 - math.sqrt(1.5), 2 + math.sqrt(1.5)
    np.testing.assert_allclose(found["bootstrap"], expected, rtol=1e-9)


@pytest.mark.parametrize("gains", [(2, 2, 2), (1, 3, 2)])
def test_seeds_and_images_vary_by_themselves(gains):
    """The interval is that of all sums of a draw of seeds and one of images, by enumeration."""
    from tables import paired_difference

    shifts = np.linspace(-0.02, 0.02, 201)
    first = [result("a", seed, 10, [0.0] * 201) for seed in range(3)]
    second = [result("b", seed, 10 + gain, list(shifts)) for seed, gain in enumerate(gains)]
    draws = np.array(list(itertools.product(gains, repeat=3))).mean(axis=1)
    sums = 2 + (draws - 2)[:, None] * math.sqrt(1.5) + 100 * shifts
    found = paired_difference(second, first, "AP")
    np.testing.assert_allclose(found["bootstrap"], np.quantile(sums, [0.025, 0.975]), atol=0.1)


def test_runs_on_other_proposals_are_no_pair():
    from tables import paired_difference

    first, second = result("a", 0, 1), result("b", 0, 3)
    assert paired_difference([second], [first | {"proposals": ["x"]}], "AP") is None


def test_two_seeds_have_no_interval():
    from tables import paired_difference

    first, second = (
        [result(row, seed, ap) for seed in range(2)] for row, ap in (("a", 1), ("b", 3))
    )
    found = paired_difference(second, first, "AP")
    assert (found["t"], found["bootstrap"]) == (None, None) and math.isclose(found["mean"], 2)
    assert paired_difference(second, [], "AP") is None


def test_a_table_from_results():
    from tables import Row, Table, markdown

    rows = (
        Row("a", "first", {}, (35.0, 58.0)),
        Row("b", "second", {}, (36.5, 59.0)),
        Row("c", "third", {}),
        Row("d", "fourth", {}),
        Row("e", "fifth", {}),
    )
    found = [result("a", s, ap) for s, ap in ((0, 10), (1, 12), (2, 14))]
    found += [result("b", s, ap) for s, ap in ((0, 15), (1, 17), (2, 19))]
    found += [result("c", 0, 11), result("c", 1, 0, status="diverged")]
    found += [result("e", seed, 0, status="diverged") for seed in range(2)]
    table = Table("T", ("AP", "AP50"), rows)
    lines = markdown(table, found).splitlines()
    assert lines[2] == "| first | 12.0 ± 1.15 | 50.0 ± 0.00 | 3 |  |"
    assert lines[3] == "| *paper, COCO* | *35.0* | *58.0* |  |  |"
    assert lines[4].startswith("| second | 17.0 ± 1.15 | 50.0 ± 0.00 | 3 | +5.00 [+5.00 … +5.00;")
    assert lines[5] == "| *paper, COCO* | *36.5* | *59.0* |  | *+1.5* |"
    assert lines[6] == (
        "| third (ours) | 11.0 | 50.0 | 1, 1 diverged | +1.00 (one seed: no interval) |"
    )
    assert lines[7] == "| fourth (ours) | not run |  |  |  |"
    assert lines[8] == "| fifth (ours) | diverged |  | 0, 2 diverged |  |"
    lines = markdown(table, found, "AP50").splitlines()
    assert "difference in AP50" in lines[0] and "| +0.00 [+0.00 … +0.00]" in lines[4]
    assert lines[5].endswith("| *+1.0* |")
    with pytest.raises(ValueError, match="--metric must be one of AP, AP50. Received: 'AP60'"):
        markdown(table, found, "AP60")


def test_an_interval_around_zero_is_no_effect():
    from tables import Row, Table, markdown

    found = [result("a", seed, 10) for seed in range(3)]
    found += [result("b", seed, ap) for seed, ap in enumerate((9, 10, 12))]
    text = markdown(Table("T", ("AP",), (Row("a", "a"), Row("b", "b"))), found)
    assert text.endswith("no effect seen |")


@pytest.fixture(scope="module")
def found():
    """Scenes, and detections that are annotations moved about: some right, some wrong."""
    scenes = data.shapes("val", num=12)
    rng, detections = np.random.default_rng(0), []
    for example in scenes.examples:
        boxes = np.repeat(example.boxes, 3, axis=0)
        boxes = boxes + rng.normal(0, 4, boxes.shape).astype("float32")
        labels = np.repeat(example.labels, 3)
        labels = np.where(rng.uniform(size=len(labels)) < 0.2, (labels + 1) % 6, labels)
        scores = (1 + rng.permutation(len(labels))) / 100  # ties between images alone
        detections.append({"boxes": boxes, "labels": labels, "scores": scores})
    return scenes, detections


def named(scenes, detections):
    ids = [example.image_id for example in scenes.examples]
    return [{"image_id": i, **each} for i, each in zip(ids, detections, strict=True)]


def copied(scenes, detections, counts):
    """The data set in which images come as often as `counts` says, under ids of their own."""
    annotations = {**scenes.annotations, "images": [], "annotations": []}
    copies = []
    for i, count in enumerate(counts):
        for _ in range(count):
            number = len(copies) + 1
            old = scenes.annotations["images"][i]
            annotations["images"].append({**old, "id": number})
            own = [a for a in scenes.annotations["annotations"] if a["image_id"] == old["id"]]
            annotations["annotations"] += [{**a, "image_id": number} for a in own]
            copies.append({"image_id": number, **detections[i]})
    return dataclasses.replace(scenes, annotations=annotations), copies


def test_resampled_ap_is_that_of_copied_images(found):
    from intervals import resampled_ap, resampled_images

    scenes, detections = found
    counts = np.concatenate([np.ones((1, 12), int), resampled_images(12, 3)])
    assert counts.sum(axis=1).tolist() == [12] * 4
    rows = evaluation.detections_to_coco(named(scenes, detections), scenes.category_ids)
    values = resampled_ap(evaluation.overlaps(scenes, rows), counts)
    for own, value in zip(counts, values, strict=True):
        expected = evaluation.evaluate_detections(*copied(scenes, detections, own))
        names = ("AP", "AP50", "AP75")
        np.testing.assert_allclose(value, [expected[name] for name in names], atol=1e-9)


def test_resampled_recall_is_that_of_copied_images(found):
    from intervals import resampled_images, resampled_recall

    scenes, detections = found
    counts = np.concatenate([np.ones((1, 12), int), resampled_images(12, 3)])
    values = resampled_recall(scenes, named(scenes, detections), counts, (3, 10))
    for own, value in zip(counts, values, strict=True):
        expected = evaluation.proposal_recall(*copied(scenes, detections, own), counts=(3, 10))
        np.testing.assert_allclose(value, [expected["AR@3"], expected["AR@10"]], atol=1e-9)


# What the rows build


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_configs_of_their_own(name, tmp_path):
    table = table_of(name)
    own = study(table, tmp_path)
    import runner

    rows = runner.rows_of(table, own, None)
    configs = [runs.resolve(own.trial(row, 3).config) for row in rows]
    assert len({json.dumps(c.replace(run={"folder": None}).to_dict()) for c in configs}) == len(
        rows
    )
    assert all(config.run.seed == 3 and config.optimizer.average_last == 0.25 for config in configs)
    assert all(row.paper is None or len(row.paper) == len(table.columns) for row in table.rows)


def test_rows_of_one_key_are_the_same_in_all_tables():
    tables = [table_of(name) for name in TABLES]
    by_key = {}
    for row in (row for table in tables for row in table.rows):
        assert by_key.setdefault(row.key, row).parts == row.parts, row.key


@pytest.mark.slow
def test_every_row_makes_a_step(tmp_path):
    import runner

    scenes, size = data.shapes(2), ("--short-side", "64", "--long-side", "64")
    rows = {}  # some are in several tables
    for table in map(table_of, TABLES):
        own = study(table, tmp_path, *size)
        rows |= {row.key: (own, row) for row in runner.rows_of(table, own, None)}
    for own, row in rows.values():
        config = runs.resolve(own.trial(row, 0).config)
        model, _ = build(config, scenes, "trainable")
        model.compile(build_optimizer(config, 2), run_eagerly=True)
        x, y = drawn_batch(2, model.input_policy)
        if own.proposals:
            x["proposals"] = y["boxes"] + 1.0
        losses = model.train_on_batch(x, y, return_dict=True)
        assert all(map(math.isfinite, losses.values())), row.key


def test_options_reach_the_study(tmp_path):
    own = study(table_of("table2"), tmp_path, "--model", "faster_rcnn", "--batch", "2")
    assert own.name_of(table_of("table2").rows[0]) == "faster_rcnn_small" and not own.proposals
    assert own.config.schedule.batch == 2 and own.config.schedule.eval_every == 0
    assert own.results == tmp_path / "results"


def test_what_is_wrong_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    import runner

    table = table_of("table2")
    with pytest.raises(ValueError, match="there is no bfp; rows are baseline, sampling"):
        runner.rows_of(table, study(table, tmp_path), ["bfp"])
    with pytest.raises(argparse.ArgumentTypeError, match="45s, 90m or 3h, not 'soon'"):
        runner.seconds("soon")
    assert runner.seconds("1.5h") == 5400
    arguments = ["table2.py", "--data", str(tmp_path / "none"), "--size", "small"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert runner.main(table, "") == 2
    assert "existing folder" in capsys.readouterr().err


def test_results_of_other_settings_are_refused(tmp_path):
    import runner
    from trial import described

    table = table_of("table3")
    own = study(table, tmp_path)
    trial = own.trial(table.rows[0], 0)
    trial.result.parent.mkdir()
    trial.result.write_text(json.dumps({**described(trial), "status": "done"}))
    assert runner._is_settled(trial)
    trial.result.write_text(json.dumps({**described(trial), "status": "failed"}))
    assert not runner._is_settled(trial)
    before = json.loads(json.dumps({**described(trial), "status": "done"}))
    del before["config"]["data"]["augment"]  # of a version without it
    trial.result.write_text(json.dumps(before))
    assert runner._is_settled(trial)
    other = study(table, tmp_path, "--batch", "2").trial(table.rows[0], 0)
    words = "rpn-0.json belongs to a run with other settings: schedule"
    with pytest.raises(ValueError, match=words):
        runner._is_settled(other)


def test_the_plan_is_of_rows_that_there_are():
    import plan

    read = json.loads((FOLDER / "plan.json").read_text())
    assert sorted(read["order"]) == sorted(read["studies"])
    for each in read["studies"].values():
        assert set(each["rows"]) <= {row.key for row in table_of(each["table"]).rows}
        command = plan.command_of(
            each, {"bccd": "b", "microcontroller": "m", "resnet50": "w"}, Path("runs")
        )
        assert "--rows" in command and "{" not in "".join(command)
    assert plan.command_of(read["studies"]["iv"], {}, Path("runs")) is None


# A runner that resumes


@pytest.mark.slow
def test_the_runner_goes_on_after_a_kill(tmp_path):
    """Killed in its first trial, in a process of its own; the same command fills the table."""
    command = [sys.executable, str(FOLDER / "table2.py"), "--data", "shapes", "--seeds", "1"]
    command += ["--rows", "libra", "--to", str(tmp_path), "--epochs", "2", "--steps", "2"]
    command += ["--batch", "2", "--val-split", "4", "--short-side", "64", "--long-side", "64"]
    command += ["--save-every", "1", "--train-split", "8"]
    options = {"env": environment(), "cwd": tmp_path, "text": True}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    checkpoint = tmp_path / "libra-0" / "checkpoints" / "state.json"
    while not checkpoint.is_file() and first.poll() is None:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL  # and it had not come to its end
    done = subprocess.run(command, capture_output=True, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Continuing" in done.stdout
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "results").iterdir())]
    assert [(each["row"], each["status"]) for each in found] == [("libra", "done")]
    assert len(found[0]["measured"]) == 3 and len(found[0]["resampled"]["AP"]) == 200
    assert len(found[0]["proposals"]) == 2
    assert str(tmp_path) not in json.dumps(found)
    assert not (tmp_path / "libra-0").exists()
    # What is there is not run again, and nothing is begun when it is late.
    again = subprocess.run(
        [*command, "--seeds", "2", "--budget", "0s"], capture_output=True, **options
    )
    assert (
        "| + balanced L1 = Libra R-CNN |" in again.stdout
        and "seed" not in again.stdout.split("|")[0]
    )


@pytest.mark.slow
def test_a_trial_that_diverges_is_a_result(tmp_path):
    from trial import run_trial

    table = table_of("table3")
    small = ["--batch", "2", "--short-side", "64", "--long-side", "64", "--val-split", "4"]
    small += ["--epochs", "1", "--steps", "4", "--learning-rate", "1e6", "--warmup-steps", "0"]
    trial = study(table, tmp_path, *small).trial(table.rows[0], 0)
    trial.result.parent.mkdir()
    run_trial(trial, math.inf)
    found = json.loads(trial.result.read_text())
    assert found["status"] == "diverged" and "metrics" not in found
    assert "not finite" in found["why"] and str(tmp_path) not in found["why"]
