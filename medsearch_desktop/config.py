"""One table of settings: name, type, default, environment variable, help.

A setting comes from, in this order: the caller, its environment variable, the file
`config.toml` in the configuration folder, the default. A name or value that is not
in the table stops the program: a bad configuration is never guessed around.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from medsearch_desktop.errors import ConfigError

APP_NAME = "medsearch"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; `low` and `high` bound a number, both included, `choices` are all values of a text."""

    name: str
    type: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"MEDSEARCH_{self.name.upper()}"


SETTINGS: tuple[Setting, ...] = (
    Setting("library", str, "", "Folder of the library; empty means the user's data folder."),
    Setting(
        "model",
        str,
        "",
        "Model of new libraries (each keeps its own) and of `embed`; empty means the shipped one.",
    ),
    Setting(
        "engine",
        str,
        "auto",
        "What runs the model: onnxruntime, openvino, or auto, the fastest that is installed and agrees.",
        choices=("auto", "onnxruntime", "openvino"),
    ),
    Setting(
        "recognisers",
        str,
        "extract",
        "Where recognisers look for what the lexicon lacks: in `extract` alone, always (ingest too), or never.",
        choices=("extract", "always", "never"),
    ),
    Setting("threads", int, 0, "Processor cores to use; 0 means all that this process may use.", 0, 1024),
    Setting(
        "niceness", int, 0, "Priority of ingest below that of other programs, as `nice` counts (not on Windows).", 0, 19
    ),
    Setting(
        "yield_above",
        int,
        0,
        "Percent of all cores that others use above which an ingest pauses; 0 never pauses.",
        0,
        100,
    ),
    Setting("batch_size", int, 8, "Images that the model takes at once.", 1, 256),
    Setting("max_frames", int, 8, "Frames of a multi-frame image that are indexed, evenly spaced.", 1, 4096),
    Setting("key_slices", int, 12, "Slices of a series of CT, MR or PET that are indexed, evenly spaced.", 1, 64),
    Setting("thumbnail_size", int, 384, "Longer side of a thumbnail, in pixels.", 64, 2048),
    Setting("max_report_bytes", int, 1_000_000, "Largest report file that is read, in bytes.", 1_000, 1_000_000_000),
    Setting(
        "max_feed_bytes",
        int,
        64_000_000,
        "Largest file of HL7, FHIR, PDF, DICOM reports or rows that is read, in bytes.",
        1_000,
        1_000_000_000,
    ),
    Setting(
        "report_columns",
        str,
        "",
        "Columns of tables of reports that have names of their own, as text=NAME,accession=NAME.",
    ),
    Setting(
        "max_pixels", int, 400_000_000, "Largest image, rows x columns x samples, that is decoded.", 1, 10_000_000_000
    ),
    Setting(
        "max_upload_bytes", int, 134_217_728, "Largest image file that may be sent to ask by.", 1_000, 4_000_000_000
    ),
    Setting("max_answer_seconds", float, 60.0, "A question to the server that takes longer is refused.", 0.1, 86_400),
    Setting(
        "compact_idle",
        float,
        300.0,
        "Seconds without a question or job after which a server compacts its database where that pays; 0 never does.",
        0,
        86_400,
    ),
    Setting("exact_below", int, 4_000, "Vectors up to which visual search is exact.", 0, 10_000_000),
    Setting("search_breadth", int, 400, "Candidates that approximate visual search compares in full.", 10, 10_000),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Config:
    """The settings in force; one attribute a row of `SETTINGS`, of the same name."""

    library: str
    model: str
    engine: str
    recognisers: str
    threads: int
    niceness: int
    yield_above: int
    batch_size: int
    max_frames: int
    key_slices: int
    thumbnail_size: int
    max_report_bytes: int
    max_feed_bytes: int
    report_columns: str
    max_pixels: int
    max_upload_bytes: int
    max_answer_seconds: float
    compact_idle: float
    exact_below: int
    search_breadth: int

    @property
    def library_path(self) -> Path:
        """The library folder, absolute."""
        if self.library:
            return Path(self.library).expanduser().absolute()
        return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False)) / "library"

    @property
    def thread_count(self) -> int:
        """Cores to use: as set, else those that the scheduler grants this process."""
        if self.threads:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return max(1, len(os.sched_getaffinity(0)))
        return max(1, os.cpu_count() or 1)


def config_file() -> Path:
    """Return the path of the user's configuration file, which need not exist."""
    return Path(platformdirs.user_config_dir(APP_NAME, appauthor=False)) / "config.toml"


def load_config(
    overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Config:
    """Return the settings in force. `None` in `overrides` leaves a setting to the next source.

    Raises ConfigError for an unknown name or a value of the wrong type or out of range.
    """
    environ = os.environ if environ is None else environ
    file = config_file() if file is None else file
    values = {setting.name: setting.default for setting in SETTINGS}
    values.update(_from_file(file))
    for setting in SETTINGS:
        if setting.variable in environ:
            values[setting.name] = _checked(setting.name, environ[setting.variable], setting.variable)
    for name, value in (overrides or {}).items():
        if value is not None:
            values[name] = _checked(name, value, name)
    return Config(**values)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", item=str(file), remedy="Mend or remove the file") from error
    return {name: _checked(name, value, f"{file}: {name}") for name, value in table.items()}


def _checked(name: str, value: Any, item: str) -> Any:
    setting = _BY_NAME.get(name)
    if setting is None:
        raise ConfigError("no such setting", item=item, remedy=f"Settings are: {', '.join(_BY_NAME)}")
    try:
        if isinstance(value, bool):
            raise ValueError
        number = setting.type(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"must be of type {setting.type.__name__}", item=item, remedy=setting.help) from error
    if setting.low is not None and setting.high is not None and not setting.low <= number <= setting.high:
        raise ConfigError(f"must be from {setting.low:g} to {setting.high:g}", item=item, remedy=setting.help)
    if setting.choices and number not in setting.choices:
        raise ConfigError(f"must be one of {', '.join(setting.choices)}", item=item, remedy=setting.help)
    return number


assert {field.name for field in fields(Config)} == set(_BY_NAME)
