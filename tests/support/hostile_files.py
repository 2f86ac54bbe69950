"""Files that a server must survive, made here."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image


def encoded(image, kind, **options):
    """The bytes of a file of a Pillow image or an array."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def zipped(members, compression=zipfile.ZIP_STORED):
    """The bytes of an archive of contents by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def scene(height=48, width=64, seed=0):
    """A smooth image with colours: noise would hide how chroma is scaled."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3)).astype("uint8")
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def png_with_size(height, width):
    """A small PNG file whose header says that it is another size."""
    data = bytearray(encoded(scene(), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def png_with_a_chunk_first():
    """A PNG file of 4,000 rows whose first chunk is not the header, but would be a small one's."""
    whole = png(np.zeros((4000, 30_000, 1), "uint8"), 0)
    small = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    first = struct.pack(">I", len(small)) + b"juNk" + small
    return whole[:8] + first + struct.pack(">I", zlib.crc32(first[4:])) + whole[8:]


def jpeg_with_size(height, width):
    """A small JPEG file whose header says that it is another size."""
    data = bytearray(encoded(scene(), "JPEG"))
    frame = data.index(b"\xff\xc0")  # start of frame: marker, length, bits, height, width
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


PASSES = (  # of an interlaced PNG file: first row, first column, step of rows, step of columns
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
    (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
)  # fmt: skip


def png(pixels, kind, interlaced=False):
    """A PNG file of forms that Pillow reads but does not write.

    Args:
        pixels: uint8 or uint16 `(H, W, C)`.
        kind: int, PNG's colour type: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA.
        interlaced: bool.
    """
    height, width, _ = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    passes = PASSES if interlaced else [(0, 0, 1, 1)]
    parts = [pixels[i::down, j::across] for i, j, down, across in passes]
    rows = [row for part in parts if part.size for row in part]
    data = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def bad_files():
    """Pairs of the bytes and the status that they must get, by name."""
    jpeg, whole = encoded(scene(), "JPEG"), encoded(scene(), "PNG")
    return {
        "empty": (b"", 1),
        "text": (b"not an image", 2),
        "one byte": (b"\xff", 2),
        "GIF": (encoded(scene(), "GIF"), 2),
        "BMP": (encoded(scene(), "BMP"), 2),
        "PNG bomb": (png_with_size(20000, 20000), 3),
        "JPEG bomb": (jpeg_with_size(20000, 20000), 3),
        "PNG bomb behind a chunk": (png_with_a_chunk_first(), 4),
        "wide PNG": (png_with_size(1, 2**31 - 1), 3),
        "JPEG marker": (jpeg[:3], 4),
        "JPEG header": (jpeg[:300], 4),
        "half a JPEG": (jpeg[: len(jpeg) // 2], 4),
        "PNG signature": (whole[:8], 4),
        "PNG header": (whole[:33], 4),
        "half a PNG": (whole[: len(whole) // 2], 4),
        "PNG of no size": (png_with_size(0, 0), 4),
        "PNG of other size": (png_with_size(4000, 4000), 4),
    }
