#!/usr/bin/env bash
# The senders' own libraries sign, a running server verifies, and the other way round: run.sh PATH-TO-DIORAMA. Exits with 77 where Python
# or npm is missing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
program="$(realpath "${1:?the diorama program}")"
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-senders"

skip() { echo "SKIPPED: the senders' libraries: $*"; exit 77; }

# need TOOL-THAT-TELLS PACKAGE...
need() {
    eval "$1" >/dev/null 2>&1 && return
    shift
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "$* is missing"
    apt-get update -qq && apt-get install -y -qq "$@" >/dev/null || skip "$* cannot be installed"
}
need "python3 -c 'import venv, ensurepip'" python3-venv
need "command -v npm" nodejs npm

mkdir -p "$kept"
if ! cmp -s "$here/requirements.txt" "$kept/venv/installed.txt"; then
    rm -rf "$kept/venv"
    python3 -m venv "$kept/venv"
    "$kept/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" || skip "PyPI cannot be reached"
    cp "$here/requirements.txt" "$kept/venv/installed.txt"
fi
if ! cmp -s "$here/package.json" "$kept/installed.json"; then
    cp "$here/package.json" "$kept"
    (cd "$kept" && npm install --no-audit --no-fund --silent) || skip "npm's registry cannot be reached"
    cp "$here/package.json" "$kept/installed.json"
fi
# Modules are looked for beside the script that names them.
cp "$here/send.mjs" "$here/receive.mjs" "$kept"

folder="$(mktemp -d)"
started=()
trap 'for one in "${started[@]}"; do kill "$one" 2>/dev/null; wait "$one" 2>/dev/null || true; done; rm -rf "$folder"' EXIT
cp "$here/diorama.toml" "$folder"
printf 'id,name,price\n1,Muffin,175\n2,Croissant,220\n3,Bun,150\n' >"$folder/products.csv"
cd "$folder"
export WHSEC=whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= WHSEC_NEW=whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=
export STRIPE_SECRET=whsec_test_secret_7 GITHUB_SECRET="It's a Secret to Everybody" TOKEN=the-token-of-the-senders
export SLACK_SECRET=8f742231b10e8888abcd99yyyzzz85a5 TWILIO_TOKEN=1c892n40nd03kdnc0112slzkl3091j20
"$kept/venv/bin/python" "$here/receive.py" "$WHSEC" >old.txt 2>&1 &
started+=($!)
node "$kept/receive.mjs" "$WHSEC_NEW" >new.txt 2>&1 &
started+=($!)
for _ in $(seq 200); do
    grep -q '^port' old.txt && grep -q '^port' new.txt && break
    sleep 0.05
done
port() { sed -n 's/^port //p' "$1"; }
OLD_URL="http://127.0.0.1:$(port old.txt)/" NEW_URL="http://127.0.0.1:$(port new.txt)/"
export OLD_URL NEW_URL
"$program" serve diorama.toml >out.txt 2>err.txt &
server=$!
started+=("$server")
for _ in $(seq 200); do
    grep -q '^ready' out.txt && break
    kill -0 "$server" 2>/dev/null || { cat out.txt err.txt; exit 1; }
    sleep 0.05
done
url="$(sed -n 's/^listening on //p' out.txt)"
status=0
"$kept/venv/bin/python" "$here/send.py" "$url" || status=1
node "$kept/send.mjs" "$url" || status=1
# Every delivery above has changed rows, which both receivers are told of.
for receiver in old new; do
    for _ in $(seq 400); do
        grep -q '^verified' "$receiver.txt" && break
        sleep 0.05
    done
    if ! grep -q '^verified products\.' "$receiver.txt" || grep -qv '^port\|^verified products\.[a-z]* products\.[a-z]*$' "$receiver.txt"; then
        cat "$receiver.txt"
        status=1
    fi
done
[ "$status" != 0 ] || echo "standardwebhooks and svix (Python, Node) verify notifications"
[ "$status" = 0 ] || tail -50 err.txt
exit "$status"
