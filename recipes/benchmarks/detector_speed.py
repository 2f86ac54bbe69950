"""How long detectors take for an image and for a training step, and how much memory, by precision.

Every row is a process of its own, on random noise, with random weights. Calls of all rows of a
table alternate, with equal sizes and numbers of threads: load on the machine affects all of them,
but nothing else should run, and memory must suffice for all at once. Seconds are medians; ratios
are of medians, with the range of single pairs of calls.

The product of two large square matrices, in the same framework and precision, is the limit. It
stands beside the operations per second of a forward pass: those of its convolutions and products
of matrices, two for each multiplication.

    python recipes/benchmarks/detector_speed.py --precision float32 mixed_bfloat16
    python recipes/benchmarks/detector_speed.py --model faster_rcnn_resnet50 \\
        libra_faster_rcnn_resnet50 --size 512x512 800x1344 --to speed.json
    python recipes/benchmarks/detector_speed.py --precision float32 mixed_bfloat16 \\
        --beside torchvision-env/bin/python

`--beside` adds torchvision's Faster R-CNN, from an environment that has it, in the same precisions;
ratios are to the faster one of them. `--model` without a name leaves ours out.
"""

import argparse
import json

from workers import PRECISIONS, Contender, Job, add_options, alternated, conditions, pair_of, ratio

BATCHES = {"inference": 1, "training": 2}
TORCHVISION = "torchvision"


def contenders_of(models, precisions, python):
    """Those of a table: ours, then torchvision's if there is an interpreter for it."""
    ours = [Contender(model, precision) for model in models for precision in precisions]
    return ours + [Contender.torchvision(p, python) for p in precisions if python]


def limits_of(contenders, side, threads, runs):
    """The products of matrices of each framework and precision: rows with `gflops`."""
    some = {(each.script, each.precision): each for each in contenders}
    rows = alternated(list(some.values()), Job("matmul", side, side), threads, runs, counts=True)
    for row, (script, _) in zip(rows, some, strict=True):
        row["gflops"] = row["flops"] / min(row["seconds"]) / 1e9  # the best one is the limit
        row["name"] = TORCHVISION if TORCHVISION in script.name else "ours"
    return rows


def with_rates(rows, limits):
    """Rows with the rate of their operations, where these were counted, and what it is of the
    limit."""
    best = {(limit["name"], limit["precision"]): limit["gflops"] for limit in limits}
    found = []
    for row in rows:
        limit = best[row["name"] if row["name"] == TORCHVISION else "ours", row["precision"]]
        rate = row["flops"] and row["flops"] / row["median"] / 1e9
        found.append({**row, "gflops": rate, "of_limit": rate and rate / limit})
    return found


def references(row, rows):
    """What a row of a table is compared with, by name: another precision, detector or framework."""
    peers = [each for each in rows if each["name"] == TORCHVISION]
    is_ours = row["name"] != TORCHVISION
    like = [each for each in rows if each["precision"] == row["precision"]] if is_ours else []
    plain = [each for each in rows if (each["name"], each["precision"]) == (row["name"], "float32")]
    found = {
        "float32": next(iter(plain), row),
        "first": next(iter(like), row),
        TORCHVISION: min(peers, key=lambda each: each["median"], default=row),
    }
    return {name: other for name, other in found.items() if other is not row}


def with_ratios(rows):
    """Rows with their `ratios` to their references: of medians, the least and largest of pairs."""
    return [
        {**row, "ratios": {n: ratio(row, other) for n, other in references(row, rows).items()}}
        for row in rows
    ]


def table(rows):
    """The lines of a table."""
    names = ("float32", "first", TORCHVISION)
    yield (
        f"{'':34}{'':15}{'seconds':>9}"
        + "".join(f"{f'/ {name}':>19}" for name in names)
        + f"{'GFLOP/s':>9}{'of limit':>9}{'MiB':>7}{'first call':>11}"
    )
    for row in rows:
        ratios = "".join(f"{_range(row['ratios'].get(name)):>19}" for name in names)
        rate = f"{row['gflops']:9.0f}{row['of_limit']:9.0%}" if row["gflops"] else " " * 18
        yield (
            f"{row['name']:34}{row['precision']:15}{row['median']:9.3f}{ratios}{rate}"
            f"{row['peak']:7.0f}{row['first_call']:9.1f} s"
        )


def _range(found):
    return "" if found is None else "{:.2f} ({:.2f}..{:.2f})".format(*found)


def compare(contenders, options):
    """Measures and prints everything; returns it as a dict for JSON."""
    told = conditions(options.threads, options.runs)
    limits = limits_of(contenders, options.matmul, options.threads, options.runs)
    print(f"\nlimit: product of two {options.matmul}x{options.matmul} matrices, best call")
    for limit in limits:
        print(f"{limit['name']:34}{limit['precision']:15}{limit['gflops']:9.0f} GFLOP/s")
    tables = []
    for height, width in map(pair_of, options.size):
        for task in options.task:
            job = Job(task, height, width, BATCHES[task])
            print(f"\n{job}: {options.runs} calls, {options.threads} threads", flush=True)
            rows = alternated(contenders, job, options.threads, options.runs, counts=True)
            tables.append(with_ratios(with_rates(rows, limits)))
            print(*table(tables[-1]), sep="\n", flush=True)
    print(f"\n{'; '.join(dict.fromkeys(limit['versions'] for limit in limits))}")
    return {**told, "limits": limits, "tables": tables}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", nargs="*", default=["libra_faster_rcnn_resnet50"], metavar="NAME")
    add("--precision", nargs="+", default=["float32"], choices=PRECISIONS)
    add("--size", nargs="+", default=["512x512"], metavar="HEIGHTxWIDTH", help="in pixels")
    add("--task", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    add("--matmul", type=int, default=4096, metavar="N", help="side of the limit's matrices")
    add("--runs", type=int, default=5)
    add_options(parser)
    options = parser.parse_args()
    contenders = contenders_of(options.model, options.precision, options.beside)
    if not contenders:
        parser.error("--model without a name requires --beside")
    found = compare(contenders, options)
    if options.to:
        options.to.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
