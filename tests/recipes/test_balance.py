"""What `balance.py` measures of arrays laid out by hand, the command itself, and `gpu.py`."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from voc_folder import write_voc

from libra_keras import data, models

FOLDER = Path(__file__).parents[2] / "recipes" / "ablations"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """Recipes import each other, as `python recipes/ablations/<name>.py` does."""
    monkeypatch.syspath_prepend(str(FOLDER))


# Samples


def test_shares_above_thresholds():
    from balance_measures import shares_above

    assert shares_above(np.array([0.0, 0.05, 0.06, 0.3]), (0.05, 0.1, 0.2)) == [0.5, 0.25, 0.25]
    assert np.isnan(shares_above(np.array([]), (0.05,))).all()


def test_hard_negatives_are_those_of_the_largest_losses_of_all_images():
    from balance_measures import hardest

    losses = np.array([[9.0, 1.0, 5.0, 2.0], [8.0, 7.0, 0.5, 0.1]])
    is_negative = np.array([[False, True, True, True], [True, True, True, True]])
    # 7 negatives, of which round(1.75) are hard; 9.0 is of a positive.
    assert hardest(losses, is_negative).tolist() == [[False] * 4, [True, True, False, False]]


@pytest.fixture
def candidates():
    """Two images of 4 positives of 2 objects and 40 negatives, of which 10 touch an object."""
    iou = np.r_[1.0, 1.0, 0.8, 0.7, np.linspace(0.11, 0.45, 10), np.zeros(30)].astype("float32")
    owner = np.r_[0, 1, 0, 0, np.zeros(40)].astype("int32")
    is_positive = iou >= 0.5
    losses = np.where(iou > 0, iou, 0.01)  # the hard quarter of negatives: those of an IoU
    own = {"max_iou": iou, "matched_gt": owner, "is_positive": is_positive}
    own |= {"is_negative": ~is_positive, "losses": losses}
    return {name: np.stack([values] * 2) for name, values in own.items()}


def test_where_the_limit_of_negatives_acts():
    from balance_measures import of_first_stage

    # Of 256, at most 128 positive: 10 leave 246, and the limit 50; 60 leave 196, fewer than 300;
    # 200 count as 128; without a positive there are 256, and with the limit 5, as for one.
    anchors = np.array([[10, 5000], [60, 5000], [200, 5000], [0, 5000]])
    assert of_first_stage(anchors, 256, 0.5) == {
        "positives": (10 + 60 + 128) / 4,
        "negatives": (246 + 196 + 128 + 256) / 4,
        "negatives_with_limit": (50 + 196 + 128 + 5) / 4,
        "limited": 0.5,
    }


def model_with(num, positive_fraction):
    from types import SimpleNamespace

    from libra_keras.samplers import RandomSampler

    return SimpleNamespace(box_head=SimpleNamespace(sampler=RandomSampler(num, positive_fraction)))


def test_what_samplers_draw(candidates):
    import balance
    from balance_measures import of_samples

    samplers = balance.samplers(model_with(16, 0.25))
    chosen = {name: balance.drawn(each, candidates) for name, each in samplers.items()}
    found = of_samples(candidates, chosen)
    assert found["all"]["an_image"] == 40 and found["all"]["above"]["0.1"] == 0.25
    assert found["hard"]["above"]["0.1"] == 1 and found["hard"]["hard_an_image"] == 10
    for name in chosen:  # 4 positives leave 12
        assert found[name]["an_image"] == 12
        share = found[name]["above"]["0.05"]
        assert math.isclose(found[name]["hard_an_image"], 12 * share)
        assert math.isclose(found[name]["of_the_hard"], 12 * share / 10)
    # All 10 that touch an object come before those that touch none.
    assert found["preset mmdet"]["above"]["0.05"] == 10 / 12
    # Bins of a third of 0.45: 1 to 4 of the first, 4 of each of the others.
    assert 8 / 12 <= found['upper="negatives"']["above"]["0.05"] <= 10 / 12
    assert found["random"]["above"]["0.05"] < 0.5


def test_draws_differ_and_can_be_repeated(candidates):
    import balance

    sampler = balance.samplers(model_with(16, 0.25))["random"]
    first, second = (balance.drawn(sampler, candidates) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first.sum(axis=2) == 16).all() and (first[0] != first[1]).any()
    assert (first[0, 0] != first[0, 1]).any()


# Loss


def test_gradient_of_inliers_by_hand():
    from balance_measures import balanced_l1_slope, inlier_ratio, inlier_share, smooth_l1_slope

    errors = np.array([[0.5, -0.5, 2.0, 0.0]])  # slopes 0.5, 0.5, 1 and 0
    assert inlier_share(errors, smooth_l1_slope) == 0.5
    assert math.isclose(inlier_ratio(errors, smooth_l1_slope), 1 / 3)
    inner = 0.5 * math.log(math.expm1(3) * 0.5 + 1)  # 1.17772; beyond 1 it is 1.5
    share = 2 * inner / (2 * inner + 1.5)
    assert math.isclose(inlier_share(errors, balanced_l1_slope), share)
    assert math.isclose(inlier_ratio(errors, balanced_l1_slope), 2 * inner / 3 / 1.5)
    assert inlier_share(np.full((1, 4), 3.0), smooth_l1_slope) == 0
    assert math.isnan(inlier_share(np.zeros((0, 4)), smooth_l1_slope))


def test_slopes_are_those_of_the_losses():
    from balance_measures import SLOPES
    from keras import ops

    from libra_keras.losses import balanced_l1, smooth_l1

    at, step = np.array([0.05, 0.3, 0.7, 0.95, 1.5, 4.0], "float32"), 1e-3
    for loss, slope in zip((smooth_l1, balanced_l1), SLOPES.values(), strict=True):
        low, high = (ops.convert_to_numpy(loss(0 * at, at + d)) for d in (-step, step))
        np.testing.assert_allclose((high - low) / (2 * step), slope(at), atol=2e-3)


# Pyramid


@pytest.fixture
def levels(rng):
    """Four levels of 4000 positions: the third is a function of the first two, the last of none."""
    first, second, alone = rng.normal(size=(3, 4000, 4)) * [[[1.0]], [[5.0]], [[2.0]]] + 3
    third = first @ rng.normal(size=(4, 4)) + second @ rng.normal(size=(4, 4)) - 7
    return np.stack([first, second, third, alone], axis=1).astype("float32")


def test_what_other_levels_do_not_tell(levels):
    from balance_measures import alone

    found = alone(levels[:2000], levels[2000:], ridge=1e-6)
    np.testing.assert_allclose(found[:3], 0, atol=1e-3)
    assert 0.99 < found[3] < 1.05


def test_what_a_level_does_not_tell_of_the_others(levels):
    from balance_measures import missing

    copies = np.stack([levels[:, 0], 2 * levels[:, 0], levels[:, 3]], axis=1)
    found = missing(copies[:2000], copies[2000:], ridge=1e-6)
    # The first two tell all of each other and nothing of the third, which tells nothing of both.
    np.testing.assert_allclose(found, [0.5, 0.5, 1], atol=0.01)


def test_cka_knows_rotations(rng):
    from balance_measures import linear_cka

    x, y = rng.normal(size=(2, 5000, 8))
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    assert math.isclose(linear_cka(x, 3 * x @ rotation + 1), 1, abs_tol=1e-9)
    assert linear_cka(x, y) < 0.01 and math.isnan(linear_cka(x, 0 * y))


# Positives


def test_positives_of_objects_by_size():
    from balance_measures import positives_by_size

    areas = np.array([[10.0, 2000.0], [20.0, np.nan]])  # small, medium; small
    matched = np.array([[0, 1, 1, 1], [0, 0, 0, 0]])
    one = np.array([[True, True, True, False], [False] * 4])
    other = np.array([[True, True, False, False], [True, True, False, False]])
    found = positives_by_size(matched, np.stack([one, other]), areas)
    # Small ones get 1 and 0, then 1 and 2; the medium one 2, then 1.
    assert found["small"] == {"objects": 2, "mean": 1.0, "without": 0.25}
    assert found["medium"] == {"objects": 1, "mean": 1.5, "without": 0.0}
    assert found["large"]["objects"] == 0 and math.isnan(found["large"]["mean"])


# The command


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An untrained detector as a `.keras` file."""
    path = tmp_path_factory.mktemp("balance") / "untrained.keras"
    names = list(data.shapes(1).class_names)
    policy = data.InputPolicy(160, 160)
    models.libra_faster_rcnn_small(class_names=names, input_policy=policy).save(path)
    return path


