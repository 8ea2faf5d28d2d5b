"""The objects beside an object: its share rows, its owner sharing rules, its feed; and what of them can be read.

Names by Object Reference: ``MessagingSessionShare``; a custom ``Widget__c`` has ``Widget__Share``. A user may not see
every column: those that may be missing are left out of queries, and told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from consumer.errors import QueryRefusedError, SalesforceUnavailableError
from consumer.events import Json
from consumer.pages import DeletedIds
from consumer.ports import Companion
from consumer.salesforce import queries
from consumer.salesforce.counted import CountedRest
from consumer.salesforce.deletions import deleted_ids
from consumer.salesforce.describes import Describes
from consumer.salesforce.rest import DATE_MARGIN_MS, Asks
from consumer.salesforce.soql import Soql, cursor_gone

TRACKED: Final = "FeedTrackedChanges"
"""Child relationship of a feed to FeedTrackedChange, which can be read through it only (Object Reference)."""

REFUSED_PART: Final = frozenset({"INVALID_FIELD", "INVALID_TYPE", "MALFORMED_QUERY"})
"""How a query is refused for one part of it (REST API guide, "Status Codes and Error Responses")."""

_DOUBT_MS: Final = 1_000
"""How wrong our notion of the org's time may be when a question is sent."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read of a companion object.

    Attributes:
        needed: columns without which nothing can be told.
        wanted: columns that may be missing.
    """

    needed: tuple[str, ...]
    wanted: tuple[str, ...]


COLUMNS: Final[Mapping[Companion, Columns]] = {
    "shares": Columns(
        ("Id", "ParentId", "UserOrGroupId", "AccessLevel", "RowCause"), ("LastModifiedDate", "LastModifiedById")
    ),
    "rules": Columns(
        ("Id",),
        (
            *("Name", "DeveloperName", "Description", "AccessLevel", "GroupId", "UserOrGroupId"),
            *("LastModifiedById", "SystemModstamp"),
        ),
    ),
    "feed": Columns(
        ("Id", "ParentId", "SystemModstamp"),
        (
            *("Type", "CreatedById", "CreatedDate", "IsDeleted", "LastModifiedDate", "CommentCount", "LikeCount"),
            *("Title", "Body", "LinkUrl", "IsRichText", "RelatedRecordId", "InsertedById"),
        ),
    ),
}

_OPTIONAL: Final[Mapping[Companion, tuple[str, ...]]] = {
    "shares": (),
    "rules": (),
    "feed": ("BestCommentId", "Visibility", "NetworkScope"),
}
"""Columns that only some orgs or releases have: their lack is nothing to tell."""

_SUFFIX: Final[Mapping[Companion, str]] = {"shares": "Share", "rules": "OwnerSharingRule", "feed": "Feed"}


def companion_of(entity: str, what: Companion) -> str:
    """Return the API name of a companion object."""
    if entity.endswith("__c"):
        return f"{entity.removesuffix('__c')}__{_SUFFIX[what]}"
    return entity + _SUFFIX[what]


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows of a question, and between which times they were true.

    Attributes:
        records: as REST writes them.
        asked_ms: nothing that was committed before it is missing, epoch milliseconds of the org's time.
        answered_ms: the last answer's ``Date`` + 1 s.
        complete: False when the server's cursor was gone before the end.
    """

    records: Sequence[Mapping[str, Json]]
    asked_ms: int
    answered_ms: int
    complete: bool


