"""The benchmarks of detectors: calls alternate, what is counted and compared, and the commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from libra_keras.runs.progress import numbers

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"
TINY = "--model libra_faster_rcnn_small --runs 1 --threads 1".split()
# A contender without a framework: a call notes itself, and takes 64 MiB while it lasts.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
from pathlib import Path
from workers import Calls, serve

def make(job, model, precision, threads):
    print("what a framework says of itself")
    def prepare(number):
        def run():
            with Path(__file__).with_name("calls").open("a") as file:
                file.write(f"{{model}}{{number}} ")
            return sum(bytearray(64 * 2**20)[:: 4096])
        return run
    return Calls(prepare, lambda: job.height * threads, f"{{model}} in {{precision}}")

serve(sys.argv[2], make)
"""


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """Recipes import each other, as `python recipes/benchmarks/<name>.py` does."""
    monkeypatch.syspath_prepend(str(FOLDER))


def test_calls_of_processes_alternate(tmp_path):
    from workers import Contender, Job, alternated

    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    both = [Contender(name, "float32", sys.executable, script) for name in "ab"]
    rows = alternated(both, Job("inference", 5, 9), threads=3, runs=2, counts=True)
    # Each warms up alone.
    assert (tmp_path / "calls").read_text().split() == "a0 b0 a1 b1 a2 b2".split()
    assert [row["versions"] for row in rows] == ["a in float32", "b in float32"]
    for row in rows:
        assert (row["task"], row["height"], row["width"], row["flops"]) == ("inference", 5, 9, 15)
        assert len(row["seconds"]) == 2
        assert row["median"] == pytest.approx(sum(row["seconds"]) / 2)
        assert 60 < row["peak"] - row["base"] < 128  # 64, and not twice
    assert json.loads(json.dumps(rows)) == rows
    assert "flops" not in alternated(both[:1], Job("inference", 5, 9), threads=1, runs=1)[0]


def test_a_process_that_ends_is_named(tmp_path):
    from workers import Contender, Job, alternated

    script = tmp_path / "broken.py"
    script.write_text("raise OSError('no memory')")
    with pytest.raises(SystemExit, match="no memory\n\nbroken.py, training, batch 2, 5x9, 8 obj"):
        broken = Contender("a", "float32", sys.executable, script)
        alternated([broken], Job("training", 5, 9, 2), threads=1, runs=1)


def test_200_sizes_of_images():
    from workers import Job

    job = Job("training", 256, 320, sizes=200)
    sizes = [job.size_of(number) for number in range(400)]
    assert sizes[0] == (256, 320) and sizes[199] == (237, 311)  # 20 heights, with 10 widths
    assert len(set(sizes[:200])) == 200 and sizes[200:] == sizes[:200]
    assert Job("training", 256, 320).size_of(7) == (256, 320)


def test_operations_of_a_graph():
    import tensorflow as tf
    from libra_speed import graph_flops

    @tf.function
    def function(images, a, b):
        tf.nn.conv2d(images, tf.ones((3, 3, 2, 4)), 2, "SAME")
        tf.linalg.matmul(a[0], b[0], transpose_a=True)
        return tf.linalg.matmul(a, b, transpose_a=True)

    shapes = [tf.TensorSpec(shape) for shape in ((1, 8, 6, 2), (7, 3, 5), (7, 3, 4))]
    graph = function.get_concrete_function(*shapes).graph
    # 4 x 3 cells of 4 channels with 3 x 3 x 2 multiplications each; 5 x 4 numbers with 3, and 7
    # times as many.
    assert graph_flops(graph) == 2 * (4 * 3 * 4 * 18 + 20 * 3 + 7 * 20 * 3)


