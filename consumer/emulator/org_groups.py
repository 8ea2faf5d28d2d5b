"""Who there is in the emulated org: users, roles, queues and groups, and which groups somebody belongs to.

Facts (Object Reference, "Group", "GroupMember", "UserRole"; Salesforce Help, "Sharing Rule Categories"): a role has a
group of its own members and one with those of all roles below; public groups may hold other groups, but no queues; a
rule about a queue is about the records that the queue owns itself, not about those of its members. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from consumer.emulator.org_history import label_of
from consumer.emulator.record_ids import PREFIXES, numbered_id
from consumer.emulator.traffic_data import AUTOMATED_USER, BOT_USER, INTEGRATION_USER, QUEUES, REPS
from consumer.errors import EmulatorError

ADMIN: Final = numbered_id(PREFIXES["User"], 1)
QUEUE: Final = "Queue"
REGULAR: Final = "Regular"
ROLE: Final = "Role"
ROLE_AND_SUBORDINATES: Final = "RoleAndSubordinates"
ORGANIZATION: Final = "Organization"

_ROLES: Final = (
    ("Service_Director", 0),
    ("Region_North", 1),
    ("Region_South", 1),
    ("Team_Bergen", 2),
    ("Team_Oslo", 2),
    ("Team_Munich", 3),
    ("Team_Lyon", 3),
)
"""Developer name, and number of the role above; 0 for none."""
_FIRST_ROLE_GROUP: Final = 20
_FIRST_SUBORDINATES: Final = 40
_EVERYBODY: Final = 60
_FIRST_REGULAR: Final = 100


@dataclass(slots=True)
class OrgUser:
    """A user.

    Attributes:
        user_id: 18 characters, prefix ``005``.
        user_type: ``Standard``, or the platform's own ``AutomatedProcess``.
        role_id: the UserRole, empty for none.
    """

    user_id: str
    user_type: str = "Standard"
    role_id: str = ""
    active: bool = True

    @property
    def name(self) -> str:
        """The full name, as history rows show it."""
        return str(label_of(self.user_id))

    @property
    def username(self) -> str:
        """The login name."""
        return f"user.{self.user_id[9:15].lstrip('0') or '0'}@emulated.example"


@dataclass(frozen=True, slots=True)
class OrgRole:
    """A role; ``parent_id`` is the one above, empty for none."""

    role_id: str
    name: str
    developer_name: str
    parent_id: str = ""


@dataclass(frozen=True, slots=True)
class OrgGroup:
    """A row of Group.

    Attributes:
        group_id: 18 characters, prefix ``00G``.
        kind: its Type: ``Queue``, ``Regular``, ``Role``, ``RoleAndSubordinates``, ``Organization``.
        related_id: the role of a role's group, else empty.
    """

    group_id: str
    kind: str
    name: str
    developer_name: str
    related_id: str = ""


class Directory:
    """All users, roles and groups of the org.

    Attributes:
        users, roles, groups: by id.
        members: by group the direct members with the ids of their GroupMember rows; queues and public groups only.
    """

    def __init__(self) -> None:
        self.users: dict[str, OrgUser] = {}
        self.roles: dict[str, OrgRole] = {}
        self.groups: dict[str, OrgGroup] = {}
        self.members: dict[str, dict[str, str]] = {}
        self._containers: dict[str, set[str]] = {}
        self._of_role: dict[tuple[str, str], str] = {}
        self._closures: dict[str, frozenset[str]] = {}
        self._member_number = 0
        self._regular_number = _FIRST_REGULAR
        self._make_roles()
        self._make_users()
        self._make_groups()

    def _make_roles(self) -> None:
        ids = [numbered_id(PREFIXES["UserRole"], number) for number in range(1, len(_ROLES) + 1)]
        for number, (developer_name, parent) in enumerate(_ROLES):
            role_id, name = ids[number], developer_name.replace("_", " ")
            self.roles[role_id] = OrgRole(role_id, name, developer_name, ids[parent - 1] if parent else "")
            for kind, first in ((ROLE, _FIRST_ROLE_GROUP), (ROLE_AND_SUBORDINATES, _FIRST_SUBORDINATES)):
                group_id = numbered_id(PREFIXES["Group"], first + number)
                self.groups[group_id] = OrgGroup(group_id, kind, name, developer_name, role_id)
                self._of_role[kind, role_id] = group_id

    def _make_users(self) -> None:
        roles = list(self.roles)
        teams = roles[3:]
        for number, user_id in enumerate(REPS):
            role_id = roles[number] if number < 3 else teams[number % len(teams)]
            self.users[user_id] = OrgUser(user_id, role_id=role_id)
        self.users[ADMIN] = OrgUser(ADMIN)
        self.users[INTEGRATION_USER] = OrgUser(INTEGRATION_USER)
        for user_id in (BOT_USER, AUTOMATED_USER):
            self.users[user_id] = OrgUser(user_id, "AutomatedProcess")

    def _make_groups(self) -> None:
        everybody = numbered_id(PREFIXES["Group"], _EVERYBODY)
        self.groups[everybody] = OrgGroup(everybody, ORGANIZATION, "All Internal Users", "AllInternalUsers")
        for number, queue_id in enumerate(QUEUES):
            name = str(label_of(queue_id))
            self.groups[queue_id] = OrgGroup(queue_id, QUEUE, name, name.replace(" ", "_"))
            for user_id in REPS[number :: len(QUEUES)]:
                self.add_member(queue_id, user_id)
        supervisors = self.add_group("Supervisors", REPS[:5])
        specialists = self.add_group("Specialists", REPS[10:16])
        lyon = self._of_role[ROLE, list(self.roles)[6]]
        self.add_group("Quality", (supervisors, lyon, *REPS[5:9]))
        self.add_member(QUEUES[0], specialists)

    # Changes

    def add_group(self, name: str, members: Iterable[str] = ()) -> str:
        """Create a public group, and return its id.

        Raises:
            EmulatorError: there is such a group, or no such member.
        """
        developer_name = name.replace(" ", "_")
        if any(each.developer_name == developer_name and each.kind == REGULAR for each in self.groups.values()):
            raise EmulatorError(f"there is a group {name} already", "Give it another name")
        group_id = numbered_id(PREFIXES["Group"], self._regular_number)
        self._regular_number += 1
        self.groups[group_id] = OrgGroup(group_id, REGULAR, name, developer_name)
        for member in members:
            self.add_member(group_id, member)
        return group_id

    def add_member(self, group_id: str, member_id: str) -> None:
        """Put a user or group into a queue or public group; one that is in it stays.

        Raises:
            EmulatorError: the group takes no members, there is no such user or group, or it is a queue.
        """
        members = self._members(group_id)
        if member_id not in self.users and member_id not in self.groups:
            raise EmulatorError(f"there is no user or group {member_id}", "Name one of the org's")
        if member_id in self.groups and self.groups[member_id].kind == QUEUE:
            raise EmulatorError(f"{member_id} is a queue, which is in no group", "Name a user, role or public group")
        if member_id in members:
            return
        self._member_number += 1
        members[member_id] = numbered_id(PREFIXES["GroupMember"], self._member_number)
        self._containers.setdefault(member_id, set()).add(group_id)
        self._closures.clear()

    def remove_member(self, group_id: str, member_id: str) -> None:
        """Take a direct member out of a queue or public group; one that is not in it stays out.

        Raises:
            EmulatorError: the group takes no members.
        """
        if self._members(group_id).pop(member_id, None) is not None:
            self._containers[member_id].discard(group_id)
            self._closures.clear()

    def set_role(self, user_id: str, role_id: str) -> None:
        """Give a user a role, or none (empty).

        Raises:
            EmulatorError: there is no such user or role.
        """
        user = self.users.get(user_id)
        if user is None or (role_id and role_id not in self.roles):
            raise EmulatorError(f"there is no user {user_id} or no role {role_id}", "Name those of the org")
        user.role_id = role_id
        self._closures.clear()

    def _members(self, group_id: str) -> dict[str, str]:
        group = self.groups.get(group_id)
        if group is None or group.kind not in {QUEUE, REGULAR}:
            raise EmulatorError(f"{group_id} is no queue or public group", "Only those have members of their own")
        return self.members.setdefault(group_id, {})

    # Questions

    def owners(self) -> Iterator[str]:
        """Yield all who can own records: users and queues."""
        yield from self.users
        yield from (group_id for group_id, group in self.groups.items() if group.kind == QUEUE)

    def groups_of(self, owner_id: str) -> frozenset[str]:
        """Return the groups whose rules concern this owner's records; a queue's are those about itself."""
        known = self._closures.get(owner_id)
        if known is None:
            known = self._closures[owner_id] = frozenset(self._closure(owner_id))
        return known

    def _closure(self, owner_id: str) -> set[str]:
        group = self.groups.get(owner_id)
        if group is not None:
            return {owner_id}
        user = self.users.get(owner_id)
        if user is None:
            return set()
        found = set(self._own_groups(user))
        waiting = [owner_id, *found]
        while waiting:
            for container in self._containers.get(waiting.pop(), ()):
                # Members of a queue do not own what the queue owns; groups can hold one another in a circle.
                if container not in found and self.groups[container].kind == REGULAR:
                    found.add(container)
                    waiting.append(container)
        return found

    def _own_groups(self, user: OrgUser) -> Iterator[str]:
        if user.user_type == "Standard":
            yield numbered_id(PREFIXES["Group"], _EVERYBODY)
        if user.role_id:
            yield self._of_role[ROLE, user.role_id]
        role_id = user.role_id
        while role_id:
            yield self._of_role[ROLE_AND_SUBORDINATES, role_id]
            role_id = self.roles[role_id].parent_id

    def name_of(self, record_id: str | None) -> str | None:
        """Return the name of a user, group or role; of any other record, what history rows call it."""
        if record_id is None:
            return None
        known = self.groups.get(record_id) or self.roles.get(record_id)
        return label_of(record_id) if known is None else known.name

    def find(self, text: str) -> str:
        """Return the id of a user, group or role.

        Args:
            text: an id; a queue's or public group's developer name; ``Role:Team_Oslo`` or
                ``RoleAndSubordinates:Region_North`` for the group of a role; ``UserRole:Team_Oslo`` for the role; a
                username.

        Raises:
            EmulatorError: there is none.
        """
        if text in self.users or text in self.groups or text in self.roles:
            return text
        kind, _, name = text.rpartition(":")
        if kind == "UserRole":
            found = [each.role_id for each in self.roles.values() if each.developer_name == name]
        else:
            kinds = {kind} if kind else {QUEUE, REGULAR, ORGANIZATION}
            found = [
                each.group_id
                for each in self.groups.values()
                if each.kind in kinds and name in {each.developer_name, each.name}
            ]
            found += [each.user_id for each in self.users.values() if each.username == text]
        if not found:
            raise EmulatorError(
                f"there is no user, group or role {text!r}",
                "Give an id, Queue_1, Supervisors, Role:Team_Oslo, RoleAndSubordinates:Region_North, "
                "UserRole:Team_Oslo or a username",
            )
        return found[0]
