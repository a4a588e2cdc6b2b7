#!/usr/bin/env bash
# A feed of a PostgreSQL database in a storm: random transactions, writes through the API and subscribers, while Diorama and the
# server are killed and connections are cut. DIORAMA_FEED_SECONDS changes how long (600), DIORAMA_FEED_SEED repeats choices.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export DIORAMA_FEED_SECONDS="${DIORAMA_FEED_SECONDS:-600}"
cargo test --locked --test serve never_back_a_feed_of_a_database -- --nocapture
