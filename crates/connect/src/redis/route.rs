//! Route of writes to a stream. A write is routed when the server has added its entry.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Script;

use super::address::RedisAddress;
use super::entry::{KEY, VALUE};
use super::session::SharedSession;
use crate::stream::{OutMessage, Publisher};
use diorama_core::vista::Result;

/// Adds an entry, unless its operation has added one before. `KEYS`: the stream, and a sorted set of operations by time. `ARGV`: the
/// operation, the size of the set, its lifetime in seconds, the approximate length of the stream or 0, and the fields of the entry.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local operation, length = ARGV[1], tonumber(ARGV[4])
        if operation ~= '' and redis.call('ZSCORE', KEYS[2], operation) then
            return 0
        end
        local add = {'XADD', KEYS[1]}
        if length > 0 then
            add = {'XADD', KEYS[1], 'MAXLEN', '~', length}
        end
        add[#add + 1] = '*'
        for at = 5, #ARGV do
            add[#add + 1] = ARGV[at]
        end
        redis.call(unpack(add))
        if operation ~= '' then
            local now = redis.call('TIME')
            redis.call('ZADD', KEYS[2], string.format('%d%06d', now[1], now[2]), operation)
            redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[2]))
            redis.call('EXPIRE', KEYS[2], ARGV[3])
        end
        return 1
        ",
    )
});

/// Number of operations of a stream that the server knows.
const OPERATIONS: usize = 100_000;
/// Seconds after the last write for which it knows them: a week.
const LIFETIME: u32 = 7 * 24 * 60 * 60;

/// Publisher of a stream.
#[derive(Debug)]
pub(super) struct RedisPublisher {
    session: SharedSession,
    stream: String,
    /// Key of the operations.
    operations: String,
    /// Approximate length of the stream.
    max_length: Option<u64>,
}

impl RedisPublisher {
    pub(super) fn new(address: RedisAddress, stream: String, max_length: Option<u64>) -> RedisPublisher {
        let operations = operations_key(&stream);
        RedisPublisher { session: SharedSession::new(address), stream, operations, max_length }
    }

    /// Connects and asks how safely the server stores. A server that is away is asked later.
    pub(super) async fn look(&self) {
        if let Err(failure) = self.session.get().await {
            tracing::warn!(stream = self.stream, error = failure.message, "a write route is not connected; retrying");
        }
    }
}

/// Returns the key of the operations of a stream, which has the same slot in a cluster.
fn operations_key(stream: &str) -> String {
    match stream.contains('{') {
        true => format!("{stream}:diorama-operations"),
        false => format!("{{{stream}}}:diorama-operations"),
    }
}

#[async_trait]
impl Publisher for RedisPublisher {
    async fn publish(&self, message: OutMessage) -> Result<()> {
        let session = self.session.get().await?;
        let mut add = ADD.prepare_invoke();
        add.key(&self.stream).key(&self.operations);
        add.arg(&message.operation).arg(OPERATIONS).arg(LIFETIME).arg(self.max_length.unwrap_or(0));
        add.arg(KEY).arg(&message.key);
        if let Some(value) = &message.value {
            add.arg(VALUE).arg(&**value);
        }
        for (name, value) in &message.headers {
            add.arg(*name).arg(value);
        }
        match session.run_script::<i64>(&add).await {
            Ok(_) => Ok(()),
            Err(mut failure) => {
                if failure.is_of_connection {
                    self.session.discard(&session).await;
                }
                failure.message = format!("stream {}: {}", self.stream, failure.message);
                Err(failure.into())
            }
        }
    }

    fn drops_repeated(&self) -> bool {
        true
    }

    fn warnings(&self) -> Vec<String> {
        self.session.warnings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_kept_in_the_slot_of_their_stream() {
        assert_eq!(operations_key("shop:writes"), "{shop:writes}:diorama-operations");
        assert_eq!(operations_key("{shop}:writes"), "{shop}:writes:diorama-operations");
    }
}
