#!/usr/bin/env bash
# Ten thousand sockets of two client processes lose their connections at once, then their server, and come back by position: how
# long that takes, and what an idle socket costs. DIORAMA_STORM_SOCKETS changes how many; RELEASE=1 builds for figures.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export DIORAMA_STORM_SOCKETS="${DIORAMA_STORM_SOCKETS:-10000}"
ulimit -n "$(ulimit -Hn)" || true
files=$(ulimit -n)
if [ "$files" != unlimited ] && [ "$files" -lt $((DIORAMA_STORM_SOCKETS + 1000)) ]; then
    echo "$DIORAMA_STORM_SOCKETS sockets need more open files than $files (ulimit -n)" >&2
    exit 1
fi
if [ "${RELEASE:-}" = 1 ]; then
    cargo build --locked --release --bin diorama
    export DIORAMA_STORM_SERVER="$CARGO_TARGET_DIR/release/diorama"
fi
cargo test --locked --test serve a_storm_of_sockets -- --nocapture
