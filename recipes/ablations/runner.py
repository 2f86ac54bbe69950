"""Fills a table: runs what is missing, within the time available, and writes it as Markdown."""

import argparse
import dataclasses
import json
import re
import sys
import time
from pathlib import Path

import keras
from tables import Row, Table, markdown
from trial import Trial, described, in_own_process, run_trial, write_proposals

from libra_keras import runs
from libra_keras.data.sources import short_name
from libra_keras.runs import inputs
from libra_keras.runs.config import settings
from libra_keras.runs.fields import reader
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.resuming import differences, recorded_settings

# Options of `libra-keras train`; what a row decides, or a trial, is none of them.
OPTIONS = (
    *("format", "corners", "train_split", "val_split", "val_fraction"),
    *("skip_bad", "drop_empty", "cache"),
    *("backbone_weights", "train_affine", "sampling_ratio", "short_side", "long_side"),
    *("precision", "momentum", "weight_decay"),
    *("schedule", "batch", "epochs", "steps", "learning_rate", "warmup_steps", "drops"),
    *("average_last", "devices", "save_every"),
)
# Scenes of a few minutes a run. Others are as `libra-keras train` has them.
SHAPES = runs.TrainConfig(
    data=runs.DataConfig("shapes", val_split="2000"),
    schedule=runs.ScheduleConfig(epochs=12, steps=50),
)
AVERAGED = 0.25  # of a run, at its end
PROPOSALS = {"small": 200, "resnet50": 2000}  # of an image
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class Study:
    """What all trials of a command share.

    Attributes:
        kind, size: the detector's name is `<kind>_<size>`.
        config: `TrainConfig` without model and seed.
        folder: of runs and proposals.
        results: folder of a JSON a trial.
        keep: whether run folders stay.
    """

    kind: str
    size: str
    config: runs.TrainConfig
    folder: Path
    results: Path
    keep: bool

    def name_of(self, row: Row) -> str:
        """The detector of a row."""
        kind = row.kind or self.kind
        return kind if row.size else f"{kind}_{self.size}"

    @property
    def proposals(self) -> tuple[Path, Path] | None:
        """Files of proposals to learn from and to measure on, for detectors that need them."""
        if "fast_rcnn" not in self.kind:
            return None
        return self.folder / "proposals-train.npz", self.folder / "proposals-test.npz"

    def trial(self, row: Row, seed: int) -> Trial:
        """The trial of a row with a seed."""
        name = f"{row.key}-{seed}"
        config = self.config.replace(
            model={"name": self.name_of(row), **row.parts},
            run={"seed": seed, "folder": str(self.folder / name)},
        )
        return Trial(row.key, config, self.results / f"{name}.json", self.proposals, self.keep)


def main(table: Table, description: str) -> int:
    """Runs a table from the command line; returns the exit status."""
    options = vars(parser(table, description).parse_args())
    end = time.time() + options["budget"]
    try:
        study = study_of(table, options)
        rows = rows_of(table, study, options["rows"])
        if not options["show"]:
            fill(study, rows, range(options["seeds"]), end)
        first = rows_of(table, study, None)[0]  # which the others are compared with
        rows = rows if first in rows else (first, *rows)
        table = dataclasses.replace(table, rows=rows)
        print(f"\n{table.title}\n\n{markdown(table, results_of(study, rows), options['metric'])}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command continues.", file=sys.stderr)
        return 130
    return 0


def study_of(table: Table, options: dict) -> Study:
    """The study that the options describe."""
    source = options["data"]
    size = options["size"] or ("small" if source == "shapes" else "resnet50")
    groups = {"data": {"source": source}}
    for name, value in options.items():
        group, _, field = name.partition(".")
        if field:
            groups.setdefault(group, {})[field] = value
    base = (SHAPES if source == "shapes" else runs.TrainConfig()).replace(
        optimizer={"average_last": AVERAGED},
        schedule={"eval_every": 0},
        devices={"count": None if keras.backend.backend() == "torch" else "all"},
    )
    config = base.replace(**groups)
    kind = options["model"] or table.kind
    folder = options["to"] or Path("runs/ablations") / f"{short_name(source)}-{kind}_{size}"
    results = options["results"] or folder / "results"
    return Study(kind, size, config, folder, results, options["keep"])


def rows_of(table: Table, study: Study, keys: list[str] | None) -> tuple[Row, ...]:
    """The rows that are asked for, of those that there are in this size.

    Raises:
        ValueError: if there is no such row.
    """
    rows = [row for row in table.rows if row.size in (None, study.size)]
    unknown = set(keys or ()) - {row.key for row in rows}
    if unknown:
        known = ", ".join(row.key for row in rows)
        raise ValueError(f"--rows: there is no {', '.join(sorted(unknown))}; rows are {known}")
    return tuple(row for row in rows if keys is None or row.key in keys)


