"""`libra-keras report`, and the pages that `train` and `evaluate` leave."""

import html
import re
import shutil
import subprocess

import pytest

from libra_keras import runs
from libra_keras.cli import main

pytestmark = pytest.mark.usefixtures("eagerly")
BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"


def numbers(page):
    return re.findall(r"<dt>([^<]*A[PR][^<]*)</dt><dd>(\S+?)</dd>", page.read_text())


@pytest.mark.slow
def test_the_report_of_a_run_is_that_which_the_training_wrote(run_folder, tmp_path, capsys):
    written = run_folder / "report.html"
    assert 'id="training"' in written.read_text()
    assert main(["report", str(run_folder), "--to", str(tmp_path / "again.html")]) == 0
    assert f"report: {tmp_path / 'again.html'}" in capsys.readouterr().out
    assert {"AP", "AR100", "VOC_AP50_area"} <= dict(numbers(written)).keys()
    assert numbers(tmp_path / "again.html") == numbers(written)  # those are pycocotools'


@pytest.mark.slow
def test_reports_of_other_data_have_other_names(run_folder, damaged_voc, tmp_path, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    assert main(["report", str(run), str(damaged_voc), "--split", "val"]) == 0
    page = run / "report-voc-val.html"
    assert page.is_file() and (run / "report.html").is_file()
    page.unlink()
    assert main(["evaluate", str(run), str(damaged_voc), "--split", "val"]) == 0
    assert f"report: {page}" in capsys.readouterr().out and page.is_file()
    page.write_text("a thesis")
    assert main(["evaluate", str(run), str(damaged_voc), "--split", "val"]) == 0
    assert f"No report: {page} is no report of libra-keras" in capsys.readouterr().err
    assert page.read_text() == "a thesis"
    runs.folder.RunFolder.create(run, overwrite=True)  # what a run has written goes as one


def test_what_cannot_be_reported_says_what_it_needs(run_folder, tmp_path, capsys):
    model = tmp_path / "model.keras"
    model.symlink_to(run_folder / "model.keras")
    thesis = tmp_path / "thesis.html"
    thesis.write_text("years of work")
    needs = {
        (
            str(run_folder),
            "--to",
            str(thesis),
        ): "is no report of libra-keras, and is not overwritten",
        (str(model),): "is not a run folder: set the report's file with --to FILE",
        (str(model), "--to", str(tmp_path / "a.html")): "it has no data of its own: name DATA",
        (str(run_folder), "--split", "val"): "--split requires DATA, which is not given",
    }
    for arguments, said in needs.items():
        assert main(["report", *arguments]) == 1
        assert said in capsys.readouterr().err
    assert thesis.read_text() == "years of work"


def test_data_that_have_moved_are_asked_for(run_folder, tmp_path, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    config = (run / "config.json").read_text()
    source = runs.open(run).config.data.source
    (run / "config.json").write_text(config.replace(source, str(tmp_path / "gone")))
    assert main(["report", str(run)]) == 1
    error = capsys.readouterr().err
    assert "The data of the run cannot be read: " in error and f"report {run} DATA" in error


FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark">
<iframe id="page" width="{width}" height="900" srcdoc="{page}"></iframe><script>
onload = () => {{
  const shown = page.contentDocument;
  const {{ color, backgroundColor }} = getComputedStyle(shown.body);
  const {{ scrollWidth }} = shown.documentElement;
  console.log(`width ${{scrollWidth}} ink ${{color}} on ${{backgroundColor}}`);
  const wide = [...shown.querySelectorAll("svg")].filter(
    (plot) => plot.getBoundingClientRect().width > {width});
  console.log(`plots ${{shown.querySelectorAll("svg").length}} wide ${{wide.length}}`);
}}</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_in_a_browser(run_folder, tmp_path, width, scheme):
    """Nothing is complained of, nothing is wider than the page, and ink and ground differ."""
    browser = next((name for name in BROWSERS if shutil.which(name)), None)
    if browser is None:
        pytest.skip(f"no browser found: {', '.join(BROWSERS)}")
    page = html.escape((run_folder / "report.html").read_text())
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, page=page))
    setting = f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", setting,
         f"--screenshot={tmp_path / 'shot.png'}", f"--user-data-dir={tmp_path / 'profile'}",
         "--window-size=1400,1000", f"file://{tmp_path / 'frame.html'}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = re.findall(r'CONSOLE.*?"(.*)", source', done.stderr)
    assert len(said) == 2, said
    found = re.fullmatch(r"width (\d+) ink rgb\((\d+), .* on rgb\((\d+), .*", said[0])
    shown, ink, ground = map(int, found.groups())
    assert shown <= width
    assert (ink > 200 and ground < 50) if scheme == "dark" else (ink < 50 and ground > 200)
    assert re.fullmatch(r"plots 1\d wide 0", said[1])
