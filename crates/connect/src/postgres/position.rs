//! Position of a replication feed, as it is stored with the changes before it.

use pgwire_replication::Lsn;

use super::progress::Snapshot;

/// Position in the server's write-ahead log: the transactions whose changes are applied, and how many of the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Identity of the server's data.
    pub(super) system: String,
    /// Every transaction that ends here or before is applied.
    pub(super) applied: Lsn,
    /// Commit of the transaction after it, if some of its changes are applied, and their number.
    pub(super) within: Option<(Lsn, u64)>,
    /// Identity of the table and its columns; `None` if an older version stored the position.
    pub(super) table: Option<String>,
    /// Transactions after `applied` whose changes came with a list.
    pub(super) seen: Option<Snapshot>,
}

impl Position {
    /// Parses `SYSTEM LSN`, followed by the parts `COMMIT+COUNT`, `table=IDENTITY` and `seen=SNAPSHOT`, each of which may be missing.
    pub(super) fn parse(bytes: &[u8]) -> Option<Position> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(' ');
        let (system, applied) = (parts.next()?.to_string(), Lsn::parse(parts.next()?).ok()?);
        let mut position = Position { system, applied, within: None, table: None, seen: None };
        for part in parts {
            if let Some(table) = part.strip_prefix("table=") {
                position.table = Some(table.to_string());
            } else if let Some(seen) = part.strip_prefix("seen=") {
                let (snapshot, until) = seen.split_once('@')?;
                position.seen = Some(Snapshot::parse(snapshot, until)?);
            } else {
                let (commit, count) = part.split_once('+')?;
                position.within = Some((Lsn::parse(commit).ok()?, count.parse().ok()?));
            }
        }
        Some(position)
    }

    /// Notes that every transaction that ends at `end` or before is applied. A server sends transactions and positions again that
    /// lie before: they change nothing.
    pub(super) fn advance(&mut self, end: Lsn) {
        self.applied = end.max(self.applied);
        self.within = self.within.filter(|(commit, _)| *commit >= self.applied);
        if self.seen.as_ref().is_some_and(|seen| seen.is_before(self.applied)) {
            self.seen = None;
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.system, self.applied)?;
        if let Some((commit, count)) = self.within {
            write!(f, " {commit}+{count}")?;
        }
        if let Some(table) = &self.table {
            write!(f, " table={table}")?;
        }
        match &self.seen {
            Some(seen) => write!(f, " seen={seen}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(applied: u64, within: Option<(Lsn, u64)>) -> Position {
        Position { system: "74".into(), applied: Lsn(applied), within, table: None, seen: None }
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let seen = || Snapshot::parse("10:20:12,15", "1/9");
        for within in [None, Some((Lsn(9), 300))] {
            for (table, seen) in [(None, None), (Some("5f".into()), None), (None, seen()), (Some("5f".into()), seen())]
            {
                let position = Position { table, seen, ..at(1 << 33, within) };
                assert_eq!(Position::parse(position.to_string().as_bytes()), Some(position));
            }
        }
        for wrong in ["", "74", "74 x", "74 0/1 0/2", "74 0/1 0/2+x", "74 0/1 seen=1:2:", "74 0/1 other=1"] {
            assert_eq!(Position::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_position_of_an_older_version_is_read() {
        assert_eq!(Position::parse(b"74 0/9"), Some(at(9, None)));
        assert_eq!(Position::parse(b"74 0/9 0/C+3"), Some(at(9, Some((Lsn(12), 3)))));
    }

    #[test]
    fn a_snapshot_is_kept_until_the_feed_has_passed_it() {
        let mut position = Position { seen: Snapshot::parse("10:20:12", "0/C8"), ..at(100, None) };
        position.advance(Lsn(199));
        assert!(position.seen.is_some());
        position.advance(Lsn(200));
        assert_eq!(position.seen, None);
    }

    #[test]
    fn the_known_part_of_a_transaction_stays_known_until_it_ends() {
        let mut position = at(100, Some((Lsn(200), 3)));
        for earlier in [Lsn(90), Lsn(100), Lsn(150), Lsn(200)] {
            position.advance(earlier);
            assert_eq!(position.within, Some((Lsn(200), 3)), "{earlier}");
        }
        assert_eq!(position.applied, Lsn(200));
        position.advance(Lsn(208));
        assert_eq!((position.applied, position.within), (Lsn(208), None));
    }
}
