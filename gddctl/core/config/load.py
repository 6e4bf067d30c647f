"""YAML and ``--set a.b=c`` to a checked config; every mistake is one line that names the key and the remedy."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from gddctl.core.config.external import NamedClasses
from gddctl.core.config.gdd import filled_by
from gddctl.core.config.sections import RunConfig
from gddctl.core.config.yaml_text import read_yaml, write_yaml
from gddctl.core.digest import sha256_json
from gddctl.core.errors import ConfigError, UsageError
from gddctl.core.section import Section

S = TypeVar("S", bound=Section)


def load_config(
    path: Path | None,
    overrides: Iterable[str] = (),
    *,
    base: Mapping[str, Any] | None = None,
    over: Mapping[str, Any] | None = None,
    instead: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read a run's settings.

    Args:
        path: a YAML file, or None to start from ``base`` alone.
        overrides: ``"a.b=c"`` strings, values in YAML, applied last and in order.
        base: settings between the defaults and those of the file.
        over: settings between the file's and the overrides, such as flags.
        instead: what stands in place of the file's settings before ``over`` is put on them, where a flag replaces a section whole.

    Relative paths in a file are read relative to the file's own folder, those in overrides relative to the current one.
    """
    settings = merge(to_settings(RunConfig()), json.loads(json.dumps(base or {}, default=str)))
    if path is not None:
        settings = merge(settings, _rebase(_read_yaml(path), path.parent))
    settings = merge(merge(settings, instead or {}), over or {})
    for override in overrides:
        wanted = _rebase(parse_override(override), Path.cwd())
        _require_no_key_into_a_list(settings, wanted, override)
        settings = merge(settings, wanted)
    return parse(RunConfig, settings)


def parse(model: type[S], settings: Mapping[str, Any], place: str = "") -> S:
    """Check ``settings`` against ``model``.

    Raises:
        ConfigError: one line per mistake, each naming the dotted key.
    """
    try:
        # JSON mode keeps strictness (no "3" for 3) yet takes lists for tuples and strings for paths.
        return model.model_validate_json(json.dumps(settings, default=str))
    except ValidationError as error:
        lines = [_explain(model, settings, item, place) for item in error.errors()]
        raise ConfigError("; ".join(dict.fromkeys(lines))) from error


def parse_override(text: str) -> dict[str, Any]:
    """Turn ``"a.b=c"`` into ``{"a": {"b": c}}``; the value is YAML.

    >>> parse_override("train.crop=[128, 192]")
    {'train': {'crop': [128, 192]}}
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: expected key=value with a dotted key", remedy="for example --set train.iterations=500")
    try:
        nested: Any = read_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not YAML ({_first_line(error)})") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    result: dict[str, Any] = nested
    return result


# Sections whose kinds share their keys, so that what was said for one kind is meant for the other; and the keys that they do not share.
_ONE_CLASS = {"teacher": ("noising", "smoothing")}


def _require_no_key_into_a_list(settings: Any, wanted: Mapping[str, Any], override: str) -> None:
    """Refuse a key of one thing where the settings have several of them.

    Raises:
        ConfigError: names the list, and what stands in it.
    """
    place: list[str] = []
    here, over = settings, wanted
    while isinstance(here, Mapping) and len(over) == 1:
        ((key, inner),) = over.items()
        place.append(key)
        here = here.get(key)
        if not isinstance(inner, Mapping):
            return
        if isinstance(here, list) and "kind" not in inner:
            kinds = [str(item["kind"]) for item in here if isinstance(item, Mapping) and "kind" in item]
            raise ConfigError(
                f"--set {override}: {'.'.join(place)} is a list of {len(here)}" + (f" ({', '.join(kinds)})" if kinds else ""),
                remedy=f"a key does not say which of them: give the whole list, --set '{'.'.join(place)}=[...]', or change the file",
            )
        over = inner


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested ``base`` with ``over`` on top.

    A section whose ``kind`` changes starts afresh, but for those whose kinds share their keys. One whose ``preset`` changes keeps the keys
    that are not as the old preset left them: somebody set those.
    """
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        changes = (
            isinstance(value, Mapping) and isinstance(old, Mapping) and old.get("kind") not in (None, value.get("kind", old.get("kind")))
        )
        same_kind = key in _ONE_CLASS or not changes
        if changes and key in _ONE_CLASS and isinstance(old, Mapping):
            old = {name: kept for name, kept in old.items() if name not in _ONE_CLASS[key]}
        if isinstance(value, Mapping) and isinstance(old, Mapping) and same_kind:
            if value.get("preset", old.get("preset")) != old.get("preset"):
                old = _without_fills(old)
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _without_fills(old: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings without what its preset filled in, which is nobody's wish; a key set to that very value cannot be told apart."""
    fills = filled_by(old.get("preset"))
    return {name: value for name, value in old.items() if name == "kind" or name not in fills or value != fills[name]}


def to_settings(config: Section) -> dict[str, Any]:
    """The config as JSON-like data."""
    result: dict[str, Any] = json.loads(config.model_dump_json())
    return result


def to_yaml(config: Section) -> str:
    """The config as YAML that :func:`load_config` reads back to the same config."""
    return write_yaml(to_settings(config))


def digest_of(config: Section) -> str:
    """The SHA-256 that names this config."""
    return sha256_json(to_settings(config))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such config file", remedy="write one with: gddctl init") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({_first_line(error)})") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(loaded).__name__}")
    return loaded


