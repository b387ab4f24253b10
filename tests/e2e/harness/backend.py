"""A backend that does what a test says, byte for byte, and keeps what it received."""

import socket
import threading
import time
from collections.abc import Callable, Iterable


class Received:
    """One request as it came."""

    def __init__(self, head: bytes, body: bytes, complete: bool):
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        self.body = body
        self.trailers: list[str] = []
        self.complete = complete

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name), None)


# Of a request's head and body: the pieces of the answer, whole HTTP/1.1. A number waits so many seconds,
# None resets the connection.
Script = Callable[[Received], Iterable[bytes | float | None]]


class Backend:
    """Listens on a port of its own, or on `port`; `script` decides on every request. An OSError of the script
    ends the connection.

    With `early` the script answers as soon as a request's head is there.
    """

    def __init__(self, script: Script, early: bool = False, port: int = 0):
        self.script = script
        self.early = early
        self.received: list[Received] = []
        self._socket = socket.create_server(("127.0.0.1", port), backlog=512)
        self.address = self._socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = connection.makefile("rb")
        try:
            while head := read_head(reader):
                received = Received(head, b"", False)
                if not self.early:
                    received.body, received.complete = read_body(reader, received)
                self.received.append(received)
                if not received.complete and not self.early:
                    break
                for piece in self.script(received):
                    if piece is None:
                        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        return
                    if isinstance(piece, bytes):
                        connection.sendall(piece)
                    else:
                        time.sleep(piece)
                if self.early:
                    break
        except OSError:
            pass
        finally:
            reader.close()
            connection.close()

    def close(self) -> None:
        # Whoever accepts would hold the port otherwise.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_head(reader) -> bytes:
    head = b""
    while line := reader.readline():
        if line == b"\r\n":
            return head
        head += line
    return b""


def read_body(reader, received: Received) -> tuple[bytes, bool]:
    """The body, and whether all of it came."""
    if received.header("transfer-encoding") == "chunked":
        body = b""
        while line := reader.readline():
            size = int(line, 16)
            if size == 0:
                while (line := reader.readline()) not in (b"\r\n", b""):
                    received.trailers.append(line.decode("latin-1").strip())
                return body, line != b""
            piece = reader.read(size)
            body += piece
            if len(piece) < size or not reader.readline():
                return body, False
        return body, False
    length = int(received.header("content-length") or 0)
    body = reader.read(length)
    return body, len(body) == length


def answer(body: bytes, content_type: str = "application/json", status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(pieces: Iterable[bytes], content_type: str = "application/json", *headers: str) -> list[bytes]:
    """An answer in chunks, one for each piece."""
    lines = ["HTTP/1.1 200 OK", f"content-type: {content_type}", "transfer-encoding: chunked", *headers]
    head = "\r\n".join([*lines, "", ""]).encode()
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
    return [head, *chunks, b"0\r\n\r\n"]
