"""Share rows, owner sharing rules, whom they are for, and the org-wide default (Object Reference; SOQL Reference)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from consumer.changes.fields import FieldPolicy
from consumer.changes.record_ids import to_18
from consumer.changes.row_values import epoch_ms
from consumer.errors import QueryRefusedError
from consumer.events import Json
from consumer.pages import OrgDefault, RulesPage, SharesPage
from consumer.salesforce import queries
from consumer.salesforce.companions import REFUSED_PART, Answered, CompanionQueries, companion_of, converted
from consumer.salesforce.describes import WHOLE_AGAIN_MS
from consumer.tracking.access import OWNER, Grantee, ShareRow, SharingRule

_USER: Final = "005"
_GROUP: Final = "00G"
_CURSOR: Final = re.compile(r"([A-Za-z0-9]{18}):([A-Za-z0-9]{18})", re.ASCII)
_RULE_VALUES: Final = ("Name", "DeveloperName", "Description", "AccessLevel", "GroupId", "UserOrGroupId")
_GROUP_COLUMNS: Final = ("Id", "Name", "DeveloperName", "Type", "RelatedId")


class SharingReads:
    """Reads what sharing consists of.

    Args:
        ask: puts the questions.
        policy: is applied to every row. Where it hides OwnerId, it hides the owner's row likewise.
    """

    def __init__(self, ask: CompanionQueries, policy: FieldPolicy) -> None:
        self._ask = ask
        self._policy = policy
        self._related_again_ms = 0

    # Share rows

    async def of_records(self, entity: str, record_ids: Sequence[str], *, repair: bool) -> SharesPage:
        """Read all share rows of records; as many calls as the ids need."""
        name, columns = companion_of(entity, "shares"), await self._ask.columns(entity, "shares")
        rows: list[ShareRow] = []
        asked_ms: int | None = None
        answered_ms = 0
        for query, _ in queries.id_lists(columns, name, "ParentId", list(dict.fromkeys(record_ids))):
            found = await self._ask.whole(name, query, repair=repair)
            rows += self._rows(entity, found)
            asked_ms = found.asked_ms if asked_ms is None else min(asked_ms, found.asked_ms)
            answered_ms = max(answered_ms, found.answered_ms)
        return SharesPage(rows, asked_ms or 0, answered_ms)

    async def modified(self, entity: str, from_ms: int, to_ms: int, cursor: str | None, limit: int) -> SharesPage:
        """Read rows by LastModifiedDate.

        Raises:
            QueryRefusedError: the user may not read that column.
        """
        name, columns = companion_of(entity, "shares"), await self._ask.columns(entity, "shares")
        stamp = "LastModifiedDate"
        if stamp not in columns:
            raise QueryRefusedError(
                f"{name}.{stamp} can't be read by this user, so that new shares are found by sweeps only",
                "Give the integration user Read on the field.",
                code="INVALID_FIELD",
            )
        query = queries.select(
            columns,
            name,
            queries.span(stamp, from_ms, to_ms),
            queries.after_mark(stamp, cursor),
            order=(stamp, "Id"),
            limit=limit,
        )
        found = await self._ask.ask(name, query, rows=limit)
        rows = self._rows(entity, found)
        following = None
        if _goes_on(found, limit):
            last = found.records[-1]
            following = queries.mark(epoch_ms(last[stamp]), to_18(last["Id"]))
        return SharesPage(rows, found.asked_ms, found.answered_ms, following)

    async def scan(self, entity: str, cursor: str | None, through: str | None, limit: int) -> SharesPage:
        """Read the next chunk of all rows up to a record's, ordered by (ParentId, Id).

        Raises:
            QueryRefusedError: the cursor is none of ours, or Salesforce will not read the rows in this order.
        """
        name, columns = companion_of(entity, "shares"), await self._ask.columns(entity, "shares")
        conditions = (_after(cursor), "" if through is None else f"ParentId <= {queries.quoted_id(through)}")
        query = queries.select(columns, name, *conditions, order=("ParentId", "Id"), limit=limit)
        try:
            found = await self._ask.ask(name, query, rows=limit)
        except QueryRefusedError as error:
            # A column that was just taken from the user is another matter: the describe, asked anew, lacks it.
            if error.code not in REFUSED_PART or await self._ask.columns(entity, "shares") != columns:
                raise
            raise QueryRefusedError(
                f"All rows of {name} can't be read in the order of their ParentId ({error.message})",
                "Give the integration user Read on that field; until then revocations without an owner change stay "
                "unknown.",
                code=error.code,
            ) from error
        following = None
        if _goes_on(found, limit):
            last = found.records[-1]
            following = f"{to_18(last['ParentId'])}:{to_18(last['Id'])}"
        return SharesPage(self._rows(entity, found), found.asked_ms, found.answered_ms, following)

    async def last(self, entity: str) -> str | None:
        """Return the last record that has a row, None if there is none."""
        name = companion_of(entity, "shares")
        query = queries.select(["ParentId"], name, order=("ParentId DESC",), limit=1)
        found = await self._ask.ask(name, query, rows=1)
        return next((to_18(each["ParentId"]) for each in found.records), None)

    async def count(self, entity: str) -> int:
        """Return how many share rows there are."""
        name = companion_of(entity, "shares")
        return await self._ask.count(name)

    def _rows(self, entity: str, found: Answered) -> list[ShareRow]:
        name = companion_of(entity, "shares")
        rows = (converted(name, _share_row, record) for record in found.records if record.get("IsDeleted") is not True)
        if not self._policy.active:
            return list(rows)
        return [kept for row in rows if (kept := self._kept(entity, name, row)) is not None]

    def _kept(self, entity: str, name: str, row: ShareRow) -> ShareRow | None:
        """Return a row with the policy applied, None if what identifies it must leave no trace."""
        values = {"UserOrGroupId": row.user_or_group_id, "LastModifiedById": row.modified_by}
        kept = dict(self._policy.apply_values(name, values))
        if row.row_cause == OWNER:
            owner = self._policy.apply_values(entity, {"OwnerId": row.user_or_group_id})
            if "OwnerId" not in owner:
                return None
            if owner["OwnerId"] != row.user_or_group_id:
                kept["UserOrGroupId"] = owner["OwnerId"]
        if "UserOrGroupId" not in kept:
            return None
        return ShareRow(
            row.record_id,
            row.share_id,
            str(kept["UserOrGroupId"]),
            row.row_cause,
            row.access_level,
            row.modified_ms,
            kept.get("LastModifiedById"),
        )

    # Rules

    async def rules(self, entity: str) -> RulesPage:
        """Read all owner sharing rules."""
        name, columns = companion_of(entity, "rules"), await self._ask.columns(entity, "rules")
        found = await self._ask.whole(name, queries.select(columns, name, order=("Id",)))
        rules = [self._rule(name, record) for record in found.records if record.get("IsDeleted") is not True]
        return RulesPage(rules, found.asked_ms, found.answered_ms)

    def _rule(self, name: str, record: Mapping[str, Json]) -> SharingRule:
        rule: SharingRule = converted(name, _rule, record)
        if not self._policy.active:
            return rule
        by = {"LastModifiedById": rule.modified_by}
        kept = self._policy.apply_values(name, by).get("LastModifiedById")
        return SharingRule(rule.rule_id, self._policy.apply_values(name, rule.values), rule.modified_ms, kept)

    # Grantees

    async def grantees(self, ids: Sequence[str]) -> dict[str, Grantee]:
        """Resolve users and groups; other ids, and those that are unknown, are left out."""
        users = [each for each in dict.fromkeys(ids) if each.startswith(_USER) and queries.is_id(each)]
        groups = [each for each in dict.fromkeys(ids) if each.startswith(_GROUP) and queries.is_id(each)]
        found: dict[str, Grantee] = {}
        for query, _ in queries.id_lists(("Id", "Name"), "User", "Id", users):
            for record in (await self._ask.whole("User", query)).records:
                found[_id("User", record)] = Grantee("User", self._name("User", record.get("Name")))
        for record in await self._groups(groups):
            related = record.get("Related")
            name = record.get("Name") or (related.get("Name") if isinstance(related, dict) else None)
            kind = str(record.get("Type") or "Group")
            found[_id("Group", record)] = Grantee(kind, self._name("Group", name or record.get("DeveloperName")))
        return found

    def _name(self, entity: str, name: str | None) -> str | None:
        """Return a name with the policy's rule for names applied, wherever it was found."""
        kept: str | None = self._policy.apply_values(entity, {"Name": name}).get("Name")
        return kept

    async def _groups(self, ids: Sequence[str]) -> list[Mapping[str, Json]]:
        records: list[Mapping[str, Json]] = []
        for query, _ in queries.id_lists(_GROUP_COLUMNS, "Group", "Id", ids):
            wide = query.replace("RelatedId FROM", "RelatedId, Related.Name FROM", 1)
            refused = self._ask.now_ms() < self._related_again_ms
            if not refused:
                try:
                    records += (await self._ask.whole("Group", wide)).records
                except QueryRefusedError as error:
                    if error.code not in REFUSED_PART:
                        raise
                    refused = True
                else:
                    continue
            # A role group's own Name is null; its DeveloperName stands for it.
            records += (await self._ask.whole("Group", query)).records
            self._related_again_ms = self._ask.now_ms() + WHOLE_AGAIN_MS
        return records

    # The org-wide default

    async def org_default(self, entity: str) -> OrgDefault:
        """Return the object's org-wide default access."""
        columns = ("InternalSharingModel", "ExternalSharingModel")
        where = f"QualifiedApiName = '{queries.name(entity)}'"
        query = queries.select(("QualifiedApiName", *columns), "EntityDefinition", where)
        found = await self._ask.whole("EntityDefinition", query)
        record: Mapping[str, Json] = found.records[0] if found.records else {}
        internal, external = (record.get(each) for each in columns)
        return OrgDefault(internal, external)


