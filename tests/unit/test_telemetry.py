"""Log lines hold no secret; metrics have fixed names."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from consumer.telemetry import MASK, Metrics, configure_logging, redact_text

TOKEN = "00D5g00000AbCdEAF!AQcAQH0dMHZfz972Szmpkb58urFRkgeBGsxL_QJWwYMfAbUeeG7c1E6LYUfiDUkWe6H34r1AAwOR8B8fLEz6n"
REFRESH = "5Aep861TSESvWeug_xvFHRBTTbf_YrTWgEyjBJrfr6bIHv"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhYmMifQ.c2ln-bmF0dXJl"
CHANNEL = "/data/MessagingSessionChangeEvent"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _fail_with(text: str) -> None:
    local = {"payload": "Jane Roe"}
    raise ValueError(f"bad {text} {len(local)}")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("secret", [TOKEN, REFRESH, JWT, TOKEN.replace("!", "%21")])
def test_no_token_reaches_the_log(log_format: str, secret: str) -> None:
    """Not in values, at any depth, in texts, objects, exceptions or lines of other libraries."""
    out = io.StringIO()
    configure_logging("json" if log_format == "json" else "console", "debug", out)
    log = structlog.get_logger("t")
    log.info(
        "login done", url=f"https://x/?t={secret}", nested={"list": [secret, {"deep": (secret,)}]}, raw=secret.encode()
    )
    log.warning(f"text {secret}", access_token="plain", client_secret=["plain"], Authorization="plain")
    try:
        _fail_with(secret)
    except ValueError:
        log.exception("failed")
        logging.getLogger("other").exception("failed %s", secret)
    text = out.getvalue()
    assert text.count("\n") >= 4
    assert secret not in text
    assert "plain" not in text
    assert "Jane Roe" not in text  # tracebacks show no local variables
    assert MASK in text
    assert "ValueError" in text


def test_an_ordinary_text_is_left_alone() -> None:
    text = "org 00D5g00000AbCdEAF topic /data/ChangeEvents 5Ae eyJ done!"
    assert redact_text(text) == text


def test_json_lines_have_time_level_and_event() -> None:
    out = io.StringIO()
    configure_logging("auto", "info", out)
    structlog.get_logger("t").info("committed", events=3, token_logins=2, huge=2**70, channel=CHANNEL)
    (line,) = out.getvalue().splitlines()
    document = json.loads(line)
    assert document["timestamp"].endswith("Z")
    assert document["level"] == "info"
    assert document["event"] == "committed"
    assert document["events"] == 3
    assert document["token_logins"] == 2
    assert document["huge"] == str(2**70)


def test_auto_is_readable_on_a_terminal() -> None:
    out = _Terminal()
    configure_logging("auto", "info", out)
    structlog.get_logger("t").info("committed")
    assert "committed" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_the_level_holds_for_structlog_and_for_libraries() -> None:
    out = io.StringIO()
    configure_logging("json", "info", out)
    structlog.get_logger("t").debug("hidden")
    logging.getLogger("aiohttp.client").info("hidden")
    logging.getLogger("aiohttp.client").warning("shown")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["shown"]


@pytest.mark.parametrize(("level", "shown"), [("info", 0), ("debug", 1)])
def test_what_the_kafka_client_calls_an_error_is_told_by_us_instead(level: str, shown: int) -> None:
    out = io.StringIO()
    configure_logging("json", level, out)
    logging.getLogger("aiokafka.consumer").error("no coordinator yet")
    assert len(out.getvalue().splitlines()) == shown


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"session_consumer_{name}", {"subscription": CHANNEL, **labels})


def test_metrics_of_one_subscription() -> None:
    now = [1_000_000]
    metrics = Metrics(lambda: now[0])
    one = metrics.subscription(CHANNEL)
    one.events(3, 999_000)
    one.keepalive(1_000_000)
    one.credits(97)
    one.buffered(lambda: 12)
    one.disconnected("UNAVAILABLE")
    one.committed(3, {"changes": 4, "coverage": 1}, 0.02)
    one.lag(event_ms=990_000, received_ms=999_000, committed_ms=999_500)
    one.position_advanced(1_000_000)
    one.quarantined("payload_undecodable")
    one.loss_windows(2)
    one.schema_fetched()
    one.paused(paused=True)
    metrics.token_login(succeeded=True)
    now[0] += 3_600_000
    assert _value(metrics, "events_received_total") == 3
    assert _value(metrics, "keepalives_total") == 1
    assert _value(metrics, "credits_outstanding") == 97
    assert _value(metrics, "buffer_events") == 12
    assert _value(metrics, "reconnects_total", reason="UNAVAILABLE") == 1
    assert _value(metrics, "commits_total") == 1
    assert _value(metrics, "records_committed_total", kind="changes") == 4
    assert _value(metrics, "batch_events_sum") == 3
    assert _value(metrics, "salesforce_lag_seconds_sum") == 9
    assert _value(metrics, "own_lag_seconds_sum") == 0.5
    assert _value(metrics, "position_expires_seconds") == 71 * 3600
    assert _value(metrics, "last_message_age_seconds") == 3600
    assert _value(metrics, "quarantined_total", reason="payload_undecodable") == 1
    assert _value(metrics, "loss_windows_open") == 2
    assert _value(metrics, "schema_fetches_total") == 1
    assert _value(metrics, "paused") == 1
    assert metrics.registry.get_sample_value("session_consumer_token_logins_total", {"outcome": "succeeded"}) == 1


def test_a_halt_names_one_reason_at_a_time() -> None:
    metrics = Metrics()
    one = metrics.subscription(CHANNEL)
    one.halted("FloodError")
    one.halted("ForeignStateError")
    assert _value(metrics, "halted", reason="FloodError") == 0
    assert _value(metrics, "halted", reason="ForeignStateError") == 1
    one.halted(None)
    assert _value(metrics, "halted", reason="ForeignStateError") == 0


def test_watched_series_exist_before_anything_happens() -> None:
    metrics = Metrics()
    metrics.subscription(CHANNEL)
    for name in ("events_received_total", "commits_total", "credits_outstanding", "paused", "loss_windows_open"):
        assert _value(metrics, name) == 0


def test_clocks_that_disagree_never_give_a_negative_lag() -> None:
    metrics = Metrics()
    metrics.subscription(CHANNEL).lag(event_ms=2000, received_ms=1000, committed_ms=500)
    assert _value(metrics, "salesforce_lag_seconds_sum") == 0
    assert _value(metrics, "own_lag_seconds_sum") == 0
