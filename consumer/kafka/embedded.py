"""A broker inside this process, from pip packages only: librdkafka's mock cluster, reached through ctypes.

It speaks the protocol and keeps records in memory, which is enough to show the service at work. It proves
nothing: aborted records are delivered to read-committed readers, no producer is ever fenced, transactions never
time out, nothing is compacted or persisted, each partition keeps only its last 5 MiB, and topics can't be made
or described by admin requests. librdkafka calls it experimental and outside its API guarantees.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any, Self

from consumer.errors import KafkaUnavailableError, UsageError

_PRODUCER = 0
_ERROR_TEXT_BYTES = 512
_TOPIC_EXISTS = 36


def _library() -> Any:
    try:
        from confluent_kafka import cimpl  # noqa: PLC0415  # an optional package: only the demonstration needs it
    except ImportError as error:
        raise UsageError(
            "The embedded broker needs the package confluent-kafka, which is not installed",
            "Install it with `pip install 'messaging-session-consumer[demo]'`, or use a real Kafka with --kafka.",
        ) from error
    # The extension module is linked to librdkafka, so its handle finds librdkafka's functions too.
    library = ctypes.CDLL(cimpl.__file__)
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class EmbeddedBroker:
    """A running mock cluster; ``close`` or ``with`` ends it.

    Args:
        brokers: number of brokers, each with a port of its own on the loopback interface.

    Attributes:
        bootstrap: host:port of every broker, separated by commas.

    Raises:
        UsageError: the package confluent-kafka is not installed.
        KafkaUnavailableError: librdkafka could not start it.
    """

    def __init__(self, brokers: int = 1) -> None:
        self._library = _library()
        why = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
        options = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(options, b"log_level", b"0", why, _ERROR_TEXT_BYTES)
        self._client = self._library.rd_kafka_new(_PRODUCER, options, why, _ERROR_TEXT_BYTES)
        if not self._client:
            raise KafkaUnavailableError(f"The embedded broker did not start: {why.value.decode()}", "Use --kafka.")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, brokers)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._client)
            raise KafkaUnavailableError("The embedded broker did not start", "Use --kafka.")
        self.bootstrap = str(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode())

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic; one that exists is left as it is.

        Raises:
            KafkaUnavailableError: librdkafka refused.
        """
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code not in {0, _TOPIC_EXISTS}:
            raise KafkaUnavailableError(f"The embedded broker refused the topic {name} with code {code}")

    def close(self) -> None:
        """End the broker; what it held is gone."""
        cluster, self._cluster = self._cluster, None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
            self._library.rd_kafka_destroy(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
