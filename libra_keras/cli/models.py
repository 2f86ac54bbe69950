"""List the detectors that `libra-keras train --model` takes."""

EXAMPLES = """examples:
  libra-keras models
  libra-keras models 'libra_*'
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    parser.add_argument("pattern", nargs="?", default="*", help="names to list; default: all")


def run(options) -> int:
    """Prints a line for each name; returns 1 if there is none."""
    from libra_keras import models

    names = models.list(options.pattern)
    width = max(map(len, names), default=0)
    for name in names:
        print(f"{name:<{width}}  {getattr(models, name).__doc__.splitlines()[0]}")
    if not names:
        raise ValueError(f"no detector is called {options.pattern}")
    return 0
