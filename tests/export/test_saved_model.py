"""Where an export goes, what lies in it, and what it leaves alone."""

import json

import numpy as np
import pytest

from libra_keras import models
from libra_keras.cli import main, parser
from libra_keras.data import InputPolicy

saved_model = pytest.importorskip("libra_keras.export.saved_model")
options = pytest.importorskip("libra_keras.export.options")
ExportOptions, export_saved_model = options.ExportOptions, saved_model.export_saved_model


@pytest.fixture
def quick(monkeypatch):
    """Exports are written without a graph, which takes its time."""

    def save(model, folder, options):
        folder.mkdir()
        (folder / saved_model.GRAPH).write_text("graph")
        (folder / "fingerprint.pb").write_text(options.precision)

    monkeypatch.setattr(saved_model, "_save", save)


def versions(folder):
    return sorted(path.name for path in folder.iterdir())


def test_versions_count_up(served_model, quick, tmp_path):
    folder = tmp_path / "deep" / "detector"
    assert export_saved_model(served_model, folder) == folder / "1"
    assert export_saved_model(served_model, str(folder)) == folder / "2"
    assert export_saved_model(served_model, folder, version=10) == folder / "10"
    assert export_saved_model(served_model, folder, overwrite=True) == folder / "11"
    assert versions(folder) == ["1", "10", "11", "2"]


def test_a_version_in_use_is_refused(served_model, quick, tmp_path):
    folder = tmp_path / "detector"
    export_saved_model(served_model, folder, version=3)
    with pytest.raises(ValueError, match="3 exists. Choose another version, or overwrite"):
        export_saved_model(served_model, folder, version=3)
    print_of_old = folder / "3" / "fingerprint.pb"
    print_of_old.write_text("old")
    export_saved_model(served_model, folder, version=3, overwrite=True)
    assert print_of_old.read_text() == "float32"
    assert versions(folder) == ["3"]
    for version in (0, -1, 1.5):
        with pytest.raises(ValueError, match="`version` must be an int"):
            export_saved_model(served_model, folder, version=version)


def test_other_things_are_left_alone(served_model, tmp_path):
    (tmp_path / "photo.jpg").write_text("precious")
    (tmp_path / "numbers" / "1").mkdir(parents=True)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "saved_model.pb").write_text("graph")
    left = "contains something other than SavedModels"
    for name, said in {".": left, "numbers": left, "file": "is a file; SavedModels need"}.items():
        with pytest.raises(ValueError, match=said):
            export_saved_model(served_model, tmp_path / name, overwrite=True)
    with pytest.raises(ValueError, match="without a version"):
        export_saved_model(served_model, tmp_path / "plain", overwrite=True)
    assert (tmp_path / "photo.jpg").exists() and (tmp_path / "file").exists()


def test_files_of_others_in_a_version_stay(served_model, quick, tmp_path):
    own = tmp_path / "1"
    export_saved_model(served_model, tmp_path)
    for name in ("NOTES.md", "assets.extra/tf_serving_warmup_requests"):
        (own / name).write_text("precious")
        with pytest.raises(ValueError, match=f"1 holds {name}, which no export has written"):
            export_saved_model(served_model, tmp_path, version=1, overwrite=True)
        (own / name).unlink()
    export_saved_model(served_model, tmp_path, version=1, overwrite=True)


def test_models_of_other_programs_get_no_version_of_ours(served_model, quick, tmp_path):
    theirs = tmp_path / "1" / "saved_model.pb"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    for options in ({}, {"version": 2}, {"version": 1, "overwrite": True}):
        with pytest.raises(ValueError, match="contains SavedModels of another program"):
            export_saved_model(served_model, tmp_path, **options)
    assert theirs.read_text() == "theirs" and versions(tmp_path) == ["1"]


