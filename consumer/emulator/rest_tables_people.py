"""Users, roles, queues and groups of the emulated org as REST shows them, and EntityDefinition.

Sources: Object Reference, "User", "UserRole", "Group", "GroupMember", "QueueSobject", "EntityDefinition".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from consumer.emulator.org import OrgModel
from consumer.emulator.org_groups import QUEUE
from consumer.emulator.org_metrics import SESSION
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.rest_table_base import ID, Bound, Fact, FactTable, Table, by_name
from consumer.emulator.rest_values import Column

_NAME: Final = Column("Name", "string", "Name", length=255)
_DEVELOPER_NAME: Final = Column("DeveloperName", "string", "DeveloperName", length=80)
_COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    "User": (
        ID,
        _NAME,
        Column("Username", "string", "Username", length=80, nillable=False),
        Column("UserType", "picklist", "UserType", length=40),
        Column("IsActive", "boolean", "IsActive", nillable=False),
        Column("UserRoleId", "reference", "UserRoleId", length=18, refers_to=("UserRole",), relationship="UserRole"),
    ),
    "UserRole": (
        ID,
        _NAME,
        _DEVELOPER_NAME,
        Column("ParentRoleId", "reference", "ParentRoleId", length=18, refers_to=("UserRole",)),
    ),
    "Group": (
        ID,
        _NAME,
        _DEVELOPER_NAME,
        Column("Type", "picklist", "Type", length=40, nillable=False),
        Column(
            "RelatedId", "reference", "RelatedId", length=18, refers_to=("User", "UserRole"), relationship="Related"
        ),
    ),
    "GroupMember": (
        ID,
        Column("GroupId", "reference", "GroupId", length=18, refers_to=("Group",), relationship="Group"),
        Column("UserOrGroupId", "reference", "UserOrGroupId", length=18, refers_to=("Group", "User")),
    ),
    "QueueSobject": (
        ID,
        Column("QueueId", "reference", "QueueId", length=18, refers_to=("Group",), relationship="Queue"),
        Column("SobjectType", "picklist", "SobjectType", length=40),
    ),
    "EntityDefinition": (
        Column("DurableId", "string", "QualifiedApiName", length=255),
        Column("QualifiedApiName", "string", "QualifiedApiName", length=70),
        Column("DeveloperName", "string", "DeveloperName", length=255),
        Column("KeyPrefix", "string", "KeyPrefix", length=3),
        Column("InternalSharingModel", "picklist", "Internal", length=255),
        Column("ExternalSharingModel", "picklist", "External", length=255),
    ),
}


class PeopleTable(FactTable):
    """One of the small objects that say who there is, or what objects there are."""

    def __init__(self, org: OrgModel, name: str) -> None:
        super().__init__(name, PREFIXES.get(name, ""))
        self._org = org
        self._directory = org.sharing.directory
        self._columns = by_name(*_COLUMNS[name])

    def columns(self) -> Mapping[str, Column]:
        """See the base."""
        return self._columns

    def name_of(self, record_id: str) -> str | None:
        """See the base."""
        return self._directory.name_of(record_id)

    def keys(self, bounds: Mapping[str, Bound], *, deleted: bool) -> Sequence[Fact]:
        """See the base: narrowed by Id."""
        del deleted
        wanted = bounds.get("Id", Bound()).equal
        return [fact for fact in self.rows() if wanted is None or fact.values.get("Id") in wanted]

    def rows(self) -> Iterator[Fact]:
        """Yield the rows, by Id where they have one."""
        made: Mapping[str, Iterable[Mapping[str, object]]] = {
            "User": self._users(),
            "UserRole": self._roles(),
            "Group": self._groups(),
            "GroupMember": self._members(),
            "QueueSobject": self._queues(),
            "EntityDefinition": self._entities(),
        }
        for values in made[self.name]:
            yield Fact(values)

    def _users(self) -> Iterator[Mapping[str, object]]:
        for user_id, user in sorted(self._directory.users.items()):
            yield {
                "Id": user_id,
                "Name": user.name,
                "Username": user.username,
                "UserType": user.user_type,
                "IsActive": user.active,
                "UserRoleId": user.role_id or None,
            }

    def _roles(self) -> Iterator[Mapping[str, object]]:
        for role_id, role in sorted(self._directory.roles.items()):
            yield {
                "Id": role_id,
                "Name": role.name,
                "DeveloperName": role.developer_name,
                "ParentRoleId": role.parent_id or None,
            }

    def _groups(self) -> Iterator[Mapping[str, object]]:
        for group_id, group in sorted(self._directory.groups.items()):
            yield {
                "Id": group_id,
                "Name": group.name,
                "DeveloperName": group.developer_name,
                "Type": group.kind,
                "RelatedId": group.related_id or None,
            }

    def _members(self) -> Iterator[Mapping[str, object]]:
        rows = [
            (row_id, group_id, member_id)
            for group_id, members in self._directory.members.items()
            for member_id, row_id in members.items()
        ]
        for row_id, group_id, member_id in sorted(rows):
            yield {"Id": row_id, "GroupId": group_id, "UserOrGroupId": member_id}

    def _queues(self) -> Iterator[Mapping[str, object]]:
        queues = [group_id for group_id, group in self._directory.groups.items() if group.kind == QUEUE]
        for number, queue_id in enumerate(queues, start=1):
            row_id = numbered_id(PREFIXES["QueueSobject"], number)
            yield {"Id": row_id, "QueueId": queue_id, "SobjectType": SESSION}

    def _entities(self) -> Iterator[Mapping[str, object]]:
        for entity in self._org.entities():
            internal, external = self._org.sharing.defaults if entity == SESSION else ("ReadWrite", "Private")
            yield {
                "QualifiedApiName": entity,
                "DeveloperName": entity.removesuffix("__c"),
                "KeyPrefix": PREFIXES[entity],
                "Internal": internal,
                "External": external,
            }


def people_tables(org: OrgModel) -> list[Table]:
    """Return the tables of all small objects of this module."""
    return [PeopleTable(org, name) for name in _COLUMNS]
