"""Writes to each file's resource, by hand and by webhook, and watches it happen: write.py URL FOLDER FILE..."""

import os
import sqlite3
import sys

from client import Socket, name_of, quoted, request

url, folder, files = sys.argv[1], sys.argv[2], sys.argv[3:]
edits = sqlite3.connect(os.path.join(folder, "edits.db"))


def settled(method, path, body=None):
    status, _, record = request(f"{url}/{path}", method, body, prefer="wait=20")
    assert status in (200, 201), (method, path, status, record)
    return status, record


for path in files:
    name = name_of(path)
    schema = request(f"{url}/{name}/_schema")[2]
    id_column, types = schema["id"], {column["name"]: column["type"] for column in schema["columns"]}
    first = request(f"{url}/{name}?limit=1")[2][0]
    rows = int(request(f"{url}/{name}?limit=0")[1]["x-total-count"])
    new = 10_000_000 if types[id_column] == "integer" else "a new row"
    column = next(column for column, kind in types.items() if column != id_column and kind in ("string", "integer", "number"))
    value = "changed" if types[column] == "string" else 12_345

    # A start from the cache reads the file behind; news that come meanwhile are put off until it is read.
    assert request(f"{url}/{name}/_refresh", "POST")[0] == 200
    socket = Socket(f"{url}/{name}/events")
    socket.until("hello")
    status, record = settled("POST", name, {**first, id_column: new})
    assert (status, record) == (201, {**first, id_column: new}), (name, record)
    assert socket.until("RecordInserted")["record"] == record
    status, record = settled("PATCH", f"{name}/{quoted(new)}", {column: value})
    assert record == {**first, id_column: new, column: value}, (name, record)
    assert socket.until("RecordChanged")["changed"] == [column]
    stored = edits.execute(f'SELECT "{column}" FROM "{name}" WHERE "{id_column}" = ?', (new,)).fetchall()
    assert stored == [(value,)], (name, stored)
    settled("DELETE", f"{name}/{quoted(new)}")
    assert socket.until("RecordRemoved")["id"] == str(new)

    told = {"op": "update", "id": str(first[id_column]), "partial": True, "new": {column: value}}
    status, _, answer = request(f"{url}/webhooks/{name}", "POST", told)
    assert (status, answer["applied"]) == (200, 1), (name, answer)
    assert socket.until("RecordChanged")["record"] == {**first, column: value}
    # It was news of a file that does not say so: the next refresh corrects it.
    assert request(f"{url}/{name}/_refresh", "POST")[0] == 200
    assert request(f"{url}/{name}/{quoted(first[id_column])}")[2] == first
    assert int(request(f"{url}/{name}?limit=0")[1]["x-total-count"]) == rows
    print(f"{name}: inserted, changed, removed, told by a webhook, refreshed: {rows} rows")
