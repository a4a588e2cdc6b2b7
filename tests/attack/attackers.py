"""What a caller may do to a server: one function for each attack. Each is cut off when its time is over."""

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections import Counter

from client import Client, dial, head, status_of

SECRET = b"the-secret-of-the-attack"
ITEMS = 150_000
GROUPS = 100_000
ORDERS = 100_000


class Run:
    """Where one attack goes to, and what it was answered."""

    def __init__(self, port, seconds):
        self.port = port
        self.seconds = seconds
        self.statuses = Counter()

    async def loops(self, count, requests):
        """`count` clients that send what `requests(client, n)` gives, each the next after its answer, until it gives None."""

        async def one(client_number):
            client, n = Client(self.port), 0
            while (request := requests(client_number, n)) is not None:
                status = await client.ask(request)
                self.statuses[status] += 1
                n += 1
                if status == "closed":
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def each(self, count, what):
        """`what(n)` for `count` numbers, all at once; what it gives is counted if it is anything."""

        async def one(n):
            try:
                status = await what(n)
            except OSError:
                status = "closed"
            if status:
                self.statuses[status] += 1

        await asyncio.gather(*(one(n) for n in range(count)))


def deliver(hook, body, secret=SECRET):
    """A delivery with its signature."""
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return head("POST", f"/webhooks/{hook}", [("Content-Type", "application/json"), ("X-Signature", signature)], body)


def expressions(n, rows):
    """600 bytes of URL with regular expressions of a compiled size near the limit, on one row or on all."""
    numbers = random.Random(n)
    one = lambda: f"name.match.%5Cw%7B{numbers.randrange(10, 17)}%7D{numbers.randrange(10**6)}"
    return f"/items?{rows}or=({','.join(one() for _ in range(19))})"


def regular(rows, headers):
    async def attack(run):
        target = lambda n: head("GET", expressions(n, rows), headers)
        await run.loops(64, lambda client, n: target(n * 64 + client) if n * 64 + client < 400 else None)

    return attack


async def aggregate(run):
    target = "/items/_aggregate?select=grp,count(),sum(price),min(name)&limit=1"
    await run.loops(40, lambda client, n: head("GET", target))


async def unread_pages(run):
    async def one(n):
        end = await dial(run.port, receive=4096)
        kind = ["", "&order=price.desc,name", "&select=id,name,description,price", "&price=gte.9"][n % 4]
        await asyncio.get_running_loop().sock_sendall(end, head("GET", f"/items?limit=10000&offset={n * 100}{kind}"))
        held.append(end)
        return await status_of(end)

    held = []
    await run.each(400, one)
    await asyncio.sleep(run.seconds)


async def slow_exports(run):
    async def one(n):
        end = await dial(run.port, receive=4096)
        try:
            form = "text/csv" if n % 2 else "application/x-ndjson"
            order = ["price.desc,name", "name", "status,weight,price", "made.desc"][n % 4]
            await asyncio.get_running_loop().sock_sendall(end, head("GET", f"/items?order={order}", [("Accept", form)]))
            run.statuses[await status_of(end)] += 1
            while await asyncio.get_running_loop().sock_recv(end, 1024):
                await asyncio.sleep(0.1)
        finally:
            end.close()

    await run.each(200, one)


async def live_queries(run):
    watching = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]

    async def one(n):
        end = await dial(run.port)
        try:
            target = f"/orders/live?quantity=gte.{n % 9}&order=price.desc,id&limit={50 + n}"
            headers = watching if n % 2 else [("Accept", "text/event-stream")]
            await asyncio.get_running_loop().sock_sendall(end, head("GET", target, headers))
            run.statuses[await status_of(end)] += 1
            while await asyncio.get_running_loop().sock_recv(end, 1 << 16):
                pass
        finally:
            end.close()

    def delivery(client, n):
        change = lambda id: {"op": "update", "id": str(id), "partial": True, "version": n, "new": {"price": n + id}}
        return deliver(f"orders{client + 1}", json.dumps([change(n * 20 % ORDERS + i + 1) for i in range(20)]).encode())

    async def deliveries():
        await asyncio.sleep(run.seconds / 4)
        await run.loops(4, delivery)

    await asyncio.gather(run.each(300, one), deliveries())


