"""Finds the configuration's values: TOML file, then environment; secrets from environment or secret files.

Pure: text, environment and the way to read a secret file are arguments. All faults are collected before any
is reported, so that one run tells everything there is to correct.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from consumer.errors import ConfigError
from consumer.settings import (
    FieldSettings,
    Group,
    KafkaSettings,
    PubSubSettings,
    SalesforceSettings,
    Settings,
)

ENV_PREFIX = "SESSION_CONSUMER__"

Origin = Literal["default", "file", "env", "secret file"]
ReadFile = Callable[[Path], bytes]
LoginFaults = Callable[[SalesforceSettings], Sequence[str]]
Rules = Callable[[Group, Mapping[str, Any]], Sequence[str]]

_SECRETS_WITH_FILE = (
    "salesforce.client_secret",
    "salesforce.password",
    "salesforce.access_token",
    "kafka.sasl_password",
)
"""Secrets for which ``<key>_file`` may name a file; ``refresh_token_file`` is a setting: it is rewritten."""

_STAND_IN = {
    "salesforce": {"login_url": "https://stand-in.my.salesforce.com"},
    "kafka": {"bootstrap_servers": "stand-in:9092"},
}
"""Lets the rules between values be judged although a required value is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration, and where each value came from.

    Attributes:
        settings: all values.
        origins: ``section.key`` of every value, with its origin.
    """

    settings: Settings
    origins: Mapping[str, Origin]


@dataclass(slots=True)
class _Found:
    """What has been collected so far; keys are ``section.key``."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def load(
    file_text: str,
    environ: Mapping[str, str],
    read_file: ReadFile,
    login_faults: LoginFaults = lambda _: (),
) -> Loaded:
    """Build the settings from the configuration file and the environment, which wins.

    Args:
        file_text: the TOML file's text, empty if there is none.
        environ: the process's environment.
        read_file: gives a secret file's bytes, or raises OSError.
        login_faults: judges the section ``salesforce`` by the needs of the chosen flow, in production
            :func:`consumer.salesforce.login.login_faults`, which looks at key files.

    Raises:
        ConfigError: with every fault found; no fault repeats a value that could be secret.
    """
    found = _Found()
    _take_file(file_text, found)
    _take_env(environ, found)
    _take_secret_files(found, read_file)
    rules = partial(_rule_faults, login_faults=login_faults)
    groups = {name: _build_group(name, info, found, rules) for name, info in Settings.model_fields.items()}
    if found.faults:
        raise ConfigError(list(dict.fromkeys(found.faults)))
    origins: dict[str, Origin] = {key: found.origins.get(key, "default") for key, _ in leaves()}
    return Loaded(Settings.model_validate(groups), origins)


