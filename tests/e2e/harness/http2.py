"""HTTP/2 spoken by hand: one stream after the other on a connection, with whatever headers a test wants."""

import contextlib
import socket
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

from .http import Answer


@dataclass
class Stream:
    """What came back on a stream."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: bool = False

    @property
    def answer(self) -> Answer:
        status = next((int(value) for name, value in self.headers if name == ":status"), 0)
        headers = [(name, value) for name, value in self.headers if name != ":status"]
        return Answer(status, headers, self.body).hold_to_secrecy()


class Http2:
    """A connection. Nothing that is sent is checked or changed."""

    def __init__(self, address: tuple[str, int]):
        checks = ("validate_outbound_headers", "normalize_outbound_headers", "validate_inbound_headers")
        config = h2.config.H2Configuration(header_encoding="utf-8", **dict.fromkeys(checks, False))
        self.connection = h2.connection.H2Connection(config)
        self.socket = socket.create_connection(address, timeout=20)
        self.reset_codes: dict[int, int] = {}
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self) -> None:
        # A peer that has closed is seen by who reads.
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(self.connection.data_to_send())

    def open(self, headers: list[tuple[str, str]], end: bool = True) -> int:
        """Sends the head of a request; answers its stream."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def reset(self, stream: int) -> None:
        self.connection.reset_stream(stream)
        self.flush()

    def read(self, stream: int, up_to: int | None = None) -> Stream:
        """Reads until a stream has ended, however, or so much of its body is there."""
        seen = Stream()
        while not seen.ended and (up_to is None or len(seen.body) < up_to):
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                data = b""
            if not data:
                seen.ended = seen.reset = True
            for event in self.connection.receive_data(data):
                self.note(event, stream, seen)
            self.flush()
        return seen

    def reset_code(self, stream: int) -> int:
        """Reads until the peer has reset a stream; the error code that it gives."""
        while stream not in self.reset_codes:
            data = self.socket.recv(65_536)
            assert data, "the connection ended without a reset"
            for event in self.connection.receive_data(data):
                self.note(event, stream, Stream())
        return self.reset_codes[stream]

    def note(self, event: h2.events.Event, stream: int, seen: Stream) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            seen.ended = seen.reset = True
        if isinstance(event, h2.events.StreamReset):
            self.reset_codes[event.stream_id] = event.error_code
        if getattr(event, "stream_id", None) != stream:
            return
        match event:
            case h2.events.ResponseReceived():
                seen.headers = event.headers
            case h2.events.DataReceived():
                seen.body += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.StreamReset():
                seen.ended = seen.reset = True
            case h2.events.StreamEnded():
                seen.ended = True

    def ask(
        self,
        path: str,
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes | None = None,
        trailers: list[tuple[str, str]] = (),
        up_to: int | None = None,
    ) -> Stream:
        """One request, to its end, or until so much of the response's body is there."""
        head = [(":method", method), (":scheme", "http"), (":authority", "gate"), (":path", path), *headers]
        stream = self.open(head, end=body is None and not trailers)
        if body is not None:
            self.connection.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.connection.send_headers(stream, trailers, end_stream=True)
        self.flush()
        seen = self.read(stream, up_to)
        if not seen.ended:
            self.reset(stream)
        return seen
