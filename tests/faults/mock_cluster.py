"""librdkafka's mock cluster as an injector of broker errors that a real broker can't be made to give."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Any

from consumer.kafka.embedded import EmbeddedBroker


class Api(IntEnum):
    """Request kinds by their number in the protocol."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    FIND_COORDINATOR = 10
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26


class MockCluster(EmbeddedBroker):
    """A mock cluster whose next answers can be chosen."""

    def fail_next(self, api: Api, *codes: int) -> None:
        """Answer the next requests of this kind, one after the other, with these error codes (0: no error)."""
        array = (ctypes.c_int * len(codes))(*codes)
        push = self._library.rd_kafka_mock_push_request_errors_array
        push.restype, push.argtypes = None, [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.c_void_p]
        push(self._cluster, int(api), len(codes), array)

    def forget_failures(self, api: Api) -> None:
        """Drop what :meth:`fail_next` announced and was not used."""
        clear = self._library.rd_kafka_mock_clear_request_errors
        clear.restype, clear.argtypes = None, [ctypes.c_void_p, ctypes.c_int16]
        clear(self._cluster, int(api))

    def set_down(self, broker: int) -> None:
        """Close a broker's port and connections."""
        self._call("rd_kafka_mock_broker_set_down", ctypes.c_int32(broker))

    def set_up(self, broker: int) -> None:
        """Open it again."""
        self._call("rd_kafka_mock_broker_set_up", ctypes.c_int32(broker))

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Make a broker the leader of a partition."""
        self._call(
            "rd_kafka_mock_partition_set_leader",
            ctypes.c_char_p(topic.encode()),
            ctypes.c_int32(partition),
            ctypes.c_int32(broker),
        )

    def move_coordinator(self, transactional_id: str, broker: int) -> None:
        """Make a broker the coordinator of a transactional id."""
        self._call(
            "rd_kafka_mock_coordinator_set",
            ctypes.c_char_p(b"transaction"),
            ctypes.c_char_p(transactional_id.encode()),
            ctypes.c_int32(broker),
        )

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype, function.argtypes = ctypes.c_int, None
        code = function(ctypes.c_void_p(self._cluster), *arguments)
        assert code == 0, f"{name} gave {code}"
