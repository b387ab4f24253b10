"""HTTP as a test needs it: every header as it is, repeated ones too, and bytes on the wire."""

import http.client
import json as json_codec
import socket
from dataclasses import dataclass

from . import secrets


# What every answer of the stand-in for Azure OpenAI has, and no other answer.
STAND_INS_MARK = "x-stand-in"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """A header's value; None when it is not there or there twice."""
        values = [value for known, value in self.headers if known.lower() == name.lower()]
        return values[0] if len(values) == 1 else None

    @property
    def json(self):
        return json_codec.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error's code, where the body is an error of the gate."""
        try:
            return self.json["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def verdict(self) -> tuple[int, str | None]:
        """Status and code, for one comparison."""
        return self.status, self.code

    def hold_to_secrecy(self) -> "Answer":
        """Holds the head, and the body unless it is the stand-in's, who may say what it likes, to tell no secret."""
        found = secrets.found_in(repr(self.headers))
        if self.header(STAND_INS_MARK) is None:
            # Embeddings are random bytes in base64.
            found += secrets.found_in(self.body.decode(errors="replace"), may_be_random=True)
        assert not found, f"a secret in {self} (R28)"
        return self

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:200]!r}>"


def call(
    connection: http.client.HTTPConnection | tuple[str, int],
    method: str,
    path: str,
    headers: list[tuple] = (),
    body: bytes | None = None,
    timeout: float = 30,
) -> Answer:
    """One request over a connection, or over a new one to an address."""
    if isinstance(connection, tuple):
        connection = http.client.HTTPConnection(*connection, timeout=timeout)
        try:
            return call(connection, method, path, headers, body)
        finally:
            connection.close()
    names = {str(name).lower() for name, _ in headers}
    connection.putrequest(method, path, skip_host="host" in names, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    return read(connection.getresponse())


def read(response: http.client.HTTPResponse) -> Answer:
    """Reads a response to its end."""
    return Answer(response.status, response.getheaders(), response.read())


def raw(address: tuple[str, int], data: bytes, method: str = "GET", timeout: float = 30) -> Answer:
    """Sends bytes to a gateway as they are and reads one answer. Status 0: the peer hung up without one."""
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
        except (http.client.BadStatusLine, ConnectionResetError):
            return Answer(0, [], b"")
        return read(response).hold_to_secrecy()