def leaves(group: type[Group] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield ``section.key`` and description of every single value, in the order of the classes."""
    for name, info in group.model_fields.items():
        key = f"{prefix}{name}"
        inner = _group_of(info)
        if inner is None:
            yield key, info
        else:
            yield from leaves(inner, f"{key}.")


def is_secret(info: FieldInfo) -> bool:
    """Tell whether a value may never be shown."""
    return info.annotation is SecretStr or SecretStr in get_args(info.annotation)


def env_name(key: str) -> str:
    """Return the environment variable that overrides ``section.key``."""
    return ENV_PREFIX + key.replace(".", "__").upper()


def _group_of(info: FieldInfo) -> type[Group] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Group) else None


_LEAVES = dict(leaves())
_KNOWN = (*_LEAVES, *(f"{key}_file" for key in _SECRETS_WITH_FILE))
_SECTIONS = frozenset(key[:index] for key in _KNOWN for index, char in enumerate(key) if char == ".")


# --- the file


def _take_file(text: str, found: _Found) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its text tells line and column, and no value
        end = f"(at line {text.count(chr(10)) + 1}, the end of the file)"
        what = str(error).replace("(at end of document)", end)
        raise ConfigError([f"the configuration file is not valid TOML: {what}"]) from error
    for key, value in _flatten(document, found):
        info = _LEAVES.get(key)
        if info is not None and is_secret(info):
            found.faults.append(f"{key} is a secret and must not stand in the file; {_secret_advice(key)}")
        elif isinstance(value, dict):
            found.faults.append(f"{key} must be a value, not a table")
        elif key in _SECTIONS:
            found.faults.append(f"{key} must be a table: write [{key}] above its keys")
        elif key in _KNOWN:
            found.values[key] = value
            found.origins[key] = "file"
        else:
            found.faults.append(f"{key} is unknown{_did_you_mean(key, (*sorted(_SECTIONS), *_KNOWN))}")


def _flatten(table: Mapping[str, Any], found: _Found, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if not isinstance(value, dict) or key in _LEAVES:
            yield key, value
        elif key in _SECTIONS:
            yield from _flatten(value, found, f"{key}.")
        else:
            found.faults.append(f"[{key}] is an unknown section{_did_you_mean(key, sorted(_SECTIONS))}")


def _secret_advice(key: str) -> str:
    file_key = f"{key}_file"
    return f"set {env_name(key)}" + (f", or name a file with {file_key}" if file_key in _KNOWN else "")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    alike = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not alike:  # right key, wrong section
        alike = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    return f"; did you mean {alike[0]}?" if alike else ""


# --- the environment


def _take_env(environ: Mapping[str, str], found: _Found) -> None:
    for name in sorted(each for each in environ if each.startswith(ENV_PREFIX)):
        key = name.removeprefix(ENV_PREFIX).replace("__", ".").lower()
        if key in _SECTIONS:
            found.faults.append(f"{name} names a section; write one variable per value, such as {name}__…")
        elif key not in _KNOWN or name != env_name(key):
            hint = _did_you_mean(name, [env_name(each) for each in _KNOWN])
            found.faults.append(f"{name} names no setting{hint}")
        else:
            _take_env_value(name, key, environ[name], found)


def _take_env_value(name: str, key: str, text: str, found: _Found) -> None:
    kind = _LEAVES[key].annotation if key in _LEAVES else str
    value: Any = text
    if get_origin(kind) is tuple:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, list):
            found.faults.append(f'{name} must be a JSON list, such as ["a", "b"]')
            return
    elif not text and (key not in _LEAVES or type(None) in get_args(kind)):
        found.faults.append(f"{name} is empty; give it a value or unset it")
        return
    found.values[key] = value
    found.origins[key] = "env"


# --- secret files


def _take_secret_files(found: _Found, read_file: ReadFile) -> None:
    for key in _SECRETS_WITH_FILE:
        file_key = f"{key}_file"
        path = found.values.pop(file_key, None)
        if path is None:
            continue
        if key in found.values:
            if found.origins[file_key] == "env":
                found.faults.append(f"{env_name(key)} and {env_name(file_key)} are both set; unset one")
            continue
        if not isinstance(path, str):
            found.faults.append(f"{file_key} must be the path of a file")
            continue
        secret = _read_secret(file_key, Path(path), read_file, found)
        if secret is not None:
            found.values[key] = secret
            found.origins[key] = "secret file"


def _read_secret(file_key: str, path: Path, read_file: ReadFile, found: _Found) -> str | None:
    try:
        secret = read_file(path).decode().rstrip("\r\n")
    except OSError as error:
        found.faults.append(f"{file_key}: {path} can't be read: {error.strerror or type(error).__name__}")
        return None
    except UnicodeDecodeError:
        found.faults.append(f"{file_key}: {path} is not UTF-8 text")
        return None
    if not secret:
        found.faults.append(f"{file_key}: {path} is empty")
        return None
    return secret


# --- values and the rules between them


def _build_group(name: str, info: FieldInfo, found: _Found, rules: Rules) -> Group | None:
    """Validate one section; its faults are added to ``found``."""
    kind = _group_of(info)
    if kind is None:  # every field of Settings is a group
        raise TypeError(name)
    values = _nest(name, found.values)
    try:
        group = kind.model_validate(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=True, include_input=False)
        found.faults += [_value_fault(name, each, found) for each in wrong]
        bad = {str(each["loc"][0]) for each in wrong}
        good = {key: value for key, value in values.items() if key not in bad}
        group = kind.model_validate(_STAND_IN.get(name, {}) | good)
        if "auth" not in bad:
            absent = tuple(f"{name}.{key} is missing" for key in bad)
            faults = rules(group, good | dict.fromkeys(bad, True))
            found.faults += [fault for fault in faults if not fault.startswith(absent)]
        return None
    found.faults += rules(group, values)
    return group


def _nest(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        first, *path, last = key.split(".")
        if first == section:
            table = nested
            for part in path:
                table = table.setdefault(part, {})
            table[last] = value
    return nested


def _value_fault(section: str, error: ErrorDetails, found: _Found) -> str:
    key = section
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = (
        error["msg"].removeprefix("Value error, ").replace("Input should", "should").replace("String should", "should")
    )
    message = message[:1].lower() + message[1:]
    plain = key.partition("[")[0]
    where = f" (from {env_name(plain)})" if found.origins.get(plain) == "env" else ""
    return f"{key}: {message}{where}"


def _rule_faults(group: Group, given: Mapping[str, Any], *, login_faults: LoginFaults) -> Sequence[str]:
    """Check the rules between values of one section."""
    match group:
        case SalesforceSettings():
            return login_faults(group)
        case KafkaSettings():
            return _sasl_faults(group, given)
        case PubSubSettings():
            return _topic_faults(group.topics)
        case FieldSettings():
            return _hash_faults(group, given)
        case _:
            return []


def _sasl_faults(settings: KafkaSettings, given: Mapping[str, Any]) -> list[str]:
    if not settings.security_protocol.startswith("SASL_"):
        return [
            f'kafka.{key} has no effect with security_protocol = "{settings.security_protocol}"; '
            "write SASL_SSL or SASL_PLAINTEXT"
            for key in ("sasl_username", "sasl_password")
            if key in given and "security_protocol" not in given
        ]
    faults = []
    needed = f'is missing, security_protocol = "{settings.security_protocol}" needs it'
    if not given.get("sasl_username"):
        faults.append(f"kafka.sasl_username {needed}")
    if not given.get("sasl_password"):
        faults.append(f"kafka.sasl_password {needed}; {_secret_advice('kafka.sasl_password')}")
    return faults


def _topic_faults(topics: Sequence[str]) -> list[str]:
    faults = [
        f"pubsub.topics names {topic} more than once" for topic in dict.fromkeys(topics) if topics.count(topic) > 1
    ]
    if "/data/ChangeEvents" in topics and len(set(topics)) > 1:
        faults.append(
            "pubsub.topics: /data/ChangeEvents holds the events of the other topics too, and an entity "
            "belongs to exactly one subscription; name it alone or leave it out"
        )
    return faults


def _hash_faults(settings: FieldSettings, given: Mapping[str, Any]) -> list[str]:
    faults = []
    if settings.hash and "hash_key_file" not in given:
        faults.append("fields.hash_key_file is missing, fields.hash needs it; name a file of at least 16 random bytes")
    policies = (("drop", settings.drop), ("hash", settings.hash), ("mask", settings.mask))
    seen: dict[str, str] = {}
    for policy, names in policies:
        faults += [
            f"fields.{policy} and fields.{seen[name]} both name {name}; keep one"
            for name in names
            if seen.setdefault(name, policy) != policy
        ]
    return faults
