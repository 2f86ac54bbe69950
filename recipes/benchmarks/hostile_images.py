"""Files for `serving_load.py`: drawn images of many sizes and kinds, and files that are not images.

Garbage has the `status` that an exported detector must give it.
"""

import dataclasses
import io
import itertools
import zlib

import numpy as np
from PIL import Image, ImageDraw

EMPTY, NO_IMAGE, TOO_LARGE, DAMAGED = 1, 2, 3, 4  # as `detector.json` has them
SMALL = [  # height, width
    (1, 1), (8, 8), (9, 200), (200, 9), (31, 33), (64, 96), (96, 64), (100, 100), (128, 171),
    (240, 320), (333, 250), (480, 640), (640, 480),
]  # fmt: skip
LARGE = [(1080, 1920), (3000, 4000), (4000, 3000)]
KINDS = [("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("RGBA", "PNG")]
BOMB_SIDE = 20_000


@dataclasses.dataclass(frozen=True)
class Item:
    """A file, and the status that a server must answer it with; 0 is an image's."""

    name: str
    data: bytes = dataclasses.field(repr=False)
    status: int = 0


def good_items():
    """Images of all small sizes in all kinds."""
    return [item(*size, *kind) for size, kind in itertools.product(SMALL, KINDS)]


def large_items():
    """A few that take long to decode; some are JPEG, some PNG."""
    kinds = [("RGB", "JPEG"), ("RGB", "JPEG"), ("L", "PNG")]
    return [item(*size, *kind) for size, kind in zip(LARGE, kinds, strict=True)]


def item(height, width, mode, kind):
    """A drawn image as a file."""
    file = io.BytesIO()
    picture(height, width).convert(mode).save(file, kind)
    return Item(f"{width}x{height} {mode} {kind}", file.getvalue())


def picture(height, width):
    """Coloured blocks of noise, and rectangles that look like objects."""
    rng = np.random.default_rng(height * 10_007 + width)
    blocks = rng.integers(0, 100, (min(height, 48), min(width, 48), 3)).astype("uint8")
    image = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.uniform(0, 0.7, 2) * (width, height)
        w, h = rng.uniform(0.1, 0.3, 2) * (width, height)
        draw.rectangle((x, y, x + w, y + h), fill=tuple(rng.integers(100, 256, 3).tolist()))
    return image


def garbage_items():
    """Files that are not images, or claim to be larger than they are, or are far too large."""
    jpeg = item(240, 320, "RGB", "JPEG").data
    png = item(240, 320, "RGB", "PNG").data
    return [
        Item("empty", b"", EMPTY),
        Item("text", b"no image, but a sentence " * 40, NO_IMAGE),
        Item("one byte", b"\xff", NO_IMAGE),
        Item("zeros", bytes(1000), NO_IMAGE),
        Item("half a JPEG", jpeg[: len(jpeg) // 2], DAMAGED),
        Item("half a PNG", png[: len(png) // 2], DAMAGED),
        Item("PNG without its last bytes", png[:-40], DAMAGED),
        Item("PNG with a changed byte", flipped(png, len(png) // 2), DAMAGED),
        Item("JPEG header of 65,000 x 65,000", jpeg_of_size(jpeg, 65_000, 65_000), TOO_LARGE),
        Item("half of 5,000 x 5,000", jpeg_of_size(jpeg[:-99], 5_000, 5_000), DAMAGED),
        Item("PNG of 20,000 x 20,000", bomb(), TOO_LARGE),
        Item("PNG of 20,000 x 20,000 behind a chunk", hidden_bomb(), DAMAGED),
    ]


def flipped(data, position):
    """The bytes with one of them changed."""
    return data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :]


def jpeg_of_size(jpeg, height, width):
    """A JPEG whose header claims another size than its pixels have."""
    start = jpeg.index(b"\xff\xc0") + 5  # after the marker, the length and the precision
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return jpeg[:start] + size + jpeg[start + 4 :]


def bomb(side=BOMB_SIDE):
    """A whole PNG of `side` x `side` black pixels: 400 MB of them in 400 kB."""
    packer = zlib.compressobj(1)
    row = bytes(1 + side)  # the kind of filter, then the pixels
    data = [packer.compress(row * 100) for _ in range(side // 100)] + [packer.flush()]
    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])  # 8 bits, grey
    chunks = [(b"IHDR", header), (b"IDAT", b"".join(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def hidden_bomb():
    """The same with a chunk in front that looks like the header of a small file."""
    whole = bomb()
    side = (8).to_bytes(4, "big")
    return whole[:8] + chunk(b"juNk", side * 2 + bytes([8, 0, 0, 0, 0])) + whole[8:]


def chunk(name, data):
    """A chunk of a PNG file."""
    check = zlib.crc32(name + data)
    return len(data).to_bytes(4, "big") + name + data + check.to_bytes(4, "big")
