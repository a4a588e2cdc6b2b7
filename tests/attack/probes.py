"""Steady clients beside an attack: their latencies, corrected for what was not sent while an answer was late."""

import http.client
import random
import time


def steady(port, every, until, request):
    """Send a request every so many seconds until a moment of the monotonic clock. A late answer counts for each request that was
    due meanwhile, so that a stall weighs as much as it would with independent readers. Gives milliseconds and statuses."""
    latencies, statuses = [], {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    due = time.monotonic()
    while due < until:
        time.sleep(max(0, due - time.monotonic()))
        try:
            request(connection)
            answer = connection.getresponse()
            answer.read()
            status = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
            connection.close()
        now = time.monotonic()
        statuses[status] = statuses.get(status, 0) + 1
        while due <= now and due < until:
            latencies.append((now - due) * 1000)
            due += every
    return latencies, statuses


def reads(port, rows, token, until):
    """A point read every 10 ms."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    numbers = random.Random(7)
    return steady(port, 0.01, until, lambda link: link.request("GET", f"/items/{numbers.randrange(rows) + 1}", headers=headers))


def writes(port, rows, until):
    """A change of a row every 50 ms."""
    numbers = random.Random(8)
    headers = {"Content-Type": "application/merge-patch+json"}

    def request(link):
        link.request("PATCH", f"/orders/{numbers.randrange(rows) + 1}", f'{{"price":{numbers.randrange(9999)}}}', headers)

    return steady(port, 0.05, until, request)


def percentiles(latencies):
    """The 50th and 99th percentile and the largest."""
    if not latencies:
        return (float("nan"),) * 3
    ordered = sorted(latencies)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1]
