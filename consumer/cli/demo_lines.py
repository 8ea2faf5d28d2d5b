"""How the demonstration shows committed records: one line each, cut to the terminal's width."""

from __future__ import annotations

import re
import time
from typing import Any

import orjson
from rich.text import Text

from consumer.cli.timeline_words import plain
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
            case "sharing" | "sharing-rules" | "feed":
                return self._in_words(kind, value)
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

    def _in_words(self, kind: str, value: dict[str, Any]) -> Text:
        """Return the line of what polls found: a share row, a sharing rule, a feed item."""
        if kind == "sharing":
            return self._phrase("access", "green", self._name(value["record_id"]), _share_words(value))
        if kind == "sharing-rules":
            return self._phrase("rule", "green", _one_line(value["name"] or value["rule_id"]), _rule_words(value))
        whose = value["record_id"] or value["feed_item_id"]
        return self._phrase("feed", "blue", self._name(whose), _feed_words(value))

    def _phrase(self, word: str, colour: str, what: str, phrase: str) -> Text:
        """Return a line that says something in words, cut where the terminal ends."""
        text = self._line(None, word, colour, what)
        text.append(phrase if len(what) < _NAME_WIDTH else f" {phrase}")
        text.truncate(self._width, overflow="ellipsis")
        return text

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


def _share_words(fact: dict[str, Any]) -> str:
    """Return what happened to a share row, and to whose."""
    level, cause = fact["access_level"], fact["row_cause"] or "no cause"
    match fact["kind"]:
        case "unseen":
            span = f"{fact['not_before'][11:19]}Z to {fact['not_after'][11:19]}Z"
            return f"unseen from {span}: owners changed too fast"
        case "granted":
            words = f"granted {level} to"
        case "revoked":
            words = f"revoked {level} from"
        case "level_changed":
            words = f"changed {fact['previous_access_level']} → {level} for"
        case kind:
            words = f"{kind} {level}:"
    return f"{words} {_grantee(fact['grantee_type'], fact['grantee_name'], fact['user_or_group_id'])} ({cause})"


def _rule_words(rule: dict[str, Any]) -> str:
    """Return what became of a sharing rule, and what it says."""
    if rule["kind"] == "changed":
        changes = ", ".join(_change_words(each) for each in rule["changed"])
        return f"changed: {_one_line(changes)}"
    whose = _grantee(rule["group_type"], rule["group_name"], rule["group_id"])
    who = _grantee(rule["grantee_type"], rule["grantee_name"], rule["user_or_group_id"])
    return f"{rule['kind']}: {rule['access_level'] or '?'} on records of {whose} to {who}"


def _feed_words(item: dict[str, Any]) -> str:
    """Return what became of a feed item, and the beginning of what it says."""
    told = ", ".join(_change_words(each) for each in item["changes"]) or item["title"] or item["body"]
    words = f"{item['type'] or 'item'} {item['kind']}"
    return f"{words}: {_one_line(told)}" if told else words


def _change_words(change: dict[str, Any]) -> str:
    return f"{_label(change['field'])} {_short(change['old_value'])} → {_short(change['new_value'])}"


def _grantee(kind: str | None, name: str | None, grantee: str | None) -> str:
    words = [each for each in (kind, name) if each]
    if name is None:
        words.append(_short(grantee) if grantee else "nobody known")
    return _one_line(" ".join(words))


def _one_line(text: str) -> str:
    return plain(" ".join(text.split()))


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
