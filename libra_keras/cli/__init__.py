"""The command `libra-keras`: one verb per task."""

import argparse
import os
import sys

from libra_keras import __version__
from libra_keras.cli import interruptions, notes, streams

MENDABLE = (ValueError, OSError, ImportError)  # a user can fix these: no traceback
NO_MEMORY = (
    "not enough memory ({}). Smaller images or a smaller --batch need less. What was saved before "
    "is complete"
)
TELLING = ("check-data", "models")  # verbs whose result is what they print


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb (default: the one on the command line) and returns the exit status: 0, 1 for an
    error with a message, 130 after Ctrl-C, 143 after SIGTERM, 141 if the output pipe was closed."""
    if arguments is not None:
        return _run(parser().parse_args(arguments), interruptions.told)
    streams.open_closed()  # the process is the command's own
    signals = interruptions.Signals()
    notes.hide()
    notes.shorten_warnings()
    with streams.lasting() as output:
        try:
            options = parser().parse_args()
            output.ends = options.verb in TELLING
            status = _run(options, signals.told)
        except BaseException as error:  # while verbs are imported
            status = signals.told(error)
            if status is None:
                raise
        output.end(status)
    return status


def _run(options, told):
    """Runs the requested verb; errors that a user can fix become a message. `told` is given every
    error, and reports those that are an interruption."""
    expand_home(options)
    for stream in (sys.stdout, sys.stderr):  # the terminal may not encode a file name
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        _import_keras()
        return options.run(options) or 0
    except BaseException as error:
        if status := told(error):
            return status
        if _is_short_of_memory(error):
            message = NO_MEMORY.format(type(error).__name__)
        elif isinstance(error, MENDABLE):
            message = f"{error}{_advice(error)}"
        else:
            raise
        print(f"libra-keras {options.verb}: {message}", file=sys.stderr)
        return 1


def _import_keras():
    """Imports Keras and its backend, which takes seconds; a terminal says so meanwhile."""
    text = "Starting ..."
    is_watched = sys.stderr is not None and sys.stderr.isatty()
    if is_watched:
        print(text, end="\r", file=sys.stderr, flush=True)
    import keras  # noqa: F401

    if is_watched:
        print(" " * len(text), end="\r", file=sys.stderr, flush=True)


def expand_home(options: argparse.Namespace) -> None:
    """Expands a leading `~` in all options: shells do not do so in `--to=~/runs`."""

    def expanded(value):
        if isinstance(value, list):
            return [expanded(item) for item in value]
        return os.path.expanduser(value) if isinstance(value, str) else value

    for name, value in vars(options).items():
        setattr(options, name, expanded(value))


def _is_short_of_memory(error):
    """Whether the machine or a GPU has no memory left, as Python, TensorFlow, JAX or PyTorch say
    it."""
    names = ("ResourceExhaustedError", "OutOfMemoryError")
    is_named = isinstance(error, MemoryError) or type(error).__name__ in names
    return is_named or "RESOURCE_EXHAUSTED" in str(error)[:200]


def _advice(error):
    """What to do about Keras' default backend where it is not installed."""
    if getattr(error, "name", None) != "tensorflow":
        return ""
    return (
        ". TensorFlow is not installed: install it, or choose another backend with "
        "KERAS_BACKEND=jax or KERAS_BACKEND=torch"
    )


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, as all verbs do, not below the usage of dozens of options."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Returns the `argparse.ArgumentParser` of all verbs."""
    from libra_keras.cli import (
        check_data,
        convert,
        evaluate,
        export,
        models,
        predict,
        propose,
        report,
        train,
    )

    top = Parser(
        prog="libra-keras",
        description="Libra R-CNN for Keras 3: train, evaluate and use object detectors.",
        epilog="Each verb has examples: libra-keras train --help",
    )
    top.add_argument("--version", action="version", version=f"libra-keras {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in (
        train, evaluate, report, predict, propose, export, convert, check_data, models,
    ):  # fmt: skip
        name = verb.__name__.rpartition(".")[2].replace("_", "-")
        summary = (verb.__doc__ or "").partition("\n")[0]
        own = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=verb.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(own)
        own.set_defaults(run=verb.run)
    return top
