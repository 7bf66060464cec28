"""The settings of a training run: a preset, over it a TOML file, over that the flags of the command line. Of a run that
is resumed: those that it wrote, over them the flags."""

import argparse
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

from vqvae_gluon.config import PRESETS, Config, ModelConfig, RunConfig, TrainingConfig, check_field, shown
from vqvae_gluon.errors import InputError, UsageError
from vqvae_gluon.files import read_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SECTIONS: dict[str, Any] = {"model": ModelConfig, "training": TrainingConfig, "run": RunConfig}
_FLAGS = {"data": "dataset", "data_directory": "data"}  # that are not named for their fields
_MAX_FILE_BYTES = 1 << 20
# What a TOML reader takes long for, or calls itself for: names joined by dots, brackets, keys and long numbers. All
# settings together have some 50 keys.
_MARKS, _MAX_MARKS = (".", "[", "{", "="), 1000
_LONG_WORD = re.compile(r"[\w+.-]{200}")
_TEXT_FORMS = (
    r'"{3}(?:[^\\]|\\.)*?(?:"{3}|\Z)',
    r"'{3}.*?(?:'{3}|\Z)",
    r'"(?:[^"\\\n]|\\.)*"?',
    r"'[^'\n]*'?",
    r"#[^\n]*",
)
_TEXT = re.compile("|".join(_TEXT_FORMS), re.DOTALL)
SETTINGS_FILE = "settings.toml"  # In the directory of a run.


class Settings(NamedTuple):
    """What a command line asks for.

    Attributes:
        config, run: all settings.
        given: the fields that the user set, as ``section.field``; the others are the preset's.
    """

    config: Config
    run: RunConfig
    given: frozenset[str]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every field, besides ``--preset`` and ``--config``; the help of each says its default."""
    parser.add_argument("--preset", choices=PRESETS, help="gives every setting that you do not set (default: mnist)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as a TOML file; flags win over it")
    for section, kind in _SECTIONS.items():
        about, told = _documentation(kind)
        group = parser.add_argument_group(f"[{section}] {about}")
        for entry in dataclasses.fields(kind):
            about_field = f"{told[entry.name]} (default: {_default(section, entry)})"
            words: dict[str, Any] = {"help": about_field.replace("%", "%%"), "default": None}
            if isinstance(entry.default, bool):
                words["action"] = argparse.BooleanOptionalAction
            else:
                words["type"] = _reader(entry)
                words["metavar"] = "TEXT" if isinstance(entry.default, str) else "N"
                words["nargs"] = "+" if isinstance(entry.default, tuple) else None
            flag = _FLAGS.get(entry.name, entry.name).replace("_", "-")
            group.add_argument(f"--{flag}", dest=f"{section}.{entry.name}", **words)


def read_settings(options: argparse.Namespace, resumes: bool = False) -> Settings:
    """The settings that a command line asks for.

    Args:
        options: what the flags of :func:`add_flags` gave.
        resumes: a run is resumed: what it wrote stands for a preset and a file that are not given; where they are, only
            for the place of the data.

    Raises:
        InputError: the file is unreadable, or a key of it is unknown or its value of a wrong type.
        UsageError: the settings do not fit together.
    """
    given = _read_file(options.config) if options.config else {}
    name = options.preset or given.get("preset", "mnist")
    given.pop("preset", None)
    flags = _read_flags(options)
    levels = [given, flags]
    output = next((level["run"]["output"] for level in (flags, given) if level.get("run", {}).get("output")), "")
    output = output or f"runs/{name}"
    if resumes and options.preset is None and options.config is None:
        levels.insert(0, _read_run(Path(output)))
    elif resumes and (Path(output) / SETTINGS_FILE).is_file():  # Of several machines one has it.
        levels.insert(0, {"run": {"data_directory": _read_run(Path(output))["run"]["data_directory"]}})
    values = {**PRESETS[name].to_json(), "run": dataclasses.asdict(RunConfig())}
    for level in levels:
        if "epochs" in level.get("training", {}):
            values["training"]["steps"] = 0  # Those from further down would win over the epochs.
        for section, entries in level.items():
            values[section].update(entries)
    values["run"]["output"] = output
    try:
        config = Config.from_json({section: values[section] for section in ("model", "training")})
    except ValueError as error:
        raise UsageError("options", str(error)) from error
    names = (f"{section}.{field}" for level in levels for section, entries in level.items() for field in entries)
    return Settings(config, RunConfig(**values["run"]), frozenset(names))


def _read_flags(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    flags: dict[str, dict[str, Any]] = {}
    for place, value in vars(options).items():
        section, _, field = place.partition(".")
        if field and value is not None:
            flags.setdefault(section, {})[field] = tuple(value) if isinstance(value, list) else value
    return flags


def _read_run(directory: Path) -> dict[str, Any]:
    """The settings that a run wrote: all of them, but for what belongs to one start of it."""
    path = directory / SETTINGS_FILE
    if not path.is_file():
        raise InputError(path, "does not exist; give the run's directory by --output, or leave --resume out to begin")
    written = {"model": {}, "training": {}, "run": {}, **_read_file(path)}
    written.pop("preset", None)
    # Fields that came after it was written have their defaults, whatever a preset says.
    for section, kind in _SECTIONS.items():
        defaults = {entry.name: entry.default for entry in dataclasses.fields(kind)}
        written[section] = {**defaults, **written[section]}
    written["run"].pop("output")
    written["run"].pop("kvstore")  # A job has it by its launcher.
    return written


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


def _parse(data: bytes) -> dict[str, Any]:
    """What a file of settings says.

    Raises:
        ValueError: it is no TOML, or more than settings are.
    """
    text = data.decode()
    # Up to where the reader finds a mistake, texts and comments are where this finds them.
    bare = _TEXT.sub("", text)
    if any(bare.count(mark) > _MAX_MARKS for mark in _MARKS):
        raise ValueError("it holds more than settings")
    if _LONG_WORD.search(bare):
        raise ValueError("it holds a number or a name of 200 characters or more")
    return tomllib.loads(text)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        given = _parse(read_file(path, _MAX_FILE_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not TOML ({error})") from error
    for section, entries in given.items():
        if section == "preset":
            if not isinstance(entries, str) or entries not in PRESETS:
                raise InputError(path, f"preset is {shown(entries)}; the presets are {', '.join(PRESETS)}")
            continue
        if section not in _SECTIONS or not isinstance(entries, dict):
            raise InputError(path, f"has the unknown key {section[:100]}; it may have preset, {', '.join(_SECTIONS)}")
        fields = {entry.name: entry for entry in dataclasses.fields(_SECTIONS[section])}
        for key, value in entries.items():
            if key not in fields:
                raise InputError(path, f"[{section}] has the unknown key {key[:100]}; it may have {', '.join(fields)}")
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


def _default(section: str, entry: dataclasses.Field) -> str:
    """What a field is that is not given: of each preset, where they differ."""
    if section == "run":
        return "runs/PRESET" if entry.name == "output" else _shown(entry.default)
    of: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        of.setdefault(_shown(getattr(getattr(preset, section), entry.name)), []).append(name)
    if len(of) == 1:
        return next(iter(of))
    return "; ".join(f"{value} of {', '.join(names)}" for value, names in of.items())


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "empty"


def _documentation(kind: Any) -> tuple[str, dict[str, str]]:
    """The first line of a dataclass' docstring, and what it says of each of its fields."""
    text = inspect.getdoc(kind) or ""
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE)
    return text.splitlines()[0].rstrip("."), {name: " ".join(told.split()).rstrip(".") for name, told in entries}
