"""Serves published files one by one and compares rows, cells and types with what Python reads: corpus.py PROGRAM FOLDER [EVERY].

Cells of CSV files are compared as text (the csv module) and as numbers; types with those of pandas. JSON files are compared with the
json module, value by value. Prints a table; the exit code is 1 if a file differs that is not in KNOWN.
"""

import collections
import csv
import gzip
import io
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import warnings

import pandas

from client import request

warnings.simplefilter("ignore")
csv.field_size_limit(1 << 24)
ENDINGS = (".csv", ".csv.gz", ".tsv", ".json", ".json.gz", ".geojson", ".ndjson", ".jsonl")
LEFT_OUT = ("package.json", "package-lock.json", "tsconfig.json", "bower.json", "composer.json", ".dist-info", "node_modules", "/tests/")
# More of a package than this is more of the same.
OF_ONE_PACKAGE = 70
LARGEST = 40 << 20
NULLS = {
    "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", "None", "<NA>", "#N/A", "#N/A N/A", "#NA", "-NaN", "-nan",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "\\N",
}
# Files that are read in another way than Python reads them, and why.
KNOWN = {
    "unemployment09.csv.gz": "codes with leading zeros stay texts",
    "species.csv": "codes with leading zeros stay texts",
    "zipcodes.csv": "codes with leading zeros stay texts",
    "c_botulinum_lag_phase.csv": "inf is not a number of JSON: the column is text",
    "mice.csv": "inf is not a number of JSON: the column is text",
    "country_data.tsv": "a row with fewer fields than the header is left out and counted",
    "scotland_population.csv": "titles above the header are not rows",
    "unemp.csv": "titles above the header are not rows",
    "londonBoroughs.json": "TopoJSON: the only array of objects, deep inside, is the rows",
    "londonTubeLines.json": "TopoJSON: the only array of objects, deep inside, is the rows",
    "world-110m.json": "TopoJSON: the only array of objects, deep inside, is the rows",
}


def files(folder, every):
    """Files of data, at most so many of one package, the same content once."""
    seen, chosen = set(), []
    for package in sorted(path for path in folder.iterdir() if path.is_dir()):
        own = [path for path in sorted(package.rglob("*")) if path.is_file() and path.name.lower().endswith(ENDINGS) and path.name[0] not in "._"]
        own = [path for path in own if not any(part in str(path.relative_to(folder)) for part in LEFT_OUT) and 2 < path.stat().st_size < LARGEST]
        step = max(1, math.ceil(len(own) / OF_ONE_PACKAGE))
        for path in own[::step]:
            content = path.read_bytes()
            if content not in seen:
                seen.add(content)
                chosen.append(path)
    return chosen[::every]


def text_of(path):
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            pass
    return content.decode("latin-1")


