"""Files that others publish: fetched once, checked against the hash they are published with, and
kept in Keras' folder of the user."""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from libra_keras.files import atomic
from libra_keras.files.locks import in_turn

# A variable of the environment: a folder that holds the files, or an address that they lie under.
WEIGHTS = "LIBRA_KERAS_WEIGHTS"
ATTEMPTS = 3  # at a download that breaks off
PAUSE = 1.0  # seconds between them
TIMEOUT = 30.0  # seconds that a server may be silent
MIB = 2**20
MOST = 2**28  # bytes of what `read` keeps in the memory: larger than photographs are


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """Where a file lies, and how its hash begins."""

    address: str
    digits: str  # hexadecimal, the first or all
    algorithm: str = "sha256"

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]

    def mismatch(self, path: Path) -> str | None:
        """Says how the hash of a file differs from that of the published one."""
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, self.new_hash).hexdigest()
        return self.difference(found)

    def difference(self, found: str) -> str | None:
        """Says how a hash differs from that of the published file; `None` if it does not."""
        digits = self.digits
        if found.startswith(digits):
            return None
        return f"its {self.algorithm} is {found[: len(digits)]}, not {digits}"

    def new_hash(self) -> Any:
        return hashlib.new(self.algorithm, usedforsecurity=False)


def keras_home() -> Path:
    """Returns the folder in which Keras keeps what it downloads for the user."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()


def place(file: PublishedFile, folder: Path) -> Path:
    """Returns where `fetch` finds the file, or puts it."""
    origin = _origin(file)
    return origin if isinstance(origin, Path) else folder / file.name


def fetch(file: PublishedFile, folder: Path) -> Path:
    """Returns the path of a published file that is whole, downloaded to `folder` if need be.

    Another process that does the same is waited for. Where `LIBRA_KERAS_WEIGHTS` names a folder,
    the file in it is used as it is.

    Raises:
        ValueError: if the file is another one, by its hash, or that folder does not have it.
        OSError: if the file cannot be downloaded, or the disk is full; nothing is left behind.
    """
    origin = _origin(file)
    if isinstance(origin, Path):
        return _checked(file, origin)
    path = folder / file.name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with in_turn(folder / f".turn.{file.name}", f"downloading {file.name}"):
        reason = file.mismatch(path) if path.is_file() else "it is not there"
        if reason and path.is_file():
            print(f"{path} is damaged ({reason}) and is downloaded again", flush=True)
        if reason:
            _download(file, origin, path)
    return path


def read(address: str, most: int = MOST) -> bytes:
    """Returns what an address gives, of at most `most` bytes.

    Raises:
        OSError: if it cannot be had, or is more. The message names the address.
    """
    failures = 0
    while True:
        try:
            with _opened(address) as response:
                return b"".join(_at_most(most, address, _chunks(response, response.length)))
        except urllib.error.HTTPError as error:
            raise OSError(f"{address} answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise OSError(f"{address} cannot be reached: {error.reason}") from error
        except _BrokenOff as error:
            failures += 1
            if failures == ATTEMPTS:
                raise OSError(
                    f"{address} cannot be read, after {ATTEMPTS} attempts: {error}"
                ) from error
            time.sleep(PAUSE)


def _at_most(most, address, chunks):
    done = 0
    for chunk in chunks:
        done += len(chunk)
        if done > most:
            raise OSError(f"{address} returns more than {most / MIB:,.0f} MiB")
        yield chunk


def _origin(file: PublishedFile) -> Path | str:
    """Where the file comes from: a path in the folder that the user named, or an address."""
    named = os.environ.get(WEIGHTS)
    if not named:
        return file.address
    if named.startswith(("http://", "https://")):
        return f"{named.rstrip('/')}/{file.name}"
    return Path(named).expanduser() / file.name


def _checked(file, path):
    """A file of the user's own folder, which is never changed."""
    if not path.is_file():
        raise ValueError(
            f"there is no {path}. {WEIGHTS} must name the folder that contains {file.name}, or "
            f"the address that it lies under; it was published at {file.address}"
        )
    if reason := file.mismatch(path):
        raise ValueError(f"{path} is damaged, or a different file: {reason}")
    return path


def _download(file, address, path):
    advice = f"Put {file.name} into {path.parent}, or set {WEIGHTS} to the folder that contains it"
    print(f"Downloading {address} to {path}", flush=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _explained(address, path, advice), atomic.replacing(path) as unfinished:
                reason = file.difference(_receive(file, address, unfinished))
                if reason:
                    raise ValueError(
                        f"{address} returned a different file: {reason}. It was deleted. {advice}"
                    )
            return
        except _BrokenOff as error:
            if attempt == ATTEMPTS:
                raise OSError(
                    f"{address} cannot be downloaded, after {ATTEMPTS} attempts: {error}. {advice}"
                ) from error
            print(f"{file.name}: {error}; trying again", flush=True)
            time.sleep(PAUSE)


class _BrokenOff(Exception):
    """A download ended early: the next may do better."""


@contextlib.contextmanager
def _explained(address, path, advice) -> Iterator[None]:
    """Turns what cannot get better by itself into an error that says what to do."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise OSError(f"{address} answers {error.code} {error.reason}. {advice}") from error
    except urllib.error.URLError as error:
        raise OSError(f"{address} cannot be reached: {error.reason}. {advice}") from error
    except OSError as error:
        reason = atomic.disk_error(error)
        if reason is None:
            raise
        raise OSError(f"{path} cannot be written: {reason}. No part of it was kept") from error


def _receive(file, address, path):
    """Writes what an address gives, and returns its hash."""
    hashed = file.new_hash()
    with _opened(address) as response, open(path, "wb") as output:
        size = response.length
        _check_space(path, size or 0)
        show = _progress(size)
        for chunk in _chunks(response, size):
            output.write(chunk)
            hashed.update(chunk)
            show(output.tell())
    return hashed.hexdigest()


def _opened(address):
    # Browsers show addresses with spaces and letters that are sent as percent signs and digits.
    address = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(address, headers={"User-Agent": "libra-keras"})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.URLError as error:
        if getattr(error, "code", 0) >= 500:  # a server that has troubles of its own
            raise _BrokenOff(f"the server answered {error.code} {error.reason}") from error
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(_reason(error)) from error


def _chunks(response, size: int | None) -> Iterator[bytes]:
    done = 0
    while True:
        try:
            chunk = response.read(MIB)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(_reason(error)) from error
        if not chunk:
            break
        done += len(chunk)
        yield chunk
    if size is not None and done < size:  # `read` does not mind
        raise _BrokenOff(f"the download broke off after {done} of {size} bytes")


def _reason(error):
    if isinstance(error, TimeoutError):
        return f"the server was silent for {TIMEOUT:g} s"
    return f"the download broke off ({error})"


def _check_space(path, size):
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OSError(
            f"{path.parent} has {free / MIB:.0f} MiB left; the file needs {size / MIB:.0f} MiB"
        )


def _progress(size: int | None) -> Callable[[int], None]:
    """Returns what takes the bytes so far, and draws a bar if somebody watches."""
    if sys.stdout is None or not sys.stdout.isatty():
        return lambda done: None
    from keras.utils import Progbar

    bar = Progbar(None if size is None else -(-size // MIB), unit_name="MiB")
    return lambda done: bar.update(-(-done // MIB))
