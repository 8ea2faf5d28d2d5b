"""Share rows and owner sharing rules of the emulated org as REST shows them.

Facts (Object Reference): share objects have neither getUpdated nor getDeleted, and rows that were removed are gone
from queryAll too; rules have both. Rows are found by Id, record and time without looking at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from consumer.emulator.org import OrgModel
from consumer.emulator.org_share_rows import ShareRow
from consumer.emulator.org_shares import RULES, SHARE
from consumer.emulator.record_ids import PREFIXES
from consumer.emulator.rest_table_base import Bound, Fact, FactTable, Table, Taken, by_name, span_of
from consumer.emulator.rest_values import Column

_USER: Final = {"length": 18, "nillable": False, "refers_to": ("User",)}
SHARE_COLUMNS: Final = (
    Column("Id", "id", "share_id", length=18, nillable=False),
    Column(
        "ParentId",
        "reference",
        "parent_id",
        length=18,
        nillable=False,
        refers_to=("MessagingSession",),
        relationship="Parent",
    ),
    Column(
        "UserOrGroupId",
        "reference",
        "grantee",
        length=18,
        nillable=False,
        refers_to=("Group", "User"),
        relationship="UserOrGroup",
    ),
    Column("AccessLevel", "picklist", "level", length=40, nillable=False),
    Column("RowCause", "picklist", "cause", length=40),
    Column("LastModifiedDate", "datetime", "stamp_ms", nillable=False, groupable=False),
    Column(
        "LastModifiedById",
        "reference",
        "by",
        length=18,
        nillable=False,
        refers_to=("User",),
        relationship="LastModifiedBy",
    ),
    Column("IsDeleted", "boolean", "gone_at", nillable=False, read=lambda _: False),
)


def _person(name: str) -> Column:
    head = name.removesuffix("Id")
    return Column(
        name, "reference", name, length=18, nillable=False, refers_to=("User",), relationship=head, groupable=True
    )


def _moment(name: str) -> Column:
    return Column(name, "datetime", name, nillable=False, groupable=False, read=lambda value: int(value) // 1000 * 1000)


RULE_COLUMNS: Final = (
    Column("Id", "id", "Id", length=18, nillable=False),
    Column("Name", "string", "Name", length=80, nillable=False),
    Column("DeveloperName", "string", "DeveloperName", length=80, nillable=False),
    Column("Description", "textarea", "Description", length=1000, filterable=False, sortable=False, groupable=False),
    Column("AccessLevel", "picklist", "AccessLevel", length=40, nillable=False),
    Column("GroupId", "reference", "GroupId", length=18, nillable=False, refers_to=("Group",), relationship="Group"),
    Column(
        "UserOrGroupId",
        "reference",
        "UserOrGroupId",
        length=18,
        nillable=False,
        refers_to=("Group", "User"),
        relationship="UserOrGroup",
    ),
    _person("CreatedById"),
    _moment("CreatedDate"),
    _person("LastModifiedById"),
    _moment("LastModifiedDate"),
    _moment("SystemModstamp"),
)


class _Visible:
    """Columns without those that the API user may not see."""

    def __init__(self, org: OrgModel, name: str, columns: Sequence[Column]) -> None:
        self._org = org
        self._name = name
        self._all = columns
        self._hidden: frozenset[str] | None = None
        self._seen: dict[str, Column] = {}

    def __call__(self) -> Mapping[str, Column]:
        hidden = self._org.invisible_fields(self._name)
        if hidden != self._hidden:
            self._hidden = hidden
            self._seen = by_name(*(column for column in self._all if column.name not in hidden))
        return self._seen


class ShareTable(Table):
    """MessagingSessionShare; its rows are kept from the first question on."""

    first_sources = ("share_id",)

    def __init__(self, org: OrgModel) -> None:
        super().__init__(SHARE, PREFIXES[SHARE])
        self._org = org
        self._sharing = org.sharing
        self._visible = _Visible(org, SHARE, SHARE_COLUMNS)

    def columns(self) -> Mapping[str, Column]:
        """See the base."""
        return self._visible()

    def name_of(self, record_id: str) -> str | None:
        """See the base."""
        row = self._org.row("MessagingSession", record_id)
        return self._sharing.directory.name_of(record_id) if row is None else row.values.get("Name")

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Iterable[ShareRow]:
        """See the base: of record, Id and time the narrowest."""
        del deleted
        rows = self._sharing.rows
        parent, by_id = bounds.get("ParentId", Bound()), bounds.get("Id", Bound())
        if parent.equal is not None:
            return chain.from_iterable(rows.of(each) for each in sorted(filter(None, parent.equal)))
        if by_id.equal is not None:
            return chain.from_iterable(rows.by_id(each, each) for each in sorted(filter(None, by_id.equal)))
        if by_id.low is not None or by_id.high is not None:
            return rows.by_id(by_id.low, by_id.high)
        if "LastModifiedDate" in bounds:
            return rows.by_time(*span_of(bounds["LastModifiedDate"]))
        if parent.low is not None or parent.high is not None:
            return rows.by_parent(parent.low, parent.high)
        return rows.by_id()

    def in_order(self, order: Sequence[str], bounds: Mapping[str, Bound], *, deleted: bool) -> Iterable[Any] | None:
        """See the base: by Id, by record and Id, by time and Id."""
        rows, first, second = self._sharing.rows, order[0], (*order, "Id")[1]
        parent, by_id = bounds.get("ParentId", Bound()), bounds.get("Id", Bound())
        if first == "ParentId" and second == "Id":
            if parent.equal is not None:
                return self.keys(bounds, deleted=deleted)
            return rows.by_parent(parent.low, parent.high)
        narrow = parent.equal is not None or by_id.equal is not None
        if first == "Id" and not narrow and "LastModifiedDate" not in bounds:
            return rows.by_id(by_id.low, by_id.high)
        if first == "LastModifiedDate" and second == "Id" and not narrow:
            return rows.by_time(*span_of(bounds.get("LastModifiedDate", Bound())))
        return None

    def count(self, now_ms: int) -> int | None:
        """See the base."""
        return self._sharing.rows.count - self._sharing.hidden_rows(now_ms)

    def taker(self, sources: Sequence[str], now_ms: int, *, deleted: bool) -> Callable[[ShareRow], Taken | None]:
        """See the base: rows are not to be seen before their time, nor if they were removed when the query began."""
        del deleted
        begun = self._sharing.rows.changes
        read = attrgetter(*sources, "gone_at", "hidden_until_ms")

        def take(row: ShareRow) -> Taken | None:
            taken: Taken = read(row)
            return None if taken[-2] <= begun or taken[-1] > now_ms else taken

        return take


class RuleTable(FactTable):
    """MessagingSessionOwnerSharingRule."""

    def __init__(self, org: OrgModel) -> None:
        super().__init__(RULES, PREFIXES[RULES], replicates=True)
        self._sharing = org.sharing
        self._visible = _Visible(org, RULES, RULE_COLUMNS)

    def columns(self) -> Mapping[str, Column]:
        """See the base."""
        return self._visible()

    def name_of(self, record_id: str) -> str | None:
        """See the base."""
        return self._sharing.directory.name_of(record_id)

    def rows(self) -> Iterator[Fact]:
        """Yield the rules by Id."""
        for _, rule in sorted(self._sharing.rules.items()):
            yield Fact(rule.values())

    def updated(self, from_ms: int, to_ms: int) -> Sequence[str]:
        """See the base."""
        return [each.rule_id for each in self._sharing.rules.values() if from_ms <= each.modified_ms < to_ms]

    def delete_log(self) -> Mapping[str, int]:
        """See the base."""
        return self._sharing.deleted_rules
