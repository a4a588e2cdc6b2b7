#!/usr/bin/env bash
# The checker of event streams at length (an hour, or DIORAMA_STREAM_SECONDS): clients with filters that come and go, lag and
# outlive restarts end with what a fresh read shows. Trial after trial, each from a seed of its own; DIORAMA_STREAM_SEED is the
# first one, so that a failure can be had again.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export DIORAMA_STREAM_SECONDS="${DIORAMA_STREAM_SECONDS:-3600}" DIORAMA_STREAM_SEED="${DIORAMA_STREAM_SEED:-$RANDOM}"
cargo test --locked --test gateway whoever_comes_and_goes -- --nocapture
