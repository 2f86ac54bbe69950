"""Kills a training run at random moments, restarts it each time, and compares the results.

A short run is made without interruption first. The same command is then killed by SIGKILL, which no
program can handle, or by signals that it handles, and repeated until the run is complete: at random
times, while files are being written, and while it evaluates. Weights, optimizer and moving averages
of the last and of the best epoch, the tables and the metrics must be equal bit for bit; the seconds
in `metrics.json` are ignored. A signal that is handled must end the process within seconds, without
a traceback, with the status that shells expect and no process left behind.

    python recipes/benchmarks/kill_and_resume.py --kills 20
    python recipes/benchmarks/kill_and_resume.py --kills 20 --signals TERM INT
    python recipes/benchmarks/kill_and_resume.py --kills 5 -- --model retinanet_small --batch 3
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

SETTINGS = (
    "shapes --train-split 24 --val-split 8 --short-side 64 --long-side 64 --batch 2 --epochs 3 "
    "--save-every 3"
).split()
WEIGHTS = ("last.weights.h5", "best.weights.h5")
TABLES = ("log.csv", "steps.csv")
PLANS = ("start", "training", "writing", "evaluation")
LATEST = 60  # seconds until a process that was told to end must have ended, on a busy machine


class Attempt:
    """One process of the command, from its start to its death.

    Args:
        folder: path of the run folder.
        settings: list of arguments of `libra-keras train`.
    """

    def __init__(self, folder, settings):
        self.folder = folder
        self.started = time.monotonic()
        self.output = folder.parent / f"{folder.name}.txt"
        self.left = self._parts()  # by the attempts before
        command = [sys.executable, "-m", "libra_keras", "train", *settings, "--to", str(folder)]
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def is_training(self):
        """Whether the first epoch of this attempt has begun."""
        return "Epoch" in self.output.read_text()

    @property
    def state(self):
        """What the run has saved; `None` before that, and when it is complete."""
        try:
            return json.loads((self.folder / "checkpoints" / "state.json").read_text())
        except FileNotFoundError:
            return None

    @property
    def is_complete(self):
        """Whether the run has written all that it writes."""
        return self.state is None and (self.folder / "metrics.json").exists()

    @property
    def unfinished(self):
        """Names of the files that are being written."""
        return [path.name for path, time in self._parts() - self.left]

    @property
    def is_evaluating(self):
        """Whether the run has done all steps of an epoch, but not what belongs to its end."""
        steps = json.loads((self.folder / "config.json").read_text())["steps_per_epoch"]
        return self.state is None or self.state["step"] == steps

    def wait_for(self, condition):
        """Waits until the condition holds; returns whether it did before the process ended."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.001)
        return False

    def kill_by(self, plan, rng, usual, signum=signal.SIGKILL):
        """Kills the process; returns where it was, or `None` if it was complete before.

        Args:
            plan: one of `PLANS`.
            rng: `random.Random`.
            usual: seconds that a start takes.
            signum: what it is killed by.
        """
        if plan == "start":
            moment = self.started + rng.uniform(0, usual)
            self.wait_for(lambda: time.monotonic() > moment)
        elif self.wait_for(lambda: self.is_training):
            self._wait_in_training(plan, rng)
        if self.process.poll() is not None:
            return None
        place = self._place()
        self.process.send_signal(signum)
        try:
            self._check_end(signum, self.process.wait(LATEST))
        finally:
            self.process.kill()
        return None if self.is_complete else place

    def _check_end(self, signum, status):
        """Ends the experiment if the process did not end as one does that handles the signal."""
        if signum == signal.SIGKILL:
            return
        text = self.output.read_text()
        is_early = status == -signum  # Python itself was starting
        if not is_early and (status not in (0, 128 + signum) or "Traceback" in text):
            raise SystemExit(f"{signal.Signals(signum).name}: status {status}\n{text[-3000:]}")
        if left := self._left_behind():
            raise SystemExit(f"{signal.Signals(signum).name}: still running: {left}")

    def _left_behind(self):
        """Processes of the command's session that outlive it by more than a second."""
        for _ in range(100):
            found = [pid for pid in _processes() if _session(pid) == self.process.pid]
            if not found:
                return []
            time.sleep(0.01)
        return found

    def _wait_in_training(self, plan, rng):
        if plan == "writing":
            for _ in range(rng.randint(1, 3)):  # of the files that are written now and then
                self.wait_for(lambda: not self.unfinished)
                self.wait_for(lambda: self.unfinished)
            time.sleep(rng.uniform(0, 0.02))
            return
        if plan == "evaluation":  # the run is saved when an epoch's steps are done
            self.wait_for(lambda: self.is_evaluating)
            time.sleep(rng.uniform(0, 0.5))
            return
        time.sleep(rng.uniform(0, 1.5))

    def _place(self):
        if self.unfinished:
            return f"writing {self.unfinished[0].removeprefix('.unfinished.')}"
        if (self.folder / "metrics.json").exists():
            return "writing the results"
        if not self.is_training:
            return "starting"
        return "evaluating" if self.is_evaluating else "training"

    def _parts(self):
        """Set of the files that are incomplete, with the time of their last change."""
        found = set()
        for path in self.folder.rglob(".unfinished.*"):
            with contextlib.suppress(FileNotFoundError):  # complete by now
                found.add((path, path.stat().st_mtime_ns))
        return found


