"""Random access to the records of TFRecord files, which other readers go through in order."""

import struct
import threading
from pathlib import Path

HEADER = struct.Struct("<QI")  # length of the record, and its checksum
FOOTER = 4  # checksum of the record


class TFRecords:
    """Reads records of TFRecord files by number.

    Such a file is a chain: each record says how long it is. The first record that is asked of a
    file makes its headers be read, 12 bytes per record; what is kept are their places. Files are
    opened for every record, so threads may read at the same time.

    Args:
        folder: path-like object of the files; one with `open` and `/`, such as `pathlib.Path` or
            `epath.Path`, which also knows buckets.

    Example:

    >>> import pathlib, struct, tempfile
    >>> from libra_keras.data.tfrecords import TFRecords
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(f"{folder}/two", "wb") as file:
    ...         for record in (b"first", b"second"):
    ...             _ = file.write(struct.pack("<QI", len(record), 0) + record + bytes(4))
    ...     TFRecords(pathlib.Path(folder)).read("two", 1)
    b'second'
    """

    def __init__(self, folder):
        self.folder = Path(folder) if isinstance(folder, str) else folder
        self._places = {}
        self._lock = threading.Lock()

    def read(self, file, number):
        """Returns the bytes of record `number`, counted from 0, of a file of the folder.

        Raises:
            OSError: if the file ends before, or in the middle of, the record.
        """
        with (self.folder / file).open("rb") as stream:
            with self._lock:
                if file not in self._places:
                    self._places[file] = list(_places(stream))
            places = self._places[file]
            if not 0 <= number < len(places):
                raise OSError(f"{file} has {len(places)} records, none of number {number}")
            start, length = places[number]
            stream.seek(start)
            record = stream.read(length)
        if len(record) < length:
            raise OSError(f"{file} ends in the middle of record {number}")
        return record


def _places(stream):
    """Yields start and length of every record."""
    start = 0
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        length, _ = HEADER.unpack(header)
        yield start + HEADER.size, length
        start += HEADER.size + length + FOOTER
        stream.seek(start)
