"""The command `libra-keras`: one verb per thing that a user does."""

import argparse
import os
import sys

from libra_keras import __version__
from libra_keras.cli import notes, streams

EXIT_INTERRUPTED = 130  # as shells count it: 128 + the signal of Ctrl-C
TELLING = ("check-data", "models")  # verbs whose result is what they print


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb, by default that of the process, and returns the exit status: 0, 1 for an error
    with a message, 130 after Ctrl-C, 141 if nobody reads what a verb is there to tell."""
    if arguments is not None:
        return _run(parser().parse_args(arguments))
    streams.open_closed()  # the process is the command's own
    notes.hide()
    with streams.lasting() as output:
        options = parser().parse_args()
        output.ends = options.verb in TELLING
        status = _run(options)
        output.end(status)
    return status


def _run(options):
    """Runs the verb that is asked for; what a user can mend becomes a message."""
    expand_home(options)
    for stream in (sys.stdout, sys.stderr):  # a file name may be no text of the terminal's encoding
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError, ImportError) as error:  # what a user can mend, without traceback
        print(f"libra-keras {options.verb}: {error}{_advice(error)}", file=sys.stderr)
        return 1


def expand_home(options: argparse.Namespace) -> None:
    """Replaces a leading `~` in all options: shells leave it as it is in `--to=~/runs`."""

    def expanded(value):
        if isinstance(value, list):
            return [expanded(item) for item in value]
        return os.path.expanduser(value) if isinstance(value, str) else value

    for name, value in vars(options).items():
        setattr(options, name, expanded(value))


def _advice(error):
    """What to do about Keras' default backend where it is not installed."""
    if getattr(error, "name", None) != "tensorflow":
        return ""
    return (
        ". TensorFlow is not installed: install it, or choose another backend with "
        "KERAS_BACKEND=jax or KERAS_BACKEND=torch"
    )


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all verbs do, not below the usage of dozens of options."""

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
