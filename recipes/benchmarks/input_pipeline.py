"""How fast photographs become batches: decoded, resized, mirrored, padded; images per second.

Measures a full pass over the batches with one loading thread: by the clock, and per second of
processor time ("per core": what each core of a larger machine gives). Nothing else should run.

    python recipes/benchmarks/input_pipeline.py photographs --size 800x1333 320x320

`--beside` compares with torch's DataLoader: it runs `torch_input_pipeline.py` with the interpreter
of an environment that has torch, torchvision and Pillow. Both make the same batches from the same
files, mirrored alike, and take turns, so that other load on the machine affects both. "Pillow"
decodes and resizes with Pillow, as ours does; "torchvision" with its own kernels, whose pixels
differ by up to a grey level. A DataLoader's batches are (B, 3, H, W), contiguous as its models read
them; with a worker, the processor time of both processes counts.

    python recipes/benchmarks/input_pipeline.py photographs --beside torch-env/bin/python

`--augment` also makes every kind of batch with a preset of `data.Augmentation`, taking turns with
those without, and prints the ratio of images per second.

    python recipes/benchmarks/input_pipeline.py photographs --augment default

`--epochs` measures a long run instead: memory after each epoch, and how long a training step that
takes `--step` seconds waits for its batch, within epochs and after their ends.

    python recipes/benchmarks/input_pipeline.py photographs --epochs 20 --step 0.05
"""

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from libra_keras import data

PLUS = ", augmented"
OURS = ("tf.data", "PyDataset", "tf.data, cached", "PyDataset, cached")
THEIRS = ("Pillow", "Pillow, 1 worker", "torchvision", "torchvision, 1 worker")


def photographs(folder, most):
    """The first JPEG files below a folder as a data set, each with one box."""
    examples = []
    for file in sorted(Path(folder).rglob("*.jp*g"))[:most]:
        with Image.open(file) as image:
            width, height = image.size
        box, label = np.array([[0, 0, width, height]], "float32"), np.zeros(1, "int32")
        ignore = np.zeros(1, bool)
        examples.append(data.Example(len(examples), file, height, width, box, label, ignore))
    if not examples:
        raise SystemExit(f"{folder} contains no JPEG files")
    return data.DetectionData("photographs", ("object",), (1,), examples, {})


def used():
    """Processor seconds of this process so far, and the clock."""
    return time.process_time(), time.perf_counter()


def spent(run):
    """Processor and clock seconds of `run()`."""
    before = used()
    run()
    return [after - start for after, start in zip(used(), before, strict=True)]


class Ours:
    """Makes passes over the batches of `epochs` epochs."""

    def __init__(self, read, policy, args, cache):
        self.make = lambda name: data.training_batches(
            read,
            policy,
            args.batch,
            epochs=args.passes,
            kind="tf" if name.startswith("tf") else "py",
            threads=1,
            cache=cache if "cached" in name else None,
            augment=args.augment if name.endswith(PLUS) else None,
        )
        source = self.make("PyDataset").source
        self.plan, self.files = source.plan, [str(example.file) for example in read.examples]
        self.images = args.passes * source.steps_per_epoch * args.batch

    def batches(self, passes):
        """The file of each image of each batch, and whether it is mirrored: what a peer needs."""
        rows = []
        for epoch in range(passes):
            indices, flips = self.plan.batches(epoch), self.plan.flips(epoch)
            for batch, mirrored in zip(indices, flips, strict=True):
                pairs = zip(batch, mirrored, strict=True)
                rows.append([(self.files[i], bool(flip)) for i, flip in pairs])
        return rows

    def spent(self, name):
        made = self.make(name)  # tf.data traces here
        return spent(lambda: [None for _ in made])


