"""Study iv of the plan with ten seeds, and two of its rows on larger images, with JAX on a GPU.

    python recipes/ablations/gpu.py --bccd path/to/bccd --weights r50.weights.h5 --budget 8m

TensorFlow is not needed. Several runs share the GPU, each in a process of its own. Existing results
are not run again, and interrupted runs continue. `--tiny` tries it all on a CPU: one seed, two
epochs of two steps.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
STUDY, LARGE_ROWS = "iv", ["plain", "libra_limit"]
LARGE = ["--short-side", "288", "--long-side", "384"]
TINY = ["--short-side", "64", "--long-side", "64", "--epochs", "2", "--steps", "2", "--batch", "2"]
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the first process would take most of the memory
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def main() -> int:
    """Runs what is missing in the time that there is, and prints the tables."""
    os.environ.update(ENVIRONMENT)
    import runner  # not before: Keras reads its backend when it is imported
    from tables import markdown

    options = _parser(runner.seconds).parse_args()
    end = time.time() + options.budget
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(options.to.absolute() / "compiled")
    try:
        studies = list(_studies(options))
        run_all(studies, range(1 if options.tiny else options.seeds), options.workers, end)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for table, study in studies:
        text = markdown(table, runner.results_of(study, table.rows))
        print(f"\n{study.results.name}\n\n{text}")
    return 0


def run_all(studies, seeds: range, workers: int, end: float) -> None:
    """Runs trials side by side; a seed of all rows comes before the next seed."""
    import runner

    def run(trial):
        study, row, seed = trial
        runner.fill(study, (row,), range(seed, seed + 1), end)

    # The others find what XLA has tuned and compiled for the first seed, but for the training step:
    # a seed is a constant in it.
    for some in (seeds[:1], seeds[1:]):
        trials = [(own, row, seed) for seed in some for table, own in studies for row in table.rows]
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, trials))  # a list, for it to raise


def _studies(options):
    """Yields tables of the rows that are run, and studies: the plan's, and of larger images."""
    import runner
    from rpn_limit import TABLE

    plan = json.loads((HERE / "plan.json").read_text())["studies"][STUDY]
    places = {"bccd": options.bccd, "resnet50": options.weights}
    given = [text.format_map(places) for text in plan["options"]]
    of_size = {
        plan["results"]: ([], plan["rows"]),
        plan["results"].replace("256x192", "384x288"): (LARGE, LARGE_ROWS),
    }
    for name, (size, keys) in of_size.items():
        folders = ["--to", str(options.to / name), "--results", str(options.results / name)]
        own = [*given, *size, *(TINY if options.tiny else []), *folders]
        study = runner.study_of(TABLE, vars(runner.parser(TABLE, "").parse_args(own)))
        rows = runner.rows_of(TABLE, study, keys)
        yield dataclasses.replace(TABLE, rows=rows), study


def _parser(seconds):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bccd", required=True, help="folder of the BCCD photographs, in VOC format")
    add("--weights", required=True, help="of a ResNet-50 trained on ImageNet; or none")
    add("--seeds", type=int, default=10, metavar="N", help="default: 10")
    add("--workers", type=int, default=8, metavar="N", help="parallel runs; default: 8")
    add("--budget", type=seconds, default=float("inf"), help="such as 8m; default: none")
    add("--to", type=Path, default=Path("runs/gpu"), help="folder for runs and compiled code")
    add("--results", type=Path, default=HERE / "results" / "gpu", help="default: results/gpu")
    add("--tiny", action="store_true", help="try it all on a CPU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
