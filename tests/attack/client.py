"""A small HTTP/1.1 client on asyncio: it keeps its connection, discards bodies, and gives statuses."""

import asyncio
import socket


def head(method, target, headers=(), body=None):
    """Bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines + ["", ""]).encode() + (body or b"")


async def dial(port, receive=None):
    """A connection without buffers of its own; `receive` makes the kernel's small."""
    end = socket.socket()
    end.setblocking(False)
    if receive:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
    except BaseException:
        end.close()
        raise
    return end


async def status_of(end):
    """The status of the answer that begins on a connection; reads no more than its first bytes."""
    first = b""
    while len(first) < 12:
        piece = await asyncio.get_running_loop().sock_recv(end, 12 - len(first))
        if not piece:
            return "closed"
        first += piece
    return first[9:12].decode("latin-1")


class Client:
    """One connection at a time to one port."""

    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None

    async def ask(self, request):
        """Send a request, read its answer to the end, give its status."""
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
            self.writer.write(request)
            await self.writer.drain()
            return await self._answer()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.close()
            return "closed"

    async def _answer(self):
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length, chunked, last = 0, False, "connection: close" in answer
        for line in answer.split("\r\n")[1:]:
            if line.startswith("content-length:"):
                length = int(line[15:])
            chunked = chunked or line.startswith("transfer-encoding: chunked")
        if chunked:
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await self._skip(size + 2)
            await self.reader.readuntil(b"\r\n")
        else:
            await self._skip(length)
        if last:
            self.close()
        return answer[9:12]

    async def _skip(self, count):
        while count:
            piece = await self.reader.read(min(count, 1 << 18))
            if not piece:
                raise asyncio.IncompleteReadError(b"", count)
            count -= len(piece)

    def close(self):
        """Give the connection up."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None
