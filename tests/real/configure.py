"""Gives each file a resource with a write route and a webhook, in five lines: configure.py URL FOLDER FILE...

URL serves the files already: what it says of their columns makes the tables that take the writes.
"""

import os
import sqlite3
import sys

from client import name_of, request

url, folder, files = sys.argv[1], sys.argv[2], sys.argv[3:]
TYPES = {"integer": "INTEGER", "number": "REAL", "boolean": "BOOLEAN", "json": "JSON"}

edits = sqlite3.connect(os.path.join(folder, "edits.db"))
lines = []
for path in files:
    name = name_of(path)
    schema = request(f"{url}/{name}/_schema")[2]
    identified = schema["id"]
    columns = [
        f'"{column["name"]}" {TYPES.get(column["type"], "TEXT")}' + " PRIMARY KEY" * (column["name"] == identified)
        for column in schema["columns"]
    ]
    edits.execute(f'CREATE TABLE "{name}" ({", ".join(columns)})')
    driver = "json" if path.endswith(".json") else "csv"
    lines += [
        f"[dio.{name}]",
        f'source = {{ {driver} = "{os.path.abspath(path)}" }}',
        f'write = {{ sqlite = "edits.db", table = "{name}" }}',
        f"[webhook.{name}]",
        'auth = { scheme = "none" }',
    ]
edits.commit()
with open(os.path.join(folder, "diorama.toml"), "w") as file:
    file.write("\n".join(lines) + "\n")
