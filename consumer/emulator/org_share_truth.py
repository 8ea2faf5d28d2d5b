"""What truly happened to sharing in the emulated org: who had which access from when to when, for tests to judge by.

Kept only when a scenario asks for it. A share is identified by record, grantee and cause. Times are the org's, in
epoch milliseconds, at which a query begins to find it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

ShareKey: TypeAlias = tuple[str, str, str]
"""Record, grantee and row cause."""
Line: TypeAlias = dict[str, object]

_EVER: Final = 1 << 62


class _Span(NamedTuple):
    key: ShareKey
    level: str
    from_ms: int
    to_ms: int


class ShareTruth:
    """The log of what happened to shares and sharing rules, and of when recalculations were under way."""

    def __init__(self) -> None:
        self._open: dict[ShareKey, tuple[str, int]] = {}
        self._absent: dict[ShareKey, int] = {}
        self._closed: list[_Span] = []
        self._gaps: list[tuple[ShareKey, int, int]] = []
        self._rules: list[Line] = []
        self._settled: list[tuple[int, int | None]] = []

    # Shares

    def granted(self, key: ShareKey, level: str, at_ms: int) -> None:
        """A share is there from now on; one that was absent for a moment goes on where it has the same level."""
        absent_ms = self._absent.pop(key, None)
        if absent_ms is not None:
            known, from_ms = self._open[key]
            if known == level:
                self._gaps.append((key, absent_ms, at_ms))
                return
            self._close(key, known, from_ms, absent_ms)
        self._open[key] = (level, at_ms)

    def renewed(self, key: ShareKey, at_ms: int) -> None:
        """A share's row was made anew without a moment between; one that was yet to be seen is seen now."""
        level, from_ms = self._open[key]
        if from_ms > at_ms:
            self._open[key] = (level, at_ms)

    def changed(self, key: ShareKey, level: str, at_ms: int) -> None:
        """A share has another level from now on."""
        known, from_ms = self._open[key]
        if from_ms >= at_ms:
            self._open[key] = (level, from_ms)
            return
        self._close(key, known, from_ms, at_ms)
        self._open[key] = (level, at_ms)

    def absent(self, key: ShareKey, at_ms: int) -> None:
        """A share's row is away for a moment, in the middle of a recalculation."""
        self._absent[key] = at_ms

    def lost(self, key: ShareKey) -> None:
        """A share whose row was away for a moment does not come back: it ended when the row went."""
        level, from_ms = self._open.pop(key)
        self._close(key, level, from_ms, self._absent.pop(key))

    def revoked(self, key: ShareKey, at_ms: int) -> None:
        """A share is there no more."""
        level, from_ms = self._open.pop(key)
        self._close(key, level, from_ms, at_ms)

    def _close(self, key: ShareKey, level: str, from_ms: int, to_ms: int) -> None:
        # What nobody could see never was.
        if from_ms < to_ms:
            self._closed.append(_Span(key, level, from_ms, to_ms))

    def share_lines(self, parent_id: str = "") -> Iterator[Line]:
        """Yield the lines of ``GET /control/oracle/shares``: ended ones in the order of their ends, then the others."""
        spans = [span for span in self._closed if parent_id in {"", span.key[0]}]
        for key, level, from_ms, to_ms in spans:
            yield _share_line(key, level, from_ms, to_ms)
        for key, (level, from_ms) in tuple(self._open.items()):
            if parent_id in {"", key[0]}:
                yield _share_line(key, level, from_ms, None)

    def gap_lines(self, parent_id: str = "") -> Iterator[Line]:
        """Yield the lines of ``GET /control/oracle/share_gaps``: moments in which a share's row was away."""
        gaps = [*self._gaps, *((key, from_ms, _EVER) for key, from_ms in self._absent.items())]
        for key, from_ms, to_ms in gaps:
            if parent_id in {"", key[0]}:
                yield {**_named(key), "from_ms": from_ms, "to_ms": None if to_ms == _EVER else to_ms}

    # Rules

    def rule(self, op: str, at_ms: int, values: Mapping[str, object], changed: Mapping[str, object]) -> None:
        """Take note of a rule that was created, changed or deleted.

        Args:
            op: ``created``, ``changed`` or ``deleted``.
            at_ms: when.
            values: the rule's fields by API name, after the change; of a deleted one, as it was.
            changed: of a change, field to old value.
        """
        self._rules.append({"op": op, "at_ms": at_ms, "rule": dict(values), "previous": dict(changed)})

    def rule_lines(self) -> Iterator[Line]:
        """Yield the lines of ``GET /control/oracle/rules``."""
        for index, line in enumerate(tuple(self._rules)):
            yield {"index": index, **line}

    # Settled moments

    def settled(self, at_ms: int, *, is_settled: bool) -> None:
        """Take note of whether all is as rules and memberships say."""
        last = self._settled[-1] if self._settled else None
        if is_settled and (last is None or last[1] is not None):
            self._settled.append((at_ms, None))
        elif not is_settled and last is not None and last[1] is None:
            self._settled[-1] = (last[0], at_ms)

    def settled_spans(self) -> list[list[int | None]]:
        """Return from when to when no recalculation was under way; None for the one that goes on."""
        return [[from_ms, to_ms] for from_ms, to_ms in self._settled]


def _named(key: ShareKey) -> Line:
    return {"parent_id": key[0], "user_or_group_id": key[1], "row_cause": key[2]}


def _share_line(key: ShareKey, level: str, from_ms: int, to_ms: int | None) -> Line:
    return {**_named(key), "access_level": level, "from_ms": from_ms, "to_ms": to_ms}
