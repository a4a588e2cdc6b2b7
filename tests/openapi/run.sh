#!/usr/bin/env bash
# Fuzzes a running server by its own OpenAPI document: run.sh PATH-TO-DIORAMA. Exits with 77 where Python is missing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
program="$(realpath "${1:?the diorama program}")"
venv="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-schemathesis"

skip() { echo "SKIPPED: the OpenAPI fuzz: $*"; exit 77; }

if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "python3 with venv is missing"
    apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null || skip "python3-venv cannot be installed"
fi
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" || skip "PyPI cannot be reached"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi

folder="$(mktemp -d)"
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
# The demo, with a token, so that whatever ignores it is found; its webhook unsigned, as signatures cannot be made up.
cp "$here"/../../demo/* "$here"/{schemathesis.toml,hooks.py} "$folder"
sed -i -e 's/^listen = .*/listen = "127.0.0.1:0"\nauth = { tokens = ["env:TOKEN"] }\nlimits = { auth_failures = 100_000 }/' \
    -e 's/^auth = { scheme = "standard".*/auth = { scheme = "none" }/' "$folder/diorama.toml"
cd "$folder"
export TOKEN=the-token-of-the-fuzz
"$program" demo --dir . >out.txt 2>err.txt &
server=$!
for _ in $(seq 200); do
    grep -q '^ready' out.txt && break
    kill -0 "$server" 2>/dev/null || { cat out.txt err.txt; exit 1; }
    sleep 0.05
done
url="$(sed -n 's/^listening on //p' out.txt)"

fuzz() {
    "$venv/bin/st" run "$url/openapi.json" --header "Authorization: Bearer $TOKEN" "$@"
}
status=0
# What a webhook tells is believed until the source was read again, whatever its types are: so it goes last, by itself.
fuzz --exclude-path-regex '^/webhooks/' || status=1
fuzz --include-path-regex '^/webhooks/' || status=1
kill -0 "$server" || { echo "the server died"; status=1; }
[ "$status" = 0 ] || tail -50 err.txt
exit "$status"
