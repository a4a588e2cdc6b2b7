#!/usr/bin/env bash
# A feed in a storm: random transactions or messages, writes through the API and subscribers, while Diorama and the server are
# killed and connections are cut. Arguments are the systems, `postgresql`, `mariadb`, `kafka`, `nats`, `redis`, `rabbitmq` and `mqtt`;
# without one, all.
# DIORAMA_FEED_SECONDS changes how long (600), DIORAMA_FEED_SEED repeats choices.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export DIORAMA_FEED_SECONDS="${DIORAMA_FEED_SECONDS:-600}"
[ $# -gt 0 ] || set -- postgresql mariadb kafka nats redis rabbitmq mqtt
for system; do
    case $system in
        postgresql | mariadb) cargo test --locked --test serve "never_back_a_feed_of_${system}_in_a_storm" -- --nocapture ;;
        kafka | nats | redis | rabbitmq | mqtt)
            cargo test --locked --all-features --test serve "none_is_lost_or_doubled_of_${system}_in_a_storm" -- --nocapture --include-ignored
            ;;
        *) echo "there is no storm of $system: postgresql, mariadb, kafka, nats, redis, rabbitmq, mqtt" >&2; exit 64 ;;
    esac
done
