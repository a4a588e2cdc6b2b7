//! Contract of every journal, run on each implementation.

mod audit;

use std::sync::Arc;

use super::faulty::FaultyJournal;
use super::memory::unix_ms;
use super::{
    AppendError, AuditAction, AuditEntry, AuditLimits, Changes, Claim, Delivery, DeliveryId, DeliveryQuery,
    DeliveryState, Fence, InboxLimits, InboxUse, Journal, JournalError, LogBatch, LogEntry, Mark, MemoryJournal,
    OutboxLimits, OutboxUse, Outgoing, RawRequest, RedbJournal, Rewrite, Seq, StoredDelivery,
};

const NEVER: u64 = u64::MAX;

fn batch<const N: usize>(log: &str, expect: Seq, texts: [&'static str; N]) -> LogBatch {
    let entries = texts.iter().zip(expect + 1..).map(|(text, seq)| LogEntry { seq, bytes: (*text).into() }).collect();
    LogBatch {
        log: log.into(),
        expect,
        fence: Fence::LOCAL,
        entries,
        claims: Vec::new(),
        deliveries: Vec::new(),
        marks: Vec::new(),
    }
}

fn with_claim(mut batch: LogBatch, key: &str, value: &'static str, expires: u64) -> LogBatch {
    batch.claims.push(Claim { key: key.into(), value: value.into(), expires });
    batch
}

async fn append(journal: &dyn Journal, batch: LogBatch) -> Result<(), AppendError> {
    let mut answers = journal.append(vec![batch]).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn seqs(journal: &dyn Journal, log: &str) -> Vec<Seq> {
    journal.read(log, 0, usize::MAX).await.unwrap().iter().map(|entry| entry.seq).collect()
}

async fn entries_are_read_in_order_and_within_the_budget(journal: &dyn Journal) {
    let state = journal.open("order", "s").await.unwrap();
    assert_eq!((state.head, state.oldest, state.durable), (0, 1, journal.durable()));
    assert_eq!(state.epoch.len(), 10);
    append(journal, batch("order", 0, ["a", "b"])).await.unwrap();
    append(journal, batch("order", 2, ["c"])).await.unwrap();
    let texts: Vec<_> = journal.read("order", 1, usize::MAX).await.unwrap();
    assert_eq!(texts, batch("order", 1, ["b", "c"]).entries);
    assert_eq!(journal.read("order", 0, 0).await.unwrap().len(), 1);
    assert_eq!(journal.read("order", 0, 2).await.unwrap().len(), 2);
    assert!(journal.read("order", 3, usize::MAX).await.unwrap().is_empty());
    assert!(journal.read("order", Seq::MAX, usize::MAX).await.unwrap().is_empty());
    assert!(journal.read("never opened", 0, usize::MAX).await.unwrap().is_empty());
}

async fn an_append_is_conditional_on_the_head(journal: &dyn Journal) {
    journal.open("cond", "s").await.unwrap();
    append(journal, batch("cond", 0, ["a", "b"])).await.unwrap();
    let answer = append(journal, batch("cond", 1, ["x"])).await;
    let Err(AppendError::Moved { missed }) = answer else { panic!("{answer:?}") };
    assert_eq!(missed, batch("cond", 1, ["b"]).entries);
    let answer = append(journal, batch("cond", 9, ["x"])).await;
    assert!(matches!(answer, Err(AppendError::Moved { ref missed }) if missed.is_empty()), "{answer:?}");
    assert_eq!(seqs(journal, "cond").await, [1, 2]);
    let gap = LogBatch { entries: batch("cond", 5, ["x"]).entries, ..batch("cond", 2, []) };
    assert!(append(journal, gap).await.is_err());
    let fenced = LogBatch { fence: Fence(7), ..batch("cond", 2, ["x"]) };
    assert!(matches!(append(journal, fenced).await, Err(AppendError::Fenced)));
    assert_eq!(seqs(journal, "cond").await, [1, 2]);
}

async fn a_rejected_batch_stores_nothing_and_does_not_affect_others(journal: &dyn Journal) {
    journal.open("some", "s").await.unwrap();
    journal.open("other", "s").await.unwrap();
    append(journal, with_claim(batch("some", 0, ["a"]), "all:1", "first", NEVER)).await.unwrap();
    let refused = with_claim(batch("some", 1, ["x", "y"]), "all:2", "x", NEVER);
    let answers = journal
        .append(vec![
            with_claim(refused, "all:1", "x", NEVER),
            batch("other", 0, ["b"]),
            batch("some", 7, ["z"]),
            batch("other", 1, ["c"]),
            batch("unopened", 0, ["d"]),
        ])
        .await;
    assert!(matches!(&answers[0], Err(AppendError::Claimed { key, by }) if key == "all:1" && by == "first"));
    assert!(answers[1].is_ok() && answers[3].is_ok());
    assert!(matches!(answers[2], Err(AppendError::Moved { .. })));
    assert!(answers[4].is_err());
    assert_eq!(journal.claim("all:2").await.unwrap(), None);
    assert_eq!(seqs(journal, "some").await, [1]);
    assert_eq!(seqs(journal, "other").await, [1, 2]);
}

async fn a_claim_is_taken_once_until_it_expires(journal: &dyn Journal) {
    journal.open("claims", "s").await.unwrap();
    let answers = journal
        .append(vec![
            with_claim(batch("claims", 0, ["a"]), "once", "one", NEVER),
            with_claim(batch("claims", 1, ["b"]), "once", "two", NEVER),
        ])
        .await;
    assert!(answers[0].is_ok());
    assert!(matches!(&answers[1], Err(AppendError::Claimed { by, .. }) if by == "one"));
    assert_eq!(journal.claim("once").await.unwrap(), Some("one".into()));
    assert_eq!(journal.claim("unknown").await.unwrap(), None);
    append(journal, with_claim(batch("claims", 1, []), "expired", "one", 1)).await.unwrap();
    assert_eq!(journal.claim("expired").await.unwrap(), None);
    append(journal, with_claim(batch("claims", 1, []), "expired", "two", NEVER)).await.unwrap();
    assert_eq!(journal.claim("expired").await.unwrap(), Some("two".into()));
    journal.trim("claims", 0, &[], NEVER - 1).await.unwrap();
    assert_eq!(journal.claim("once").await.unwrap(), Some("one".into()));
}

async fn a_mark_is_written_atomically_with_its_append(journal: &dyn Journal) {
    let with_mark = |expect, value: &'static str| {
        let marks = vec![Mark { key: "feed/a".into(), value: value.into() }];
        LogBatch { marks, ..batch("marks", expect, ["a"]) }
    };
    journal.open("marks", "s").await.unwrap();
    assert_eq!(journal.mark("feed/a").await.unwrap(), None);
    append(journal, with_mark(0, "1")).await.unwrap();
    append(journal, with_mark(1, "2")).await.unwrap();
    assert!(append(journal, with_mark(1, "late")).await.is_err(), "the log has moved on");
    assert_eq!(journal.mark("feed/a").await.unwrap(), Some("2".into()));
    assert_eq!(journal.claim("feed/a").await.unwrap(), None, "a mark is not a claim");
    journal.trim("marks", 3, &[], NEVER - 1).await.unwrap();
    journal.reopen().await.unwrap();
    assert_eq!(journal.mark("feed/a").await.unwrap(), Some("2".into()), "a mark does not expire");
}

async fn trimming_keeps_the_listed_positions(journal: &dyn Journal) {
    journal.open("trim", "s").await.unwrap();
    append(journal, batch("trim", 0, ["a", "b", "c", "d", "e"])).await.unwrap();
    journal.trim("trim", 4, &[2, 5], 0).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [2, 4, 5]);
    let state = journal.open("trim", "s").await.unwrap();
    assert_eq!((state.oldest, state.head), (4, 5));
    journal.trim("trim", 3, &[], 0).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [4, 5]);
    assert_eq!(journal.open("trim", "s").await.unwrap().oldest, 4);
    journal.trim("trim", 100, &[5], 0).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [5]);
    let state = journal.open("trim", "s").await.unwrap();
    assert_eq!((state.oldest, state.head), (6, 5));
    journal.trim("trim", 100, &[], 0).await.unwrap();
    journal.reopen().await.unwrap();
    assert_eq!(journal.open("trim", "s").await.unwrap().head, 5);
    append(journal, batch("trim", 5, ["f"])).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [6]);
}

