"""Whether detectors learn as well with fewer bits: pairs of runs that differ only in precision.

For every seed, the same detector is trained on the same drawn scenes in the same order, from the
same weights, once with each precision. Prints AP, the differences of each pair from float32, their
means, and how long a step takes.

    python recipes/benchmarks/precision.py --steps 1000 --seeds 3 --to runs/precision
    python recipes/benchmarks/precision.py --steps 20 --seeds 1 -- --short-side 128

Complete runs are not repeated, and an interrupted run continues. On CPUs only the differences of AP
matter: mixed_float16 is emulated there.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
EPOCHS = 2  # the steps of the second one are timed: nothing is compiled in it


class Run:
    """One training run of the benchmark.

    Args:
        precision: one of `PRECISIONS`.
        seed: int.
        options: namespace of this program.
    """

    def __init__(self, precision, seed, options):
        self.precision = precision
        self.seed = seed
        self.options = options
        self.folder = options.to / f"{precision}-{seed}"
        self.output = self.folder.with_suffix(".txt")

    @property
    def command(self):
        """The command of the run, as a list."""
        scenes = self.options.steps // EPOCHS * self.options.batch
        return [
            *(sys.executable, "-m", "libra_keras", "train", "shapes"),
            *("--train-split", str(scenes), "--val-split", "val"),  # 500 that are held out
            *("--batch", str(self.options.batch), "--epochs", str(EPOCHS), "--eval-every", "0"),
            *("--precision", self.precision, "--seed", str(self.seed)),
            *self.options.settings,
        ]

    @property
    def is_complete(self):
        """Whether an earlier call has finished this very run.

        Raises:
            SystemExit: if it has finished another one in the same folder.
        """
        done = self.folder / "metrics.json"
        if not done.is_file() or (self.folder / "checkpoints").exists():
            return False
        if json.loads(self.output.with_suffix(".json").read_text()) != self.command[1:]:
            raise SystemExit(
                f"{self.folder} contains a run with other settings; choose another --to"
            )
        return True

    def train(self):
        """Makes what is missing of the run.

        Raises:
            SystemExit: if it fails.
        """
        if self.is_complete:
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.output.with_suffix(".json").write_text(json.dumps(self.command[1:]))
        with self.output.open("a") as file:
            command = [*self.command, "--to", str(self.folder)]
            status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
        if status:
            raise SystemExit(f"{self.folder} failed:\n{self.output.read_text()[-3000:]}")

    @property
    def average_precision(self):
        """AP of the last weights, in points of 100; 0 if none was measured."""
        metrics = json.loads((self.folder / "metrics.json").read_text())["metrics"]
        return 100 * (metrics["AP"] or 0)

    @property
    def seconds_a_step(self):
        """From the speed that the run has printed for its last epoch."""
        found = re.findall(r"([\d.]+) images/s", self.output.read_text())
        return self.options.batch / float(found[-1])


def print_table(seeds, runs):
    """Prints AP of each run, its difference from float32, means, and seconds per step.

    Args:
        seeds: range.
        runs: dict from pairs of precision and seed to `Run`.
    """
    columns = {p: [runs[p, seed].average_precision for seed in seeds] for p in PRECISIONS}
    apart = {
        p: [a - b for a, b in zip(columns[p], columns["float32"], strict=True)] for p in PRECISIONS
    }
    print(f"{'AP':12}" + "".join(f"{p:>24}" for p in PRECISIONS))
    for row, seed in enumerate(seeds):
        print(f"{f'seed {seed}':12}" + _cells(columns, apart, lambda values, row=row: values[row]))
    print(f"{'mean':12}" + _cells(columns, apart, statistics.fmean))
    times = [statistics.median(runs[p, s].seconds_a_step for s in seeds) for p in PRECISIONS]
    print(f"{'s per step':12}" + "".join(f"{seconds:24.3f}" for seconds in times))


def _cells(columns, apart, pick):
    return "".join(f"{pick(columns[p]):15.2f} ({pick(apart[p]):+6.2f})" for p in PRECISIONS)


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="steps per run, an even number")
    parser.add_argument("--batch", type=int, default=4, help="images per step")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--to", type=Path, default=Path("runs/precision"), help="for runs")
    parser.add_argument(
        "settings", nargs="*", help="further options of libra-keras train, after --"
    )
    options = parser.parse_args()
    if options.steps < EPOCHS or options.steps % EPOCHS:
        parser.error(f"--steps must be a multiple of {EPOCHS}, not {options.steps}")

    seeds, runs = range(options.seeds), {}
    for seed in seeds:
        for precision in PRECISIONS:
            run = runs[precision, seed] = Run(precision, seed, options)
            run.train()
            seconds = run.seconds_a_step
            print(f"{run.folder}: AP {run.average_precision:.2f}, {seconds:.3f} s per step")
            sys.stdout.flush()
    print_table(seeds, runs)


if __name__ == "__main__":
    main()
