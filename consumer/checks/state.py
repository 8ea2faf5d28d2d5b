"""The check of the local store's directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from consumer.checks.findings import Finding, Level, ok, warn
from consumer.settings import Settings
from consumer.store.file import store_directory

_NAME = "local state"
_LITTLE_BYTES = 1 << 30
_ADVICE = "Set state.path to a directory this user may write; a service needs StateDirectory= or a volume for it."


def check_state(settings: Settings, environment: Mapping[str, str]) -> Finding:
    """Return whether the store can be written, and how much room there is; nothing is made.

    Args:
        settings: the configuration.
        environment: the process's environment.
    """
    path = store_directory(settings.state.path, environment)
    try:
        there = _nearest(path)
        if not there.is_dir():
            return Finding(_NAME, Level.FAIL, f"{there} is not a directory", _ADVICE)
        if not os.access(there, os.W_OK | os.X_OK):
            return Finding(_NAME, Level.FAIL, f"{there} can't be written by this user", _ADVICE)
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(_NAME, Level.FAIL, f"{path} can't be looked at: {error.strerror}", _ADVICE)
    stored = sum(each.stat().st_size for each in path.glob("*.sqlite3*")) if path.is_dir() else 0
    seen = f"{path}: {_size(stored)} used, {_size(free)} free"
    if free < _LITTLE_BYTES:
        return warn(_NAME, seen, "Make room or move state.path: a full disk stops the service until there is some.")
    return ok(_NAME, seen)


def _nearest(path: Path) -> Path:
    """Return the path, or what of it exists: the rest is made at the start."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