def row(name, precision, *seconds, **more):
    median = sorted(seconds)[len(seconds) // 2]
    return {"name": name, "precision": precision, "seconds": seconds, "median": median, **more}


HALF = "mixed_bfloat16"
ROWS = [
    row("plain", "float32", 4.0, 4.0, 8.0),
    row("plain", HALF, 2.0, 1.0, 2.0),
    row("libra", "float32", 5.0, 6.0, 7.0),
    row("libra", HALF, 3.0, 3.0, 3.0),
    row("torchvision", "float32", 8.0, 8.0, 8.0),
    row("torchvision", HALF, 9.0, 9.0, 9.0),
]


def test_what_is_compared_with_what():
    from detector_speed import with_ratios

    ratios = [row["ratios"] for row in with_ratios(ROWS)]
    # Torchvision is fastest in float32.
    assert ratios[0] == {"torchvision": (0.5, 0.5, 1.0)}
    assert ratios[1] == {"float32": (0.5, 0.25, 0.5), "torchvision": (0.25, 0.125, 0.25)}
    assert ratios[2] == {"first": (1.5, 0.875, 1.5), "torchvision": (0.75, 0.625, 0.875)}
    assert ratios[3] == {
        "float32": (0.5, 3 / 7, 0.6),
        "first": (1.5, 1.5, 3.0),
        "torchvision": (0.375, 0.375, 0.375),
    }
    assert ratios[4] == {}
    assert ratios[5] == {"float32": (1.125,) * 3, "torchvision": (1.125,) * 3}


def test_rates_beside_the_limit_of_their_framework_and_precision():
    from detector_speed import table, with_rates, with_ratios

    limits = [
        {"name": "ours", "precision": "float32", "gflops": 16.0},
        {"name": "ours", "precision": HALF, "gflops": 160.0},
        {"name": "torchvision", "precision": "float32", "gflops": 20.0},
        {"name": "torchvision", "precision": HALF, "gflops": 200.0},
    ]
    counted = [{**row, "flops": 32e9, "peak": 1234.5, "first_call": 20.04} for row in ROWS]
    rows = with_rates(counted, limits)
    assert [row["gflops"] for row in rows] == pytest.approx([8, 16, 32 / 6, 32 / 3, 4, 32 / 9])
    shares = [0.5, 0.1, 1 / 3, 1 / 15, 0.2, 0.16 / 9]
    assert [row["of_limit"] for row in rows] == pytest.approx(shares)
    lines = list(table(with_ratios(rows)))
    assert lines[3].split() == [
        *("libra", "float32", "6.000", "1.50", "(0.88..1.50)", "0.75", "(0.62..0.88)"),
        *("5", "33%", "1234", "20.0", "s"),
    ]
    assert len({len(line) for line in lines}) == 1
    uncounted = with_rates([{**counted[0], "flops": None}], limits)  # of a training step
    assert uncounted[0]["gflops"] is None and uncounted[0]["of_limit"] is None


def test_the_load_of_others_is_said():
    from workers import load_line

    assert load_line(0.3) == "Load 0.30; figures are good on an idle machine only"
    assert "WARNING: other programs run" in load_line(0.31)


def test_the_seconds_of_a_step_come_from_what_a_run_has_printed(tmp_path):
    from argparse import Namespace

    from precision import Run

    run = Run("float32", 0, Namespace(batch=4, to=tmp_path))
    speeds = [numbers({"loss": 2.7}, images_per_second) for images_per_second in (16.0, 32.0)]
    lines = ["  ".join(["Epoch 1/2", "0:07", *speed]) for speed in speeds]
    run.output.write_text("\n".join(["TensorFlow says 1 images", *lines, "AP 0.481"]))
    assert run.seconds_a_step == 0.125


def test_growth():
    from growth import axes, drift, exponent, table

    assert exponent((100, 1.0), (400, 2.0)) == pytest.approx(0.5)
    assert exponent((1, 3.0), (500, 3.0)) == 0
    assert drift({"seconds": [1.0, 2.0, 9.0, 4.0, 4.0, 4.0]}, num=3) == 2
    points = [
        (2, [{"name": "ours", "median": 1.0, "peak": 900.0}]),
        (4, [{"name": "ours", "median": 4.0, "peak": 950.4}]),
    ]
    lines = list(table("batch", points))
    assert lines[0][:-8].rstrip().endswith("MiB") and len(lines[1]) == len(lines[0]) - 8
    assert [line.split() for line in lines] == [
        ["batch", "ours", "exp.", "MiB", "ratio"],
        ["2", "1.000", "s", "900"],
        ["4", "4.000", "s", "2.00", "950"],
    ]
    jobs = axes([(256, 256), (800, 1344)], (320, 256), "training")
    assert list(jobs["pixels"]) == [65_536, 1_075_200]
    assert str(jobs["sizes"][200]) == "training, batch 2, 320x256, 8 objects, 200 sizes"
    assert jobs["batch"][16].batch == 16 and jobs["objects"][500].objects == 500
    assert "objects" not in axes([], (256, 256), "inference")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (
            "detector_speed.py",
            ["--size", "64x96", "--matmul", "64", "--precision", "float32", HALF],
        ),
        ("growth.py", "--only sizes --base 64x96 --task inference".split()),
    ],
)
def test_the_commands(tmp_path, script, options):
    to = tmp_path / "found.json"
    command = [sys.executable, FOLDER / script, *TINY, *options, "--to", to]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Load ")
    found = json.loads(to.read_text())
    if script == "growth.py":
        assert [number for number, _ in found["sizes"]] == [1, 20, 200]
        return
    inference, training = found["tables"]
    assert inference[0]["flops"] == inference[1]["flops"] > 1e8  # whatever they are in
    assert 0 < inference[0]["of_limit"] and training[0]["of_limit"] is None
    assert list(training[1]["ratios"]) == ["float32"]
