"""Images of others, opened in one place: which forms, how large, and how many at the same time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from libra_keras.files.reading import memory, open_regular

# Pillow starts Ghostscript to read EPS, a program in PostScript; it has Windows draw WMF, a list of
# commands; and IPTC holds an image of any form, EPS too.
REFUSED = frozenset({"EPS", "IPTC", "WMF"})
# Bytes of a pixel while it is read, by the mode of its file: as Pillow keeps it, and each form that
# it passes through on the way to RGB.
IN_FLIGHT = {"RGB": 4, "1": 5, "L": 5, "P": 9, "PA": 12, "I": 24, "F": 24}
IN_FLIGHT_OTHERS = 16
MOST_IN_FLIGHT = 2**30  # bytes: some twenty photographs of twelve megapixels


class Budget:
    """Lets threads hold so much between them, in the order in which they ask; who needs more than
    there is waits until nobody holds anything."""

    def __init__(self, most: int):
        self.most = most
        self.reset()

    def reset(self) -> None:
        """Forgets who holds what, as a process must that was forked from threads."""
        self._held = 0
        self._turn = threading.Lock()  # the first in the queue waits for room, the others for this
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Holds an amount as long as the block runs; blocks must not be nested."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + amount <= self.most)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify()


IN_MEMORY = Budget(MOST_IN_FLIGHT)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=IN_MEMORY.reset)


def allow_pixels(number: int | None) -> None:
    """Sets the maximum pixels of an image for this process, which is Pillow's own limit; `None`
    leaves it as it is."""
    if number is not None:
        Image.MAX_IMAGE_PIXELS = -(-number // 2)  # it warns from there; twice as many are an error


@contextlib.contextmanager
def opened(source: str | os.PathLike | BinaryIO) -> Iterator[Image.Image]:
    """Yields the image of a file or a file object as Pillow opens it: its header is read."""
    with contextlib.ExitStack() as stack, _told():
        if isinstance(source, (str, os.PathLike)):
            source = stack.enter_context(open_regular(source, memory()))
        yield stack.enter_context(Image.open(source, formats=_formats()))


def in_flight(image: Image.Image) -> contextlib.AbstractContextManager[None]:
    """Counts the pixels of an image, not decoded yet, among those that are in the memory: as long
    as the block runs, for which there may be a wait."""
    width, height = image.size
    return IN_MEMORY.taken(width * height * IN_FLIGHT.get(image.mode, IN_FLIGHT_OTHERS))


def _formats():
    """What Pillow reads now, with plug-ins that a user has registered since."""
    Image.init()
    return [name for name in Image.ID if name not in REFUSED]


@contextlib.contextmanager
def _told():
    """Says what can be done about an image that is too large, or of a form that is not read."""
    try:
        yield
    except Image.DecompressionBombError as error:
        size = str(error).partition(",")[0]
        raise ValueError(f"{size}; --max-pixels N allows more") from error
    except UnidentifiedImageError as error:
        refused = ", ".join(sorted(REFUSED))
        message = f"it is not an image in a supported format ({refused} are refused, for safety)"
        raise UnidentifiedImageError(message) from error