async fn a_new_epoch_keeps_listed_positions_claims_marks_and_deliveries(journal: &dyn Journal) {
    assert_eq!(journal.open("carry", "s").await.unwrap().begun, 0);
    let mark = Mark { key: "carry/m".into(), value: "7".into() };
    let first = LogBatch { marks: vec![mark], ..batch("carry", 0, ["a", "b", "c"]) };
    append(journal, with_claim(first, "carry/k", "v", NEVER)).await.unwrap();
    let carried = journal.new_epoch("carry", 9, &[1, 3], "restored").await.unwrap();
    assert_eq!((carried.head, carried.oldest, carried.begun), (9, 10, 9));
    assert_eq!(seqs(journal, "carry").await, [1, 3]);
    append(journal, batch("carry", 9, ["d"])).await.unwrap();
    journal.reopen().await.unwrap();
    let opened = journal.open("carry", "s").await.unwrap();
    assert_eq!((opened.epoch, opened.head, opened.begun), (carried.epoch, 10, 9));
    assert_eq!(seqs(journal, "carry").await, [1, 3, 10]);
    assert_eq!(journal.claim("carry/k").await.unwrap(), Some("v".into()));
    assert_eq!(journal.mark("carry/m").await.unwrap(), Some("7".into()));
    assert_eq!(journal.shape("carry").await.unwrap(), Some("s".into()));
    journal.trim("carry", 10, &[3], 0).await.unwrap();
    assert_eq!(seqs(journal, "carry").await, [3, 10]);
}