_PATH_KEYS = (
    ("data", "root"),
    ("teacher", "bundle"),
    ("teacher", "encoder_weights"),
    ("teacher", "external", "path"),
    ("teacher", "external", "classes"),
    ("student", "init"),
    ("student", "encoder_weights"),
)
# What such a key may say instead of a path.
_NO_PATHS = {"encoder_weights": ("none", "imagenet"), "classes": get_args(NamedClasses)}


def _rebase(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    for keys in _PATH_KEYS:
        settings = _rebased(settings, keys, folder, ".".join(keys))
    compare = settings.get("compare")
    teachers = compare.get("teachers") if isinstance(compare, dict) else None
    if isinstance(compare, dict) and isinstance(teachers, dict):
        found = {label: _rebased_teacher(teacher, folder, f"compare.teachers.{label}") for label, teacher in teachers.items()}
        settings = {**settings, "compare": {**compare, "teachers": found}}
    return settings


def _rebased_teacher(teacher: Any, folder: Path, place: str) -> Any:
    """A section of the keys of ``teacher`` that stands elsewhere."""
    for section, *keys in _PATH_KEYS:
        if section == "teacher" and isinstance(teacher, dict):
            teacher = _rebased(teacher, tuple(keys), folder, ".".join((place, *keys)))
    return teacher


def _rebased(settings: dict[str, Any], keys: tuple[str, ...], folder: Path, place: str) -> dict[str, Any]:
    """``settings`` with the path at ``keys`` read relative to ``folder``."""
    key, *rest = keys
    value = settings.get(key)
    if rest:
        return {**settings, key: _rebased(value, tuple(rest), folder, place)} if isinstance(value, dict) else settings
    if not isinstance(value, str) or value in _NO_PATHS.get(key, ()):
        return settings
    return {**settings, key: str((folder / _expand(value, place)).resolve())}


def _expand(text: str, place: str) -> Path:
    """``~`` and ``$VARIABLE`` in a path.

    Raises:
        ConfigError: a variable is not set; a literal ``$`` in a folder's name would only end in "no such folder" elsewhere.
    """
    expanded = os.path.expandvars(text)
    if unset := re.search(r"\$\{?(\w+)", expanded):
        raise ConfigError(f"{place}: {text}: the environment variable {unset[1]} is not set", remedy=f"export it, or --set {place}=PATH")
    return Path(expanded).expanduser()


def _explain(model: type[BaseModel], settings: Mapping[str, Any], item: Any, place: str) -> str:
    names = _without_tags(settings, item["loc"])
    dotted = ".".join([*([place] if place else []), *names]) or "config"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, settings, names[:-1])
        close = difflib.get_close_matches(names[-1], known, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(sorted(known))}"
        return f"{dotted}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{dotted}: missing; it has no default"
    if item["type"] == "value_error":
        return f"{dotted}: {item['ctx']['error']}"
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{dotted}: {message}, found {json.dumps(item.get('input'), default=str)[:80]}"


def _without_tags(settings: Any, loc: Iterable[Any]) -> list[str]:
    """Drop the union tags and type names that pydantic puts into an error's place."""
    names: list[str] = []
    here: Any = settings
    parts = list(loc)
    for place, part in enumerate(parts):
        if isinstance(here, Mapping) and part not in here and (here.get("kind") == part or place + 1 < len(parts)):
            continue  # only the last part may be a key that is not there: the one that is missing
        if not isinstance(here, (Mapping, list)) and names:
            continue  # a branch of a union of plain types
        if isinstance(here, list) and not isinstance(part, int):
            continue  # a list that was read as a section with this tag and key
        names.append(str(part))
        if isinstance(here, Mapping):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            here = None
    return names


def _fields_at(model: type[BaseModel], settings: Any, names: list[str]) -> list[str]:
    """Field names of the section at dotted ``names`` under ``model``."""
    candidates: list[type[BaseModel]] = [model]
    here = settings
    for name in names:
        if isinstance(here, list):  # an item of a list: the models of the list's items are the candidates already
            here = here[int(name)] if name.isdigit() and int(name) < len(here) else None
        else:
            here = here.get(name) if isinstance(here, Mapping) else None
            annotation = next((candidate.model_fields[name].annotation for candidate in candidates if name in candidate.model_fields), None)
            if annotation is not None:  # else a user's own name in a mapping: the models of its values are the candidates already
                candidates = _models_in(annotation)
        kind = here.get("kind") if isinstance(here, Mapping) else None
        if kind is not None:
            candidates = [c for c in candidates if "kind" in c.model_fields and c.model_fields["kind"].default == kind] or candidates
        else:
            candidates = [c for c in candidates if "kind" not in c.model_fields] or candidates
    return [field for candidate in candidates for field in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
