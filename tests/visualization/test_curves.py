import sys

import pytest
from PIL import Image

from libra_keras.visualization import plot_curves


def test_panels_of_a_csv_log(tmp_path):
    # As CSVLogger writes it: "NA" for a key that an epoch lacks; val_AR is not drawn.
    (tmp_path / "log.csv").write_text(
        "epoch,box_loss,learning_rate,loss,val_AP,val_AP_small,val_AR100\n"
        "0,0.5,0.02,2.0,NA,nan,0.1\n1,0.4,0.002,1.0,0.3,nan,0.2\n"
    )
    panels = plot_curves(tmp_path / "log.csv", tmp_path / "made" / "curves.png")
    assert panels == {
        "loss": ["box_loss", "loss"],
        "learning rate": ["learning_rate"],
        "average precision": ["AP"],
    }
    with Image.open(tmp_path / "made" / "curves.png") as picture:
        assert picture.size == (1500, 400)


def test_recall_of_proposals_has_a_panel(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,val_AR@100,val_AR_small@1000\n0,0.3,0.1\n")
    panels = plot_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    assert panels == {"recall of proposals": ["AR@100"]}


def test_counts_have_a_panel(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss,positives,rpn_positives\n0,1,12.5,3\n")
    panels = plot_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    assert panels == {"loss": ["loss"], "positives per image": ["positives", "rpn_positives"]}


def test_table_of_steps(tmp_path):
    (tmp_path / "steps.tsv").write_text(
        "epoch\tfirst_step\tlast_step\tlearning_rate\tloss\n1\t1\t20\t0.1\t2\n1\t21\t40\t0.1\t1\n"
    )
    panels = plot_curves(tmp_path / "steps.tsv", tmp_path / "curves.svg")
    assert list(panels) == ["loss", "learning rate"]
    assert "step" in (tmp_path / "curves.svg").read_text()


def test_empty_log(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n")
    with pytest.raises(ValueError, match="log.csv"):
        plot_curves(tmp_path / "log.csv", tmp_path / "curves.png")


def test_missing_matplotlib_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "libra-keras\[viz\]"'):
        plot_curves(tmp_path / "log.csv", tmp_path / "curves.png")


def test_no_figure_is_left_in_the_state_of_pyplot(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n0,1\n")
    plot_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
