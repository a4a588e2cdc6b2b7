#!/usr/bin/env bash
# A real browser uses the client and the explorer of a running server: run.sh PATH-TO-DIORAMA. Exits with 77 where Chromium, npm or
# Python is missing. Screenshots are left in target/browser. A second argument names one suite (docs), or the measurement with a million
# rows (million), which is no part of the tests. Random rows are edited for DIORAMA_EDIT_SECONDS (30), as SEED says.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
program="$(realpath "${1:?the diorama program}")"
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-browser"

suite="the browser"
# shellcheck source=tests/install.sh
. "$root/tests/install.sh"
packages "$here"
need chromium chromium
need python3 python3

# Modules are looked for beside the script that names them.
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cp "$here"/{*.mjs,package.json} "$folder"
cp -r "$root/static" "$folder/static"
ln -s "$kept/node_modules" "$folder/node_modules"
export DIORAMA="$program" ROOT="$root" WORK="$folder" SHOTS="$root/target/browser" CHROMIUM="$(command -v chromium)"
mkdir -p "$SHOTS"
"$kept/node_modules/.bin/tsc" --noEmit --allowJs --checkJs --strict --target es2022 --module es2022 \
    --lib es2023,dom,dom.iterable "$root"/static/*.js
cd "$folder"
if [ "${2:-}" = million ]; then
    node million.mjs
    exit
fi
# shellcheck disable=SC2086
node --test --test-concurrency=1 ${2:-*}.test.mjs
