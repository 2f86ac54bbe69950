"""Names of published detectors, where the command takes a run."""

import pytest

from libra_keras.cli import main, parser
from libra_keras.cli.options import config_of, load_run
from libra_keras.convert.published import PUBLISHED
from libra_keras.data import shapes
from libra_keras.models import libra_retinanet_small
from libra_keras.models.saved import write_folder
from libra_keras.runs import resolve
from libra_keras.runs.building import build_initial

NAME = "libra_retinanet_r50_fpn_1x_coco"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A small detector, kept as if it had been downloaded and converted."""
    entry, home = PUBLISHED[NAME], tmp_path_factory.mktemp("keras")
    names = [f"class {number}" for number in range(80)]
    record = {"sha256": entry.file.digits, "model": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(home))
        patch.delenv("LIBRA_KERAS_WEIGHTS", raising=False)
        detector = libra_retinanet_small(80, class_names=names)
        write_folder(detector, entry.folder, {"conversion.json": record})
        yield entry


def test_the_list_says_what_is_on_this_machine(kept, capsys):
    (kept.folder.parent / PUBLISHED["retinanet_r50_fpn_1x_coco"].file.name).touch()
    assert main(["models", "--pretrained", "*r50_fpn_1x_coco"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [NAME, "AP", "37.6", "converted"] in lines
    assert ["retinanet_r50_fpn_1x_coco", "AP", "36.5", "downloaded"] in lines
    assert ["rpn_r50_fpn_1x_coco", "AR@1000", "58.2"] in lines
    assert main(["models", "--pretrained", "yolo*"]) == 1
    assert "no detector matches yolo*" in capsys.readouterr().err


def test_a_name_is_a_run(kept, capsys):
    options = parser().parse_args(["predict", NAME, "photo.jpg", "--to", "found"])
    run = load_run(options)
    assert (run.folder, run.model.num_classes) == (kept.folder, 80)
    words = f"{NAME} contains only one set of weights. Omit --weights best"
    with pytest.raises(ValueError, match=words):
        load_run(parser().parse_args(["export", NAME, "--to", "out", "--weights", "best"]))
    assert main(["predict", "libra_retinanet_r50", __file__, "--to", "found"]) == 1
    assert f"--pretrained lists, such as {NAME}" in capsys.readouterr().err


def test_training_starts_from_a_name_and_records_it(kept, capsys):
    config = resolve(config_of(parser().parse_args(["train", "shapes", "--init", NAME])))
    assert config.model.name == "libra_retinanet_resnet50"  # whose schedule it has
    _, start = build_initial(config, shapes(1))
    assert f"Started from {NAME} (80 classes: class 0" in capsys.readouterr().out
    assert (start["preset"], start["path"]) == (NAME, str(kept.folder))
    assert start["reinitialised"] == ["class_logits"]