def run(capsys, *arguments):
    import balance

    status = balance.main(list(map(str, arguments)))
    return status, capsys.readouterr()


@pytest.mark.slow
def test_the_command(saved, tmp_path, capsys, monkeypatch):
    import balance

    seen = []

    def observe(*arguments):
        seen.append((*arguments, original(*arguments)))
        return seen[0][-1]

    original = balance.observe
    monkeypatch.setattr(balance, "observe", observe)
    to = tmp_path / "balance.json"
    status, said = run(capsys, saved, "shapes", "--images", "4", "--to", to)
    assert status == 0, said.err
    titles = [line.split(".")[0] for line in said.out.splitlines() if line.startswith("**")]
    assert titles == ["**First stage", "**Samples", "**Positives", "**Loss", "**Pyramid"]
    check_numbers(json.loads(to.read_text()))
    check_candidates(*seen[0])


def check_numbers(found):
    assert (found["run"], found["images"]) == ("untrained.keras", 4)
    samples = found["samples"]
    assert list(samples)[2:5] == ["random", "preset mmdet", "preset paper_code"]
    # 64 are drawn, of at most 200 and the objects.
    assert 32 <= samples["random"]["an_image"] <= 64 < samples["all"]["an_image"] <= 200
    assert samples["preset mmdet"]["above"]["0.05"] >= samples["random"]["above"]["0.05"]
    pyramid = found["pyramid"]
    assert pyramid["levels"] == ["P2", "P3", "P4", "P5", "P6"]
    for state in ("before", "after"):
        assert np.shape(pyramid[state]["cka"]) == (5, 5)
        assert all(value > 0 for value in pyramid[state]["alone"])
    # The sum of all levels, in every one.
    assert np.mean(pyramid["after"]["missing"]) < np.mean(pyramid["before"]["missing"])
    own = found["positives"]["candidates"].values()
    assert all(size["mean"] is None or size["mean"] >= 1 for size in own)  # at least itself


