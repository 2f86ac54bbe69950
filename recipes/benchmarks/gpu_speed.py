"""Images per second of detectors on one GPU, on JAX, beside torchvision under autocast.

    python recipes/benchmarks/gpu_speed.py --budget 8m

Training in bfloat16 of batches of 16 images of 800x1344, detection in 1 and in 16; weights are
random, images are noise that is on the card already, batch normalisation, stem and first stage are
frozen. The rows of `fit` begin with images on the host, as a run does: once with Keras' `fit`,
which waits for every batch, once as `libra_keras.runs` trains. TFLOP/s are the operations of the
program before XLA changes it, over the time; `share` is theirs of what a product of large matrices
reaches in the same run. GB is what the program needs (ours) or has needed (torch).

Neither TensorFlow nor a network is needed. Each part runs in a process of its own, the most
important first; rows are printed and written to `--to` as soon as they are measured, and what does
not fit in the budget is left out. `--tiny` tries it all on a CPU.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

OURS = "libra_faster_rcnn_resnet50", "faster_rcnn_resnet50"
PEER = "torchvision"
PARTS = "matrices", OURS[0], PEER, OURS[1]  # in this order
COLUMNS = ("program", "part", "batch", "images/s", "ms", "TFLOP/s", "share", "GB")
COMPILING = 0.6  # of the time that a part has; then what is compiled is measured
RUNS, STEPS = 3, 10  # medians of so many runs of so many calls
FIT_STEPS = 20


def main() -> int:
    """Runs the parts one after another while there is time."""
    options = _parser().parse_args()
    if options.part:
        measure(options)
        os._exit(0)  # a program that is still being compiled would be waited for
    end = time.time() + options.budget
    rows: list[dict] = []
    print("  ".join(f"{name:>9}" for name in COLUMNS[2:]), " what", flush=True)
    for part in PARTS:
        for row in rows_of(part, end):
            rows.append(row)
            share(rows)
            show(row)
            options.to.write_text(json.dumps(rows, indent=1))
    return 0 if rows else 1


def rows_of(part, end):
    """Yields the rows that a process for this part prints until its time is up."""
    if end - time.time() < 1:
        print(f"no time is left for {part}", file=sys.stderr)
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--until", str(end)]
    settings = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    )
    clock = threading.Timer(end - time.time(), process.kill)
    clock.start()
    for line in process.stdout:
        yield json.loads(line)
    clock.cancel()
    if process.wait():
        print(f"{part} ended with status {process.returncode}", file=sys.stderr)


def share(rows):
    """Adds to the last row its share of the rate of matrix products, if that is known."""
    rate = [row["TFLOP/s"] for row in rows if row["part"] == "matrices"]
    if rate and "TFLOP/s" in rows[-1]:
        rows[-1]["share"] = rows[-1]["TFLOP/s"] / rate[0]


def show(row):
    values = (row.get(name, "") for name in COLUMNS[2:])
    cells = (f"{v:9.3g}" if isinstance(v, float) else f"{v:>9}" for v in values)
    print("  ".join(cells), f" {row['part']}: {row['program']}", flush=True)


def measure(options):
    """Prints the rows of a part as JSON."""
    height, width = (64, 96) if options.tiny else map(int, options.size.split("x"))
    batch = 2 if options.tiny else options.batch
    if options.part == "matrices":
        rows = matrices(256 if options.tiny else 8192)
    elif options.part == PEER:
        rows = torchvision_rows(height, width, batch)
    else:
        rows = our_rows(options, height, width, batch)
    for row in rows:
        print(json.dumps({"part": options.part, **row}), flush=True)


def seconds(call, wait, runs=RUNS, steps=STEPS):
    """Median time of `call()` over runs of several calls, after two that warm up."""
    wait(call()), wait(call())
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        for _ in range(steps):
            result = call()
        wait(result)
        times.append((time.perf_counter() - start) / steps)
    return statistics.median(times)


def row_of(program, batch, time_of_one, flops=None, memory=None):
    row = {"program": program, "batch": batch, "ms": 1000 * time_of_one}
    row["images/s"] = batch / time_of_one
    if flops:
        row["TFLOP/s"] = flops / time_of_one / 1e12
    if memory:
        row["GB"] = memory / 1e9
    return row


def matrices(size):
    """The rate at which the card multiplies large matrices in bfloat16."""
    import jax

    a = jax.random.normal(jax.random.key(0), (size, size), "bfloat16")
    one = seconds(jax.jit(lambda: a @ a), jax.block_until_ready, runs=10)
    name = jax.devices()[0].device_kind
    yield {"program": f"{size} x {size}, {name}, JAX {jax.__version__}", "ms": 1000 * one,
           "TFLOP/s": 2 * size**3 / one / 1e12}  # fmt: skip


def noise(num, height, width, num_objects=8):
    """A batch of noise images with boxes all over them."""
    import numpy as np

    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.7, (num, num_objects, 2)) * (width, height)
    sides = rng.uniform(0.05, 0.3, (num, num_objects, 2)) * (width, height)
    x = {
        "images": rng.integers(0, 255, (num, height, width, 3), "uint8"),
        "image_sizes": np.array([[height, width]] * num, "int32"),
    }
    boxes = np.concatenate([corners, corners + sides], -1).astype("float32")
    return x, {"boxes": boxes, "labels": rng.integers(0, 80, (num, num_objects), "int32")}


def our_rows(options, height, width, batch):
    """Yields rows of our detector: a training step, detection, and `fit` around the step."""
    import jax
    import keras

    import libra_keras as lk

    keras.config.set_dtype_policy("mixed_bfloat16")
    name = options.part.replace("resnet50", "small") if options.tiny else options.part
    model = getattr(lk.models, name)(num_classes=80, name=name)
    model.compile(lk.training.SGD(1e-4, momentum=0.9, weight_decay=1e-4))
    programs = lowered(model, height, width, batch)
    runs, steps = (1, 2) if options.tiny else (RUNS, STEPS)
    ready = compiled(programs, time.time() + COMPILING * (options.until - time.time()))
    for program, (images, flops, call, compiled_program) in ready.items():
        memory = compiled_program.memory_analysis()
        memory = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        one = seconds(call(compiled_program), jax.block_until_ready, runs, steps)
        yield row_of(program, images, one, flops, memory)
    if "training" in ready:
        yield from fit_rows(model, ready["training"][-1], noise(batch, height, width), options.tiny)


def state_of(model):
    """What Keras' training step on JAX takes and returns."""
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return tuple([v.value for v in group] for group in groups)