async fn another_shape_or_a_new_epoch_continues_from_the_head(journal: &dyn Journal) {
    let first = journal.open("epoch", "id:text").await.unwrap();
    append(journal, batch("epoch", 0, ["a", "b"])).await.unwrap();
    assert_eq!(journal.open("epoch", "id:text").await.unwrap().epoch, first.epoch);
    let second = journal.open("epoch", "id:integer").await.unwrap();
    assert_ne!(second.epoch, first.epoch);
    assert_eq!((second.head, second.oldest), (2, 3));
    assert!(seqs(journal, "epoch").await.is_empty());
    append(journal, batch("epoch", 2, ["c"])).await.unwrap();
    let third = journal.new_epoch("epoch", 40, &[], "the cache is ahead").await.unwrap();
    assert_ne!(third.epoch, second.epoch);
    assert_eq!((third.head, third.oldest), (40, 41));
    assert_eq!(journal.open("epoch", "id:integer").await.unwrap(), third);
    assert_eq!(journal.new_epoch("epoch", 0, &[], "again").await.unwrap().head, 40);
    append(journal, batch("epoch", 40, ["d"])).await.unwrap();
    assert_eq!(seqs(journal, "epoch").await, [41]);
    assert!(journal.new_epoch("never opened", 0, &[], "").await.is_err());
}

fn delivery(id: u128, state: DeliveryState) -> StoredDelivery {
    let delivery = Delivery {
        id: DeliveryId::from_u128(id),
        hook: if id.is_multiple_of(2) { "even".into() } else { "odd".into() },
        dio: "inbox".into(),
        key: Some(id.to_string()),
        state,
        changes: Changes::default(),
        detail: None,
        attempts: 0,
        received: unix_ms(),
        updated: 0,
        size: 100,
        outgoing: None,
    };
    let headers = vec![("content-type".to_string(), "application/json".to_string())];
    let raw = RawRequest { uri: "/webhooks/odd?a=b".into(), headers, body: id.to_string().into() };
    StoredDelivery { delivery, raw: Some(raw) }
}

async fn store<const N: usize>(journal: &dyn Journal, log: &str, kept: [StoredDelivery; N]) {
    let expect = *journal.heads(log).borrow();
    append(journal, LogBatch { deliveries: kept.into(), ..batch(log, expect, []) }).await.unwrap();
}

