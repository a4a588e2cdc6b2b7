//! Notifications of a Dio in memory, to a receiver whose answers are scripted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::Gateway;
use crate::events::testing::record;
use diorama_connect::MemoryTable;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::Dio;
use diorama_core::journal::{DeliveryQuery, DeliveryState, MemoryJournal, OutboxLimits};
use diorama_core::{Column, ColumnType, Lens, Schema, Vista};
use diorama_inbound::signature::{Scheme, Signer, Standard, TOLERANCE};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Receiver that answers as it is told, and 204 when nothing is left to tell.
#[derive(Clone, Debug)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<u16>>>,
    /// Taken and refused messages, in their order.
    seen: watch::Sender<Vec<(Value, String, u16)>>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = u16>) -> Scripted {
        Scripted { answers: Arc::new(Mutex::new(answers.into_iter().collect())), seen: watch::Sender::new(Vec::new()) }
    }

    /// Waits until `count` messages have been taken, and returns all of them.
    async fn taken(&self, count: usize) -> Vec<(Value, String)> {
        let taken = |seen: &Vec<(Value, String, u16)>| {
            let taken = seen.iter().filter(|(.., status)| *status < 300);
            taken.map(|(message, id, _)| (message.clone(), id.clone())).collect::<Vec<_>>()
        };
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|seen| taken(seen).len() >= count));
        match waited.await {
            Ok(seen) => taken(&seen.expect("the sender is here")),
            Err(_) => panic!("only {:?}", self.seen.borrow()),
        }
    }

    async fn asked(&self, count: usize) {
        let mut seen = self.seen.subscribe();
        tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|seen| seen.len() >= count))
            .await
            .unwrap()
            .unwrap();
    }
}

impl Receiver for Scripted {
    fn url(&self) -> &str {
        "http://receiver/hooks"
    }

    fn post(
        &self,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Posted> + Send + '_>> {
        let all = headers
            .iter()
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let all: HeaderMap = all.collect();
        let now = jiff::Timestamp::now();
        let request =
            diorama_inbound::Request { method: &Method::POST, path: "/", query: None, headers: &all, body: &body, now };
        Scheme::Standard(Standard::new([SECRET]).unwrap()).verify(&request, TOLERANCE).unwrap();
        let status = self.answers.lock().pop_front().unwrap_or(204);
        let message = serde_json::from_slice(&body).unwrap();
        let id = all["webhook-id"].to_str().unwrap().to_string();
        self.seen.send_modify(|seen| seen.push((message, id, status)));
        Box::pin(async move { Posted::Answered { status, retry_after: None, body: String::new() } })
    }
}

/// Master, journal and cache of a Dio that can be opened again.
struct Shop {
    master: Vista,
    journal: Arc<MemoryJournal>,
    cache: Arc<MemoryCache>,
    outbox: OutboxLimits,
}

impl Shop {
    fn new() -> Shop {
        let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer)];
        let schema = Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec());
        let master = MemoryTable::vista("products", schema, []);
        Shop { master, journal: Arc::default(), cache: Arc::default(), outbox: OutboxLimits::default() }
    }

    async fn open(&self) -> Dio {
        let lens =
            Lens::new().cache_source(Arc::clone(&self.cache)).journal_source(Arc::clone(&self.journal) as Arc<_>);
        let lens = lens.settings(|settings| (settings.ring.events, settings.outbox) = (8, self.outbox));
        lens.build().unwrap().make_dio(self.master.clone()).await.unwrap()
    }
}

/// Inserts or changes a row.
async fn put(dio: &Dio, id: &str, price: i64) {
    let row = record("Bun", price);
    match dio.held_row(id) {
        Some(_) => dio.vista().patch_value(id, &row).await.unwrap(),
        None => dio.vista().insert_value(id, &row).await.unwrap(),
    }
}

/// Starts a gateway that notifies `receiver`.
fn notify(dio: &Dio, receiver: &Scripted, options: NotifyOptions) -> (axum::Router, Arc<Notification>) {
    let signer = Signer::new([SECRET]).unwrap();
    let own = Notification::new("shop", dio.name(), Arc::new(receiver.clone()), signer).with(options);
    let gateway = Gateway::new().mount(dio.clone()).try_notify(own).unwrap();
    let notification = Arc::clone(&gateway.gateway.notifications["shop"]);
    (gateway.into_router(), notification)
}

fn taken(receiver: &Scripted) -> Vec<(Value, String)> {
    let seen = receiver.seen.borrow();
    seen.iter().filter(|(.., status)| *status < 300).map(|(message, id, _)| (message.clone(), id.clone())).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok(), "not within 20 s: {what}");
}

fn soon() -> NotifyOptions {
    let retry = vec![Duration::from_millis(30); 20];
    NotifyOptions { from_earliest: true, retry, ..NotifyOptions::default() }
}

