"""Images that turn out to be damaged when they are decoded: noticed, counted, named."""

import threading


class DamagedImage(Exception):
    """Raised where an image cannot be decoded, or is not of the size that its boxes refer to."""


class TooManyDamagedImages(Exception):
    """Raised where so many images are damaged that going on would be another experiment."""


def read_checked(data, i):
    """Reads image `i` of a data set.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        DamagedImage: if it cannot be decoded, or its size is not that of the annotation.
    """
    try:
        image = data.read_image(i)
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise DamagedImage(f"{type(error).__name__}: {error}") from error
    expected = data.examples[i].height, data.examples[i].width
    if image.shape[:2] != expected:
        raise DamagedImage(f"decoded to {image.shape[:2]} (height, width), expected {expected}")
    return image


class DamageLog:
    """Keeps the names of damaged images, and stops a run in which there are too many.

    One damaged image is always tolerated; from two on, at most a share `limit` of all images.

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

    def add(self, file, message):
        """Notes a file (once).

        Raises:
            TooManyDamagedImages: if that is one too many; the error lists the first ten.
        """
        with self._lock:
            self.files.setdefault(str(file), message)
            count = len(self.files)
        if count >= 2 and count > self.limit * self.num_images:
            raise TooManyDamagedImages(
                f"{count} of {self.num_images} images are damaged, more than {self.limit:.0%}:\n"
                + "\n".join(f"  {name}: {why}" for name, why in list(self.files.items())[:10])
            )