@pytest.mark.parametrize(
    ("path", "message"),
    [("gs://bucket/cats", "this machine"), ("cats [v2]/a", r"path has \["), ("a*", r"has \*")],
)
def test_paths_that_tensorflow_cannot_read_are_refused(
    served_model, tmp_path, monkeypatch, path, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        export_saved_model(served_model, path)
    assert not any(tmp_path.iterdir())


def test_two_exports_at_once(served_model, quick, tmp_path, monkeypatch):
    """The second is refused, and leaves the first as it is."""
    folder, save = tmp_path / "detector", saved_model._save

    def interrupted(model, path, options):
        save(model, path, options)
        monkeypatch.setattr(saved_model, "_save", save)
        with pytest.raises(ValueError, match="Another process is writing to .*detector"):
            export_saved_model(served_model, folder)

    monkeypatch.setattr(saved_model, "_save", interrupted)
    assert export_saved_model(served_model, folder) == folder / "1"
    assert export_saved_model(served_model, folder) == folder / "2"
    assert versions(folder) == ["1", "2"] and versions(folder / "1") == versions(folder / "2")


def test_a_version_that_somebody_made_meanwhile_stays(served_model, quick, tmp_path, monkeypatch):
    """As on file systems without locks."""
    folder, save = tmp_path / "detector", saved_model._save

    def late(model, path, options):
        save(model, path, options)
        save(model, path.with_name("1"), options)
        (path.with_name("1") / "mark").write_text("other")
        note = path.with_name("1") / saved_model.NOTE
        note.parent.mkdir()
        note.write_text("{}")

    monkeypatch.setattr(saved_model, "_save", late)
    with pytest.raises(ValueError, match="1 exists"):
        export_saved_model(served_model, folder)
    assert versions(folder) == ["1"] and (folder / "1" / "mark").exists()


def test_what_a_killed_export_leaves_is_no_obstacle(served_model, quick, tmp_path):
    (tmp_path / saved_model.LOCK).touch()
    (tmp_path / ".unfinished.1").mkdir()
    assert export_saved_model(served_model, tmp_path) == tmp_path / "1"
    assert versions(tmp_path) == ["1"]


@pytest.mark.parametrize("moment", ["_save", "_note"])
def test_an_export_that_fails_leaves_nothing(served_model, quick, tmp_path, monkeypatch, moment):
    def failing(*_):
        raise RuntimeError("no space left")

    export_saved_model(served_model, tmp_path / "old")
    (tmp_path / "old" / "1" / "fingerprint.pb").write_text("old")
    monkeypatch.setattr(saved_model, moment, failing)
    for folder, given in (("old", {"version": 1, "overwrite": True}), ("old", {}), ("new", {})):
        with pytest.raises(RuntimeError):
            export_saved_model(served_model, tmp_path / folder, **given)
    assert versions(tmp_path) == ["old"] and versions(tmp_path / "old") == ["1"]
    assert (tmp_path / "old" / "1" / "fingerprint.pb").read_text() == "old"


@pytest.mark.slow
def test_layout_and_note(served_model, served_folder):
    assert versions(served_folder) == ["1"]
    note = json.loads((served_folder / "1" / "assets.extra" / "detector.json").read_text())
    assert note["class_names"] == ["cat"]
    assert note["input_policy"] == served_model.input_policy.get_config()
    assert note["thresholds"] == {**options.thresholds(served_model), "max_pixels": 89_478_485}
    assert set(note["thresholds"]) >= {"score_threshold", "nms_iou", "max_detections"}
    assert note["precision"] == "float32" and note["status"]["0"] == "ok"
    assert len(note["status"]) == 6


@pytest.mark.slow
def test_size_is_that_of_the_weights(served_model, served_folder):
    """Beside the weights of use there is the graph, and nothing of training."""
    folder = served_folder / "1"
    stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    weights = sum(4 * np.prod(weight.shape) for weight in served_model.weights)
    assert 0.95 * weights < stored < 1.05 * weights
    # 2.4 MB of any detector: less than 5 % of those with a ResNet-50 and more
    assert (folder / "saved_model.pb").stat().st_size < 3e6


def test_command_line(run_folder, tmp_path, monkeypatch, capsys):
    seen = []

    def export(model, path, **given):
        seen.append((path, given))
        return path

    monkeypatch.setattr(saved_model, "export_saved_model", export)
    given = "--version 7 --precision bfloat16 --score-threshold 0.3 --nms-iou 0.4".split()
    more = ["--max-detections", "9", "--max-pixels", "1000", "--overwrite"]
    to = str(tmp_path / "exported")
    assert main(["export", str(run_folder), "--to", to, *given, *more]) == 0
    settings = ExportOptions("bfloat16", 0.3, 0.4, 9, 1000)
    assert seen == [(to, {"version": 7, "overwrite": True, "options": settings})]
    assert "saved_model_cli show --dir" in capsys.readouterr().out
    assert parser().parse_args(["export", "run", "--to", "x"]).format == "saved_model"


def test_errors_come_before_the_model_is_loaded(tmp_path, capsys):
    (tmp_path / "photo.jpg").write_text("precious")
    assert main(["export", "missing", "--to", str(tmp_path)]) == 1
    assert "something other than SavedModels" in capsys.readouterr().err
    assert versions(tmp_path) == ["photo.jpg"]


def test_precisions_are_checked():
    with pytest.raises(ValueError, match="`precision` must be one of"):
        ExportOptions("float16")


@pytest.mark.parametrize("name", ["libra_faster_rcnn_small", "retinanet_small", "rpn_small"])
def test_options_change_a_copy(name):
    given = {} if name == "rpn_small" else {"num_classes": 2}
    model = getattr(models, name)(input_policy=InputPolicy(64, 96), **given)
    before = model.get_config()
    assert options.with_options(model, ExportOptions()) is model
    wanted = ExportOptions("bfloat16", nms_iou=0.35, max_detections=1500)
    changed = options.with_options(model, wanted)
    found = options.thresholds(changed)
    assert (found["nms_iou"], found["max_detections"]) == (0.35, 1500)
    head = getattr(changed, changed.PARTS[-1])
    assert head.compute_dtype == "bfloat16" and head.variable_dtype == "float32"
    assert model.get_config() == before
    for old, new in zip(model.weights, changed.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    if name == "rpn_small":
        assert head.settings.pre_nms_test == 1500  # else fewer would enter
        with pytest.raises(ValueError, match="RegionProposalNetwork has no score_threshold"):
            options.with_options(model, ExportOptions(score_threshold=0.5))
