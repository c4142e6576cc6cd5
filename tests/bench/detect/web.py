"""HTTP/1.1 on asyncio, as little as the benchmark needs: a server for all its services, and a client that keeps connections."""
import asyncio, collections


class Message:
    """A request (`method`, `target`) or a reply (`status`), with headers in lower case and the whole body."""

    def __init__(self, first_line, headers, body):
        words = first_line.split(" ", 2)
        self.method, self.target = words[0], words[1]
        self.status = int(words[1]) if words[0].startswith("HTTP/") else None
        self.headers, self.body = headers, body


async def read_message(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        if line:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Message(head[0], headers, body)


def encode(first_line, headers, body):
    lines = [first_line] + [f"{name}: {value}" for name, value in headers.items()] + [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def serve(port, handler):
    """Serves until the loop ends; `handler(message)` returns (status, headers, body)."""

    async def connection(reader, writer):
        try:
            while True:
                request = await read_message(reader)
                status, headers, body = await handler(request)
                writer.write(encode(f"HTTP/1.1 {status} .", headers, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled: the benchmark ends
        finally:
            writer.close()

    return await asyncio.start_server(connection, "127.0.0.1", port, backlog=1024, limit=1 << 22)


class Client:
    """Sends requests to one port over kept connections."""

    def __init__(self, port):
        self.port, self.idle = port, collections.deque()

    async def send(self, method, target, headers=None, body=b""):
        while True:
            kept = bool(self.idle)
            reader, writer = self.idle.pop() if kept else await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
            try:
                writer.write(encode(f"{method} {target} HTTP/1.1", {"host": "shop.example", **(headers or {})}, body))
                reply = await read_message(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                if not kept:
                    raise
                continue  # the other side had closed a connection that was idle
            if reply.headers.get("connection", "").lower() == "close":
                writer.close()
            else:
                self.idle.append((reader, writer))
            return reply