def _processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _session(pid):
    """The session of a process that has not ended, as far as that can be told."""
    with contextlib.suppress(OSError):
        _, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        state, _, _, session = after.split()[:4]
        return int(session) if state != "Z" else None


def train(folder, settings, kills=0, rng=None, usual=None, signals=(signal.SIGKILL,)):
    """Runs the command until it is complete, killing it so many times.

    Returns:
        List of one tuple per kill: the plan, where the process was, seconds from its start to its
        end, and what was saved then.
    """
    table = []
    while True:
        attempt = Attempt(folder, settings)
        plan = rng.choice(PLANS) if len(table) < kills else None
        signum = rng.choice(signals) if plan else None
        place = attempt.kill_by(plan, rng, usual, signum) if plan else None
        if place is None:
            attempt.process.wait()
            if not attempt.is_complete:
                raise SystemExit(f"The command failed:\n{attempt.output.read_text()[-3000:]}")
            return table
        seconds, state = time.monotonic() - attempt.started, attempt.state
        saved = f"epoch {state['epoch'] + 1}, step {state['step']}" if state else "nothing"
        table.append((plan, place, seconds, saved))
        name = signal.Signals(signum).name
        line = f"{len(table):5}  {name:8}  {plan:10}  {place:28}  {seconds:7.1f}  {saved}"
        print(line, flush=True)


def contents(folder):
    """Returns a dict of all that a complete run holds, as bytes or plain values."""
    found = {name: (folder / name).read_bytes() for name in TABLES}
    metrics = json.loads((folder / "metrics.json").read_text())
    found["metrics.json"] = {name: value for name, value in metrics.items() if name != "seconds"}
    for name in WEIGHTS:
        if (folder / name).exists():
            found[name] = _arrays(folder / name)
    return found


def _arrays(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: np.asarray(item).tobytes()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return arrays


def compare(expected, got):
    """Prints one line per file; returns whether all are equal."""
    for name in sorted(expected | got):
        arrays = f" ({len(expected[name])} arrays)" if name in WEIGHTS and name in expected else ""
        equal = expected.get(name) == got.get(name)
        print(f"{name}{arrays}: {'equal' if equal else 'DIFFERENT'}")
    return expected == got


def main():
    """Runs the experiment; returns the exit status: 1 if anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="for the moments of the kills")
    names = ("KILL", "TERM", "INT", "HUP")
    parser.add_argument("--signals", nargs="+", choices=names, default=["KILL"])
    parser.add_argument("--to", type=Path, help="folder for the runs; default: a temporary one")
    parser.add_argument(
        "settings", nargs="*", help="further options of libra-keras train, after --"
    )
    options = parser.parse_args()
    settings = [*SETTINGS, *options.settings]
    scratch = options.to or Path(tempfile.mkdtemp())
    scratch.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    signals = [signal.Signals[f"SIG{name}"] for name in options.signals]

    started = time.monotonic()
    train(scratch / "whole", settings)
    seconds = time.monotonic() - started
    print(f"Without interruption: {seconds:.0f} s")
    print(f" kill  signal    plan        where{' ' * 23}  seconds  saved")
    expected, killed, runs, equal = contents(scratch / "whole"), 0, 0, True
    while killed < options.kills and equal:  # a run may be complete before it was killed so often
        runs += 1
        folder = scratch / f"killed-{runs}"
        most = options.kills - killed
        killed += len(train(folder, settings, most, rng, 0.7 * seconds, signals))
        equal = compare(expected, contents(folder))
    print(f"{killed} kills in {runs} run(s): {'all equal' if equal else 'NOT equal'}; {scratch}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
