"""What goes with the org's transactions besides their events: history, late facts, shares, feed, the log of deletes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from consumer.emulator.org_feed import FEED, Feed
from consumer.emulator.org_history import History
from consumer.emulator.org_metrics import SESSION, AfterTheEnd
from consumer.emulator.org_records import Change, Delta, Store, Transaction
from consumer.emulator.org_sharing import RULES, SHARE, Sharing

_KEEPS: Final = frozenset({"create", "update"})
"""Operations that leave a record where it is."""

COMPANIONS: Final[Mapping[str, frozenset[str]]] = {
    SHARE: frozenset({"UserOrGroupId", "AccessLevel", "RowCause", "LastModifiedDate", "LastModifiedById"}),
    RULES: frozenset(
        {
            "Name",
            "DeveloperName",
            "Description",
            "AccessLevel",
            "GroupId",
            "UserOrGroupId",
            "CreatedById",
            "CreatedDate",
            "LastModifiedById",
            "LastModifiedDate",
        }
    ),
    FEED: frozenset(
        {
            "Type",
            "CreatedById",
            "CreatedDate",
            "LastModifiedDate",
            "CommentCount",
            "LikeCount",
            "Title",
            "Body",
            "LinkUrl",
            "IsRichText",
            "RelatedRecordId",
            "InsertedById",
            "BestCommentId",
        }
    ),
}
"""Objects beside those with change events whose fields can be hidden, and which of them."""


class Companions:
    """Everything that has no events of its own and follows from what transactions do.

    Args:
        store: the org's records.
        seed: decides what each part leaves open.

    Attributes:
        history, after, sharing, feed: the parts.
        delete_log: by entity, when records were deleted: epoch milliseconds in whole seconds, by id.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.history = History(store, seed)
        self.after = AfterTheEnd(store, seed)
        self.sharing = Sharing(store, seed)
        self.feed = Feed(store, seed)
        self.delete_log: dict[str, dict[str, int]] = {}

    def committed(
        self,
        transaction: Transaction,
        changes: Sequence[Change],
        deltas: Iterable[Delta],
        moment_ms: int,
        user: str,
    ) -> None:
        """Follow one transaction.

        Args:
            transaction: the transaction.
            changes: its saves.
            deltas: what became of the records.
            moment_ms: when, epoch milliseconds.
            user: who saved.
        """
        commit_ms = moment_ms // 1000 * 1000
        if transaction.saves:
            self.history.note(transaction.saves, commit_ms, user)
        for delta in deltas:
            if delta.entity == SESSION and delta.body.get("Status") == "Ended":
                self.after.ended(delta.record_id, commit_ms)
        if self.feed.tracked:
            self.feed.note(transaction.true_changes(), moment_ms, user)
        for change in changes:
            if change.op not in _KEEPS:
                self._moved(change, moment_ms)
        if self.sharing.active:
            moved = dict.fromkeys(_shared_anew(changes))
            if moved:
                self.sharing.note(moved, moment_ms, user)

    def _moved(self, change: Change, moment_ms: int) -> None:
        """Follow a record into the recycle bin, out of it, or for good."""
        log = self.delete_log.setdefault(change.entity, {})
        if change.entity == SESSION and len(self.feed):
            self.feed.follow(change.record_id, change.op, moment_ms)
        if change.op == "undelete":
            log.pop(change.record_id, None)
            return
        log[change.record_id] = moment_ms // 1000 * 1000
        if change.op == "purge":
            self.history.purge(change.record_id)
            self.after.forget(change.record_id)

    def forget(self, entity: str, record_id: str) -> None:
        """Drop what goes with a record that has left the org's memory."""
        self.delete_log.get(entity, {}).pop(record_id, None)
        if entity == SESSION:
            self.after.forget(record_id)
            self.feed.forget(record_id)
            if self.sharing.active:
                self.sharing.forget(record_id, self.sharing.latest_ms)
        self.history.compact(entity)


def _shared_anew(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        if change.entity == SESSION and (change.op != "update" or "OwnerId" in change.fields):
            yield change.record_id