def check_candidates(model, scenes, seen):
    """Matches, losses and errors are those that the detector itself sums up in training."""
    from libra_keras.losses import SmoothL1Loss
    from libra_keras.samplers import RandomSampler

    own = seen.candidates
    counted = own["is_positive"] | own["is_negative"]
    model.box_head.sampler = RandomSampler(600, positive_fraction=0.5)  # all that there are
    model.box_head.box_loss = SmoothL1Loss(beta=0.0)
    x, y = next(iter(data.training_batches(scenes, model.input_policy, 4, flip=0.0)))
    truth = models.GroundTruth.of(y)
    pyramid = model.pyramid(x["images"], x["image_sizes"])  # with averages, as in inference
    outputs = {"pyramid": pyramid, "rpn": model.rpn(pyramid)}
    losses = model.compute_losses(x, truth, outputs, training=True)
    class_loss, box_loss = (float(loss) for loss in losses[2:])
    assert math.isclose(own["losses"][counted].mean(), class_loss, rel_tol=1e-3)
    errors = np.abs(own["errors"][own["is_positive"]]).sum()
    assert math.isclose(errors / counted.sum(), box_loss, rel_tol=1e-3)
    assert len(seen.image) == 4 * 10 * 10
    assert np.sum(~np.isnan(seen.areas)) == sum(each.num_boxes for each in scenes.examples)
    assert seen.anchors.shape == (4, 2)
    drawn = np.minimum(seen.anchors[:, 0], 128)
    assert math.isclose(model.rpn.positives.result(), drawn.mean(), rel_tol=1e-6)


@pytest.mark.slow
def test_shares_that_are_known_by_construction(tmp_path, capsys):
    """Each image has one object, a proposal on it, three that overlap it by a third (moved by half
    a side: 0.5 / 1.5) and five that do not touch it; all are drawn."""
    voc = write_voc(tmp_path / "voc", size=(128, 128), val=[[(20, 20, 60, 60)]] * 4)
    own = data.voc(voc, "val", corners="edges")
    boxes = [(20, 20, 60, 60), (40, 20, 80, 60), (20, 40, 60, 80), (20, 0, 60, 40)]
    boxes += [(80 + i, 80, 120, 120) for i in range(5)]
    boxes = np.array(boxes, "float32")
    found = [{"image_id": e.image_id, "boxes": boxes, "scores": np.ones(9)} for e in own.examples]
    data.write_proposals(tmp_path / "proposals.npz", found)
    policy = data.InputPolicy(128, 128)
    model = models.fast_rcnn_small(1, class_names=["cat"], input_policy=policy)
    model.save(tmp_path / "fast.keras")
    more = ["--corners", "edges", "--proposals", tmp_path / "proposals.npz"]
    to = tmp_path / "balance.json"
    status, said = run(capsys, tmp_path / "fast.keras", voc, *more, "--to", to)
    assert status == 0, said.err
    samples, positives = (json.loads(to.read_text())[name] for name in ("samples", "positives"))
    assert {own["an_image"] for name, own in samples.items() if name != "hard"} == {8}
    assert samples["hard"]["an_image"] == 2
    assert (
        samples["all"]["above"]
        == samples["random"]["above"]
        == dict.fromkeys(("0.05", "0.1", "0.2"), 3 / 8)
    )
    assert all(own["of_the_hard"] == 1 for own in samples.values())
    for own in positives.values():  # the object itself and the proposal on it
        assert own["medium"] == {"objects": 4, "mean": 2, "without": 0}


