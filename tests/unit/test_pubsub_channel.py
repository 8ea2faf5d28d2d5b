"""The channel: whom it trusts, what it does not send, where it does not go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from consumer._proto import pubsub_api_pb2 as pb
from consumer._proto import pubsub_api_pb2_grpc as pb_grpc
from consumer.errors import ConfigError, StreamEndedError, TokenRefusedError
from consumer.salesforce.channel import call_metadata, pubsub_channel
from consumer.salesforce.topics import get_topic
from tests.certificates import write_certificates
from tests.unit.pubsub_script import TOPIC, FakeSession, FakeTokens, ScriptedPubSub, served


async def _describe(request: pb.TopicRequest, context: Any) -> pb.TopicInfo:
    return pb.TopicInfo(topic_name=request.topic_name)


async def _serve_tls(pem: bytes, service: ScriptedPubSub) -> tuple[grpc.aio.Server, int]:
    key, certificates = pem.split(b"-----BEGIN CERTIFICATE-----", 1)
    credentials = grpc.ssl_server_credentials([(key, b"-----BEGIN CERTIFICATE-----" + certificates)])
    server = grpc.aio.server()
    pb_grpc.add_PubSubServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    return server, port


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, bytes]:
    """The authority's file, and the server's key and certificates."""
    ca_file, server_file = write_certificates(tmp_path)
    return ca_file, server_file.read_bytes()


async def test_tls_trusts_the_configured_roots_and_only_them(certificates: tuple[Path, bytes]) -> None:
    ca_file, pem = certificates
    service = ScriptedPubSub()
    service.topics = _describe
    server, port = await _serve_tls(pem, service)
    try:
        async with pubsub_channel(f"127.0.0.1:{port}", ca_file=ca_file) as channel:
            assert (await get_topic(channel, TOPIC, FakeTokens())).name == TOPIC
        async with pubsub_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(StreamEndedError) as caught:
                await get_topic(channel, TOPIC, FakeTokens())
            assert caught.value.status == "UNAVAILABLE"
    finally:
        await server.stop(None)


async def test_roots_that_cannot_be_read_are_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        async with pubsub_channel("127.0.0.1:1", ca_file=tmp_path / "none.pem"):
            pass
    assert "none.pem" in str(caught.value)


async def test_nobody_listening_is_an_error_that_names_the_cause() -> None:
    async with pubsub_channel("127.0.0.1:1", tls=False) as channel:
        with pytest.raises(StreamEndedError) as caught:
            await get_topic(channel, TOPIC, FakeTokens())
    assert caught.value.status == "UNAVAILABLE"
    assert "127.0.0.1:1" in str(caught.value)


async def test_a_proxy_of_the_environment_is_not_used_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    service = ScriptedPubSub()
    service.topics = _describe
    async with served(service) as port:
        for host in ("127.0.0.1", "localhost"):
            async with pubsub_channel(f"{host}:{port}", tls=False) as channel:
                assert (await get_topic(channel, TOPIC, FakeTokens())).name == TOPIC


@pytest.mark.parametrize("token", ["a\nb", "é", "\x00", "tab\there"])
def test_headers_that_grpc_cannot_send_are_refused_beforehand(token: str) -> None:
    with pytest.raises(TokenRefusedError) as caught:
        call_metadata(FakeSession(1, token))
    assert "accesstoken" in str(caught.value)
    assert token not in str(caught.value)


def test_a_missing_header_is_refused_beforehand() -> None:
    class Broken:
        def metadata(self) -> Any:
            return (("accesstoken", "t"), ("instanceurl", "https://x"), ("tenantid", None))

    with pytest.raises(TokenRefusedError, match="tenantid"):
        call_metadata(Broken())
