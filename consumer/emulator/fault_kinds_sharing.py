"""What can be done to sharing and feed of the emulated org, as validated values.

Users, groups and roles are named by id, or as ``Queue_1``, ``Supervisors``, ``Role:Team_Oslo``,
``RoleAndSubordinates:Region_North``, ``UserRole:Team_Oslo``; rules by id or name. What is left empty is chosen by the
seed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from consumer.emulator.fault_base import Fault

Count = Annotated[int, Field(ge=1, le=100_000)]
Level = Literal["Read", "Edit"]
Model = Literal["Private", "Read", "ReadWrite"]


class Transfer(Fault):
    """Give sessions another owner, one transaction each: those named, or so many live ones; to: a user or queue."""

    kind = "transfer"
    record_ids: tuple[str, ...] = ()
    records: Count = 1
    to: str = ""
    user: str | None = None


class RuleCreate(Fault):
    """Create an owner sharing rule: records owned by members of source are shared with target."""

    kind = "rule_create"
    name: str = ""
    source: str = ""
    target: str = ""
    level: Level = "Read"
    description: str = ""


class RuleChange(Fault):
    """Change an owner sharing rule; with nothing to change its level turns to the other one."""

    kind = "rule_change"
    rule: str = ""
    source: str = ""
    target: str = ""
    level: Literal["", "Read", "Edit"] = ""
    name: str = ""


class RuleDelete(Fault):
    """Delete an owner sharing rule."""

    kind = "rule_delete"
    rule: str = ""


class Membership(Fault):
    """Put somebody into a queue, public group or role (group = UserRole:...), or take them out."""

    kind = "membership"
    group: str = ""
    member: str = ""
    add: bool | None = None


class Share(Fault):
    """Share sessions by hand: those named, or so many live ones; a row that is there is changed."""

    kind = "share"
    record_ids: tuple[str, ...] = ()
    records: Count = 1
    to: str = ""
    level: Level = "Read"
    user: str | None = None


class Unshare(Fault):
    """Take back manual shares: of the sessions named, or of so many that have some; to: only of this grantee."""

    kind = "unshare"
    record_ids: tuple[str, ...] = ()
    records: Count = 1
    to: str = ""


class LevelChange(Fault):
    """Change the level of manual shares, of the sessions named or of so many; without a level to the other one."""

    kind = "level_change"
    record_ids: tuple[str, ...] = ()
    records: Count = 1
    to: str = ""
    level: Literal["", "Read", "Edit"] = ""


class Recalculate(Fault):
    """Order a recalculation of all records that makes this share of the rule rows anew and changes nothing."""

    kind = "recalculate"
    recreate: float = Field(default=1.0, ge=0, le=1)


class OrgDefault(Fault):
    """Change the org-wide defaults of sessions; manual and rule rows that give no more go in a recalculation."""

    kind = "org_default"
    internal: Model = "Read"
    external: Model = "Private"


class FeedPost(Fault):
    """Post on the feeds of sessions: those named, or so many live ones."""

    kind = "feed_post"
    record_ids: tuple[str, ...] = ()
    records: Count = 1
    type: Literal["TextPost", "LinkPost", "ContentPost", "AdvancedTextPost", "QuestionPost"] = "TextPost"
    body: str = ""
    user: str | None = None


class FeedEdit(Fault):
    """Change feed items, those named or so many: another body, or one more like or comment."""

    kind = "feed_edit"
    item_ids: tuple[str, ...] = ()
    items: Count = 1
    what: Literal["body", "like", "comment"] = "body"
    body: str = ""


class FeedDelete(Fault):
    """Delete feed items, those named or so many."""

    kind = "feed_delete"
    item_ids: tuple[str, ...] = ()
    items: Count = 1


class ObjectAccess(Fault):
    """Close an object to the API user, or open it: queries then say INVALID_TYPE or INSUFFICIENT_ACCESS."""

    kind = "object_access"
    entity: str = Field(default="MessagingSessionOwnerSharingRule", min_length=1)
    access: Literal["open", "invalid_type", "no_access"] = "invalid_type"


class SharingTraffic(Fault):
    """Change how many random acts a real minute brings: on sharing, and on feeds; what is not given stays."""

    kind = "sharing_traffic"
    sharing: float | None = Field(default=None, ge=0, le=60_000)
    feed: float | None = Field(default=None, ge=0, le=60_000)


SHARING: tuple[type[Fault], ...] = (
    Transfer,
    RuleCreate,
    RuleChange,
    RuleDelete,
    Membership,
    Share,
    Unshare,
    LevelChange,
    Recalculate,
    OrgDefault,
    FeedPost,
    FeedEdit,
    FeedDelete,
    ObjectAccess,
    SharingTraffic,
)
"""All kinds of this module."""