async fn stored_ids(journal: &dyn Journal, states: &[DeliveryState]) -> Vec<u128> {
    let query = DeliveryQuery { states: states.to_vec(), limit: usize::MAX, ..DeliveryQuery::default() };
    journal.deliveries(&query).await.unwrap().0.iter().map(|delivery| delivery.id.as_u128()).collect()
}

async fn deliveries_are_stored_with_their_request_and_found_by_state_and_hook(journal: &dyn Journal) {
    use DeliveryState::{Applied, Failed, Received};
    journal.open("inbox", "s").await.unwrap();
    let taken = LogBatch { deliveries: vec![delivery(1, Applied)], ..batch("inbox", 0, ["a"]) };
    append(journal, taken).await.unwrap();
    let refused = LogBatch { deliveries: vec![delivery(2, Applied)], ..batch("inbox", 0, ["x"]) };
    assert!(append(journal, refused).await.is_err(), "a rejected batch stores no delivery");
    store(journal, "inbox", [delivery(3, Received), delivery(4, Failed)]).await;
    assert_eq!(stored_ids(journal, &[]).await, [4, 3, 1]);
    assert_eq!(stored_ids(journal, &[Received, Failed]).await, [4, 3]);
    let odd = DeliveryQuery { hook: Some("odd".into()), limit: 1, ..DeliveryQuery::default() };
    let (page, total) = journal.deliveries(&odd).await.unwrap();
    assert_eq!((page.len(), page[0].id.as_u128(), total), (1, 3, 2));
    let after = DeliveryQuery { after: Some(page[0].id), ..odd };
    assert_eq!(journal.deliveries(&after).await.unwrap().0[0].id.as_u128(), 1);
    let StoredDelivery { delivery: known, raw } = delivery(3, Received);
    let found = journal.delivery(known.id).await.unwrap().unwrap();
    assert_eq!(Some(found.1), raw);
    assert_eq!(journal.delivery(DeliveryId::from_u128(2)).await.unwrap(), None);
    // The final state is stored without the body. A late `Received` changes nothing.
    store(journal, "inbox", [StoredDelivery { raw: None, ..delivery(3, Applied) }]).await;
    store(journal, "inbox", [delivery(3, Received)]).await;
    journal.reopen().await.unwrap();
    let (known, kept) = journal.delivery(DeliveryId::from_u128(3)).await.unwrap().unwrap();
    assert_eq!((known.state, Some(kept)), (Applied, raw));
    let InboxUse { count, bytes, received, dropped, room, .. } = journal.inbox();
    assert_eq!((count, bytes, received, dropped, room), (3, 300, 0, 0, true));
    store(journal, "inbox", [StoredDelivery { raw: None, ..delivery(9, Applied) }]).await;
    assert_eq!(stored_ids(journal, &[]).await, [4, 3, 1], "an update of a dropped delivery is ignored");
}

