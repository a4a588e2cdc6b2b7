"""Compares what is served of files with what is in them, and asks as a user would: read.py URL FILE..."""

import csv
import json
import sys

from client import Socket, name_of, quoted, request

url, files = sys.argv[1], sys.argv[2:]
NULLS = {"NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None"}


def source(path):
    """Rows of a file; cells of CSV files are texts."""
    if path.endswith(".json"):
        document = json.load(open(path))
        if isinstance(document, dict):
            return [feature["properties"] | {"id": feature["id"], "geometry": feature["geometry"]} for feature in document["features"]]
        return document
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.endswith(".tsv") else ","))


def same(cell, value, is_json):
    if is_json or not isinstance(cell, str):
        return cell == value and isinstance(cell, bool) == isinstance(value, bool)
    if value is None:
        return cell == "" or cell in NULLS
    if isinstance(value, bool):
        return cell.lower() == str(value).lower()
    return float(cell) == value if isinstance(value, (int, float)) else cell == value


def compare(name, path):
    """Every cell of the file with what is served of it; gives the rows as served."""
    rows, is_json = source(path), path.endswith(".json")
    _, _, lines = request(f"{url}/{name}", accept="application/x-ndjson")
    served = [json.loads(line) for line in lines.splitlines()]
    assert len(served) == len(rows), (name, len(served), len(rows))
    for number, (row, got) in enumerate(zip(rows, served)):
        for column, cell in row.items():
            assert same(cell, got[column], is_json), (name, number, column, cell, got[column])
    return served


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def column_of(rows, fits):
    """The first column that has nothing else but nulls."""
    for column in rows[0]:
        values = [row[column] for row in rows if row[column] is not None]
        if values and all(map(fits, values)):
            return column


def ask(name, query):
    status, headers, rows = request(f"{url}/{name}?{query}")
    assert status == 200, (name, query, rows)
    return int(headers["x-total-count"]), rows


def narrow(name, rows):
    """Filters, orders and searches against the same done here."""
    middle = rows[len(rows) // 2]
    text = column_of(rows, lambda value: isinstance(value, str))
    if text and middle[text]:
        total, found = ask(name, f"{quoted(text)}={quoted('eq.' + middle[text])}")
        assert total == sum(row[text] == middle[text] for row in rows), (name, text, middle[text], total)
        word = max(middle[text].split(), key=len).lower()
        total, found = ask(name, f"q={quoted(word)}&limit=1000")
        assert found and all(word in json.dumps(row, ensure_ascii=False).lower() for row in found), (name, word)
        assert total >= sum(word in str(row[text]).lower() for row in rows), (name, word, total)
    number = column_of(rows, is_number)
    if number:
        known = sorted((row[number] for row in rows if row[number] is not None), reverse=True)
        _, found = ask(name, f"order={quoted(number)}.desc&limit=20&offset={len(known) // 2}")
        assert [row[number] for row in found][: len(known) // 2] == known[len(known) // 2 :][:20], (name, number)
        total, _ = ask(name, f"{quoted(number)}=gte.{known[len(known) // 3]}&limit=0")
        assert total == sum(value >= known[len(known) // 3] for value in known), (name, number, total)


def walk(name, rows):
    """From the first page to the last, by the links between them."""
    at, seen = f"{url}/{name}?limit=5000&after=", []
    while at:
        _, headers, page = request(at)
        seen += page
        links = dict(link.rsplit("; rel=", 1)[::-1] for link in headers["link"].split(", "))
        at = links.get('"next"')
        at = at and (url + at.strip("<>") if at.startswith("</") else at.strip("<>"))
    assert seen == rows, (name, len(seen))


for path in files:
    name = name_of(path)
    rows = compare(name, path)
    narrow(name, rows)
    walk(name, rows)
    socket = Socket(f"{url}/{name}/events")
    socket.until("hello")
    assert request(f"{url}/{name}/_refresh", "POST")[0] == 200
    assert socket.until("Invalidated")["covered"] is True
    numbers = sum(is_number(value) for row in rows for value in row.values())
    nulls = sum(value is None for row in rows for value in row.values())
    print(f"{name}: {len(rows)} rows, {numbers} numbers, {nulls} nulls: as in the file")
