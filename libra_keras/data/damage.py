"""Images that turn out to be damaged when they are decoded: noticed, counted, named."""

import logging
import threading

import numpy as np

logger = logging.getLogger(__name__)


class DamagedImage(Exception):
    """Raised where an image cannot be decoded, or is not of the size that its boxes refer to."""


class TooManyDamagedImages(Exception):
    """Raised where so many images are damaged that going on would be another experiment."""


def read_checked(data, i):
    """Reads image `i` of a data set.

    Returns:
        What `DetectionData.open_image` does.

    Raises:
        DamagedImage: if it cannot be decoded, or its size is not that of the annotation.
    """
    try:
        image = data.open_image(i)
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise DamagedImage(f"{type(error).__name__}: {error}") from error
    size = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
    expected = data.examples[i].height, data.examples[i].width
    if size != expected:
        raise DamagedImage(f"decoded to {size} (height, width), expected {expected}")
    return image


class DamageLog:
    """Names damaged images when they are first seen, and stops a run in which there are too many.

    One damaged image never stops a run, however few images there are: a single broken file is no
    reason to lose it. Two or more stop it as soon as they are over a share `limit` of all images.
    Each file is logged once, as a warning, which Python writes to stderr.

    Args:
        num_images: int, images of the data set.
        limit: float in [0, 1], the largest share of damaged images. Defaults to 0.01.

    Example:

    >>> from libra_keras.data.damage import DamageLog
    >>> log = DamageLog(num_images=10)
    >>> log.add("a.jpg", "truncated")
    >>> log.files
    {'a.jpg': 'truncated'}
    """

    def __init__(self, num_images, limit=0.01):
        self.num_images = num_images
        self.limit = limit
        self.files = {}
        self._lock = threading.Lock()

    def get_state(self):
        """Returns the files as a dict, for a run that is interrupted."""
        return dict(self.files)

    def set_state(self, state):
        """Adds files that were noted before the run was interrupted."""
        with self._lock:
            self.files = {**state, **self.files}

    def add(self, file, message):
        """Notes a file (once).

        Raises:
            TooManyDamagedImages: if that is one too many; the error lists the first ten.
        """
        with self._lock:
            is_new = str(file) not in self.files
            self.files.setdefault(str(file), message)
            count = len(self.files)
        if is_new:
            logger.warning("Damaged image: %s: %s", file, message)
        if count >= 2 and count > self.limit * self.num_images:
            raise TooManyDamagedImages(
                f"{count} of {self.num_images} images are damaged, more than {self.limit:.0%}:\n"
                + "\n".join(f"  {name}: {why}" for name, why in list(self.files.items())[:10])
            )