def fill(study: Study, rows: tuple[Row, ...], seeds: range, end: float) -> None:
    """Runs what is missing until it is late; a seed of all rows comes before the next seed."""
    _check(study, rows)
    if study.proposals and not all(path.exists() for path in study.proposals):
        _propose(study, end)
        if not all(path.exists() for path in study.proposals):
            return
    for seed in seeds:
        for trial in [study.trial(row, seed) for row in rows]:
            if trial.result.exists() and _is_settled(trial):
                continue
            if time.time() < end:
                _check_folder(trial.config)
                print(f"{trial.row}, seed {seed}", flush=True)
                trial.result.parent.mkdir(parents=True, exist_ok=True)
                in_own_process(run_trial, trial, end)


def results_of(study: Study, rows: tuple[Row, ...]) -> list[dict]:
    """What has been written of these rows."""
    keys = {row.key for row in rows}
    found = [json.loads(path.read_text()) for path in sorted(study.results.glob("*.json"))]
    return [result for result in found if result.get("row") in keys]


def _check(study, rows):
    """Everything that can be wrong before anything runs."""
    for row in rows:
        runs.resolve(study.trial(row, 0).config)
    inputs.load_both(study.config.data)


def _propose(study, end):
    """Trains the RPN of this size once, bit for bit the same on every machine of a kind."""
    print("proposals: training an RPN, once", flush=True)
    config = study.config.replace(
        model={"name": f"rpn_{study.size}"},
        run={"folder": str(study.folder / "proposals"), "deterministic": True},
    )
    _check_folder(config)
    if not in_own_process(
        write_proposals, config, study.proposals, PROPOSALS.get(study.size, 2000), end
    ):
        raise OSError("there are no proposals: their RPN could not be trained, see above")


def _is_settled(trial):
    """Whether a trial need not be run; one that failed is tried again.

    Raises:
        ValueError: if the result in its place is of another one.
    """
    recorded = json.loads(trial.result.read_text())
    # An option that there was not yet had its default.
    there = runs.TrainConfig.from_dict(recorded["config"]).to_dict()
    for group, values in described(trial)["config"].items():
        if there[group] != values:
            raise ValueError(
                f"{trial.result} belongs to a run with other settings: {group} was "
                f"{there[group]}, and is now {values}. Choose another --results"
            )
    return recorded.get("status") != "failed"


def _check_folder(config):
    """A run that is there must be of the same config, finished or not, and nobody else's.

    Raises:
        ValueError: if it is another one, or another process trains it.
    """
    folder, given = RunFolder(config.run.folder), settings(runs.resolve(config))
    # A run names its data as they name themselves.
    different = [n for n in differences(recorded_settings(folder), given) if n != "data"]
    if different:
        raise ValueError(
            f"{folder.path} contains a run with other settings: {', '.join(different)}. Delete "
            "it, or choose another --to"
        )
    if folder.is_unfinished:
        with folder.lock():
            pass


def parser(table, description):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, help="shapes, a folder, or tfds:<name>")
    add("--model", choices=("fast_rcnn", "faster_rcnn"), help=f"default: {table.kind}")
    add("--size", help="small, resnet50, ...; default: small for shapes, else resnet50")
    add("--seeds", type=int, default=3, metavar="N", help="default: 3")
    add(
        "--rows",
        type=lambda text: text.split(","),
        help="keys of the rows to run, separated by commas",
    )
    add("--budget", type=seconds, default=float("inf"), help="such as 90m or 3h; default: none")
    add("--to", type=Path, help="folder for runs; default: runs/ablations/<data>-<model>")
    add("--results", type=Path, help="default: results/ in --to")
    add("--keep", action="store_true", help="keep run folders, for balance.py and the figures")
    add("--show", action="store_true", help="run nothing; write the table of existing results")
    add("--metric", help="of the differences, such as AP50; default: that of the first column")
    for name, group, field in runs.TrainConfig().options():
        if name in OPTIONS:
            kind = reader(field)
            switch = "store_true" if field.default is False else argparse.BooleanOptionalAction
            reading = {"action": switch} if kind is bool else {"type": kind}
            add(
                f"--{name.replace('_', '-')}",
                dest=f"{group}.{field.name}",
                default=argparse.SUPPRESS,
                help="as in libra-keras train",
                **reading,
            )
    return parser


def seconds(text: str) -> float:
    """Parses a time such as `"90m"`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"must be a time such as 45s, 90m or 3h, not {text!r}")
    return float(match[1]) * UNITS[match[2]]