def _after(cursor: str | None) -> str:
    if cursor is None:
        return ""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise QueryRefusedError("A cursor of a sweep is not one of ours", "The sweep begins anew.")
    parent, share = (queries.quoted_id(each) for each in found.groups())
    return f"((ParentId = {parent} AND Id > {share}) OR ParentId > {parent})"


def _id(name: str, record: Mapping[str, Json]) -> str:
    found: str = converted(name, lambda each: to_18(each["Id"]), record)
    return found


def _share_row(record: Mapping[str, Json]) -> ShareRow:
    stamp, by = record.get("LastModifiedDate"), record.get("LastModifiedById")
    return ShareRow(
        record_id=to_18(record["ParentId"]),
        share_id=to_18(record["Id"]),
        user_or_group_id=to_18(record["UserOrGroupId"]),
        row_cause=record["RowCause"] or "",
        access_level=str(record["AccessLevel"]),
        modified_ms=None if stamp is None else epoch_ms(stamp),
        modified_by=None if by is None else to_18(by),
    )


def _rule(record: Mapping[str, Json]) -> SharingRule:
    stamp, by = record.get("SystemModstamp"), record.get("LastModifiedById")
    values = {each: record.get(each) for each in _RULE_VALUES if each in record}
    return SharingRule(
        to_18(record["Id"]), values, None if stamp is None else epoch_ms(stamp), None if by is None else to_18(by)
    )


def _goes_on(found: Answered, limit: int) -> bool:
    return bool(found.records) and (not found.complete or len(found.records) >= limit)
