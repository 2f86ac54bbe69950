"""What all figures share: numbers are measured and stored as JSON, and drawn only from that."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import style

PICTURES = Path(__file__).parent / "pictures"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure of the paper.

    Attributes:
        name: of its files.
        description: what it shows, and the command.
        measure: function from the options to a dict of numbers, none of which tells where files
            lie.
        draw: function from these to a `matplotlib` figure; needs no TensorFlow.
        add_arguments: function that adds options of its own to a parser.
        needs_run: whether it shows a trained detector.
    """

    name: str
    description: str
    measure: Callable
    draw: Callable
    add_arguments: Callable = lambda parser: None
    needs_run: bool = True

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Measures and draws as the command line says; returns the exit status."""
        options = self._options(arguments)
        folder = options.to or (options.draw.parent if options.draw else PICTURES)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not options.draw:
                write(folder / f"{self.name}.json", self.measure(options))
            self.write_pictures(options.draw or folder / f"{self.name}.json", folder)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    def write_pictures(self, numbers: Path, folder: Path) -> None:
        """Draws what a JSON file holds."""
        with style.look():
            style.save(self.draw(json.loads(numbers.read_text())), folder / self.name)
        print(f"{folder / self.name}.png, .svg")

    def _options(self, arguments):
        parser = argparse.ArgumentParser(
            description=self.description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if self.needs_run:
            _add_run(parser)
        self.add_arguments(parser)
        stored = PICTURES / f"{self.name}.json"
        add = parser.add_argument
        add("--draw", nargs="?", const=stored, type=Path, metavar="JSON", help="measure nothing")
        add("--to", type=Path, metavar="FOLDER", help="folder for JSON and pictures")
        options = parser.parse_args(arguments)
        if self.needs_run and not (options.run or options.draw):
            parser.error("RUN is required, unless --draw redraws earlier measurements")
        return options


def _add_run(parser):
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="folder of a two-stage detector's training run")
    add("data", nargs="?", metavar="DATA", help="default: the run's data")
    add("--split", help="of the data; default: the split that the run was evaluated on")
    add(
        "--weights",
        default="last",
        help="last, best, or a name such as kept-0.5; default: %(default)s",
    )


def write(path: Path, numbers: dict) -> None:
    """Writes numbers as JSON, a line for each of the outermost keys."""
    short = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    lines = [f"{short(key)}:{short(value)}" for key, value in numbers.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def rounded(values: object, digits: int) -> object:
    """Numbers of an array as (lists of) floats with so many digits after the point."""
    return np.round(np.asarray(values, "float64"), digits).tolist()
