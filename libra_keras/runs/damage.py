"""What the verbs say about images that turned out to be damaged."""

import contextlib
import sys

SHOWN = 10


@contextlib.contextmanager
def explained(find):
    """Turns what data pipelines raise over damaged images into an error that names the files.

    TensorFlow wraps it into an error of its own, with a long traceback; the files are those that
    the sources of the batches have noted.

    Args:
        find: callable without arguments that returns a dict from what the images are for to their
            own dict, of files and what is wrong with each.

    Raises:
        ValueError: if the error in the block is about damaged images.

    Example:

    >>> from libra_keras.runs.damage import explained
    >>> from libra_keras.data.findings import TooManyDamagedImages
    >>> with explained(lambda: {"training": {"a.jpg": "truncated"}}):
    ...     raise TooManyDamagedImages
    Traceback (most recent call last):
    ValueError: Too many images are damaged:
      training: a.jpg: truncated
    """
    try:
        yield
    except Exception as error:
        # Either class of data/findings.py; TensorFlow hands their names on in its text only.
        if "DamagedImage" not in f"{type(error).__name__}: {error}":
            raise
        lines = "".join(f"\n  {line}" for line in _lines(find()))
        raise ValueError(f"Too many images are damaged:{lines}") from error


def tell(damaged):
    """Prints damaged images to stderr: those of training and evaluation, as `explained` takes them.

    Example:

    >>> from libra_keras.runs.damage import tell
    >>> tell({"training": {}, "evaluation": {}})
    """
    count = sum(map(len, damaged.values()))
    if count:
        print(f"{count} damaged image(s), replaced or shown blank:", file=sys.stderr)
    for line in _lines(damaged):
        print(f"  {line}", file=sys.stderr)


def _lines(damaged):
    lines = [
        f"{purpose}: {file}: {why}" for purpose, files in damaged.items()
        for file, why in files.items()
    ]  # fmt: skip
    more = [f"... {len(lines)} in all"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more
