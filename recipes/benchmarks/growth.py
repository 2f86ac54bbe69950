"""How time and memory of a training step grow: with pixels, with boxes, with the batch, and over
images of many sizes.

Every point is a process of its own, on random noise, with random weights; with `--beside`, ours
and torchvision's Faster R-CNN alternate. Seconds are medians, and the exponent is that of a power
law from the point before: 1 is proportional, 0 constant. The last table is about what piles up:
its images are up to 19 pixels lower and 9 narrower than the first ones.

    python recipes/benchmarks/growth.py --beside torchvision-env/bin/python --to growth.json
    python recipes/benchmarks/growth.py --only sizes --precision mixed_bfloat16
"""

import argparse
import json
import math
import statistics

from workers import PRECISIONS, Contender, Job, add_options, alternated, conditions, pair_of

SIZES = ("256x256", "512x512", "800x800", "800x1344")
OBJECTS = (1, 10, 100, 500)
BATCHES = (1, 2, 4, 8, 16)
MANY = (1, 20, 200)  # sizes of images


def axes(sizes, base, task):
    """The jobs of each table, by the number that grows."""
    height, width = base

    def at_base(batch=2, **more):
        return Job(task, height, width, batch, **more)

    found = {
        "pixels": {h * w: Job(task, h, w, 2) for h, w in sizes},
        "objects": {number: at_base(objects=number) for number in OBJECTS},
        "batch": {number: at_base(number) for number in BATCHES},
        "sizes": {number: at_base(sizes=number) for number in MANY},
    }
    if task == "inference":  # knows no boxes
        del found["objects"]
    return found


def exponent(before, after):
    """That of the power law through two points `(x, y)`."""
    (x, y), (later_x, later_y) = before, after
    return math.log(later_y / y) / math.log(later_x / x)


def table(name, points):
    """The lines of a table.

    Args:
        name: what grows.
        points: list of its numbers, each with the rows of its contenders.
    """
    heading = "".join(f"{row['name']:>30}{'':>3}{'exp.':>6}{'MiB':>7}" for row in points[0][1])
    yield f"{name:>9}{heading}{'ratio':>8}"
    before = None
    for number, rows in points:
        cells = ""
        for place, row in enumerate(rows):
            power = ""
            if before is not None:
                earlier = before[0], before[1][place]["median"]
                power = f"{exponent(earlier, (number, row['median'])):.2f}"
            cells += f"{row['median']:30.3f} s {power:>6}{row['peak']:7.0f}"
        ratio = f"{rows[0]['median'] / rows[1]['median']:8.2f}" if len(rows) > 1 else ""
        yield f"{number:9}{cells}{ratio}"
        before = number, rows


def drift(row, num=20):
    """How many times as long the last calls take as the first ones: medians of some of each."""
    seconds = row["seconds"]
    return statistics.median(seconds[-num:]) / statistics.median(seconds[:num])


def measure(contenders, jobs, options):
    """The points of a table: each number with the rows of the contenders."""
    found = []
    for number, job in jobs.items():
        runs = max(options.runs, job.sizes)
        rows = alternated(contenders, job, options.threads, runs)
        found.append((number, rows))
        times = ", ".join(f"{row['name']} {row['median']:.3f} s" for row in rows)
        print(f"  {job}: {times}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="libra_faster_rcnn_resnet50")
    add("--precision", default="float32", choices=PRECISIONS)
    add("--task", default="training", choices=("training", "inference"))
    add("--only", nargs="+", choices=("pixels", "objects", "batch", "sizes"))
    add("--size", nargs="+", default=SIZES, metavar="HEIGHTxWIDTH", help="of the first table")
    add("--base", default="256x256", metavar="HEIGHTxWIDTH", help="of the other tables")
    add("--runs", type=int, default=3)
    add_options(parser)
    options = parser.parse_args()
    contenders = [Contender(options.model, options.precision)]
    if options.beside:
        contenders.append(Contender.torchvision(options.precision, options.beside))
    found = conditions(options.threads, options.runs)
    jobs = axes(map(pair_of, options.size), pair_of(options.base), options.task)
    for name in options.only or jobs:
        points = measure(contenders, jobs[name], options)
        print("", *table(name, points), sep="\n", flush=True)
        if name == "sizes":
            for row in points[-1][1]:
                print(f"{row['name']}: last calls take {drift(row):.2f} times the first ones")
        found[name] = points
    if options.to:
        options.to.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