def lowered(model, height, width, batch):
    """Returns of each program its images, operations, a function that makes a call of it once it
    is compiled, and what compiles it."""
    import jax

    programs = {}
    x, y = jax.device_put(noise(batch, height, width))
    step = jax.jit(model.train_step, donate_argnums=0).lower(state_of(model), (x, y))
    programs["training"] = (
        batch,
        flops_of(step),
        lambda ready: trainer(ready, model, (x, y)),
        step,
    )
    for num in (1, batch):
        some = {key: value[:num] for key, value in x.items()}
        weights = state_of(model)[:2]
        predict = jax.jit(model.predict_step).lower(weights, (some,))

        def caller(ready, weights=weights, some=some):
            return lambda: ready(weights, (some,))

        programs[f"detection of {num}"] = num, flops_of(predict), caller, predict
    return programs


def flops_of(program):
    """Of the program as it was traced: XLA does not look into the libraries that it calls."""
    return (program.cost_analysis() or {}).get("flops")


def trainer(ready, model, data):
    """Returns a function that makes one training step, each from the state of the one before."""
    import jax

    held = [jax.tree.map(lambda x: x + 0, state_of(model))]  # a copy: the step overwrites it

    def call():
        logs, held[0] = ready(held[0], data)
        return logs

    return call


def compiled(programs, end):
    """Compiles programs side by side; returns those that are ready at `end`."""
    pool = concurrent.futures.ThreadPoolExecutor(len(programs))
    waiting = {name: pool.submit(program[-1].compile) for name, program in programs.items()}
    done, _ = concurrent.futures.wait(waiting.values(), timeout=max(0.0, end - time.time()))
    pool.shutdown(wait=False)
    ready = {name: future.result() for name, future in waiting.items() if future in done}
    for name in sorted(set(programs) - set(ready)):
        print(f"not compiled in time: {name}", file=sys.stderr)
    return {name: (*programs[name][:3], one) for name, one in ready.items()}


def fit_rows(model, step, batch, is_tiny):
    """Yields rows of `fit` with a run's callbacks: Keras' own, and as runs train."""
    import tempfile

    import keras

    import libra_keras as lk

    class Clock(keras.callbacks.Callback):
        ends: list[float]

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.perf_counter())

    # `fit` takes what is compiled already.
    model.train_function = lambda state, batches: step(state, next(batches))
    steps = 4 if is_tiny else FIT_STEPS
    devices, images = lk.devices.Devices(), len(batch[1]["labels"])
    for name, fit in (("fit, as runs do", devices.fit), ("fit of Keras", type(model).fit)):
        clock = Clock()
        clock.ends = []
        with tempfile.TemporaryDirectory() as folder:
            logger = lk.training.StepLogger(Path(folder) / "steps.csv")
            callbacks = [lk.training.StopOnNonFinite(), logger, clock]
            batches = (batch for _ in itertools.count())  # Keras takes generators only
            options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
            fit(model, batches, callbacks=callbacks, **options)
        one = (clock.ends[-1] - clock.ends[1]) / (len(clock.ends) - 2)
        yield row_of(name, images, one)


def torchvision_rows(height, width, batch):
    """Yields rows of torchvision's R50-FPN Faster R-CNN under autocast."""
    import torch
    import torchvision
    from torchvision_speed import detector, noise_batch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = detector(height, width).to(device, memory_format=torch.channels_last)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 1e-4, momentum=0.9, weight_decay=1e-4)
    images, truth = noise_batch(batch, height, width)
    images = [image.to(device) for image in images]
    truth = [{key: value.to(device) for key, value in each.items()} for each in truth]
    versions = f"torchvision {torchvision.__version__}, torch {torch.__version__}"

    def train():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            total = sum(model.train()(images, truth).values())
        total.backward()
        optimizer.step()

    def detect(num):
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            model.eval()(images[:num])

    def wait(_):
        if device == "cuda":
            torch.cuda.synchronize()

    calls = {"training": (batch, train)}
    calls |= {f"detection of {num}": (num, lambda num=num: detect(num)) for num in (1, batch)}
    for name, (num, call) in calls.items():
        on_gpu = device == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        one = seconds(call, wait, *((RUNS, STEPS) if on_gpu else (1, 2)))
        memory = torch.cuda.max_memory_allocated() if on_gpu else None
        yield row_of(f"{name}, {versions}", num, one, memory=memory)


def time_of(text):
    """Parses a time such as `"8m"`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"must be a time such as 45s or 8m, not {text!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--budget", type=time_of, default=time_of("8m"), help="such as 8m, the default")
    add("--size", default="800x1344", metavar="HEIGHTxWIDTH", help="in pixels")
    add("--batch", type=int, default=16, help="default: 16")
    add("--to", type=Path, default=Path("gpu_speed.json"), help="file for the rows")
    add("--tiny", action="store_true", help="try it all on a CPU")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)
    add("--until", type=float, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
