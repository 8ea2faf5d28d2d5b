"""The wire contract of the Pub/Sub API (names, numbers, known bytes, call paths) and the committed stubs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

import grpc
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from consumer._proto import pubsub_api_pb2 as pb
from consumer._proto import pubsub_api_pb2_grpc as pb_grpc

ROOT = Path(__file__).resolve().parents[2]
FILE = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
REPLAY_ID = bytes.fromhex("00000000001790290000")

# Field numbers count up from one in every message, so the order given here is the number.
MESSAGES = {
    "TopicInfo": ("topic_name str, tenant_guid str, can_publish bool, can_subscribe bool, schema_id str, rpc_id str"),
    "TopicRequest": "topic_name str",
    "EventHeader": "key str, value bytes",
    "ProducerEvent": "id str, schema_id str, payload bytes, headers EventHeader*",
    "ConsumerEvent": "event ProducerEvent, replay_id bytes",
    "PublishResult": "replay_id bytes, error Error, correlation_key str",
    "Error": "code ErrorCode, msg str",
    "FetchRequest": (
        "topic_name str, replay_preset ReplayPreset, replay_id bytes, num_requested int32, auth_refresh str"
    ),
    "FetchResponse": "events ConsumerEvent*, latest_replay_id bytes, rpc_id str, pending_num_requested int32",
    "SchemaRequest": "schema_id str",
    "SchemaInfo": "schema_json str, schema_id str, rpc_id str",
    "PublishRequest": "topic_name str, events ProducerEvent*, auth_refresh str",
    "PublishResponse": "results PublishResult*, schema_id str, rpc_id str",
    "ManagedFetchRequest": (
        "subscription_id str, developer_name str, num_requested int32, auth_refresh str, "
        "commit_replay_id_request CommitReplayRequest"
    ),
    "ManagedFetchResponse": (
        "events ConsumerEvent*, latest_replay_id bytes, rpc_id str, pending_num_requested int32, "
        "commit_response CommitReplayResponse"
    ),
    "CommitReplayRequest": "commit_request_id str, replay_id bytes",
    "CommitReplayResponse": "commit_request_id str, replay_id bytes, error Error, process_time int64",
}

ENUMS = {
    "ErrorCode": {"UNKNOWN": 0, "PUBLISH": 1, "COMMIT": 2},
    "ReplayPreset": {"LATEST": 0, "EARLIEST": 1, "CUSTOM": 2},
}

CALLS = {
    "Subscribe": ("FetchRequest", "FetchResponse", True),
    "GetSchema": ("SchemaRequest", "SchemaInfo", False),
    "GetTopic": ("TopicRequest", "TopicInfo", False),
    "Publish": ("PublishRequest", "PublishResponse", False),
    "PublishStream": ("PublishRequest", "PublishResponse", True),
    "ManagedSubscribe": ("ManagedFetchRequest", "ManagedFetchResponse", True),
}

PUBLISHED = pb.ProducerEvent(id="c1", schema_id="s1", payload=b"\x01\x02")
DELIVERED = pb.ConsumerEvent(event=pb.ProducerEvent(id="e1", schema_id="s1", payload=b"\x01\x02"), replay_id=REPLAY_ID)

VECTORS: list[tuple[Message, str]] = [
    (
        pb.FetchRequest(topic_name="/data/AccountChangeEvent", num_requested=100),
        "0a182f646174612f4163636f756e744368616e67654576656e742064",
    ),
    (
        pb.FetchRequest(topic_name="/event/Demo__e", replay_preset=pb.CUSTOM, replay_id=REPLAY_ID, num_requested=5),
        "0a0e2f6576656e742f44656d6f5f5f6510021a0a000000000017902900002005",
    ),
    (pb.FetchRequest(num_requested=3), "2003"),
    (
        pb.FetchResponse(latest_replay_id=REPLAY_ID, rpc_id="r1", pending_num_requested=100),
        "120a000000000017902900001a0272312064",
    ),
    (
        pb.FetchResponse(events=[DELIVERED], latest_replay_id=REPLAY_ID, rpc_id="r1", pending_num_requested=99),
        "0a1a0a0c0a026531120273311a020102120a00000000001790290000120a000000000017902900001a0272312063",
    ),
    (
        pb.TopicInfo(
            topic_name="/event/Demo__e",
            tenant_guid="g",
            can_publish=True,
            can_subscribe=True,
            schema_id="s1",
            rpc_id="r1",
        ),
        "0a0e2f6576656e742f44656d6f5f5f65120167180120012a02733132027231",
    ),
    (pb.SchemaInfo(schema_json="{}", schema_id="s1", rpc_id="r1"), "0a027b7d120273311a027231"),
    (
        pb.PublishRequest(topic_name="/event/Demo__e", events=[PUBLISHED]),
        "0a0e2f6576656e742f44656d6f5f5f65120c0a026331120273311a020102",
    ),
    (
        pb.PublishResponse(
            results=[pb.PublishResult(replay_id=REPLAY_ID, correlation_key="c1")], schema_id="s1", rpc_id="r1"
        ),
        "0a100a0a000000000017902900001a026331120273311a027231",
    ),
    (
        pb.PublishResponse(
            results=[pb.PublishResult(error=pb.Error(code=pb.PUBLISH, msg="bad"), correlation_key="c1")],
            schema_id="s1",
            rpc_id="r1",
        ),
        "0a0d1207080112036261641a026331120273311a027231",
    ),
    (pb.ManagedFetchRequest(developer_name="MySub", num_requested=10), "12054d79537562180a"),
    (
        pb.ManagedFetchRequest(
            commit_replay_id_request=pb.CommitReplayRequest(commit_request_id="k1", replay_id=REPLAY_ID)
        ),
        "2a100a026b31120a00000000001790290000",
    ),
    (
        pb.ManagedFetchResponse(
            commit_response=pb.CommitReplayResponse(
                commit_request_id="k1", replay_id=REPLAY_ID, process_time=1750000000000
            )
        ),
        "2a170a026b31120a000000000017902900002080b883a1f732",
    ),
]


def _described(field: FieldDescriptorProto) -> str:
    scalars = {
        FieldDescriptorProto.TYPE_STRING: "str",
        FieldDescriptorProto.TYPE_BYTES: "bytes",
        FieldDescriptorProto.TYPE_BOOL: "bool",
        FieldDescriptorProto.TYPE_INT32: "int32",
        FieldDescriptorProto.TYPE_INT64: "int64",
    }
    kind = field.type_name.removeprefix(".eventbus.v1.") or scalars[field.type]
    return f"{field.name} {kind}{'*' if field.label == FieldDescriptorProto.LABEL_REPEATED else ''}"


def test_the_package_holds_exactly_the_known_messages() -> None:
    assert FILE.package == "eventbus.v1"
    assert FILE.syntax == "proto3"
    assert [message.name for message in FILE.message_type if message.name not in MESSAGES] == []
    assert len(FILE.message_type) == len(MESSAGES)


@pytest.mark.parametrize("message", FILE.message_type, ids=lambda message: str(message.name))
def test_fields_have_the_published_numbers_names_and_types(message: DescriptorProto) -> None:
    fields = sorted(message.field, key=lambda field: field.number)
    assert [field.number for field in fields] == list(range(1, len(fields) + 1))
    assert ", ".join(map(_described, fields)) == MESSAGES[message.name]


@pytest.mark.parametrize("message", FILE.message_type, ids=lambda message: str(message.name))
def test_fields_have_implicit_presence(message: DescriptorProto) -> None:
    assert not message.oneof_decl
    assert not any(field.proto3_optional for field in message.field)


def test_enums_have_the_published_values() -> None:
    found = {
        enum.name: {value.name: value.number for value in enum.values}
        for enum in pb.DESCRIPTOR.enum_types_by_name.values()
    }
    assert found == ENUMS


@pytest.mark.parametrize(("message", "wire"), VECTORS, ids=lambda value: type(value).__name__)
def test_known_messages_have_the_known_bytes_both_ways(message: Message, wire: str) -> None:
    assert message.SerializeToString(deterministic=True).hex() == wire
    assert type(message).FromString(bytes.fromhex(wire)) == message


def test_a_request_without_preset_means_latest() -> None:
    assert pb.FetchRequest.FromString(bytes.fromhex("2003")).replay_preset == pb.LATEST


def test_the_service_has_the_published_calls() -> None:
    service = pb.DESCRIPTOR.services_by_name["PubSub"]
    found = {
        method.name: (method.input_type.name, method.output_type.name, method.client_streaming)
        for method in service.methods
    }
    assert found == CALLS
    assert all(method.client_streaming == method.server_streaming for method in service.methods)


def test_the_stub_calls_full_method_paths() -> None:
    channel = mock.create_autospec(grpc.Channel, instance=True)
    pb_grpc.PubSubStub(channel)  # type: ignore[no-untyped-call]  # generated
    prepared = {call.args[0]: False for call in channel.unary_unary.call_args_list}
    prepared |= {call.args[0]: True for call in channel.stream_stream.call_args_list}
    assert prepared == {f"/eventbus.v1.PubSub/{name}": streaming for name, (_, _, streaming) in CALLS.items()}


def test_the_committed_stubs_are_what_the_proto_file_gives() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "proto" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_check_of_the_stubs_notices_a_difference(tmp_path: Path) -> None:
    for part in ("proto", "consumer/_proto"):
        (tmp_path / part).mkdir(parents=True)
        for source in (ROOT / part).iterdir():
            if source.is_file():
                (tmp_path / part / source.name).write_bytes(source.read_bytes())
    proto = tmp_path / "proto" / "pubsub_api.proto"
    proto.write_text(proto.read_text().replace("int32 pending_num_requested = 4", "int32 pending = 4"))
    result = subprocess.run(
        [sys.executable, str(tmp_path / "proto" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "consumer/_proto/pubsub_api_pb2.py is not up to date" in result.stderr


def test_the_stubs_are_not_bound_to_the_compilers_version() -> None:
    """Otherwise they would refuse every protobuf and grpcio older than the ones they were made with."""
    for path in (ROOT / "consumer" / "_proto").glob("*.py"):
        text = path.read_text()
        assert "ValidateProtobufRuntimeVersion" not in text
        assert "GRPC_GENERATED_VERSION" not in text
