#!/usr/bin/env bash
# A real browser uses the client and the explorer of a running server: run.sh PATH-TO-DIORAMA. Exits with 77 where Chromium, npm or
# Python is missing. Screenshots are left in target/browser.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
program="$(realpath "${1:?the diorama program}")"
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-browser"

skip() { echo "SKIPPED: the browser: $*"; exit 77; }

# need TOOL PACKAGE...
need() {
    command -v "$1" >/dev/null && return
    shift
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "$* is missing"
    apt-get update -qq && apt-get install -y -qq "$@" >/dev/null || skip "$* cannot be installed"
}
need npm nodejs npm
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || skip "node is older than version 20"
need chromium chromium
need python3 python3

mkdir -p "$kept"
if ! cmp -s "$here/package.json" "$kept/installed.json"; then
    cp "$here/package.json" "$kept"
    (cd "$kept" && npm install --no-audit --no-fund --silent) || skip "npm's registry cannot be reached"
    cp "$here/package.json" "$kept/installed.json"
fi

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
# shellcheck disable=SC2086
node --test --test-concurrency=1 ${2:-*}.test.mjs
