"""A training run from its config to its report, step by step."""

import contextlib
import sys
from collections.abc import Iterable

import keras

from libra_keras.data import DetectionData, training_batches
from libra_keras.devices import Devices, make_deterministic
from libra_keras.runs import inputs, precision, report, resuming
from libra_keras.runs.advice import at_start
from libra_keras.runs.building import build, build_optimizer, check_batch, chosen_devices
from libra_keras.runs.config import RunConfig, TrainConfig
from libra_keras.runs.defaults import with_defaults
from libra_keras.runs.fitting import Job, fit_and_report, follow
from libra_keras.runs.moments import moments_of
from libra_keras.runs.resumable import Pace
from libra_keras.runs.run import Run


def train(
    config: TrainConfig,
    train: DetectionData | None = None,
    val: DetectionData | None = None,
    model: keras.Model | None = None,
    stop_by: float | None = None,
    keep_at: Iterable[float] = (),
) -> Run:
    """Trains a detector as `libra-keras train` does, and writes a run folder.

    A run that was killed or interrupted continues when the function is called again with the same
    arguments. Several devices and deterministic runs must be chosen before the backend has computed
    anything in this process.

    Args:
        config: `TrainConfig`; `None` values are replaced by defaults, see `resolve`.
        train, val: `DetectionData` to learn from and to measure on, instead of those that
            `config.data` names.
        model: detector to train as it is, on the devices that it was built on, instead of the one
            that `config.model` names.
        stop_by: time, as returned by `time.time()`, after which the run is saved at the end of the
            current step and returned unfinished; not in a cluster. The same call continues it.
        keep_at: fractions of the run, such as `(0.5, 0.75)`. The weights after that share of its
            steps, or their averages, are kept in the folder: `runs.open(folder, "kept-0.5")`.

    Returns:
        `Run`. Its folder is `None` on a worker of a cluster that writes nothing.

    Raises:
        TypeError: if `stop_by` or `keep_at` are not numbers.
        ValueError: if options contradict each other, or do not fit the data or the detector.
        RuntimeError: if it is too late to choose devices or determinism.
        NonFiniteLoss: if a gradient or loss was not finite; the weights from before are saved.
        Stopped: a `KeyboardInterrupt`, after Ctrl-C or SIGTERM; the run is saved.
        OSError: if files cannot be written; what was saved before is complete.

    Example:

    ```python
    from libra_keras import runs

    config = runs.TrainConfig(
        data=runs.DataConfig("my_photos"),
        model=runs.ModelConfig("libra_faster_rcnn_resnet50"),
        run=runs.RunConfig("runs/mine"),
    )
    run = runs.train(config)
    print(run.metrics["AP"])
    ```
    """
    moments = moments_of(config.devices, stop_by, keep_at)
    config = inputs.named_after(with_defaults(config, model), train, val)
    if config.run.deterministic:
        make_deterministic(config.run.seed)  # JAX reads its flags when it looks for devices
    devices = chosen_devices(config.devices, model)
    with _folder(config, devices) as folder, devices:
        check_batch(config.schedule.batch, devices)
        config = resuming.settled(config, folder, devices)
        train, val = inputs.load_both(config.data, train, val)
        _seed(config.run)
        job = _prepare(config, train, val, devices, folder, model, moments)
        if folder is None:
            follow(job)
            return Run(None, job.model)
        is_finished = fit_and_report(job)
        return Run(folder.path, job.model if is_finished else None)


def _folder(config, devices):
    """The folder of the run where this process writes it; `None` elsewhere."""
    return resuming.opened(config) if devices.is_chief else contextlib.nullcontext()


def _seed(own: RunConfig):
    # Building draws from the generators again: what came before must not matter.
    (make_deterministic if own.deterministic else keras.utils.set_random_seed)(own.seed)


def _prepare(config, train, val, devices: Devices, folder, given, moments) -> Job:
    """Builds and checks everything; only then is the run folder made."""
    with devices.scope():
        model, started_from = build(config, train, devices.batch_norm, given)
    inputs.check_voc(config.data.voc, model)
    train, val = inputs.with_given_proposals(config.data, train, val, model)
    done = devices.agreed(folder.batches if folder else 0)
    options = inputs.batch_options(config, model.input_policy)
    batches = training_batches(train, model.input_policy, start_step=done, **options)
    inputs.tell_cache(batches.source)
    steps = min(batches.source.steps_per_epoch, config.schedule.steps or sys.maxsize)
    with devices.scope():
        model.compile(build_optimizer(config, steps))
    model.largest_object = train.longest_side
    if folder:
        record = resuming.record_of(config, train, val, model, steps)
        _begin(folder, {**record, "started_from": started_from}, model, config)
    return Job(
        model=model,
        batches=devices.share(batches, done),
        source=batches.source,
        val=val,
        pace=Pace(steps, config.schedule.epochs, config.run.save_every, moments),
        devices=devices,
        done=done,
        eval_every=config.schedule.eval_every,
        early_stop=config.schedule.early_stop,
        with_voc=inputs.wants_voc(config.data),
        known=at_start(config, train, model) if folder else {},
        folder=folder,
    )


def _begin(folder, record, model, config):
    """Only here, where data and model are known to be good, may an earlier run be replaced."""
    if folder.goes_on:
        resuming.check_record(folder, record)
    folder.begin(record, model, config.run.overwrite)
    what = f"{config.model.name or config.model.init or model.name} on {record['device']}"
    print(
        f"{what}: {report.describe(config, record['steps_per_epoch'])} -> {folder.path}", flush=True
    )
    if config.model.name and config.model.precision is None and not folder.goes_on:
        precision.tell(model, "training")
