"""The options of `libra-keras train` about several devices and several machines."""

import contextlib
import sys


def add_arguments(group):
    """Adds `--devices` and `--cluster`."""
    group.add_argument(
        "--devices",
        type=_number_or_all,
        metavar="N|all",
        help="train on so many GPUs of this machine, or where there is none on logical CPUs, which "
        "share every batch; the result is that of one. TensorFlow and JAX. Default: 1",
    )
    group.add_argument(
        "--cluster",
        action="store_true",
        help="train on all machines that the environment variable TF_CONFIG names; give the same "
        "command on each. The first one measures and writes. TensorFlow",
    )


def chosen(options):
    """Returns the devices that the options ask for.

    Args:
        options: namespace of `libra-keras train`.

    Returns:
        `Devices`, to be entered before anything is built.

    Raises:
        ValueError: if they are not there, or the backend cannot train on several.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.devices import chosen
    >>> chosen(argparse.Namespace(devices=None, cluster=False)).num
    1
    """
    from libra_keras.training.cluster import Cluster
    from libra_keras.training.distribution import devices_of_machine
    from libra_keras.training.hardware import leave_gpus

    if not options.cluster:
        if options.devices != "all":
            leave_gpus(options.devices or 1)
        return devices_of_machine(options.devices)
    if options.devices is not None:
        raise ValueError("--cluster takes all devices of every machine; leave --devices away")
    return Cluster()


def check_batch(options, devices):
    """Checks that devices can share a batch evenly, and says which they are.

    Args:
        options: namespace of `libra-keras train`, resolved.
        devices: `Devices`, entered.

    Raises:
        ValueError: if they cannot.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.devices import check_batch
    >>> from libra_keras.training.distribution import Replicas
    >>> check_batch(argparse.Namespace(batch=4), Replicas(["GPU:0", "GPU:1"]))
    2 devices, 2 images of every batch on each: GPU:0, GPU:1
    """
    if options.batch % devices.num:
        raise ValueError(
            f"--batch {options.batch} cannot be split evenly over {devices.num} devices. It is the "
            "number of images of a step over all of them"
        )
    if devices.num > 1:
        each = options.batch // devices.num
        names = ", ".join(devices.names)
        print(f"{devices.num} devices, {each} images of every batch on each: {names}", flush=True)


def describe():
    """Returns the name of what a run computes on; warns if that could have been a GPU.

    Example:

    >>> from libra_keras.cli.devices import describe
    >>> isinstance(describe(), str)
    True
    """
    from libra_keras.training.hardware import device_name, missing_gpu_advice

    device = device_name()
    if advice := missing_gpu_advice(device):
        print(f"Warning: {advice}", file=sys.stderr, flush=True)
    return device


@contextlib.contextmanager
def place_of(options, devices):
    """Opens the place of the run where this process writes it; yields `None` elsewhere.

    Args:
        options: namespace of `libra-keras train`, resolved.
        devices: `Devices`; they are entered here.

    Yields:
        `resuming.Place` or `None`.
    """
    from libra_keras.cli import resuming

    opened = resuming.opened(options) if devices.is_chief else contextlib.nullcontext()
    with opened as place, devices:
        check_batch(options, devices)
        yield place


def follow(model, batches, devices, steps, epochs, done):
    """Trains a worker of a cluster that writes nothing, until the run ends.

    Ctrl-C and SIGTERM do not end it at once: the chief does, which is told to stop as well.

    Args:
        model: compiled detector.
        batches: this worker's share.
        devices: `Cluster`.
        steps, epochs: ints, of the run.
        done: int, batches that the run has trained on already.

    Returns:
        The exit status: 0, or 1 if the loss was not finite.
    """
    from libra_keras.cli import damage
    from libra_keras.training import StopOnNonFinite
    from libra_keras.training.signals import StopSignals

    def find():
        return {"training": batches.source.damaged}

    guard = StopOnNonFinite(first_step=done % steps)
    if done >= steps * epochs:
        return 0
    with damage.explained(find), StopSignals("The chief ends the run") as signals:
        # Schedulers tell all workers to stop. The chief needs this one for the step it is in.
        signals.held = True
        devices.fit(
            model,
            batches,
            steps_per_epoch=steps,
            initial_epoch=done // steps,
            epochs=epochs,
            callbacks=[guard],
        )
    damage.tell(find())
    return 1 if guard.failure else 0


def _number_or_all(text):
    return text if text == "all" else int(text)