async fn finished_deliveries_are_dropped_first_and_waiting_ones_never(journal: &dyn Journal) {
    use DeliveryState::{Applied, Duplicate, Failed, Received, Undecodable};
    journal.open("inbox", "s").await.unwrap();
    let limits = InboxLimits { count: 5, ..InboxLimits::default() };
    journal.limit_inbox(limits);
    store(journal, "inbox", [delivery(11, Undecodable), delivery(12, Received), delivery(13, Duplicate)]).await;
    assert_eq!(stored_ids(journal, &[]).await, [13, 12, 11, 4, 3], "delivery 1 was the oldest applied one");
    store(journal, "inbox", [delivery(14, Received)]).await;
    store(journal, "inbox", [delivery(15, Received)]).await;
    assert_eq!(stored_ids(journal, &[]).await, [15, 14, 12, 11, 4]);
    store(journal, "inbox", [delivery(16, Received)]).await;
    assert_eq!(stored_ids(journal, &[]).await, [16, 15, 14, 12, 11], "then the oldest failed one");
    assert_eq!((journal.inbox().dropped, journal.inbox().room), (1, true));
    store(journal, "inbox", [delivery(17, Received)]).await;
    store(journal, "inbox", [delivery(18, Received)]).await;
    assert_eq!(stored_ids(journal, &[]).await, [18, 17, 16, 15, 14, 12], "no waiting delivery is dropped");
    assert!(!journal.inbox().room, "the usage shows that the inbox is full");
    let done = [12, 14, 15, 16, 17, 18].map(|id| StoredDelivery { raw: None, ..delivery(id, Applied) });
    store(journal, "inbox", done).await;
    journal.limit_inbox(InboxLimits { bytes: 250, ..limits });
    store(journal, "inbox", [delivery(19, Applied)]).await;
    assert_eq!(stored_ids(journal, &[]).await, [19, 18]);
    journal.limit_inbox(limits);
    let mut old = delivery(17, Failed);
    old.delivery.received = 1;
    store(journal, "inbox", [old]).await;
    store(journal, "inbox", [delivery(20, Applied)]).await;
    assert_eq!(
        stored_ids(journal, &[]).await,
        [20, 19, 18],
        "a delivery beyond the maximum age is dropped despite room"
    );
    journal.reopen().await.unwrap();
    assert_eq!(stored_ids(journal, &[]).await, [20, 19, 18]);
    store(journal, "inbox", [delivery(21, Applied), delivery(21, Received)]).await;
    assert_eq!(stored_ids(journal, &[Received]).await, [0; 0], "a late state in the same append is ignored, too");
    journal.limit_inbox(InboxLimits::default());
}

