#!/usr/bin/env bash
# Front-ends' own packages against a running demo: run.sh PATH-TO-DIORAMA. Exits with 77 where npm is missing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
DIORAMA="$(realpath "${1:?the diorama program}")"
export DIORAMA
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-clients"

suite="the front-ends' packages"
# shellcheck source=tests/install.sh
. "$here/../install.sh"
packages "$here"
need chromium chromium
CHROMIUM="$(command -v chromium)"
export CHROMIUM
# Modules are looked for beside the script that names them.
folder="$(mktemp -d "$kept/run.XXXXXX")"
trap 'rm -rf "$folder"' EXIT
cp -r "$here"/*.mjs "$here"/typed "$folder"
cp -r "$here/../../demo" "$folder/demo"
cp "$here/../../docs/diorama.schema.json" "$here"/../../examples/*.html "$folder"
[ ! -f "$here/../../static/diorama.js" ] || cp "$here/../../static/diorama.js" "$folder"
cd "$folder"
# Each file has a server of its own. A second argument names one of them.
# shellcheck disable=SC2086
node --test --test-reporter=spec --test-timeout=120000 ./${2:-*}.test.mjs