@pytest.mark.slow
def test_a_one_stage_detector_has_two_parts(tmp_path, capsys):
    path = tmp_path / "retinanet.keras"
    models.libra_retinanet_small(num_classes=6, input_policy=data.InputPolicy(96, 96)).save(path)
    status, said = run(capsys, path, "shapes", "--images", "2")
    assert status == 0 and "**Loss" in said.out and "**Pyramid" in said.out
    assert "**Samples" not in said.out and "**Positives" not in said.out


@pytest.mark.slow
def test_given_proposals(tmp_path, capsys):
    scenes, path, file = data.shapes("val"), tmp_path / "fast.keras", tmp_path / "proposals.npz"
    policy = data.InputPolicy(96, 96)
    models.fast_rcnn_small(num_classes=6, input_policy=policy).save(path)
    status, said = run(capsys, path, "shapes", "--images", "2")
    assert status == 2 and "it requires --proposals FILE" in said.err
    own = [
        {"image_id": e.image_id, "boxes": e.boxes + 3, "scores": e.labels} for e in scenes.examples
    ]
    data.write_proposals(file, own)
    status, said = run(capsys, path, "shapes", "--images", "2", "--proposals", file)
    assert status == 0 and "**Samples" in said.out and ", after" not in said.out
    data.write_proposals(file, [{**e, "boxes": [], "scores": []} for e in own])
    status, said = run(capsys, path, "shapes", "--images", "2", "--proposals", file)
    assert status == 2 and "has no proposal for these images of shapes/val" in said.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": "nothing"}, "A detector must be a run folder"),
        ({"data": "nothing"}, "existing folder"),
        ({"data": "{voc}"}, "does not know 1 of the 1 classes of voc/val: cat"),
        ({"more": ["--images", "1"]}, "at least 2 images are required; shapes/val has 1"),
        ({"more": ["--images", "2", "--weights", "best"]}, "contains only one set of weights"),
        ({"more": ["--proposals", "some.npz"]}, "--proposals is only for fast_rcnn models"),
        ({"more": ["--to", "{voc}"]}, "--to must be a file"),
    ],
)
def test_errors_come_before_anything_runs(saved, tmp_path, capsys, monkeypatch, change, message):
    import balance

    def measured(*_):
        raise RuntimeError("it runs")

    monkeypatch.setattr(balance, "measured", measured)
    voc = write_voc(tmp_path / "voc", train=[[]], val=[[(5, 5, 20, 20)], []])
    more = [text.format(voc=voc) for text in change.get("more", [])]
    source = change.get("data", "shapes").format(voc=voc)
    status, said = run(capsys, change.get("run", saved), source, *more)
    assert status == 2 and message in said.err


# The same tables on a GPU


def test_what_a_gpu_runs(tmp_path, monkeypatch):
    """All trials of both sizes, seed 0 before the others; `--tiny` was run by hand, on JAX."""
    import gpu
    import runner

    boxes = [(5, 5, 60, 40)], [(30, 10, 90, 60)]
    voc = write_voc(tmp_path / "voc", size=(96, 64), suffix="jpg", trainval=boxes * 2, test=boxes)
    started = []
    monkeypatch.setattr(runner, "in_own_process", lambda _, trial, end: started.append(trial))
    command = ["gpu.py", "--bccd", str(voc), "--weights", "none", "--seeds", "2", "--workers", "1"]
    command += ["--to", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", command)
    for name in gpu.ENVIRONMENT:
        monkeypatch.setenv(name, "")  # for `main` to set, and the test's end to take back
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert gpu.main() == 0
    rows = ["plain", "plain_limit", "libra_limit", "plain", "libra_limit"]
    assert [(trial.row, trial.config.run.seed) for trial in started] == [
        (row, seed) for seed in range(2) for row in rows
    ]
    sizes = [(own.config.model.short_side, own.config.model.long_side) for own in started[:5]]
    assert sizes == [(192, 256)] * 3 + [(288, 384)] * 2
