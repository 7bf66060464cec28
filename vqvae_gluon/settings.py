"""The settings of a training run: a preset, over it a TOML file, over that the flags of the command line."""

import argparse
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, Optional

from vqvae_gluon.config import PRESETS, Config, ModelConfig, RunConfig, TrainingConfig, check_field
from vqvae_gluon.errors import InputError, UsageError
from vqvae_gluon.files import read_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SECTIONS: dict[str, Any] = {"model": ModelConfig, "training": TrainingConfig, "run": RunConfig}
_FLAGS = {"data": "dataset", "data_directory": "data"}  # that are not named for their fields
_MAX_FILE_BYTES = 1 << 20


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every field, besides ``--preset`` and ``--config``."""
    parser.add_argument("--preset", choices=PRESETS, help="what all settings are that are not given (default: mnist)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as a TOML file; flags win over it")
    for section, kind in _SECTIONS.items():
        about, told = _documentation(kind)
        group = parser.add_argument_group(f"[{section}] {about}")
        for entry in dataclasses.fields(kind):
            words: dict[str, Any] = {"help": told[entry.name].replace("%", "%%"), "default": None}
            if isinstance(entry.default, bool):
                words["action"] = argparse.BooleanOptionalAction
            else:
                words["type"] = _reader(entry)
                words["metavar"] = "TEXT" if isinstance(entry.default, str) else "N"
                words["nargs"] = "+" if isinstance(entry.default, tuple) else None
            flag = _FLAGS.get(entry.name, entry.name).replace("_", "-")
            group.add_argument(f"--{flag}", dest=f"{section}.{entry.name}", **words)


def read_settings(options: argparse.Namespace) -> tuple[Config, RunConfig]:
    """The settings that a command line asks for.

    Args:
        options: what the flags of :func:`add_flags` gave.

    Raises:
        InputError: the file is unreadable, or a key of it is unknown or its value of a wrong type.
        UsageError: the settings do not fit together.
    """
    given = _read_file(options.config) if options.config else {}
    name = options.preset or given.get("preset", "mnist")
    given.pop("preset", None)
    flags: dict[str, dict[str, Any]] = {}
    for place, value in vars(options).items():
        section, _, field = place.partition(".")
        if field and value is not None:
            flags.setdefault(section, {})[field] = tuple(value) if isinstance(value, list) else value
    values = {**PRESETS[name].to_json(), "run": dataclasses.asdict(RunConfig())}
    for level in (given, flags):
        if "epochs" in level.get("training", {}):
            values["training"]["steps"] = 0  # Those from further down would win over the epochs.
        for section, entries in level.items():
            values[section].update(entries)
    values["run"]["output"] = values["run"]["output"] or f"runs/{name}"
    try:
        config = Config.from_json({section: values[section] for section in ("model", "training")})
    except ValueError as error:
        raise UsageError("options", str(error)) from error
    return config, RunConfig(**values["run"])


def to_toml(config: Config, run: Optional[RunConfig]) -> str:
    """All settings, as a file that :func:`read_settings` takes."""
    sections = {**config.to_json(), **({"run": dataclasses.asdict(run)} if run else {})}
    # TOML writes each of our values as JSON does, but for one character.
    tables = (
        "\n".join([f"[{section}]", *(f"{key} = {_to_json(value)}" for key, value in values.items())])
        for section, values in sections.items()
    )
    return "\n\n".join(tables) + "\n"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        given = tomllib.loads(read_file(path, _MAX_FILE_BYTES).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(path, f"is not TOML ({error})") from error
    for section, entries in given.items():
        if section == "preset":
            if not isinstance(entries, str) or entries not in PRESETS:
                raise InputError(path, f"preset is {entries!r}; the presets are {', '.join(PRESETS)}")
            continue
        if section not in _SECTIONS or not isinstance(entries, dict):
            raise InputError(path, f"has the unknown key {section}; it may have preset, {', '.join(_SECTIONS)}")
        fields = {entry.name: entry for entry in dataclasses.fields(_SECTIONS[section])}
        for key, value in entries.items():
            if key not in fields:
                raise InputError(path, f"[{section}] has the unknown key {key}; it may have {', '.join(fields)}")
            try:
                entries[key] = check_field(fields[key], value)
            except ValueError as error:
                raise InputError(path, f"[{section}] {error}") from error
    return given


def _reader(entry: dataclasses.Field) -> Any:
    default: Any = entry.default
    many = isinstance(default, tuple)
    kind = type(default[0] if many else default)

    def read(text: str) -> Any:
        try:
            value = kind(text)
            return check_field(entry, (value,))[0] if many else check_field(entry, value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"invalid value {text!r}: {error}") from error

    return read


def _documentation(kind: Any) -> tuple[str, dict[str, str]]:
    """The first line of a dataclass' docstring, and what it says of each of its fields."""
    text = inspect.getdoc(kind) or ""
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE)
    return text.splitlines()[0].rstrip("."), {name: " ".join(told.split()).rstrip(".") for name, told in entries}
