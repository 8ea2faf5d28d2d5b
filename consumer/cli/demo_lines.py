"""How the demonstration shows committed records: one line each, cut to the terminal's width."""

from __future__ import annotations

import re
import time
from typing import Any

import orjson
from rich.text import Text

from consumer.events import OutboundRecord

_COLOURS = {"c": "green", "u": "cyan", "d": "red", "r": "blue"}
_WORDS = {"c": "created", "u": "changed", "d": "deleted", "r": "read"}
_SHOWN_FIRST = ("Status", "OwnerId", "EndedByType", "AgentType")
_NOT_SHOWN = frozenset({"Id", "Name", "LastModifiedDate", "LastModifiedById", "CreatedDate", "CreatedById"})
_TOLD_FACTS = frozenset({"Status", "OwnerId"})
_ID = re.compile(r"[0-9a-zA-Z]{15}[A-Z0-5]{3}")
"""Of an id its kind is shown, and the end of its number."""
_ROOM_FOR_MORE = len("+99")
_MOST_CHARS = 20
_TIME_WIDTH = _VERB_WIDTH = 9
_NAME_WIDTH = 12


class Lines:
    """Makes the lines; remembers the names of the sessions it saw.

    Args:
        width: columns of a line.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._names: dict[str, str] = {}

    def line(self, kind: str, record: OutboundRecord) -> Text | None:
        """Return a record's line, None for one that is only counted.

        Args:
            kind: last part of its topic's name.
            record: the record.
        """
        if kind == "quarantine":
            return self._line(None, kind, "yellow", record.key.decode("utf-8", "replace"))
        value = orjson.loads(record.value or b"null")
        match kind:
            case "changes":
                return self._change(value)
            case "history":
                return self._fact(value)
            case "coverage":
                return self._coverage(value)
            case _:
                return None

    def _change(self, change: dict[str, Any]) -> Text:
        source, op = change["source"], change["op"]
        before, after = change["before"] or {}, change["after"] or {}
        name = after.get("Name") or before.get("Name")
        if isinstance(name, str):
            self._names[source["record_id"]] = name
        word = "repaired" if source["repaired"] else _WORDS[op]
        text = self._line(source["ts_ms"], word, _COLOURS[op], self._name(source["record_id"]))
        names = _told(op, source["changed_fields"], before, after)
        if names:
            self._add_fields(text, op, names, before, after)
        elif op != "d":
            text.append("nothing but its stamps", style="dim")
        return text

    def _add_fields(self, text: Text, op: str, names: list[str], before: dict[str, Any], after: dict[str, Any]) -> None:
        """Add as many fields as have room, and say how many have none."""
        for number, name in enumerate(names):
            shown = _short(after[name]) if name in after else "?"
            if op == "u" or name in before:
                shown = f"{_short(before[name]) if name in before else '?'} → {shown}"
            left = len(names) - number - 1
            if text.cell_len + len(f"{_label(name)} {shown}  ") + (_ROOM_FOR_MORE if left else -2) > self._width:
                text.append(f"+{left + 1}", style="dim")
                return
            text.append(f"{_label(name)} ", style="dim")
            text.append(f"{shown}  " if left else shown)

    def _fact(self, fact: dict[str, Any]) -> Text | None:
        """Return the line of a fact that Salesforce's own row has confirmed; the change itself was told before."""
        if fact["match"] != "confirmed" or fact["field"] not in _TOLD_FACTS:
            return None
        text = self._line(None, "history", "magenta", self._name(fact["record_id"]))
        name = _label(fact["field"])
        text.append(f"{name} ", style="dim")
        text.append(f"{_short(fact['old_value'])} → {_short(fact['new_value'])}  ")
        text.append("confirmed", style="dim")
        return text

    def _coverage(self, value: dict[str, Any]) -> Text | None:
        match value["kind"]:
            case "span":
                stream = value["stream"].partition(":")[0]
                return self._line(None, "coverage", "yellow", f"{stream} proven complete up to {value['to'][11:19]}Z")
            case "loss_opened":
                return self._line(None, "coverage", "yellow", f"loss window opened: {value['reason']}")
            case "loss_closed":
                repaired = value["repaired_records"]
                return self._line(
                    None, "coverage", "yellow", f"loss window closed: {value['reason']}, {repaired} records restored"
                )
            case kind:
                return self._line(None, "coverage", "yellow", kind)

    def _name(self, record_id: str) -> str:
        return self._names.get(record_id, record_id)

    def _line(self, at_ms: int | None, word: str, colour: str, what: str) -> Text:
        text = Text()
        text.append(f"{'' if at_ms is None else _clock(at_ms):{_TIME_WIDTH}}", style="dim")
        text.append(f"{word:{_VERB_WIDTH}}", style=colour)
        text.append(f"{what:{_NAME_WIDTH}}", style="bold" if at_ms is not None else "")
        return text


def _told(op: str, changed: list[str], before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the fields to show: those that changed, or that were told first and are not null; best known first."""
    if op == "u":
        names = [each.partition(".")[0] for each in changed]
    else:
        names = [each for each, value in after.items() if before.get(each) != value]
    wanted = [each for each in dict.fromkeys(names) if each not in _NOT_SHOWN]
    return [each for each in _SHOWN_FIRST if each in wanted] + [each for each in wanted if each not in _SHOWN_FIRST]


def _label(field: str) -> str:
    return "Owner" if field == "OwnerId" else field


def _clock(ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


def _short(value: object) -> str:
    if value is None:
        return "null"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if _ID.fullmatch(text):
        return f"{text[:3]}…{text[12:15]}"
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"
