//! Deliveries in the journal's redb file: one table, two records of each, so that a change of state does not write the body again.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::journal::inbox::Index;
use crate::journal::{Delivery, DeliveryId, DeliveryState, RawRequest, StoredDelivery};
use crate::redb_file::{Fault, RedbFile, seal, unseal};

/// By id and part: what is known of a delivery, then what was sent.
pub(super) const DELIVERIES: TableDefinition<(u128, u8), &[u8]> = TableDefinition::new("deliveries");
const KNOWN: u8 = 0;
const SENT: u8 = 1;

/// What an append does to the table; told to the index once it is durable.
#[derive(Default)]
pub(super) struct InboxChanges {
    put: Vec<Delivery>,
    dropped: Vec<u128>,
    /// How many claims there are then, if that changes.
    pub(super) claims: Option<usize>,
}

impl InboxChanges {
    pub(super) fn publish(self, index: &mut Index) {
        self.dropped.into_iter().for_each(|id| index.drop_one(id));
        self.put.iter().for_each(|delivery| index.put(delivery));
        index.claims = self.claims.unwrap_or(index.claims);
    }
}

/// Stages `kept`, and the removal of what has to go for them.
pub(super) fn store(
    transaction: &WriteTransaction,
    kept: &[&StoredDelivery],
    index: &Index,
    now: u64,
) -> Result<InboxChanges, Fault> {
    let mut stored = InboxChanges::default();
    if kept.is_empty() {
        return Ok(stored);
    }
    let mut table = transaction.open_table(DELIVERIES)?;
    stored.dropped = index.victims(&kept.iter().map(|kept| &kept.delivery), now);
    for id in &stored.dropped {
        table.remove((*id, KNOWN))?;
        table.remove((*id, SENT))?;
    }
    for StoredDelivery { delivery, raw } in kept {
        let id = delivery.id.as_u128();
        let late = delivery.state == DeliveryState::Received && stored.put.iter().any(|put| put.id == delivery.id);
        // One that was dropped meanwhile stays dropped.
        if late || !index.takes(delivery) || raw.is_none() && table.get((id, SENT))?.is_none() {
            continue;
        }
        if let Some(raw) = raw {
            table.insert((id, SENT), seal(salt(id, SENT), &[&raw.encode()]).as_slice())?;
        }
        let known =
            serde_json::to_vec(delivery).map_err(|error| Fault::Io { detail: error.to_string(), full: false })?;
        table.insert((id, KNOWN), seal(salt(id, KNOWN), &[&known]).as_slice())?;
        stored.put.push(delivery.clone());
    }
    Ok(stored)
}

/// Stages the removal of these deliveries.
pub(super) fn remove(transaction: &WriteTransaction, ids: &[DeliveryId]) -> Result<(), Fault> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(DELIVERIES)?;
    for id in ids.iter().map(|id| id.as_u128()) {
        table.remove((id, KNOWN))?;
        table.remove((id, SENT))?;
    }
    Ok(())
}

/// Fills an empty index with what the file holds.
pub(super) fn load(database: &Database, index: &mut Index) -> Result<(), Fault> {
    let Some(table) = open(database)? else { return Ok(()) };
    for stored in table.iter()? {
        let (key, value) = stored?;
        let (id, part) = key.value();
        if part == KNOWN {
            index.put(&decode(id, value.value())?);
        }
    }
    Ok(())
}

/// These deliveries, in this order; those that were dropped meanwhile are left out.
pub(super) fn known(database: &Database, ids: &[DeliveryId]) -> Result<Vec<Delivery>, Fault> {
    let Some(table) = open(database)? else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(ids.len());
    for id in ids.iter().map(|id| id.as_u128()) {
        if let Some(stored) = table.get((id, KNOWN))? {
            found.push(decode(id, stored.value())?);
        }
    }
    Ok(found)
}

/// One delivery with what was sent.
pub(super) fn whole(database: &Database, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, Fault> {
    let Some(table) = open(database)? else { return Ok(None) };
    let id = id.as_u128();
    let (Some(known), Some(sent)) = (table.get((id, KNOWN))?, table.get((id, SENT))?) else { return Ok(None) };
    let raw = unseal(salt(id, SENT), sent.value()).and_then(RawRequest::decode).ok_or_else(|| damaged(id))?;
    Ok(Some((decode(id, known.value())?, raw)))
}

/// What can be read of a file that may be damaged, oldest first: deliveries, with what was sent if that is there.
pub(in crate::journal) fn rescue(file: &RedbFile) -> Vec<(Delivery, Option<RawRequest>)> {
    let (mut known, mut sent) = (BTreeMap::new(), BTreeMap::new());
    let mut read = |backward: bool| {
        file.with(|database| {
            let Some(table) = open(database)? else { return Ok(()) };
            let mut range = table.iter()?;
            while let Some(stored) = if backward { range.next_back() } else { range.next() } {
                let (key, value) = stored?;
                let (id, part) = key.value();
                if part == KNOWN {
                    known.extend(decode(id, value.value()).ok().map(|delivery| (id, delivery)));
                } else {
                    sent.extend(
                        unseal(salt(id, SENT), value.value()).and_then(RawRequest::decode).map(|raw| (id, raw)),
                    );
                }
            }
            Ok(())
        })
    };
    // Damage in the middle leaves what lies before and what lies behind.
    if read(false).is_err() {
        let _ = read(true);
    }
    known.into_iter().map(|(id, delivery)| (delivery, sent.remove(&id))).collect()
}

type BodyTable = redb::ReadOnlyTable<(u128, u8), &'static [u8]>;

fn open(database: &Database) -> Result<Option<BodyTable>, Fault> {
    match database.begin_read()?.open_table(DELIVERIES) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn decode(id: u128, sealed: &[u8]) -> Result<Delivery, Fault> {
    let known = unseal(salt(id, KNOWN), sealed).and_then(|known| serde_json::from_slice(known).ok());
    let delivery: Delivery = known.ok_or_else(|| damaged(id))?;
    Ok(Delivery { id: DeliveryId::from_u128(id), ..delivery })
}

/// Reads what is stored of deliveries and logs, whose seals are right and whose content is anything, for fuzzing.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn decode_stored(content: &[u8]) {
    let _ = decode(7, &seal(salt(7, KNOWN), &[content]));
    if let Some(raw) = RawRequest::decode(content) {
        assert_eq!(RawRequest::decode(&raw.encode()).as_ref(), Some(&raw));
    }
    super::tables::decode_stored(content);
}

fn damaged(id: u128) -> Fault {
    Fault::Corrupt(format!("delivery {} is damaged", DeliveryId::from_u128(id)))
}

fn salt(id: u128, part: u8) -> u64 {
    (id ^ (id >> 64)) as u64 ^ u64::from(part) << 63
}
