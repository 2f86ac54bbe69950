"""Processes that make a call when asked, so that those of several contenders alternate.

Each is one detector, of one framework in one precision, on one job, so that its largest memory is
that of this job. This needs the standard library alone, since the environment that has torchvision
imports it too.
"""

import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PRECISIONS = ("float32", "mixed_bfloat16")
IDLE = 0.3  # load, in processes; above it others run
SHOWN = 2000  # characters of what a process says before it ends
HEIGHTS = 20  # of the sizes that a job may have, with each width
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which the system counts memory


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process does in each call.

    Args:
        task: `"inference"`, `"training"`, a step of SGD, or `"matmul"`, the product of two squares.
        height, width: of the images, or of the squares.
        batch: images.
        objects: boxes in each image.
        sizes: number of sizes that images have in turn, 1 to 200.
    """

    task: str
    height: int
    width: int
    batch: int = 1
    objects: int = 8
    sizes: int = 1

    def size_of(self, number):
        """Height and width of the images of a call. The first ones are the largest: memory that
        grows later is not due to larger images."""
        number %= self.sizes
        return self.height - number % HEIGHTS, self.width - number // HEIGHTS

    def __str__(self):
        size = f"{self.height}x{self.width}"
        if self.task == "matmul":
            return f"matmul, {size}"
        more = f", {self.objects} objects" if self.task == "training" else ""
        more += f", {self.sizes} sizes" if self.sizes > 1 else ""
        return f"{self.task}, batch {self.batch}, {size}{more}"


@dataclasses.dataclass(frozen=True)
class Contender:
    """A detector in a precision, and the program that runs it."""

    name: str
    precision: str
    python: str = sys.executable
    script: Path = HERE / "libra_speed.py"

    @classmethod
    def torchvision(cls, precision, python):
        """Torchvision's, with an interpreter that has it."""
        return cls("torchvision", precision, python, HERE / "torchvision_speed.py")


# In the process of a contender


@dataclasses.dataclass(frozen=True)
class Calls:
    """What a program does for a job.

    Args:
        prepare: function of the number of a call that returns the function to time.
        flops: function that returns the operations of a call, or `None` if nobody counts them.
        versions: str.
    """

    prepare: object
    flops: object
    versions: str


def serve(text, make):
    """Makes a call for each number in the input, and prints its seconds and the largest memory.

    Args:
        text: JSON of the `Job`, and what else `make` takes.
        make: function that returns `Calls`.
    """
    given = json.loads(text)
    base = peak()
    calls = make(Job(**given.pop("job")), **given)
    first = seconds(calls.prepare(0))  # traces, compiles, warms up
    _tell(versions=calls.versions, base=base, first_call=first)
    for line in sys.stdin:
        if line.strip() == "flops":
            _tell(flops=calls.flops())
        else:
            _tell(seconds=seconds(calls.prepare(int(line))), peak=peak())


def _tell(**values):
    print(json.dumps(values), flush=True)


def seconds(function):
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak():
    """Largest memory that this process has had so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, `getrusage` knows no less than that of the process before
        line = next(line for line in status.open() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 2**20


# In the process that compares


class Worker:
    """The process of a contender on a job, which has made its first call."""

    def __init__(self, contender, job, threads):
        self.contender, self.job, self.seconds, self.peak = contender, job, [], None
        given = {"job": dataclasses.asdict(job), "model": contender.name, "threads": threads}
        given["precision"] = contender.precision
        command = [contender.python, str(contender.script), "--job", json.dumps(given)]
        self.errors = tempfile.TemporaryFile("w+")  # where frameworks tell much of themselves
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.facts = self._told()

    def _told(self):
        line = next((line for line in self.process.stdout if line.startswith("{")), None)
        if line is None:
            self.errors.seek(0)
            last = self.errors.read()[-SHOWN:]
            raise SystemExit(f"{last}\n{self.contender.script.name}, {self.job}: it ended")
        return json.loads(line)

    def _ask(self, what):
        print(what, file=self.process.stdin, flush=True)
        return self._told()

    def call(self, number):
        """Makes a call."""
        told = self._ask(number)
        self.seconds.append(told["seconds"])
        self.peak = told["peak"]

    def row(self, counts):
        """What was measured, as a dict for JSON; if it `counts`, with the operations of a call."""
        return {
            **dataclasses.asdict(self.job),
            "name": self.contender.name,
            "precision": self.contender.precision,
            "median": statistics.median(self.seconds),
            "seconds": self.seconds,
            "peak": self.peak,
            **self.facts,
            **(self._ask("flops") if counts else {}),
        }

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def alternated(contenders, job, threads, runs, counts=False):
    """Runs a job with all contenders, whose calls alternate; returns a row of each.

    All of them are in memory at the same time. Operations are counted, if at all, when the largest
    memory is known.
    """
    workers = []
    try:
        for contender in contenders:
            workers.append(Worker(contender, job, threads))
        for number in range(1, runs + 1):
            for worker in workers:
                worker.call(number)
        return [worker.row(counts) for worker in workers]
    finally:
        for worker in workers:
            worker.close()


def ratio(own, other):
    """The ratio of the medians of two rows whose calls alternated, and its range over the pairs."""
    pairs = [a / b for a, b in zip(own["seconds"], other["seconds"], strict=True)]
    return own["median"] / other["median"], min(pairs), max(pairs)


def conditions(threads, runs):
    """What figures were measured on; says so if the machine is not idle."""
    load = os.getloadavg()[0]
    print(load_line(load), flush=True)
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "runs": runs,
        "load": load,
        "is_idle": load <= IDLE,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def load_line(load):
    """What the load of the last minute means for the figures."""
    others = "" if load <= IDLE else "; WARNING: other programs run, and what follows is no result"
    return f"Load {load:.2f}; figures are good on an idle machine only{others}"


def cpu_name():
    """The CPU, as Linux calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def add_options(parser):
    """Adds the options that all comparisons have."""
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--beside", metavar="PYTHON", help="Python interpreter with torchvision, to compare with"
    )
    parser.add_argument("--to", type=Path, metavar="FILE.json", help="for all calls")


def pair_of(text):
    """Height and width of HEIGHTxWIDTH."""
    height, width = map(int, text.split("x"))
    return height, width
