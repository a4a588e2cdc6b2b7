//! Contract of the audit log of every journal.

use crate::journal::memory::unix_ms;
use crate::journal::{AuditAction, AuditEntry, AuditLimits, AuditQuery, AuditUse, Journal, Seq};

async fn audit(journal: &dyn Journal, query: AuditQuery) -> Vec<Seq> {
    journal.audit(&query).await.unwrap().iter().map(|entry| entry.seq).collect()
}

pub(super) async fn the_audit_log_numbers_its_entries_and_finds_them(journal: &dyn Journal) {
    assert_eq!(
        (journal.audit_use(), journal.audit(&AuditQuery::default()).await.unwrap()),
        (AuditUse::default(), vec![])
    );
    let now = unix_ms();
    let entry = |action, age: u64| AuditEntry { principal: Some("ann".into()), ..AuditEntry::new(action, now - age) };
    let purge = AuditEntry { resource: Some("items".into()), ..entry(AuditAction::Purge, 20) };
    let (first, later) =
        (vec![entry(AuditAction::Backup, 30), purge.clone()], vec![AuditEntry::new(AuditAction::Retry, now)]);
    assert_eq!(journal.append_audit(first, AuditLimits::default()).await.unwrap(), 2);
    assert_eq!(journal.append_audit(later, AuditLimits::default()).await.unwrap(), 3);
    let all = AuditQuery { limit: 10, ..AuditQuery::default() };
    let query = |change: fn(&mut AuditQuery)| {
        let mut query = all.clone();
        change(&mut query);
        query
    };
    assert_eq!(audit(journal, all.clone()).await, [3, 2, 1]);
    assert_eq!(audit(journal, query(|query| query.limit = 2)).await, [3, 2]);
    assert_eq!(audit(journal, query(|query| query.after = Some(3))).await, [2, 1]);
    assert_eq!(audit(journal, query(|query| (query.after, query.oldest_first) = (Some(1), true))).await, [2, 3]);
    assert_eq!(
        audit(journal, query(|query| query.actions = vec![AuditAction::Purge, AuditAction::Retry])).await,
        [3, 2]
    );
    assert_eq!(audit(journal, query(|query| query.principal = Some("ann".into()))).await, [2, 1]);
    assert_eq!(audit(journal, query(|query| query.resource = Some("items".into()))).await, [2]);
    assert_eq!(audit(journal, AuditQuery { since: Some(now - 20), ..all.clone() }).await, [3, 2]);
    journal.reopen().await.unwrap();
    let kept = journal.audit(&query(|query| query.resource = Some("items".into()))).await.unwrap();
    assert_eq!(kept, [AuditEntry { seq: 2, ..purge }]);
    let size = journal.audit_use();
    assert_eq!((size.entries, size.newest, size.dropped), (3, 3, 0));
}

pub(super) async fn the_oldest_audit_entries_are_dropped_and_the_first_one_says_how_many(journal: &dyn Journal) {
    let limits = AuditLimits { bytes: 4_000, ..AuditLimits::default() };
    let entry = || AuditEntry { target: Some("x".repeat(50)), ..AuditEntry::new(AuditAction::Discard, unix_ms()) };
    for _ in 0..100 {
        journal.append_audit(vec![entry()], limits).await.unwrap();
        assert!(journal.audit_use().bytes <= limits.bytes, "{:?}", journal.audit_use());
    }
    journal.reopen().await.unwrap();
    let query = AuditQuery { oldest_first: true, limit: 1_000, ..AuditQuery::default() };
    let check = async |entries| {
        let (size, all) = (journal.audit_use(), journal.audit(&query).await.unwrap());
        assert_eq!((all[0].action, all[0].count, all[0].seq), (AuditAction::Dropped, size.dropped, size.dropped));
        let numbers: Vec<Seq> = all.iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, (size.dropped..=size.newest).collect::<Vec<_>>());
        assert_eq!((size.entries, size.newest), (all.len() as u64, entries));
        assert!(all.iter().skip(1).all(|entry| entry.action != AuditAction::Dropped));
    };
    check(103).await;
    let old = AuditEntry { time: 1_000, ..entry() };
    journal.append_audit(vec![old, entry()], AuditLimits::default()).await.unwrap();
    check(105).await;
    journal.append_audit(vec![entry()], AuditLimits { bytes: 0, ..limits }).await.unwrap();
    check(106).await;
    assert_eq!(journal.audit_use().entries, 2, "the newest one stays");
}
