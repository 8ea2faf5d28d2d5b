"""The README's tables that are made from the code; ``python -m tests.readme_tables`` writes them anew.

A table stands between two marks; what is around it is written by hand. A test compares them with the code.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from prometheus_client import Metric

from consumer import settings, settings_load
from consumer.cli.main import COMMANDS
from consumer.settings import DurationMs, Group, SizeBytes
from consumer.telemetry import Metrics

README = Path(__file__).resolve().parent.parent / "README.md"
_DURATIONS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))


def tables() -> dict[str, str]:
    """Return every table by its mark."""
    return {"configuration": configuration(), "commands": commands(), "metrics": metrics()}


def configuration() -> str:
    """Return every key with its default and meaning."""
    rows = []
    for key, kind, name in _keys(settings.Settings):
        info = kind.model_fields[name]
        default = "**required**" if info.is_required() else _default(kind, name, info.default)
        if settings_load.is_secret(info):
            default = "secret"
        meaning = _sentence(_meanings(kind)[name])
        choices = info.annotation
        if get_origin(choices) is Literal:
            meaning = f"{' · '.join(f'`{each}`' for each in get_args(choices))}. {meaning}"
        rows.append((f"`{key}`", default, meaning))
    return _table(("key", "default", "meaning"), rows)


def commands() -> str:
    """Return every command with its line."""
    return _table(("command", "does"), [(f"`{name}`", text) for name, text in COMMANDS.items()])


def metrics() -> str:
    """Return every metric with its kind and meaning."""
    found = Metrics(now_ms=lambda: 0).registry.collect()
    rows = [(f"`{_exposed(metric)}`", metric.type, metric.documentation) for metric in found]
    return _table(("`session_consumer_…`", "kind", "meaning"), rows)


def _exposed(metric: Metric) -> str:
    name = metric.name.removeprefix("session_consumer_")
    return f"{name}_total" if metric.type == "counter" else name


def _keys(group: type[Group], prefix: str = "") -> Iterator[tuple[str, type[Group], str]]:
    for name, info in group.model_fields.items():
        kind = info.annotation
        if inspect.isclass(kind) and issubclass(kind, Group):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", group, name


def _meanings(group: type[Group]) -> dict[str, str]:
    """Return the text below each field; one that has none shares its group's."""
    source = ast.parse(inspect.getsource(settings))
    body = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == group.__name__).body
    found = dict.fromkeys(group.model_fields, (group.__doc__ or "").splitlines()[0])
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            assert isinstance(text.value, ast.Constant)
            found[field.target.id] = str(text.value.value)
    return found


def _default(group: type[Group], name: str, value: Any) -> str:
    annotation = group.__annotations__[name]
    if value is None:
        return ""
    if annotation in ("DurationMs", DurationMs):
        return f'`"{_with_unit(value, _DURATIONS)}"`'
    if annotation in ("SizeBytes", SizeBytes):
        return f'`"{_with_unit(value, _SIZES)}"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{each}"' for each in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


def _with_unit(value: int, units: Sequence[tuple[str, int]]) -> str:
    unit, size = next((unit, size) for unit, size in units if value >= size and value % size == 0)
    return f"{value // size}{unit}"


def _sentence(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(text: str) -> str:
    """Return the README's text with all tables as the code has them.

    Raises:
        AssertionError: a mark is missing.
    """
    for name, table in tables().items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert len(block.findall(text)) == 1, f"the README needs one place marked {name}"
        text = block.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]  # lambdas have no annotations
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
