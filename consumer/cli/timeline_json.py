"""The timeline as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping

from consumer.cli.timeline_words import time_json
from consumer.kafka.lookup import Reach
from consumer.tracking.coverage_report import Window
from consumer.tracking.timeline import Timeline
from consumer.tracking.timeline_at import ImageAt
from consumer.tracking.timeline_values import FieldFact, Stay


def as_json(
    timeline: Timeline, reaches: Mapping[str, Reach | None], then: ImageAt | None, now_ms: int
) -> dict[str, object]:
    """Return everything but access and feed; ``reaches`` says how far back each kind of topic is kept."""
    state = timeline.state
    return {
        "record_id": timeline.record_id,
        "entity": timeline.entity,
        "created_at": time_json(timeline.created_ms),
        "created_by": timeline.created_by,
        "deleted_at": time_json(timeline.deleted_ms),
        "life": [
            {"at": time_json(each.at_ms), "what": each.what, "by": each.by, "change_id": each.change_id}
            for each in timeline.life
        ],
        "status": [_stay_json(stay, now_ms) for stay in timeline.stays.get("Status", ())],
        "owner": [_stay_json(stay, now_ms) for stay in timeline.stays.get("OwnerId", ())],
        "changes": [_fact_json(fact) for fact in timeline.facts],
        "loss_windows": [_window_json(window) for window in timeline.windows],
        "state": None
        if state is None
        else {
            "image": state.image,
            "unknown_fields": state.unknown,
            "stale": state.stale,
            "deleted": state.deleted,
            "record_version": state.version,
            "since": state.since,
            "metrics": state.metrics,
        },
        "retention": {
            kind: None if reach is None else {"oldest": time_json(reach.oldest_ms), "dropped": reach.dropped}
            for kind, reach in reaches.items()
        },
        "at": None if then is None else _then_json(then),
    }


def _stay_json(stay: Stay, now_ms: int) -> dict[str, object]:
    end_ms = max(now_ms, stay.from_ms or 0) if stay.to_ms is None else stay.to_ms
    return {
        "value": stay.value,
        "label": stay.label,
        "from": time_json(stay.from_ms),
        "to": time_json(stay.to_ms),
        "seconds": None if stay.from_ms is None else (end_ms - stay.from_ms) / 1000,
        "by": stay.by,
        "certain": stay.certain,
    }


def _fact_json(fact: FieldFact) -> dict[str, object]:
    return {
        "at": time_json(fact.at_ms),
        "time_precision": fact.precision,
        "field": fact.field,
        "old": fact.old,
        "new": fact.new,
        "values": fact.values,
        "old_label": fact.old_label,
        "new_label": fact.new_label,
        "by": fact.by,
        "match": fact.match,
        "final": fact.final,
        "origin": fact.origin,
        "change_id": fact.change_id,
        "revision": fact.revision,
        "event_id": fact.event_id,
        "window_id": fact.window_id,
    }


def _window_json(window: Window) -> dict[str, object]:
    return {
        "window_id": window.window_id,
        "reason": window.reason,
        "from": time_json(window.from_ms),
        "to": time_json(window.to_ms),
        "open": window.open,
        "restored": sorted(window.restored),
        "missing_fields": window.missing_fields,
        "records": len(window.record_ids) or None,
    }


def _then_json(then: ImageAt) -> dict[str, object]:
    return {
        "time": time_json(then.at_ms),
        "known": then.known,
        "why": then.why,
        "image": then.image,
        "unknown_fields": then.unknown_fields,
        "as_of": time_json(then.as_of_ms),
        "change_id": then.change_id,
        "window_id": then.window_id,
    }
