#!/usr/bin/env bash
# HTTP APIs that others have written, as sources: run.sh PATH-TO-DIORAMA [TEST]. Exits with 77 where a tool is missing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
DIORAMA="$(realpath "${1:?the diorama program}")"
export DIORAMA
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-apis"

suite="HTTP APIs"
# shellcheck source=tests/install.sh
. "$here/../install.sh"
packages "$here"
# Servers are outside of a user's PATH on Debian.
PATH="$PATH:/usr/sbin"
need nginx nginx-light
need python3 python3
python3 -c 'import venv, ensurepip' 2>/dev/null || need "the module venv" python3-venv
if ! cmp -s "$here/requirements.txt" "$kept/venv/installed.txt"; then
    rm -rf "$kept/venv"
    python3 -m venv "$kept/venv" || skip "python3-venv is missing"
    "$kept/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" || skip "PyPI cannot be reached"
    cp "$here/requirements.txt" "$kept/venv/installed.txt"
fi
DATASETTE="$kept/venv/bin/datasette" PYTHON="$kept/venv/bin/python"
export DATASETTE PYTHON PAGE="$here/../../docs/connect/http.md"
# Modules are looked for beside the script that names them.
folder="$(mktemp -d "$kept/run.XXXXXX")"
trap 'rm -rf "$folder"' EXIT
cp "$here"/*.mjs "$folder"
cd "$folder"
# Each file has servers of its own. A second argument names one of them.
# shellcheck disable=SC2086
node --test --test-reporter=spec --test-timeout=80000 --test-concurrency=3 ./${2:-*}.test.mjs
