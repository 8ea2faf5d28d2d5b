"""What fields an object has, for this user: describe, asked again only as far as it can have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consumer.changes.rows import FieldInfo
from consumer.errors import SalesforceUnavailableError
from consumer.events import Json
from consumer.salesforce.queries import name
from consumer.salesforce.rest import Asks, Call

WHOLE_AGAIN_MS = 3_600_000
"""Whether a changed permission counts as a modification is not documented, so the whole is read now and then."""


@dataclass(frozen=True, slots=True)
class _Known:
    fields: Mapping[str, FieldInfo]
    modified: str
    read_ms: int


class Describes:
    """Describes by object.

    Args:
        rest: the org's REST API.
        repair: whether the reserve of calls may be used.
    """

    def __init__(self, rest: Asks, *, repair: bool = True) -> None:
        self._rest = rest
        self._repair = repair
        self._known: dict[str, _Known] = {}

    async def fresh(self, entity: str) -> Mapping[str, FieldInfo]:
        """Return the fields as they are now; unchanged ones cost an answer without a body."""
        known = self._known.get(entity)
        headers = {}
        if known is not None and known.modified and self._rest.clock.now_ms() - known.read_ms < WHOLE_AGAIN_MS:
            headers["If-Modified-Since"] = known.modified
        call = Call("GET", f"/sobjects/{name(entity)}/describe", headers=headers, repair=self._repair)
        answer = await self._rest.json(call)
        if answer.status == 304 and known is not None:
            return known.fields
        fields = _fields(answer.body)
        # An answer without Last-Modified is no older than its own Date.
        modified = answer.headers.get("Last-Modified") or answer.headers.get("Date", "")
        self._known[entity] = _Known(fields, modified, self._rest.clock.now_ms())
        return fields

    async def last(self, entity: str) -> Mapping[str, FieldInfo]:
        """Return the fields as read last."""
        known = self._known.get(entity)
        return await self.fresh(entity) if known is None else known.fields

    def forget(self, entity: str) -> None:
        """Forget an object that a query was refused for: what is known of it may be outdated."""
        self._known.pop(entity, None)


def _fields(body: Json) -> dict[str, FieldInfo]:
    try:
        found = [
            FieldInfo(
                field["name"],
                field["type"],
                int(field.get("length") or 0),
                field.get("compoundFieldName") or None,
                field.get("filterable") is not False,
                field.get("calculated") is True,
            )
            for field in body["fields"]
        ]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise SalesforceUnavailableError(
            "Salesforce sent a describe without its fields", "Check that no proxy answers in Salesforce's place."
        ) from error
    return {field.name: field for field in found}