class CompanionQueries:
    """Asks questions about companion objects, and counts them; none may use the reserve of calls unless it says so.

    Args:
        rest: the org's REST API.
    """

    def __init__(self, rest: Asks) -> None:
        self._rest = CountedRest(rest)
        self._describes = Describes(self._rest, repair=False)
        self._soql = Soql(self._rest)

    @property
    def calls(self) -> int:
        """REST calls made so far, describes and delete logs included."""
        return self._rest.calls

    def now_ms(self) -> int:
        """Return the org's time, epoch milliseconds."""
        return self._rest.clock.now_ms()

    async def columns(self, entity: str, what: Companion) -> tuple[str, ...]:
        """Return the columns of a companion that can be read.

        Raises:
            QueryRefusedError: the object, or a column that is needed, can't be read.
        """
        visible, wanted = await self._describes.last(companion_of(entity, what)), COLUMNS[what]
        self._require(entity, what, visible)
        optional = _OPTIONAL[what]
        return tuple(each for each in (*wanted.needed, *wanted.wanted, *optional) if each in visible)

    async def hidden(self, entity: str, what: Companion) -> tuple[str, ...]:
        """Return which columns can't be read, as ``Object.Column``; describe is asked anew.

        Raises:
            QueryRefusedError: as above.
        """
        name = companion_of(entity, what)
        visible = await self._describes.fresh(name)
        self._require(entity, what, visible)
        return tuple(f"{name}.{each}" for each in COLUMNS[what].wanted if each not in visible)

    def _require(self, entity: str, what: Companion, visible: Mapping[str, object]) -> None:
        missing = [each for each in COLUMNS[what].needed if each not in visible]
        if missing:
            raise QueryRefusedError(
                f"{companion_of(entity, what)} can't be read without {', '.join(missing)}",
                "Give the integration user Read on the object and these fields.",
                code="INVALID_FIELD",
            )

    async def ask(
        self, about: str, query: str, *, deleted: bool = False, repair: bool = False, rows: int = 2000
    ) -> Answered:
        """Run a query.

        Args:
            about: the object it reads, whose describe is forgotten when it is refused.
            query: SOQL.
            deleted: whether deleted rows come too (queryAll).
            repair: whether the reserve of calls may be used.
            rows: how many an answer should have.
        """
        asked_ms = self.now_ms() - _DOUBT_MS
        try:
            found = await self._soql.run(query, deleted=deleted, repair=repair, rows=rows)
        except QueryRefusedError as error:
            if error.code in {"INVALID_FIELD", "INVALID_TYPE"}:
                self._describes.forget(about)
            raise
        # Our clock may be ahead; what the first answer knows was asked before its Date.
        asked_ms = min(asked_ms, found.first_answered_ms - DATE_MARGIN_MS)
        return Answered(found.records, asked_ms, found.answered_ms, found.complete)

    async def whole(self, about: str, query: str, *, deleted: bool = False, repair: bool = False) -> Answered:
        """Run a query whose rows are only good together.

        Raises:
            SalesforceUnavailableError: its cursor was gone before the end.
        """
        answered = await self.ask(about, query, deleted=deleted, repair=repair)
        if not answered.complete:
            raise cursor_gone()
        return answered

    async def count(self, name: str) -> int:
        """Return how many rows an object has."""
        found = await self._soql.run(queries.count(name, ""), deleted=False, repair=False)
        return found.total

    async def deleted(self, entity: str, what: Companion, from_ms: int, to_ms: int) -> DeletedIds:
        """Return what was deleted of a companion in a span."""
        return await deleted_ids(self._rest, companion_of(entity, what), from_ms, to_ms, repair=False)

    async def following(self, path: str) -> Sequence[Mapping[str, Json]]:
        """Return the rows that follow where those of a child relationship were cut.

        Raises:
            SalesforceUnavailableError: not all of them can be had.
        """
        return (await self._soql.following(path)).records


def converted(name: str, convert: Callable[[Mapping[str, Json]], Json], record: Mapping[str, Json]) -> Json:
    """Return what a row says.

    Raises:
        SalesforceUnavailableError: a column that every row has is missing, or not of its type.
    """
    try:
        return convert(record)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise SalesforceUnavailableError(
            f"Salesforce sent a row of {name} without its ids or times",
            f"Check the integration user's access to {name}.",
        ) from error