class Peer:
    """`torch_input_pipeline.py` in an environment of its own, which makes a pass when asked."""

    def __init__(self, python, task):
        script = Path(__file__).with_name("torch_input_pipeline.py")
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            json.dump(task, file)
        self.task = Path(file.name)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([python, script, self.task], text=True, **pipes)
        self.versions = self._line()

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                "torch_input_pipeline.py ended; is torchvision installed in that environment?"
            )
        return line.strip()

    def spent(self, name):
        print(name, file=self.process.stdin, flush=True)
        return json.loads(self._line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.task.unlink()


def compare(read, policy, args):
    """Prints images per second of every way, and ours over theirs, as medians of the rounds."""
    with tempfile.TemporaryDirectory() as cache:
        ours = Ours(read, policy, args, cache)
        sides = {"short": policy.short_side, "long": policy.long_side}
        task = {"batches": ours.batches(args.passes), "multiple": policy.pad_multiple, **sides}
        peer = Peer(args.beside, task) if args.beside else None
        names = [name + plus for name in OURS for plus in (("", PLUS) if args.augment else ("",))]
        ways = [(name, ours) for name in names] + [(name, peer) for name in THEIRS if peer]
        times = {(name, side is peer): [] for name, side in ways}
        for _ in range(args.rounds + 1):  # the first warms up, and fills the cache
            for name, side in ways:
                times[name, side is peer].append(side.spent(name))
        if peer:
            peer.close()
    rates = {way: ours.images / np.array(seconds[1:]) for way, seconds in times.items()}
    shown = f"{policy.short_side}x{policy.long_side}, batches of {args.batch}"
    beside = f", beside {peer.versions}" if peer else ""
    print(f"\n{shown}, {ours.images} images per pass, medians of {args.rounds}{beside}")
    report(rates)


def report(rates):
    """Prints a table; `rates` maps (name, is theirs) to (rounds, 2): per core, by the clock."""
    theirs = [way for way in rates if way[1]]
    plain = ["without"] if any(way[0].endswith(PLUS) for way in rates) else []
    columns = "".join(f"{'/ ' + name:>25}" for name in [*plain, *(name for name, _ in theirs)])
    print(f"{'images per second':36}{'per core':>9}{'by clock':>9}{columns}   (per core)")
    for way, rate in rates.items():
        per_core, by_clock = np.median(rate, 0)
        label = ("DataLoader, " if way[1] else "ours, ") + way[0]
        print(f"{label:36}{per_core:9.1f}{by_clock:9.1f}", end="")
        own = [(way[0].removesuffix(PLUS), False)] if plain else []
        peers = [] if way[1] else [*own, *theirs]
        ratios = [np.median(rate[:, 0] / rates[peer][:, 0]) for peer in peers]
        print("".join(f"{ratio:25.2f}" for ratio in ratios), flush=True)


def resident():
    """Bytes of memory that this process holds now; its peak where the system tells no more."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def long_run(read, policy, args, kind):
    """Prints memory after epochs, and how long steps wait for their batches."""
    made = data.training_batches(read, policy, args.batch, kind=kind, epochs=args.epochs)
    steps, waits, memory = made.source.steps_per_epoch, [], []
    start = time.perf_counter()
    for step, _ in enumerate(made, 1):
        waits.append(time.perf_counter() - start)
        time.sleep(args.step)
        if step % steps == 0:
            memory.append(resident() / 2**20)
        start = time.perf_counter()
    borders = waits[steps::steps]
    within = [wait for i, wait in enumerate(waits) if i % steps]
    print(f"\n{kind}, {args.epochs} epochs of {steps} steps of {args.step} s")
    print(f"memory in MiB after each epoch: {' '.join(f'{size:.0f}' for size in memory)}")
    for name, values in (("within epochs", within), ("after their ends", borders)):
        if values:
            median, most = 1e3 * statistics.median(values), 1e3 * max(values)
            print(f"waiting {name:16} median {median:.1f} ms, longest {most:.1f} ms")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="JPEG files, at any depth")
    parser.add_argument("--size", nargs="+", default=["800x1333"], metavar="SHORTxLONG")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument(
        "--images", type=int, default=200, help="approximate number of images per pass"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", metavar="PYTHON", help="an interpreter with torchvision")
    parser.add_argument("--augment", choices=("default", "strong"), help="also with this preset")
    parser.add_argument("--epochs", type=int, help="measure memory and waiting times instead")
    parser.add_argument("--step", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--tiny", action="store_true", help="8 images and one round, as a test")
    args = parser.parse_args()
    if args.tiny:
        args.images, args.rounds = 8, 1
    return args


def main():
    args = arguments()
    read = photographs(args.folder, args.images)
    args.passes = max(1, round(args.images / len(read.examples)))
    for size in args.size:
        policy = data.InputPolicy(*map(int, size.split("x")))
        if args.epochs:
            for kind in ("tf", "py"):
                long_run(read, policy, args, kind)
        else:
            compare(read, policy, args)


if __name__ == "__main__":
    main()
