//! A storm over the topics of a broker: random writes through the API and random changes of the application, while Diorama and the
//! broker, if it is durable, are killed. At the end nothing is lost or doubled, and each row went through its changes in their order.
//!
//! `DIORAMA_FEED_SECONDS` sets the time, without that which the broker takes to start; `tests/feed_storm.sh` makes it ten minutes.
//! `DIORAMA_FEED_SEED=N` makes the choices of an earlier run.

use std::collections::HashMap;

use super::*;

/// Seconds of a storm by default.
const SECONDS: u64 = 12;

#[test]
#[ignore = "a broker of Kafka on a busy machine may need more than a minute to settle; tests/feed_storm.sh runs it"]
fn none_is_lost_or_doubled_of_kafka_in_a_storm() {
    if let Some(broker) = Broker::kafka() {
        storm(broker);
    }
}

#[test]
fn none_is_lost_or_doubled_of_nats_in_a_storm() {
    if let Some(broker) = Broker::nats() {
        storm(broker);
    }
}

#[test]
fn none_is_lost_or_doubled_of_redis_in_a_storm() {
    if let Some(broker) = Broker::redis() {
        storm(broker);
    }
}

#[test]
#[ignore = "a node of RabbitMQ takes a core for several seconds at each start, more than all else; tests/feed_storm.sh runs it"]
fn none_is_lost_or_doubled_of_rabbitmq_in_a_storm() {
    if let Some(broker) = Broker::rabbit() {
        storm(broker);
    }
}

#[test]
fn none_is_lost_or_doubled_of_mqtt_in_a_storm() {
    if let Some(broker) = Broker::mqtt() {
        storm(broker);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn storm(broker: Broker) {
    let seed = number("DIORAMA_FEED_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    eprintln!("DIORAMA_FEED_SEED={seed}");
    let mut random = Random(seed);
    let own = Random(random.below(usize::MAX));
    let world = World::new(broker);
    world.run(Some(own), || trouble(&world, &mut random));
}

fn trouble(world: &World, random: &mut Random) {
    let dir = world.dir.path();
    let seconds = number("DIORAMA_FEED_SECONDS").unwrap_or(SECONDS);
    // Rows are not written again after they were deleted, so that a long storm needs more.
    let mut client = Client { ids: 40 + usize::try_from(seconds).unwrap() * 4, ..Client::default() };
    let mut server = Server::start(dir, &[]);
    let mut end = Instant::now() + Duration::from_secs(seconds);
    let (mut kills, mut kills_of_broker) = (0, 0);
    let is_durable = world.broker.blocking_read().is_durable();
    while Instant::now() < end {
        let calm = Instant::now() + Duration::from_millis(random.below(1_500));
        while Instant::now() < calm {
            client.write(dir, &server, random);
        }
        if !is_durable || random.below(2) == 0 {
            kills += 1;
            server.kill();
            std::thread::sleep(Duration::from_millis(random.below(500)));
            server = Server::start(dir, &[]);
            client.check(&server);
        } else {
            kills_of_broker += 1;
            let mut broker = world.broker.blocking_write();
            broker.kill();
            let back = Instant::now() + Duration::from_millis(random.below(1_000));
            while Instant::now() < back {
                client.write(dir, &server, random);
            }
            let restart = Instant::now();
            broker.restart();
            end += restart.elapsed();
        }
    }
    world.is_calm.store(true, Ordering::Release);
    let events = settle(dir, &server, &mut client);
    let changes = check_order(&events);
    let (writes, rows) = (client.operations.len(), stored(dir).len());
    eprintln!(
        "{writes} writes, {changes} changes told, {rows} rows, {kills} kills of Diorama, {kills_of_broker} of the broker"
    );
    assert!(writes > 10 && changes > 10);
}

/// Checks that each row of the application went through its changes in order, none of them twice. Returns their number.
fn check_order(events: &[Value]) -> usize {
    let (mut newest, mut changes) = (HashMap::<&str, i64>::new(), 0);
    for event in events {
        let (Some(id), Some(rev)) = (event["id"].as_str(), event["record"]["rev"].as_i64()) else { continue };
        if !id.starts_with('o') {
            continue;
        }
        changes += 1;
        let before = newest.insert(id, rev).unwrap_or(0);
        assert!(rev > before, "row {id} was told with change {before}, and then with {rev}");
    }
    changes
}
