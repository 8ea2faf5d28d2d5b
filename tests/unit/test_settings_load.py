"""Finding the configuration: precedence, secrets, and all faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.errors import ConfigError
from consumer.settings import SalesforceSettings
from consumer.settings_load import Loaded, env_name, is_secret, leaves, load

MINIMAL = """
[salesforce]
login_url = "https://mydomain.my.salesforce.com"
client_id = "key"
[kafka]
bootstrap_servers = "localhost:9092"
"""
SECRET = "hush-4711"


def _no_file(path: Path) -> bytes:
    raise FileNotFoundError(2, "No such file or directory")


def _load(text: str = MINIMAL, files: Mapping[str, bytes] | None = None, **environ: str) -> Loaded:
    def read(path: Path) -> bytes:
        if files is None or str(path) not in files:
            return _no_file(path)
        return files[str(path)]

    return load(text, {f"SESSION_CONSUMER__{key}": value for key, value in environ.items()}, read)


def _faults(text: str = MINIMAL, files: Mapping[str, bytes] | None = None, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        _load(text, files, **environ)
    assert SECRET not in str(caught.value)
    return caught.value.faults


def test_the_environment_wins_over_the_file_and_the_file_over_the_default() -> None:
    loaded = _load(MINIMAL + "partitions = 3\nreplication_factor = 2", KAFKA__PARTITIONS="12")
    assert loaded.settings.kafka.partitions == 12
    assert loaded.settings.kafka.replication_factor == 2
    assert loaded.settings.batch.max_records == 500
    assert loaded.origins["kafka.partitions"] == "env"
    assert loaded.origins["kafka.replication_factor"] == "file"
    assert loaded.origins["batch.max_records"] == "default"
    assert set(loaded.origins) == {key for key, _ in leaves()}


def test_nested_sections_lists_and_units_from_the_environment() -> None:
    loaded = _load(
        KAFKA__RETENTION__CHANGES="14d",
        PUBSUB__TOPICS='["/data/AChangeEvent", "/data/B__chn"]',
        PUBSUB__TLS="false",
        BATCH__MAX_BYTES="512KiB",
    )
    assert loaded.settings.kafka.retention.changes == 14 * 86_400_000
    assert loaded.settings.pubsub.topics == ("/data/AChangeEvent", "/data/B__chn")
    assert loaded.settings.pubsub.tls is False
    assert loaded.settings.batch.max_bytes == 512 * 1024


def test_other_variables_are_left_alone() -> None:
    assert load(MINIMAL, {"SESSION_CONSUMER_SERVICE_HOST": "10.0.0.1", "PATH": "/bin"}, _no_file)


@pytest.mark.parametrize("key", ["client_secret", "password", "refresh_token", "access_token"])
def test_a_secret_in_the_file_is_a_fault_that_does_not_repeat_it(key: str) -> None:
    text = MINIMAL.replace("[kafka]", f'{key} = "{SECRET}"\n[kafka]')
    assert any(
        f"salesforce.{key} is a secret" in fault and env_name(f"salesforce.{key}") in fault for fault in _faults(text)
    )


def test_every_secret_is_refused_in_the_file() -> None:
    """A secret added to the settings later is covered without anyone thinking of it."""
    for key in [key for key, info in leaves() if is_secret(info)]:
        (fault,) = _faults(
            f'{key} = "{SECRET}"\nsalesforce.login_url = "https://a.my.salesforce.com"\nkafka.bootstrap_servers = "k:1"'
        )
        assert fault.startswith(f"{key} is a secret")


@pytest.mark.parametrize("in_environment", [True, False])
def test_a_secret_file_is_read_without_its_final_newline(in_environment: bool) -> None:
    files = {"/run/s": f"{SECRET}\r\n".encode()}
    if in_environment:
        loaded = _load(
            MINIMAL,
            files,
            KAFKA__SASL_PASSWORD_FILE="/run/s",
            KAFKA__SASL_USERNAME="u",
            KAFKA__SECURITY_PROTOCOL="SASL_SSL",
        )
    else:
        text = MINIMAL + 'sasl_password_file = "/run/s"\nsasl_username = "u"\nsecurity_protocol = "SASL_SSL"'
        loaded = _load(text, files)
    assert loaded.settings.kafka.sasl_password is not None
    assert loaded.settings.kafka.sasl_password.get_secret_value() == SECRET
    assert loaded.origins["kafka.sasl_password"] == "secret file"
    assert SECRET not in repr(loaded)


def test_a_secret_in_the_environment_wins_over_a_secret_file_named_in_the_file() -> None:
    loaded = _load(MINIMAL.replace("[kafka]", 'client_secret_file = "/gone"\n[kafka]'), SALESFORCE__CLIENT_SECRET="b")
    assert loaded.origins["salesforce.client_secret"] == "env"


def test_a_secret_given_twice_in_the_environment_is_a_fault() -> None:
    (fault,) = _faults(SALESFORCE__CLIENT_SECRET=SECRET, SALESFORCE__CLIENT_SECRET_FILE="/run/s")
    assert "both set" in fault


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "can't be read: No such file"), (b"\n", "is empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_an_unusable_secret_file_is_a_fault(content: bytes | None, expected: str) -> None:
    files = {} if content is None else {"/run/s": content}
    (fault,) = _faults(MINIMAL, files, SALESFORCE__CLIENT_SECRET_FILE="/run/s")
    assert fault.startswith("salesforce.client_secret_file: /run/s ")
    assert expected in fault


def test_all_faults_are_found_at_once() -> None:
    text = f"""
        salesforce.auth = "jwtt"
        salesforce.client_secret = "{SECRET}"
        [kafka]
        partitions = 0
        security_protocol = "SASL_SSL"
        [kafka.retention]
        changes = "3 weeks"
        [pubsub]
        topics = ["/data/ChangeEvents", "/data/X", "/data/X"]
        watchdog_s = inf
        [fields]
        hash = ["Name"]
    """
    faults = _faults(text, BATCH__MAX_AGE="soon")
    for start in (
        "salesforce.client_secret is a secret",
        "salesforce.login_url is missing",
        "salesforce.auth: ",
        "kafka.bootstrap_servers is missing",
        "kafka.partitions: should be greater",
        "kafka.retention.changes: write a duration",
        "kafka.sasl_username is missing",
        "kafka.sasl_password is missing",
        "pubsub.watchdog_s: should be a finite number",
        "pubsub.topics names /data/X more than once",
        "pubsub.topics: /data/ChangeEvents holds the events of the other topics",
        "fields.hash_key_file is missing",
        "batch.max_age: write a duration",
    ):
        assert any(fault.startswith(start) for fault in faults), start
    assert len(faults) == 13
    assert "SESSION_CONSUMER__BATCH__MAX_AGE" in faults[-2] + faults[-1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("bootstrap_server = 1", "kafka.bootstrap_server is unknown; did you mean kafka.bootstrap_servers?"),
        ("max_records = 1", "kafka.max_records is unknown; did you mean batch.max_records?"),
        ("[batches]\nx = 1", "[batches] is an unknown section; did you mean batch?"),
        ("[kafka.partitions]\nx = 1", "kafka.partitions must be a value, not a table"),
    ],
)
def test_an_unknown_key_says_what_was_meant(text: str, fault: str) -> None:
    assert fault in _faults(MINIMAL + text)


def test_a_section_that_is_a_value_is_a_fault() -> None:
    assert "batch must be a table: write [batch] above its keys" in _faults("batch = 1\n" + MINIMAL)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("KAFKA__PARTITION", "names no setting; did you mean SESSION_CONSUMER__KAFKA__PARTITIONS?"),
        ("kafka__partitions", "names no setting"),
        ("KAFKA", "names a section"),
        ("SALESFORCE__CLIENT_SECRET", "is empty"),
        ("SALESFORCE__CLIENT_SECRET_FILE", "is empty"),
        ("PUBSUB__TOPICS", "must be a JSON list"),
    ],
)
def test_a_wrong_variable_is_a_fault(name: str, fault: str) -> None:
    (found,) = _faults(**{name: ""})
    assert found.startswith(f"SESSION_CONSUMER__{name} ")
    assert fault in found


@pytest.mark.parametrize(("text", "line"), [("[kafka]\nx = = 1\n", 2), ("[kafka]\na = 1\nb = [1,", 3)])
def test_a_syntax_error_names_its_line_and_nothing_else_is_judged(text: str, line: int) -> None:
    (fault,) = _faults(text)
    assert "not valid TOML" in fault
    assert f"at line {line}" in fault


def test_the_login_rules_are_asked_even_when_other_values_of_the_section_are_wrong() -> None:
    seen: list[SalesforceSettings] = []

    def rules(settings: SalesforceSettings) -> list[str]:
        seen.append(settings)
        return ["salesforce.client_id is missing, because", "salesforce.api_version is missing, because"]

    with pytest.raises(ConfigError) as caught:
        load("salesforce.api_version = 'x'\nkafka.bootstrap_servers = 'k:1'", {}, _no_file, rules)
    assert len(seen) == 1
    assert "salesforce.client_id is missing, because" in caught.value.faults
    assert not any(fault.startswith("salesforce.api_version is missing") for fault in caught.value.faults)


def test_a_name_in_two_field_policies_is_a_fault() -> None:
    (fault,) = _faults(FIELDS__DROP='["Name"]', FIELDS__MASK='["Name"]')
    assert fault == "fields.mask and fields.drop both name Name; keep one"


def test_sasl_values_without_sasl_are_a_fault() -> None:
    (fault,) = _faults(KAFKA__SASL_USERNAME="u")
    assert fault.startswith("kafka.sasl_username has no effect")


@pytest.mark.parametrize("key", ["sharing.poll", "sharing.sweep", "feed.poll"])
def test_an_interval_of_nothing_is_a_fault(key: str) -> None:
    """How many calls a day polls take is a division by it."""
    (fault,) = _faults(**{key.upper().replace(".", "__"): "0s"})
    assert fault.startswith(f"{key}: should be greater than 0")
    assert _load(**{key.upper().replace(".", "__"): "1ms"}).settings


def test_sharing_and_feed_are_read_of_objects_by_api_name_unless_they_are_switched_off() -> None:
    loaded = _load(SHARING__OBJECTS='["Widget__c", "Account"]', FEED__ENABLED="false").settings
    assert loaded.sharing.wanted == ("Widget__c", "Account")
    assert loaded.feed.objects == ("MessagingSession",)
    assert loaded.feed.wanted == ()
    (fault,) = _faults(SHARING__OBJECTS='["Account", "Widget-c"]')
    assert fault.startswith("sharing.objects[1]: 'Widget-c' is not an object's API name")
    (fault,) = _faults(SHARING__API_CALLS_PER_DAY="0")
    assert fault.startswith("sharing.api_calls_per_day: should be greater than or equal to 1")
