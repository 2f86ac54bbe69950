"""A training run as a value: all its settings, frozen.

`None` means not set: `resolve` fills in the defaults of the detector's family.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from libra_keras.runs.data_config import DataConfig
from libra_keras.runs.fields import Checked, reader, unknown_name
from libra_keras.runs.groups import (
    DeviceConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)

VERSION = 1  # of the form in `config.json`


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
    """A training run as a value: what `libra-keras train` makes of its options.

    Args:
        data: `DataConfig`.
        model: `ModelConfig`.
        schedule: `ScheduleConfig`.
        optimizer: `OptimizerConfig`.
        devices: `DeviceConfig`.
        run: `RunConfig`.

    Example:

    >>> from libra_keras.runs import ModelConfig, TrainConfig
    >>> config = TrainConfig(model=ModelConfig("libra_retinanet_small"))
    >>> TrainConfig.from_dict(config.to_dict()) == config
    True
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    devices: DeviceConfig = DeviceConfig()
    run: RunConfig = RunConfig()

    def replace(self, **groups: Mapping[str, Any]) -> "TrainConfig":
        """Returns a config with other values: `config.replace(run={"seed": 1})`."""
        changed = {
            group: dataclasses.replace(getattr(self, group), **values)
            for group, values in groups.items()
        }
        return dataclasses.replace(self, **changed)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict for JSON, with the version of its format."""
        groups = {
            name: {field: list(v) if isinstance(v, tuple) else v for field, v in own.items()}
            for name, own in dataclasses.asdict(self).items()
        }
        return {"version": VERSION, **groups}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Reads what `to_dict` returned.

        Raises:
            ValueError: if it has another version, or a field is unknown; the nearest is named.
            TypeError: if a value does not have the type of its field.
        """
        groups = dict(values)
        version = groups.pop("version", VERSION)
        if version != VERSION:
            raise ValueError(f"config must have version {VERSION}. Received: {version!r}")
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        found = {}
        for name, own in groups.items():
            if name not in kinds:
                raise ValueError(f"config: {unknown_name(name, kinds)}")
            found[name] = _group(kinds[name], name, own)
        return cls(**found)

    def options(self) -> Iterator[tuple[str, str, dataclasses.Field]]:
        """Yields the name of each option, its group, and its field."""
        for group in dataclasses.fields(self):
            for field in dataclasses.fields(getattr(self, group.name)):
                yield option_name(field), group.name, field


def option_name(field: dataclasses.Field) -> str:
    """Returns what a field is called among the options and in `settings`."""
    return field.metadata.get("name", field.name)


def flag(name: str) -> str:
    """Returns how an option is written on the command line."""
    return f"--{name.replace('_', '-')}"


def settings(config: TrainConfig) -> dict[str, Any]:
    """Returns a config as a flat dict of options, as `config.json` has always had it."""
    flat = {
        name: getattr(getattr(config, group), field.name) for name, group, field in config.options()
    }
    return {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in flat.items()}


def from_settings(recorded: Mapping[str, Any]) -> TrainConfig:
    """Reads the flat dict of `settings`; older runs have no other config."""
    found: dict[str, dict[str, Any]] = {}
    for name, group, field in TrainConfig().options():
        if name in recorded:
            value = recorded[name]
            is_text = isinstance(field.default, tuple) and isinstance(value, str)
            found.setdefault(group, {})[field.name] = reader(field)(value) if is_text else value
    return TrainConfig().replace(**found)


def _group(kind, name, values):
    if not isinstance(values, Mapping):
        raise TypeError(f"config.{name} must be a dict. Received: {values!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    for field in values:
        if field not in known:
            raise ValueError(f"config.{name}: {unknown_name(field, known)}")
    return kind(**values)
