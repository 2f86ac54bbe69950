"""The option `--cache` of `libra-keras train`, and what is said about the room that it takes."""

import shutil
from pathlib import Path


def add_argument(parser):
    """Adds `--cache`."""
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        help="keep decoded, resized images to learn from here, 3 bytes a pixel; later epochs and "
        "runs read them instead of the files; several runs may share the folder",
    )


def check(folder, run_folder):
    """Checks that the cache does not lie in the run folder, which is to be empty at first.

    Args:
        folder: path of the cache, or `None`.
        run_folder: path of the run, or `None`.

    Raises:
        ValueError: if it does.

    Example:

    >>> from libra_keras.cli.caching import check
    >>> check("runs/images", "runs/mine")
    >>> check("runs/mine/images", "runs/mine")
    Traceback (most recent call last):
    ...
    ValueError: --cache must not lie in the run folder runs/mine. Received: runs/mine/images
    """
    if folder and run_folder and Path(folder).resolve().is_relative_to(Path(run_folder).resolve()):
        raise ValueError(f"--cache must not lie in the run folder {run_folder}. Received: {folder}")


def tell(source):
    """Prints how much room the cache of a run takes, and warns if there is less.

    Args:
        source: `TrainingSource`; without a cache nothing is printed.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.cli.caching import tell
    >>> from libra_keras.data.loading import TrainingSource
    >>> tell(TrainingSource(data.shapes(4), data.InputPolicy(160, 160), batch_size=2))
    """
    if source.cache is None:
        return
    from libra_keras.data.image_cache import SPARE

    total, missing = source.cache.bytes_needed()
    free = max(shutil.disk_usage(source.cache.folder).free - SPARE, 0)
    line = f"cache: {gigabytes(total)} for {len(source.data)} images in {source.cache.folder}"
    if missing > free:
        line += f"; only {gigabytes(free)} may be used: the rest is decoded in every epoch"
    print(line, flush=True)


def gigabytes(number):
    """Returns a number of bytes in words.

    Example:

    >>> from libra_keras.cli.caching import gigabytes
    >>> gigabytes(2_500_000_000), gigabytes(3_000_000)
    ('2.5 GB', '0.003 GB')
    """
    return f"{number / 1e9:.2g} GB"