def serve(program, path):
    """What is served of a file: schema and rows, or the message that refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [program, "serve", f"data={path.resolve()}", "--listen", "127.0.0.1:0", "--cache", "memory"]
        process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        url, several = None, None
        try:
            for line in process.stdout:
                if line.startswith("listening on "):
                    url = line.removeprefix("listening on ").strip()
                if "has several arrays" in line:
                    several = line
                if line.startswith("ready"):
                    break
            else:
                return None, [line for line in process.stderr.read().strip().splitlines() if line][-1]
            if several:
                names = [name.strip().removeprefix("/") for name in several.split("each of which is a resource:")[1].split(",")]
                lists = [request(f"{url}/{name}", accept="application/x-ndjson")[2].splitlines() for name in names]
                return {"arrays": len(names)}, [json.loads(line) for lines in lists for line in lines]
            schema = request(f"{url}/data/_schema")[2]
            _, _, lines = request(f"{url}/data", accept="application/x-ndjson")
            return schema, [json.loads(line) for line in lines.splitlines()]
        finally:
            process.terminate()
            process.communicate()


def separator_of(path, text):
    first = text.lstrip("\n").split("\n", 1)[0]
    if path.name.endswith(".tsv"):
        return "\t"
    return max(",;\t|", key=lambda separator: (first.count(separator), separator == ","))


def blank(row):
    return not any(cell.strip() for cell in row)


def compare_csv(path, schema, rows):
    text = text_of(path)
    separator = separator_of(path, text)
    records = [record for record in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if not blank(record)]
    own = [column["name"] for column in schema["columns"]]
    numbered = schema["id"] if schema["id"] in own and len(own) == len(records[0]) + 1 else None
    names = [name for name in own if name != numbered]
    if len(rows) != len(records) - 1:
        return f"{len(rows)} rows, Python has {len(records) - 1}"
    if len(names) != len(records[0]):
        return f"{len(names)} columns, Python has {len(records[0])}"
    types = {column["name"]: column["type"] for column in schema["columns"]}
    for at, (record, row) in enumerate(zip(records[1:], rows)):
        for name, cell in zip(names, record):
            if not same(cell, row[name], types[name]):
                return f"row {at}, {name!r}: {row[name]!r}, Python has {cell!r}"
    frame = pandas.read_csv(io.StringIO(text), sep=separator, low_memory=False, skipinitialspace=True)
    if len(frame.columns) != len(names):
        return None
    for name, column in zip(names, frame.columns):
        kind = frame[column].dtype.kind
        expected = {"i": ("integer",), "u": ("integer",), "f": ("number", "integer"), "b": ("boolean",)}.get(kind)
        if frame[column].isna().all():
            continue
        if expected and types[name] not in expected:
            return f"type of {name!r}: {types[name]}, pandas has {frame[column].dtype}"
        if not expected and types[name] in ("integer", "number"):
            return f"type of {name!r}: {types[name]}, pandas has text"
    return None


def same(cell, value, kind):
    if value is None:
        return cell.strip() == "" or (kind != "string" and cell.strip() in NULLS)
    if isinstance(value, bool):
        return cell.strip().lower() == str(value).lower()
    if isinstance(value, (int, float)):
        return float(cell.replace(",", "") if cell.count(",") else cell) == value
    return cell == value or cell.strip() == value


def expected_json(path, several):
    """The rows of a document, as its shape says; of several arrays one after the other."""
    text = text_of(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(document, list):
        return document
    if document.get("type") == "FeatureCollection":
        rows = []
        for feature in document["features"]:
            row = dict(feature.get("properties") or {})
            row.update({key: value for key, value in feature.items() if key not in ("type", "properties") and key not in row})
            rows.append(row)
        return rows
    if several:
        arrays = [value for value in document.values() if isinstance(value, list) and all(isinstance(item, dict) for item in value)]
        return [row for value in arrays for row in value]
    arrays = [value for value in document.values() if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)]
    if len(arrays) == 1:
        return arrays[0]
    if all(isinstance(value, dict) for value in document.values()):
        return list(document.values())
    return [document]


def compare_json(path, schema, rows):
    expected = expected_json(path, "arrays" in schema)
    if len(rows) != len(expected):
        return f"{len(rows)} rows, Python has {len(expected)}"
    for at, (row, own) in enumerate(zip(rows, expected)):
        for name, value in own.items():
            if row.get(name) != value or isinstance(row.get(name), bool) != isinstance(value, bool):
                return f"row {at}, {name!r}: {str(row.get(name))[:60]!r}, Python has {str(value)[:60]!r}"
    return None


def compare(path, schema, rows):
    is_json = any(ending in path.name for ending in (".json", ".geojson", ".ndjson", ".jsonl"))
    return (compare_json if is_json else compare_csv)(path, schema, rows)


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    every = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    table, differing, refusals = collections.defaultdict(collections.Counter), [], collections.Counter()
    total = collections.Counter()
    for path in files(folder, every):
        package = path.relative_to(folder).parts[0]
        counts = table[package]
        counts["files"] += 1
        schema, rows = serve(program, path)
        name = str(path.relative_to(folder))
        if schema is None:
            counts["refused"] += 1
            refusals[rows.replace(str(path.resolve()), "FILE")] += 1
            print(f"refused    {name}: {rows.replace(str(path.resolve()), 'FILE')[:200]}", flush=True)
            continue
        counts["served"] += 1
        total["rows"] += len(rows)
        total["cells"] += sum(map(len, rows))
        try:
            difference = compare(path, schema, rows)
        except Exception as error:
            difference = f"Python cannot read it: {type(error).__name__}: {str(error)[:120]}"
        if difference is None:
            counts["identical"] += 1
        else:
            differing.append(name)
            print(f"different  {name}: {difference}", flush=True)
    print("\n| package | files | served | identical | refused |\n|---|---|---|---|---|")
    for package, counts in sorted(table.items()):
        print(f"| {package} | {counts['files']} | {counts['served']} | {counts['identical']} | {counts['refused']} |")
    sums = collections.Counter()
    for counts in table.values():
        sums.update(counts)
    print(f"| all | {sums['files']} | {sums['served']} | {sums['identical']} | {sums['refused']} |")
    print(f"\n{total['rows']} rows and {total['cells']} cells compared")
    unknown = [name for name in differing if not any(name.endswith(known) for known in KNOWN)]
    if unknown:
        print(f"\nnot as Python reads them: {', '.join(unknown)}")
        sys.exit(1)


main()
