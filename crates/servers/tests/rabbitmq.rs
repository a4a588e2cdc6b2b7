//! Declarations of a broker of AMQP outlive its kill.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use diorama_servers::RabbitServer;

/// Arguments of a queue that is replicated.
const QUORUM: &[(&str, &str)] = &[("x-queue-type", "quorum")];

/// Number of kills. `DIORAMA_RABBIT_KILLS` sets more: without the wait of the kill, one of about ten loses a declaration.
fn kills() -> u32 {
    std::env::var("DIORAMA_RABBIT_KILLS").map_or(3, |kills| kills.parse().unwrap())
}

/// A queue and a binding that were declared the moment before, for the first time and in place of older ones.
#[tokio::test(flavor = "multi_thread")]
async fn declarations_are_there_after_a_kill() {
    let Some(mut server) = RabbitServer::start() else { return };
    for kill in 0..kills() {
        if kill > 0 {
            server.delete_queue("q").await;
        }
        server.declare_queue("q", if kill % 4 == 3 { &[] } else { QUORUM }).await;
        server.declare_exchange("t", &[("q", "t.*")]).await;
        server.kill();
        server.restart();
        server.publish("t", &[("t.a", "", "1")]).await;
        assert_eq!(server.take_messages("q").await.len(), 1);
    }
}