async fn deliveries_to_send_have_a_list_and_limits_of_their_own(journal: &dyn Journal) {
    use DeliveryState::{Applied, Delivered, Failed, Pending, Received};
    let sent = |id, state| {
        let StoredDelivery { delivery, raw } = delivery(id, state);
        let outgoing = Some(Box::new(Outgoing { row: Some("row".into()), due: 7 }));
        StoredDelivery { delivery: Delivery { outgoing, ..delivery }, raw }
    };
    journal.open("inbox", "s").await.unwrap();
    let before = (stored_ids(journal, &[]).await, journal.inbox());
    journal.limit_outbox(OutboxLimits { count: 2, ..OutboxLimits::default() });
    store(journal, "inbox", [sent(101, Pending), sent(102, Failed)]).await;
    store(journal, "inbox", [sent(103, Delivered)]).await;
    let listed = async || {
        let query = DeliveryQuery { limit: usize::MAX, outgoing: true, ..DeliveryQuery::default() };
        journal.deliveries(&query).await.unwrap().0.iter().map(|own| own.id.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [103, 101], "the oldest that is not pending is dropped");
    assert_eq!((journal.outbox().dropped, journal.outbox().pending, journal.outbox().room), (1, 1, true));
    store(journal, "inbox", [sent(104, Pending), sent(105, Pending)]).await;
    assert_eq!(listed().await, [105, 104, 101], "pending ones are never dropped");
    assert!(!journal.outbox().room);
    assert_eq!((stored_ids(journal, &[]).await, journal.inbox()), before, "the inbox is another one");
    store(journal, "inbox", [delivery(106, Received), StoredDelivery { raw: None, ..sent(104, Delivered) }]).await;
    journal.reopen().await.unwrap();
    let (stored, raw) = journal.delivery(DeliveryId::from_u128(104)).await.unwrap().unwrap();
    assert_eq!(
        (stored.state, stored.outgoing, raw.body),
        (Delivered, sent(104, Delivered).delivery.outgoing, "104".into())
    );
    let OutboxUse { count, bytes, pending, room, .. } = journal.outbox();
    assert_eq!((count, bytes, pending, room), (3, 300, 2, false));
    // The tests that follow find the inbox as it was.
    store(journal, "inbox", [StoredDelivery { raw: None, ..delivery(106, Applied) }]).await;
    let deliveries = [101, 104, 105, 106].map(DeliveryId::from_u128).into();
    journal.rewrite(Rewrite { deliveries, ..Rewrite::nothing(&"inbox".into()) }).await.unwrap();
    assert_eq!((listed().await, journal.outbox().count), (Vec::new(), 0));
    journal.limit_outbox(OutboxLimits::default());
}

async fn a_rewrite_replaces_stored_entries_and_keeps_positions(journal: &dyn Journal) {
    use DeliveryState::Applied;
    let state = journal.open("rewrite", "s").await.unwrap();
    journal.open("untouched", "s").await.unwrap();
    append(journal, batch("rewrite", 0, ["a", "b", "c", "d"])).await.unwrap();
    append(journal, batch("untouched", 0, ["a", "b"])).await.unwrap();
    store(journal, "rewrite", [delivery(101, Applied), delivery(102, Applied)]).await;
    let before = journal.inbox();
    journal.trim("rewrite", 2, &[], 0).await.unwrap();
    let entries = [(1, "gone"), (2, "x"), (4, "a longer one"), (9, "never there")];
    let entries = entries.map(|(seq, text)| LogEntry { seq, bytes: text.into() });
    let deliveries = [101, 109].map(DeliveryId::from_u128).into();
    journal
        .rewrite(Rewrite { entries: entries.into(), deliveries, ..Rewrite::nothing(&"rewrite".into()) })
        .await
        .unwrap();
    journal.rewrite(Rewrite::nothing(&"rewrite".into())).await.unwrap();
    for _ in 0..2 {
        let stored = journal.read("rewrite", 0, usize::MAX).await.unwrap();
        let stored: Vec<(Seq, &[u8])> = stored.iter().map(|entry| (entry.seq, &entry.bytes[..])).collect();
        assert_eq!(stored, [(2, &b"x"[..]), (3, b"c"), (4, b"a longer one")]);
        assert_eq!(journal.read("untouched", 0, usize::MAX).await.unwrap(), batch("untouched", 0, ["a", "b"]).entries);
        let now = journal.open("rewrite", "s").await.unwrap();
        assert_eq!((now.epoch, now.head, now.oldest), (state.epoch.clone(), 4, 2));
        assert_eq!(journal.delivery(DeliveryId::from_u128(101)).await.unwrap(), None);
        assert!(journal.delivery(DeliveryId::from_u128(102)).await.unwrap().is_some());
        assert_eq!((journal.inbox().count, journal.inbox().bytes), (before.count - 1, before.bytes - 100));
        journal.reopen().await.unwrap();
    }
    append(journal, batch("rewrite", 4, ["e"])).await.unwrap();
    assert!(journal.rewrite(Rewrite::nothing(&"never opened".into())).await.is_err());
}

async fn expired_claims_make_room_within_the_limit(journal: &dyn Journal) {
    journal.open("bound", "s").await.unwrap();
    let others = journal.inbox().claims;
    journal.limit_inbox(InboxLimits { claims: others + 2, ..InboxLimits::default() });
    append(journal, with_claim(batch("bound", 0, []), "bound:old", "v", 1)).await.unwrap();
    assert!(journal.claim_room().await.unwrap());
    append(journal, with_claim(batch("bound", 0, []), "bound:1", "v", NEVER)).await.unwrap();
    assert_eq!(journal.inbox().claims, others + 2);
    assert!(journal.claim_room().await.unwrap(), "the expired claim was removed");
    assert_eq!(journal.inbox().claims, others + 1);
    append(journal, with_claim(batch("bound", 0, []), "bound:2", "v", NEVER)).await.unwrap();
    assert!(!journal.claim_room().await.unwrap());
    journal.reopen().await.unwrap();
    assert!(!journal.claim_room().await.unwrap(), "stored claims count after a restart");
    assert_eq!(journal.claim("bound:1").await.unwrap(), Some("v".into()), "no valid claim was removed");
    journal.limit_inbox(InboxLimits::default());
    assert!(journal.claim_room().await.unwrap());
}

async fn heads_follow_what_is_stored(journal: &dyn Journal) {
    let head = journal.heads("heads");
    assert_eq!(*head.borrow(), 0);
    journal.open("heads", "s").await.unwrap();
    append(journal, batch("heads", 0, ["a", "b"])).await.unwrap();
    assert_eq!(*head.borrow(), 2);
    let _ = append(journal, batch("heads", 0, ["x"])).await;
    assert_eq!(*head.borrow(), 2);
    journal.new_epoch("heads", 9, &[], "").await.unwrap();
    assert_eq!(*head.borrow(), 9);
    assert_eq!(*journal.heads("heads").borrow(), 9);
}

async fn reopening_keeps_everything(journal: &dyn Journal) {
    let state = journal.open("reopen", "s").await.unwrap();
    append(journal, with_claim(batch("reopen", 0, ["a"]), "reopen", "v", NEVER)).await.unwrap();
    journal.reopen().await.unwrap();
    assert_eq!(seqs(journal, "reopen").await, [1]);
    assert_eq!(journal.claim("reopen").await.unwrap(), Some("v".into()));
    assert_eq!(journal.open("reopen", "s").await.unwrap().epoch, state.epoch);
    append(journal, batch("reopen", 1, ["b"])).await.unwrap();
}

async fn a_closed_journal_returns_closed(journal: &dyn Journal) {
    assert!(journal.logs().await.unwrap().contains(&"reopen".into()));
    journal.close().await;
    assert!(matches!(journal.read("order", 0, 1).await, Err(JournalError::Closed)));
    assert!(matches!(journal.claim("order").await, Err(JournalError::Closed)));
    assert!(matches!(journal.logs().await, Err(JournalError::Closed)));
    assert!(matches!(journal.trim("order", 0, &[], 0).await, Err(JournalError::Closed)));
    assert!(matches!(journal.rewrite(Rewrite::nothing(&"order".into())).await, Err(JournalError::Closed)));
    assert!(append(journal, batch("order", 3, ["x"])).await.is_err());
    let entry = AuditEntry::new(AuditAction::ServerStopped, 0);
    assert!(matches!(journal.append_audit(vec![entry], AuditLimits::default()).await, Err(JournalError::Closed)));
    journal.close().await;
}

pub(super) async fn keeps_the_contract(journal: &dyn Journal) {
    entries_are_read_in_order_and_within_the_budget(journal).await;
    an_append_is_conditional_on_the_head(journal).await;
    a_rejected_batch_stores_nothing_and_does_not_affect_others(journal).await;
    a_claim_is_taken_once_until_it_expires(journal).await;
    a_mark_is_written_atomically_with_its_append(journal).await;
    trimming_keeps_the_listed_positions(journal).await;
    another_shape_or_a_new_epoch_continues_from_the_head(journal).await;
    a_new_epoch_keeps_listed_positions_claims_marks_and_deliveries(journal).await;
    deliveries_are_stored_with_their_request_and_found_by_state_and_hook(journal).await;
    finished_deliveries_are_dropped_first_and_waiting_ones_never(journal).await;
    deliveries_to_send_have_a_list_and_limits_of_their_own(journal).await;
    a_rewrite_replaces_stored_entries_and_keeps_positions(journal).await;
    expired_claims_make_room_within_the_limit(journal).await;
    audit::the_audit_log_numbers_its_entries_and_finds_them(journal).await;
    audit::the_oldest_audit_entries_are_dropped_and_the_first_one_says_how_many(journal).await;
    heads_follow_what_is_stored(journal).await;
    reopening_keeps_everything(journal).await;
    a_closed_journal_returns_closed(journal).await;
}

#[tokio::test]
async fn the_memory_journal_keeps_the_contract() {
    keeps_the_contract(&MemoryJournal::new()).await;
}

#[tokio::test]
async fn the_redb_journal_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&RedbJournal::open(folder.path().join("journal.redb")).unwrap()).await;
}

#[tokio::test]
async fn the_faulty_journal_without_faults_keeps_the_contract() {
    keeps_the_contract(&FaultyJournal::new(Arc::new(MemoryJournal::new()), 1)).await;
}

#[tokio::test]
async fn a_reopened_memory_journal_still_has_its_entries() {
    let journal = Arc::new(MemoryJournal::new());
    let state = journal.open("again", "s").await.unwrap();
    append(&*journal, batch("again", 0, ["a"])).await.unwrap();
    journal.close().await;
    let again = Arc::clone(&journal).open("again", "s").await.unwrap();
    assert_eq!((again.head, again.epoch), (1, state.epoch));
    assert_eq!(seqs(&*journal, "again").await, [1]);
}