fn what(messages: &[(Value, String)]) -> Vec<String> {
    let one = |(message, _): &(Value, String)| {
        format!("{} {}", message["type"].as_str().unwrap(), message["data"]["id"].as_str().unwrap_or("-"))
    };
    messages.iter().map(one).collect()
}

#[tokio::test]
async fn events_are_signed_messages_in_the_envelope_of_standard_webhooks() {
    let (dio, receiver) = (Shop::new().open().await, Scripted::new([]));
    let (_router, _) = notify(&dio, &receiver, soon());
    put(&dio, "7", 150).await;
    put(&dio, "7", 160).await;
    dio.vista().delete("7").await.unwrap();
    let messages = receiver.taken(3).await;
    assert_eq!(what(&messages), ["products.inserted 7", "products.changed 7", "products.removed 7"]);
    let (message, id) = &messages[1];
    let epoch = dio.log().position().epoch;
    assert_eq!(*id, format!("{epoch}:{}", message["data"]["seq"]));
    assert!(message["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(message["data"]["record"], json!({"id": "7", "name": "Bun", "price": 160}));
    assert_eq!(message["data"]["changed"], json!(["price"]));
    assert_eq!(message["data"]["type"], "RecordChanged");
}

#[tokio::test]
async fn rows_enter_and_leave_a_filter_and_only_chosen_columns_and_events_are_sent() {
    let (dio, receiver) = (Shop::new().open().await, Scripted::new([]));
    let options = NotifyOptions {
        filter: "price=gte.100".into(),
        select: vec!["id".into(), "price".into()],
        events: vec![NotifyEvent::Inserted, NotifyEvent::Removed],
        ..soon()
    };
    let (_router, _) = notify(&dio, &receiver, options);
    put(&dio, "cheap", 1).await;
    put(&dio, "cheap", 200).await;
    put(&dio, "cheap", 300).await;
    put(&dio, "cheap", 2).await;
    let messages = receiver.taken(2).await;
    assert_eq!(what(&messages), ["products.inserted cheap", "products.removed cheap"]);
    assert_eq!(messages[0].0["data"]["record"], json!({"id": "cheap", "price": 200}));
}

#[tokio::test]
async fn what_does_not_fit_the_resource_is_an_error_that_names_it() {
    let dio = Shop::new().open().await;
    let refused = |options: NotifyOptions, of: &str| {
        let receiver = Arc::new(Scripted::new([]));
        let own = Notification::new("shop", of, receiver, Signer::new([SECRET]).unwrap()).with(options);
        Gateway::new().mount(dio.clone()).try_notify(own).unwrap_err().to_string()
    };
    let filter = |filter: &str| NotifyOptions { filter: filter.into(), ..NotifyOptions::default() };
    assert!(refused(filter("cost=1"), "products").contains("cost"));
    assert!(refused(filter("limit=5"), "products").contains("conditions only"));
    assert!(refused(filter(""), "orders").contains("products"));
    let select = NotifyOptions { select: vec!["cost".into()], ..NotifyOptions::default() };
    assert!(refused(select, "products").contains("cost"));
}

#[tokio::test]
async fn a_failure_holds_up_its_row_only() {
    let (dio, receiver) = (Shop::new().open().await, Scripted::new([500]));
    for (id, price) in [("a", 1), ("b", 1), ("a", 2), ("a", 3)] {
        put(&dio, id, price).await;
    }
    let (_router, _) = notify(&dio, &receiver, NotifyOptions { concurrency: 1, ..soon() });
    let messages = receiver.taken(4).await;
    let prices = |row: &str| -> Vec<u64> {
        let own = messages.iter().filter(|(message, _)| message["data"]["id"] == row);
        own.map(|(message, _)| message["data"]["record"]["price"].as_u64().unwrap()).collect()
    };
    assert_eq!(what(&messages)[0], "products.inserted b", "the other row passes");
    assert_eq!((prices("a"), prices("b")), (vec![1, 2, 3], vec![1]));
}

#[tokio::test]
async fn a_restart_continues_where_it_was_and_sends_what_had_failed() {
    let shop = Shop::new();
    let first = shop.open().await;
    let receiver = Scripted::new([204, 500]);
    let options = NotifyOptions { concurrency: 1, retry: vec![Duration::from_secs(3_600)], ..soon() };
    let (router, _) = notify(&first, &receiver, options);
    for id in ["a", "b", "c"] {
        put(&first, id, 1).await;
    }
    receiver.taken(2).await;
    first.close().await;
    drop((first, router));

    let second = shop.open().await;
    let again = Scripted::new([]);
    let (_router, notification) = notify(&second, &again, soon());
    put(&second, "d", 1).await;
    assert_eq!(what(&again.taken(1).await), ["products.inserted d"], "what was delivered is not sent again");
    let query = DeliveryQuery { outgoing: true, limit: 9, ..DeliveryQuery::default() };
    let (stored, _) = second.deliveries(&query).await.unwrap();
    let waits = stored.into_iter().find(|delivery| delivery.state == DeliveryState::Pending).unwrap();
    notification.replay(waits).await.unwrap();
    assert_eq!(what(&again.taken(2).await)[1], "products.inserted b");
}

#[tokio::test]
async fn a_receiver_that_is_gone_gets_nothing_until_it_is_enabled_also_after_a_restart() {
    let shop = Shop::new();
    let first = shop.open().await;
    let receiver = Scripted::new([410]);
    let (router, _) = notify(&first, &receiver, soon());
    put(&first, "a", 1).await;
    receiver.asked(1).await;
    put(&first, "b", 1).await;
    first.close().await;
    drop((first, router));

    let second = shop.open().await;
    let (_router, notification) = notify(&second, &receiver, soon());
    put(&second, "c", 1).await;
    let disabled = async {
        while !matches!(notification.status().state, NotifyState::Disabled(_)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), disabled).await.unwrap();
    assert_eq!(receiver.seen.borrow().len(), 1);
    notification.enable().await.unwrap();
    let mut messages = what(&receiver.taken(3).await);
    messages.sort();
    assert_eq!(messages, ["products.inserted a", "products.inserted b", "products.inserted c"]);
}

#[tokio::test]
async fn a_receiver_that_was_away_for_long_gets_everything_once_although_the_ring_is_small() {
    let limits = OutboxLimits { count: 3, ..OutboxLimits::default() };
    let dio = Shop { outbox: limits, ..Shop::new() }.open().await;
    let receiver = Scripted::new([503; 7]);
    let (_router, _) = notify(&dio, &receiver, soon());
    for number in 0..100 {
        put(&dio, &number.to_string(), number).await;
    }
    let messages = receiver.taken(100).await;
    let mut rows: Vec<_> = messages.iter().map(|(message, _)| message["data"]["id"].as_str().unwrap()).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!((rows.len(), messages.len()), (100, 100));
}

#[tokio::test]
async fn a_receiver_learns_that_events_were_trimmed() {
    let shop = Shop::new();
    let first = shop.open().await;
    let receiver = Scripted::new([]);
    let (router, _) = notify(&first, &receiver, soon());
    put(&first, "a", 1).await;
    receiver.taken(1).await;
    first.close().await;
    drop((first, router));
    // Without a notification, its position does not move.
    let between = shop.open().await;
    for number in 0..20 {
        put(&between, "b", number).await;
    }
    let head = between.log().position().seq;
    between.close().await;
    drop(between);
    let log: Arc<dyn diorama_core::journal::Journal> = Arc::clone(&shop.journal) as Arc<_>;
    log.open("products", &log.shape("products").await.unwrap().unwrap()).await.unwrap();
    log.trim("products", head, &[], 0).await.unwrap();
    let third = shop.open().await;
    let (_router, _) = notify(&third, &receiver, soon());
    let (message, id) = receiver.taken(2).await.remove(1);
    assert_eq!(
        (message["type"].as_str(), message["data"]["reason"].as_str()),
        (Some("products.reset"), Some("trimmed"))
    );
    assert!(id.ends_with(":reset"), "{id}");
    put(&third, "c", 1).await;
    assert_eq!(what(&receiver.taken(3).await)[2], "products.inserted c");
}

#[tokio::test]
async fn a_purged_row_is_neither_sent_nor_stored_afterwards() {
    // Without room in the outbox, what has failed stays in memory.
    for room in [0, 9] {
        let shop = Shop { outbox: OutboxLimits { count: room, ..OutboxLimits::default() }, ..Shop::new() };
        let dio = shop.open().await;
        let receiver = Scripted::new([500]);
        let (_router, notification) =
            notify(&dio, &receiver, NotifyOptions { retry: vec![Duration::from_secs(3_600); 3], ..soon() });
        put(&dio, "secret", 4_711).await;
        receiver.asked(1).await;
        until("it waits", || notification.status().failed_attempts == 1).await;
        dio.vista().delete("secret").await.unwrap();
        let settled = async {
            while dio.purge(["secret"]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
        put(&dio, "other", 1).await;
        until("the other row is delivered", || {
            what(&taken(&receiver)).contains(&"products.inserted other".to_string())
        })
        .await;
        notification.enable().await.unwrap();
        until("everything is settled", || notification.status().waiting == 0).await;
        let query = DeliveryQuery { outgoing: true, limit: 99, ..DeliveryQuery::default() };
        for delivery in dio.deliveries(&query).await.unwrap().0 {
            let (_, raw) = dio.delivery(delivery.id).await.unwrap().unwrap();
            assert!(!String::from_utf8_lossy(&raw.body).contains("4711"), "{room}");
        }
        assert!(taken(&receiver).iter().all(|(message, _)| !message.to_string().contains("4711")), "{room}");
    }
}
