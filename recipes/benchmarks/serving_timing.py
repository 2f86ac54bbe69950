"""The processes of `serving_speed.py`, which do a job each, and how long their calls take."""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from serving_runtimes import TORCHVISION, load, sides

BATCH = 8
WARM_UP = 2  # calls
TORCHVISION_CALLS = {1: 0, BATCH: 2}  # numbers of `torchvision_speed.py`
ERROR = "error: "  # before what a process says of one
SHOWN = 2000  # characters of what it has printed


class Failed(Exception):
    """Raised if a process of a row ends with an error, which is the text."""


def noise(size, num):
    """Prepared images of noise that fill their size."""
    height, width = sides(size)
    images = np.random.default_rng(0).integers(0, 255, (num, height, width, 3), "uint8")
    return {"images": images, "image_sizes": np.array([[height, width]] * num, "int32")}


def serve(row, options):
    """Makes one call for each line of the input, the size of the batch, and prints its seconds."""
    run = load(row, options)
    print("ready", flush=True)
    for line in sys.stdin:
        x = noise(options.size, int(line))
        start = time.perf_counter()
        run(x)
        print(time.perf_counter() - start, flush=True)


def command(options, job, row=None):
    """How another process does a job of this program, with the same options."""
    script = Path(__file__).with_name("serving_speed.py")
    words = [sys.executable, script, *options.words, "--files", options.files, "--job", job]
    words += ["--size", options.size] if options.size else []
    words += ["--row", json.dumps(dataclasses.astuple(row))] if row else []
    return list(map(str, words))


def asked(options, job, row=None):
    """What a process prints in its last line, as JSON.

    Raises:
        Failed: if it fails.
    """
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            command(options, job, row), stdout=subprocess.PIPE, stderr=errors, text=True
        )
        last = done.stdout.strip().rpartition("\n")[2]
        if done.returncode:
            raise Failed(_reason(last, done.returncode, errors))
        return json.loads(last)


def _reason(last, status, errors):
    """Why a process has failed; shows what else it has printed."""
    errors.seek(0)
    print(errors.read()[-SHOWN:], file=sys.stderr, flush=True)
    if last.startswith(ERROR):
        return last.removeprefix(ERROR)
    return f"the process ended with status {status}"


class Worker:
    """A process that makes one call with a batch of some size when asked.

    Attributes:
        hello: what it said when it was ready; torchvision's names its versions.
    """

    def __init__(self, row, options):
        self.calls = TORCHVISION_CALLS if row.runtime == TORCHVISION else {}
        self.errors = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(_serving(row, options), text=True, **pipes)
        self.hello = self._line()

    def _line(self):
        line = next((line for line in self.process.stdout if line.strip()), "").strip()
        if not line or line.startswith(ERROR):
            self.process.stdin.close()
            raise Failed(_reason(line, self.process.wait(), self.errors))
        return line

    def seconds(self, batch):
        """Time of one call."""
        if self.is_over:
            raise Failed(_reason("", self.process.wait(), self.errors))
        print(self.calls.get(batch, batch), file=self.process.stdin, flush=True)
        return float(self._line())

    @property
    def is_over(self):
        """Whether the process has ended."""
        return self.process.poll() is not None

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def _serving(row, options):
    if row.runtime != TORCHVISION:
        return command(options, "serve", row)
    script = Path(__file__).with_name("torchvision_speed.py")
    words = [options.beside, script, "--serve", "--size", options.size]
    return [str(word) for word in (*words, "--threads", options.threads)]


def latencies(rows, options):
    """Times of one image by row, `seconds` and those of the first row `beside` them, or `error`.

    Calls of a row alternate with those of the first one, so that other load affects both.

    Raises:
        Failed: if the first row fails.
    """
    first, found = Worker(rows[0], options), {}
    own = [first.seconds(1) for _ in range(WARM_UP + options.runs)][WARM_UP:]
    for row in rows[1:]:
        try:
            pairs, versions = _pairs(first, row, options)
        except Failed as error:
            if first.is_over:
                raise
            print(f"{row}: {error}", flush=True)
            found[row] = {"error": str(error)}
            continue
        beside, seconds = map(list, zip(*pairs, strict=True))
        own += beside
        found[row] = {"seconds": seconds, "beside": beside}
        if row.runtime == TORCHVISION:
            found[row]["versions"] = versions
        middle, other = statistics.median(seconds), statistics.median(beside)
        print(f"{row}: {middle:.3f} s beside {other:.3f} s", flush=True)
    first.close()
    return {rows[0]: {"seconds": own, "beside": own}, **found}


def _pairs(first, row, options):
    worker = Worker(row, options)
    for _ in range(WARM_UP):
        worker.seconds(1)
    pairs = [(first.seconds(1), worker.seconds(1)) for _ in range(options.runs)]
    worker.close()
    return pairs, worker.hello


def throughputs(rows, options):
    """Times of batches of 8 by row, `seconds`, or `error`: rows take turns, a process each."""
    found = {row: {"seconds": []} for row in rows}
    for _ in range(options.turns):
        for row in [row for row in rows if "error" not in found[row]]:
            try:
                seconds = _turn(row, options)
            except Failed as error:
                print(f"{row}, {BATCH} images: {error}", flush=True)
                found[row] = {"error": str(error)}
                continue
            found[row]["seconds"] += seconds
            print(f"{row}: {BATCH} in {min(seconds):.3f} s", flush=True)
    return found


def _turn(row, options):
    worker = Worker(row, options)
    worker.seconds(BATCH)
    seconds = [worker.seconds(BATCH) for _ in range(2)]
    worker.close()
    return seconds
