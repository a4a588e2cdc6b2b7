#!/usr/bin/env bash
# Every fuzz target for DIORAMA_FUZZ_SECONDS (10): run.sh [TARGET...]. Exits with 77 where cargo-fuzz cannot be had.
# What is built and found is kept in the cache folder: the first build takes minutes, later ones only what has changed.
set -euo pipefail
cd "$(dirname "$0")"
kept="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-fuzz"
seconds="${DIORAMA_FUZZ_SECONDS:-10}"
version=0.13.1

skip() { echo "SKIPPED: the fuzz targets: $*"; exit 77; }

if ! command -v c++ >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "libFuzzer needs a C++ compiler"
    apt-get update -qq && apt-get install -y -qq g++ >/dev/null || skip "g++ cannot be installed"
fi
mkdir -p "$kept"
if [ "$("$kept/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    cargo install cargo-fuzz --locked --version "$version" --root "$kept" --target-dir "$kept/install" --quiet ||
        skip "crates.io cannot be reached"
fi
# The stable compiler lets itself be used so; without sanitizers, because the crate has no unsafe code.
export RUSTC_BOOTSTRAP=1
"$kept/bin/cargo-fuzz" fuzz build --fuzz-dir . --sanitizer none --target-dir "$kept/target"
host="$(rustc -vV | sed -n 's/^host: //p')"
[ $# -gt 0 ] || set -- webhook mapping query source request socket stored config resume memory dialect shapes answers pointers tokens
status=0
for target in "$@"; do
    mkdir -p "$kept/corpus/$target" "$kept/found"
    if ! "$kept/target/$host/release/$target" "$kept/corpus/$target" "seeds/$target" -dict=words.dict -max_len=65536 \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$kept/found/$target-" \
        -print_final_stats=1 >"$kept/$target.log" 2>&1; then
        tail -40 "$kept/$target.log"
        echo "$target: an input that fails is in $kept/found"
        status=1
    fi
    printf '%s: %s inputs\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$kept/$target.log")"
done
exit "$status"
