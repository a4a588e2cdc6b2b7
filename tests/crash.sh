#!/usr/bin/env bash
# The crash suite at length: 50,000 images of power cuts, 500 lives of the command, and 100 with surgery of its files between them.
# DIORAMA_IMAGES, DIORAMA_KILL_CYCLES and DIORAMA_SURGERY_LIVES change how many, DIORAMA_IMAGES_SEED, DIORAMA_KILL_SEED and
# DIORAMA_SURGERY_SEED where the cuts and kills fall.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export DIORAMA_IMAGES="${DIORAMA_IMAGES:-50000}" DIORAMA_KILL_CYCLES="${DIORAMA_KILL_CYCLES:-500}"
export DIORAMA_SURGERY_LIVES="${DIORAMA_SURGERY_LIVES:-100}"
export DIORAMA_IMAGES_SEED="${DIORAMA_IMAGES_SEED:-$RANDOM}"
echo "DIORAMA_IMAGES_SEED=$DIORAMA_IMAGES_SEED"
cargo test --locked --lib power_cut -- --nocapture
cargo test --locked --test proof images:: -- --nocapture
cargo test --locked --test serve nothing_acknowledged_is_lost -- --nocapture
cargo test --locked --test serve nothing_acknowledged_is_silently_lost -- --nocapture
