"""Runs the studies of `plan.json` in order, within the time available.

    python recipes/ablations/plan.py --budget 2h --set bccd=path/to/bccd resnet50=r50.weights.h5

Existing results are not run again, and interrupted runs continue. A study whose data were not given
is skipped. Results go to `results/` beside this file.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from runner import seconds

HERE = Path(__file__).parent


def main() -> int:
    """Runs the plan; returns the exit status of the first study that fails."""
    options = _parser().parse_args()
    plan, places = json.loads((HERE / "plan.json").read_text()), dict(options.set)
    end = time.time() + options.budget
    for name in options.studies or plan["order"]:
        command = command_of(plan["studies"][name], places, options.to)
        if command is None:
            print(f"{name}: skipped, since its data were not given with --set")
            continue
        left = max(0, end - time.time())
        budget = ["--budget", f"{left:.0f}s"] if left < float("inf") else []
        print(f"\n{name}: {plan['studies'][name]['question']}", flush=True)
        status = subprocess.call([*command, *budget])
        if status:
            return status
    return 0


def command_of(study: dict, places: dict[str, str], to: Path) -> list[str] | None:
    """The command of a study; `None` if it needs a place that is not known."""
    try:
        given = [text.format_map(places) for text in study["options"]]
    except KeyError:
        return None
    return [
        *(sys.executable, str(HERE / f"{study['table']}.py"), *given),
        *("--rows", ",".join(study["rows"]), "--to", str(to / study["results"])),
        *("--results", str(HERE / "results" / study["results"])),
    ]


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", help="names from the plan; default: all")
    parser.add_argument("--budget", type=seconds, default=float("inf"), help="such as 2h")
    parser.add_argument("--to", type=Path, default=Path("runs/ablations"), help="of runs")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        type=lambda text: text.split("=", 1),
        metavar="NAME=PATH",
        help="paths of the data and weights in the plan",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
