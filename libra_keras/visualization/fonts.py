"""A font for text in pictures: Pillow's own for ASCII, else one that has the letters."""

import functools
import importlib.util
import os
import warnings
from collections.abc import Iterator

from PIL import ImageFont

# Files that Pillow finds in the folders of the system: on Linux, on Windows, on macOS. What few
# languages share comes first; the fonts for Chinese, Japanese and Korean are large.
NAMES = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc"),
    *("msyh.ttc", "YuGothM.ttc", "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc"),
)
PILLOWS = ""  # stands for the font that Pillow brings
NO_LETTER = "\U0010ffff"  # never will be one, so each font shows what it shows for all it lacks
COMPARED = 32  # pixels, enough to tell a letter from a box


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Returns a font of `size` pixels that has the letters of a text, or else most of them.

    Pillow's own has little more than ASCII; where it suffices it is taken, on every machine.
    """
    letters = frozenset(letter for letter in text if not letter.isascii())
    return _font(_name_for(letters) if letters else PILLOWS, size)


@functools.lru_cache(maxsize=1024)
def _name_for(letters):
    best, fewest = PILLOWS, _missing(PILLOWS, letters)
    for name in _names():
        if not fewest:
            return best
        missing = _missing(name, letters)
        if missing < fewest:
            best, fewest = name, missing
    if fewest:  # in words that do not change: Python shows them once
        warnings.warn(
            "No font was found for some letters of names, which pictures show as boxes. Install "
            "one that has them, such as DejaVu Sans, Noto Sans or Noto Sans CJK",
            stacklevel=2,
        )
    return best


def _names() -> Iterator[str]:
    yield from NAMES
    if importlib.util.find_spec("matplotlib"):
        import matplotlib

        yield os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def _missing(name, letters) -> int:
    """How many of the letters a font lacks: all of them, where there is no such font."""
    font = _font(name, COMPARED)
    if font is None:
        return len(letters)
    box = _shape(font, NO_LETTER)
    return sum(_shape(font, letter) == box for letter in letters)


def _shape(font, letter):
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@functools.cache
def _font(name, size):
    if name == PILLOWS:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # there is none, or it is damaged
        return None
