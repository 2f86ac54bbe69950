"""`libra-keras train --cache`."""

import pytest

from libra_keras.cli import main

pytestmark = pytest.mark.usefixtures("roomy_disk", "eagerly")

# Weights hardly move: losses depend on the images, and rounding is not amplified by updates.
OPTIONS = (
    "--batch 2 --epochs 1 --short-side 64 --long-side 96 --eval-every 0 --flip 0 "
    "--learning-rate 1e-9"
).split()


@pytest.mark.slow
def test_a_run_with_a_cache_gives_the_same_losses(damaged_voc, tmp_path, capsys):
    logs = []
    cached = ["--cache", str(tmp_path / "cache")]
    for name, given in (("without", []), ("filling", cached), ("filled", cached)):
        folder = tmp_path / "runs" / name
        command = ["train", str(damaged_voc), *OPTIONS, *given, "--to", str(folder)]
        assert main(command) == 0
        rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
        column = rows[0].index("loss")
        logs.append([float(row[column]) for row in rows[1:]])
    for others in logs[1:]:
        assert others == pytest.approx(logs[0], rel=1e-5)
    assert len(list((tmp_path / "cache").glob("*/*"))) == 3  # one of the four images is damaged
    assert main(["train", *cached, "--to", str(tmp_path / "drawn")]) != 0
    assert "Only image files can be cached" in capsys.readouterr().err
