import sys

import pytest
from PIL import Image

from libra_keras.visualization import plot_curves
from libra_keras.visualization.curves import draw_panels, read_panels


def figure_of(steps, epochs):
    figure = pytest.importorskip("matplotlib.figure", reason="curves are drawn by it").Figure
    return draw_panels(figure, *read_panels(steps, epochs))


def test_panels_of_a_csv_log(tmp_path):
    # As CSVLogger writes it: "NA" for a key that an epoch lacks; val_AR is not drawn.
    (tmp_path / "log.csv").write_text(
        "epoch,box_loss,learning_rate,loss,val_AP,val_AP_small,val_AR100\n"
        "0,0.5,0.02,2.0,NA,nan,0.1\n1,0.4,0.002,1.0,0.3,nan,0.2\n"
    )
    panels = plot_curves(tmp_path / "log.csv", tmp_path / "made" / "curves.png")
    assert panels == {
        "loss": ["box_loss", "loss"],
        "average precision": ["AP"],
        "learning rate": ["learning_rate"],
    }
    with Image.open(tmp_path / "made" / "curves.png") as picture:
        assert picture.size == (1200, 700)  # two in a row


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


def test_lines_lie_where_the_tables_say(tmp_path):
    """Two epochs of 150 steps, a row for each: losses 1 to 300, and AP behind each epoch."""
    rows = [f"{(step + 149) // 150},{step},{step},{0.1 if step <= 200 else 0.01},{step}"
            for step in range(1, 301)]  # fmt: skip
    header = "epoch,first_step,last_step,learning_rate,loss"
    (tmp_path / "steps.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "log.csv").write_text("epoch,loss,val_AP,val_AP50\n0,75,0.1,0.2\n1,225,0.3,nan\n")
    figure = figure_of(tmp_path / "steps.csv", tmp_path / "log.csv")
    losses, precision, rate = figure.axes
    pale, smooth = losses.lines
    assert list(pale.get_xdata()) == list(pale.get_ydata()) == list(range(1, 301))
    # Means over 300 / 50 rows: 1 to 3 at the start, 100 - 3 to 100 + 2, 297 to 300 at the end.
    assert [smooth.get_ydata()[i] for i in (0, 99, 299)] == [2.0, 99.5, 298.5]
    assert [line.get_label() for line in precision.lines] == ["AP", "AP50"]
    assert precision.lines[0].get_xydata().tolist() == [[150, 0.1], [300, 0.3]]
    assert precision.lines[1].get_xydata().tolist() == [[150, 0.2]]
    steps, rates = rate.lines[0].get_data()
    assert steps[list(rates).index(0.01)] == 201
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}


def test_epochs_of_a_run_whose_rows_span_them(tmp_path):
    """Three epochs of 10 steps in rows of 20: the last row alone ends where an epoch does."""
    (tmp_path / "steps.csv").write_text("epoch,first_step,last_step,loss\n2,1,20,2\n3,21,30,1\n")
    (tmp_path / "log.csv").write_text("epoch,val_AP\n0,0.1\n1,0.2\n2,0.3\n")
    _, precision = figure_of(tmp_path / "steps.csv", tmp_path / "log.csv").axes
    assert list(precision.lines[0].get_xdata()) == [10, 20, 30]
    with pytest.raises(ValueError, match="`epochs` requires a table of steps"):
        plot_curves(tmp_path / "log.csv", tmp_path / "curves.png", tmp_path / "log.csv")


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
