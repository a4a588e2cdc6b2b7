//! The end of a feed: acknowledgements that are under way, and brokers that do not confirm them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::stream::testing::{Followed, World, native};
use diorama_core::dio::WeakDio;
use diorama_core::record::Record;

/// Confirmation of the broker when the feed ends.
#[derive(Clone, Copy, PartialEq)]
enum Confirmation {
    Given,
    Refused,
    Missing,
}

/// The order of all steps.
const STEPS: [&str; 4] = ["refreshed", "received", "acknowledged", "ended"];

/// A broker with one message, which it sends after the first refresh. It takes the acknowledgement when the Dio has begun to close.
struct Closing {
    dio: WeakDio,
    confirmation: Confirmation,
    steps: Arc<Mutex<Vec<&'static str>>>,
}

#[async_trait]
impl Broker for Closing {
    type Subscription = Closing;

    async fn subscribe(&mut self, _: Option<&Bytes>) -> Result<(Closing, Place), String> {
        let Closing { dio, confirmation, steps } = self;
        let subscription = Closing { dio: dio.clone(), confirmation: *confirmation, steps: Arc::clone(steps) };
        Ok((subscription, Place::Asked))
    }
}

#[async_trait]
impl Subscription for Closing {
    async fn receive(&mut self, _: usize) -> Result<Vec<Message>, String> {
        while *self.steps.lock() != ["refreshed"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.steps.lock().push("received");
        let value = Bytes::from_static(br#"{"op":"upsert","id":"a","new":{"n":1}}"#);
        Ok(vec![Message { key: None, value: Some(value), headers: Vec::new(), place: None, delivery: None }])
    }

    fn position(&self) -> Option<Bytes> {
        None
    }

    async fn acknowledge(&mut self) -> Result<(), String> {
        self.dio.closing().await;
        // As an answer of the broker takes some time.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.steps.lock().push("acknowledged");
        Ok(())
    }

    async fn end(self) -> Result<(), String> {
        self.steps.lock().push("ended");
        match self.confirmation {
            Confirmation::Given => Ok(()),
            Confirmation::Refused => Err("the connection was lost".into()),
            Confirmation::Missing => std::future::pending().await,
        }
    }
}

async fn follow_until_applied(world: &World, confirmation: Confirmation) -> (Followed, Arc<Mutex<Vec<&'static str>>>) {
    let steps = Arc::<Mutex<Vec<&'static str>>>::default();
    let followed = world.open(|dio| {
        let broker = Closing { dio: dio.downgrade(), confirmation, steps: Arc::clone(&steps) };
        StreamFeed::start(broker, dio, "closing".into(), "closing", native()).unwrap();
    });
    let followed = followed.await;
    followed.until("one list", || followed.lists() == 1).await;
    // A refresh that is under way would hold the Dio.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.source.insert("a", &Record::from_iter([("n".to_string(), 1.into())])).await.unwrap();
    steps.lock().push("refreshed");
    followed.shows(&[("a", 1)]).await;
    (followed, steps)
}

#[tokio::test(start_paused = true)]
async fn a_feed_acknowledges_what_it_has_applied_before_it_closes() {
    let world = World::new();
    let (followed, steps) = follow_until_applied(&world, Confirmation::Given).await;
    followed.close().await;
    assert_eq!(*steps.lock(), STEPS);
}

/// A feed whose last handle is dropped ends in the same way.
#[tokio::test(start_paused = true)]
async fn a_feed_acknowledges_what_it_has_applied_after_its_last_handle_was_dropped() {
    let world = World::new();
    let (followed, steps) = follow_until_applied(&world, Confirmation::Given).await;
    let dio = followed.dio.downgrade();
    drop(followed);
    dio.closing().await;
    let ended = async {
        while *steps.lock() != STEPS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), ended).await.expect("all steps");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_confirm_the_end_holds_nothing_up() {
    for (confirmation, least) in [(Confirmation::Refused, Duration::ZERO), (Confirmation::Missing, END)] {
        let world = World::new();
        let (followed, steps) = follow_until_applied(&world, confirmation).await;
        let begin = tokio::time::Instant::now();
        followed.close().await;
        assert_eq!(*steps.lock(), STEPS);
        let elapsed = begin.elapsed();
        assert!((least..END + Duration::from_secs(2)).contains(&elapsed), "{elapsed:?}");
    }
}
