"""List the detectors that `libra-keras train --model` accepts, or the published ones."""

import fnmatch

EXAMPLES = """examples:
  libra-keras models
  libra-keras models 'libra_*'
  libra-keras models --pretrained
      detectors trained on COCO, for predict, evaluate, export and train --init, with their
      publishers' AP, and which are on this machine
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    parser.add_argument("pattern", nargs="?", default="*", help="names to list; default: all")
    parser.add_argument(
        "--pretrained", action="store_true", help="list detectors trained and published by others"
    )


def run(options) -> int:
    """Prints a line for each name; raises an error if there is none."""
    lines = published_lines(options.pattern) if options.pretrained else lines_of(options.pattern)
    if not lines:
        raise ValueError(f"no detector matches {options.pattern}")
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:<{width}}  {text}")
    return 0


def lines_of(pattern: str) -> dict[str, str]:
    """Returns descriptions of the ready-made detectors by name."""
    from libra_keras import models

    found = {name: getattr(models, name).__doc__ or "" for name in models.list(pattern)}
    return {name: text.partition("\n")[0] for name, text in found.items()}


def published_lines(pattern: str) -> dict[str, str]:
    """Returns scores of the published detectors by name, and which are on this machine."""
    from libra_keras.convert.published import PUBLISHED

    found = fnmatch.filter(PUBLISHED, pattern)
    return {name: _published_line(PUBLISHED[name]) for name in found}


def _published_line(entry):
    state = "downloaded" if entry.is_downloaded else ""
    state = "converted" if entry.is_converted else state
    return f"{entry.metric:>7} {entry.score}  {state}".rstrip()
