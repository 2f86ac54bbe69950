"""What this machine computes on, and whether its backend still listens to settings about it."""

import os
import re
from pathlib import Path

import keras

NVIDIA_GPU = Path("/dev/nvidia0")  # there, however little of CUDA is installed
BFLOAT16_SINCE = 8, 0  # compute capability of the first ones with units for it, Ampere
CUDA_INSTALLS = {
    "tensorflow": "pip install 'tensorflow[and-cuda]'",
    "jax": "pip install 'jax[cuda12]'",
    "torch": "install PyTorch's build for CUDA, see pytorch.org",
}


class TooLate(RuntimeError, ValueError):
    """Raised when a setting comes too late: the backend that reads it has started already.

    It is a `RuntimeError`, like what backends raise in this case, and a `ValueError`, like what is
    raised for devices that a machine does not have: the command prints both in the same way.

    Example:

    >>> from libra_keras.devices import TooLate
    >>> issubclass(TooLate, RuntimeError)
    True
    """


def tensorflow_has_started() -> bool:
    """Returns whether TensorFlow has taken its devices, and does not make it do so."""
    import tensorflow as tf

    # Nothing public tells, except that this can be changed before and not after.
    count = tf.config.threading.get_inter_op_parallelism_threads()
    try:
        tf.config.threading.set_inter_op_parallelism_threads(count + 1)
    except RuntimeError:
        return True
    tf.config.threading.set_inter_op_parallelism_threads(count)
    return False


def jax_has_started() -> bool:
    """Returns whether JAX has taken its devices, and does not make it do so."""
    from jax._src import xla_bridge  # whatever is public and tells would start it

    return xla_bridge.backends_are_initialized()


def device_name() -> str:
    """Returns what the backend computes on by default: `"CPU"` or the name of a GPU.

    Example:

    >>> from libra_keras.devices import device_name
    >>> isinstance(device_name(), str)
    True
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_device()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return "CPU" if device.platform == "cpu" else device.device_kind
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _tensorflow_device() -> str:
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "CPU"
    details = tf.config.experimental.get_device_details(gpus[0])
    return details.get("device_name", gpus[0].name.removeprefix("/physical_device:"))


def accelerates_bfloat16() -> bool:
    """Returns whether the backend computes on a GPU or TPU that multiplies matrices of bfloat16.

    TPUs do, and NVIDIA's GPUs from compute capability 8.0 on. Other kinds count as not doing so.

    Example:

    >>> from libra_keras.devices import accelerates_bfloat16
    >>> isinstance(accelerates_bfloat16(), bool)
    True
    """
    return _compute_capability() >= BFLOAT16_SINCE or _is_tpu()


def _compute_capability() -> tuple[int, ...]:
    """That of the NVIDIA GPU which the backend computes on, else zeros."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.get_visible_devices("GPU")
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        return details.get("compute_capability", (0, 0))
    if backend == "jax":
        import jax

        text = str(getattr(jax.devices()[0], "compute_capability", ""))
        numbers = re.fullmatch(r"(\d+)\.(\d+)", text)  # AMD's have names, such as gfx90a
        return tuple(map(int, numbers.groups())) if numbers else (0, 0)
    import torch

    is_nvidia = torch.cuda.is_available() and torch.version.cuda is not None
    return torch.cuda.get_device_capability() if is_nvidia else (0, 0)


def _is_tpu() -> bool:
    """Whether JAX computes on a TPU; nothing here uses TensorFlow's."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.devices()[0].platform == "tpu"


def missing_gpu_advice(device: str) -> str | None:
    """Returns what to do if this machine has a GPU that the backend does not find, else `None`.

    TensorFlow and JAX report little or nothing then, and the run would continue, but slowly.

    Args:
        device: the result of `device_name`.

    Example:

    >>> from libra_keras.devices import missing_gpu_advice
    >>> print(missing_gpu_advice("NVIDIA H100"))
    None
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")  # as the user wants it
    if device != "CPU" or hidden or not NVIDIA_GPU.exists():
        return None
    backend = keras.backend.backend()
    return (
        f"this machine has an NVIDIA GPU ({NVIDIA_GPU}), but {backend} finds none and uses the "
        f"CPU: {CUDA_INSTALLS[backend]}"
    )


def leave_gpus(count: int) -> None:
    """Leaves all GPUs but the first `count` to other programs.

    TensorFlow would fill the memory of all of them at its start, including those that it does not
    use. Other backends take what they use. Call it before anything is computed.

    Raises:
        TooLate: if TensorFlow has started, and has taken more than these.

    Example:

    >>> from libra_keras.devices import leave_gpus
    >>> leave_gpus(1)
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if len(gpus) <= count:
        return
    try:
        tf.config.set_visible_devices(gpus[:count], "GPU")
    except RuntimeError as error:
        raise TooLate(
            f"It is too late to leave {len(gpus) - count} of {len(gpus)} GPUs to other programs: "
            "TensorFlow has started already and has taken all of them. Call `leave_gpus` before "
            "anything is computed, set CUDA_VISIBLE_DEVICES for the program, or use all of them "
            'with devices="all"'
        ) from error
