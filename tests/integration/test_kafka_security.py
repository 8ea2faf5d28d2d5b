"""Every way to reach a secured cluster, and what is said when it is the wrong way."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.errors import ConfigError, KafkaRefusedError, KafkaUnavailableError
from consumer.kafka.connection import Cluster
from consumer.kafka.topics import cluster_id, ensure_topics, spec_of
from consumer.settings import KafkaSettings
from tests.broker import PLAIN_PASSWORD, PLAIN_USER, SCRAM_PASSWORD, SCRAM_USER, Broker, free_ports

pytestmark = pytest.mark.kafka


def cluster_at(bootstrap: str, protocol: str, **values: object) -> Cluster:
    settings = {"bootstrap_servers": bootstrap, "security_protocol": protocol} | values
    return Cluster(KafkaSettings.model_validate(settings))


def login(mechanism: str, password: str = "") -> dict[str, object]:
    user, right = (PLAIN_USER, PLAIN_PASSWORD) if mechanism == "PLAIN" else (SCRAM_USER, SCRAM_PASSWORD)
    return {"sasl_mechanism": mechanism, "sasl_username": user, "sasl_password": password or right}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_sasl(secure_kafka_broker: Broker, topic_prefix: str, mechanism: str, protocol: str) -> None:
    address = secure_kafka_broker.sasl_ssl if protocol == "SASL_SSL" else secure_kafka_broker.sasl
    ca_file = secure_kafka_broker.ca_file if protocol == "SASL_SSL" else None
    cluster = cluster_at(address, protocol, ca_file=ca_file, partitions=1, **login(mechanism))
    found = await ensure_topics(cluster, [spec_of(f"{topic_prefix}a.changes", cluster.settings)])
    assert len(found) == 1


async def test_ssl(secure_kafka_broker: Broker) -> None:
    cluster = cluster_at(secure_kafka_broker.ssl, "SSL", ca_file=secure_kafka_broker.ca_file)
    assert await cluster_id(cluster)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_named_and_never_shown(secure_kafka_broker: Broker, mechanism: str) -> None:
    cluster = cluster_at(secure_kafka_broker.sasl, "SASL_PLAINTEXT", **login(mechanism, "wrong-secret"))
    with pytest.raises(KafkaRefusedError, match=r"kafka\.sasl_password") as caught:
        await cluster_id(cluster)
    assert "wrong-secret" not in str(caught.value)


async def test_an_unknown_authority_is_named(secure_kafka_broker: Broker) -> None:
    with pytest.raises(KafkaRefusedError, match=r"kafka\.ca_file"):
        await cluster_id(cluster_at(secure_kafka_broker.ssl, "SSL"))


async def test_tls_to_a_plaintext_port_is_told_apart(secure_kafka_broker: Broker) -> None:
    with pytest.raises((KafkaRefusedError, KafkaUnavailableError), match=r"kafka\.security_protocol"):
        await cluster_id(cluster_at(secure_kafka_broker.bootstrap, "SSL", ca_file=secure_kafka_broker.ca_file))


async def test_plaintext_to_a_tls_port_is_told_apart(secure_kafka_broker: Broker) -> None:
    with pytest.raises(KafkaUnavailableError, match=r"kafka\.security_protocol"):
        await cluster_id(cluster_at(secure_kafka_broker.ssl, "PLAINTEXT"))


async def test_nobody_listening_is_said_with_the_address() -> None:
    (port,) = free_ports(1)
    with pytest.raises(KafkaUnavailableError, match=rf"127\.0\.0\.1:{port} .*[Cc]onnect"):
        await cluster_id(cluster_at(f"127.0.0.1:{port}", "PLAINTEXT"))


async def test_an_unknown_host_is_said(tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailableError, match=r"nowhere\.invalid"):
        await cluster_id(cluster_at("nowhere.invalid:9092", "PLAINTEXT"))


def test_a_ca_file_that_is_none_is_a_configuration_fault(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    for name in (path, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match=r"kafka\.ca_file"):
            cluster_at("127.0.0.1:1", "SSL", ca_file=name).options()


def test_sasl_without_a_password_is_a_configuration_fault() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.sasl_password"):
        cluster_at("127.0.0.1:1", "SASL_SSL", sasl_username="u").options()
