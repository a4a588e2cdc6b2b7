"""What the scripts beside this need of a client: requests, and a WebSocket of a few lines."""

import base64
import json
import os
import pathlib
import socket
import urllib.error
import urllib.parse
import urllib.request


def name_of(path):
    return pathlib.Path(path).stem


def request(url, method="GET", body=None, **headers):
    """Status, headers and body, decoded if it is JSON."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        body = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    asked = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        answer = urllib.request.urlopen(asked)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text = answer.read()
        decoded = json.loads(text) if text and "ndjson" not in (kind := answer.headers["content-type"]) and "json" in kind else text
        return answer.status, answer.headers, decoded


def quoted(text):
    return urllib.parse.quote(str(text), safe="")


class Socket:
    """Frames of an event stream, as they come."""

    def __init__(self, url):
        at = urllib.parse.urlsplit(url)
        self.stream = socket.create_connection((at.hostname, at.port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        head = [f"GET {at.path} HTTP/1.1", f"Host: {at.netloc}", "Connection: Upgrade", "Upgrade: websocket"]
        head += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self.stream.sendall("\r\n".join(head).encode())
        self.input = self.stream.makefile("rb")
        status = self.input.readline()
        assert b" 101 " in status, status
        while self.input.readline() != b"\r\n":
            pass

    def frame(self):
        opcode, length = self.input.read(2)
        if length == 126:
            length = int.from_bytes(self.input.read(2))
        elif length == 127:
            length = int.from_bytes(self.input.read(8))
        payload = self.input.read(length)
        assert opcode in (0x81, 0x89), (opcode, payload)
        return json.loads(payload) if opcode == 0x81 else self.frame()

    def until(self, kind):
        """The next frame of that type; heartbeats and others are passed over."""
        while (frame := self.frame())["type"] != kind:
            assert frame["type"] not in ("reset", "bye"), frame
        return frame