async def wrong_signatures(run):
    """Bodies just under 8 MiB and just under 1 MiB, all but their last bytes, then the rest."""
    bodies = [b" " * ((8 << 20) - 1024), b" " * ((1 << 20) - 1024)]

    async def one(n):
        body, piece = bodies[n % 5 == 0], 1 << 16
        end = await dial(run.port)
        try:
            loop, request = asyncio.get_running_loop(), head("POST", "/webhooks/orders1", [("X-Signature", "00" * 32)], body)
            first = len(request) - 100
            # In small pieces, so that all of them grow together.
            for at in range(0, first, piece):
                await loop.sock_sendall(end, request[at : min(at + piece, first)])
                await asyncio.sleep(0)
            await asyncio.sleep(max(0, started + run.seconds * 0.8 - time.monotonic()))
            await loop.sock_sendall(end, request[first:])
            return await status_of(end)
        finally:
            end.close()

    started = time.monotonic()
    await run.each(250, one)


async def large_deliveries(run):
    change = lambda id: {"op": "update", "id": str(id), "partial": True, "version": "@", "new": {"price": id, "name": f"name @ of {id}"}}
    changes = json.dumps([change(id) for id in range(1, 9_001)]).replace('"version": "@"', '"version": @')

    def delivery(client, n):
        return deliver("items", changes.replace("@", str(n * 128 + client + 1)).encode()) if n == 0 else None

    await run.loops(128, delivery)


async def idempotency_keys(run):
    body = b'{"price":7}'
    key = lambda client, n: f"{client}-{n}-".ljust(200, "k")
    headers = lambda client, n: [("Content-Type", "application/merge-patch+json"), ("Idempotency-Key", key(client, n))]
    await run.loops(32, lambda client, n: head("PATCH", f"/orders/{(client * 997 + n) % ORDERS + 1}", headers(client, n), body))


async def heavy_queries(run):
    numbers = random.Random(1)
    ids = lambda: ",".join(str(numbers.randrange(ITEMS)) for _ in range(900))
    word = lambda: "".join(numbers.choice("abcdef0123456789") for _ in range(2))
    kinds = [
        lambda: f"price=gte.{numbers.randrange(9)}&limit=1000",
        lambda: f"name=like.*{word()}*{word()}*&limit=1000",
        lambda: f"description=ilike.*{word()}%25{word()}*&limit=1000",
        lambda: f"id=in.({ids()})",
        lambda: f"q={word()}+{word()}&limit=1000",
        lambda: f"order=status,weight.desc,name&offset={numbers.randrange(ITEMS)}&limit=1000",
        lambda: f"or=(price.lt.{numbers.randrange(900)},and(status.eq.new,name.ilike.*{word()}*))&order=made.desc&limit=1000",
    ]
    await run.loops(64, lambda client, n: head("GET", "/items?" + kinds[(client + n) % len(kinds)]()))


async def wrong_tokens(run):
    token = lambda client, n: f"Bearer wrong-{client:04}-{n:012}"
    await run.loops(64, lambda client, n: head("GET", "/items/1", [("Authorization", token(client, n))]))


CROSS = [("Origin", "https://attacker.example"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")]
ATTACKS = {
    "a": ("400 cross-site GETs with 19 regular expressions", regular("", CROSS)),
    "a2": ("the same from no page", regular("", [])),
    "a3": ("the same on one row each", regular("id=eq.1&", [])),
    "b": ("40 aggregates of 100,000 groups", aggregate),
    "c": ("400 unread pages of 10,000 rows", unread_pages),
    "d": ("200 slow ordered exports", slow_exports),
    "e": ("300 live queries, 4 webhooks", live_queries),
    "f": ("250 large bodies, wrong signatures", wrong_signatures),
    "g": ("128 deliveries of 9,000 changes", large_deliveries),
    "h": ("writes with Idempotency-Keys", idempotency_keys),
    "i": ("64 heavy queries in parallel", heavy_queries),
    "j": ("64 clients with wrong tokens", wrong_tokens),
}


def attack(name, port, seconds):
    """Run an attack for at most so many seconds; gives how many of each status it got."""

    async def bounded():
        run = Run(port, seconds)
        try:
            await asyncio.wait_for(ATTACKS[name][1](run), seconds)
        except asyncio.TimeoutError:
            run.statuses["cut off"] += 1
        return dict(run.statuses)

    return asyncio.run(bounded())
