//! Position of a replication feed, as it is stored with the changes before it.

use pgwire_replication::Lsn;

/// Position in the server's write-ahead log: the transactions whose changes are applied, and how many of the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Identity of the server's data.
    pub(super) system: String,
    /// Every transaction that ends here or before is applied.
    pub(super) applied: Lsn,
    /// Commit of the transaction after it, if some of its changes are applied, and their number.
    pub(super) within: Option<(Lsn, u64)>,
}

impl Position {
    /// Parses `SYSTEM LSN` or `SYSTEM LSN COMMIT+COUNT`.
    pub(super) fn parse(bytes: &[u8]) -> Option<Position> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(' ');
        let (system, applied) = (parts.next()?.to_string(), Lsn::parse(parts.next()?).ok()?);
        let within = match parts.next() {
            Some(within) => {
                let (commit, count) = within.split_once('+')?;
                Some((Lsn::parse(commit).ok()?, count.parse().ok()?))
            }
            None => None,
        };
        Some(Position { system, applied, within })
    }

    /// Notes that every transaction that ends at `end` or before is applied. A server sends transactions and positions again that
    /// lie before: they change nothing.
    pub(super) fn advance(&mut self, end: Lsn) {
        self.applied = end.max(self.applied);
        self.within = self.within.filter(|(commit, _)| *commit >= self.applied);
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.system, self.applied)?;
        match self.within {
            Some((commit, count)) => write!(f, " {commit}+{count}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for within in [None, Some((Lsn(9), 300))] {
            let position = Position { system: "74".into(), applied: Lsn(1 << 33), within };
            assert_eq!(Position::parse(position.to_string().as_bytes()), Some(position));
        }
        for wrong in ["", "74", "74 x", "74 0/1 0/2", "74 0/1 0/2+x"] {
            assert_eq!(Position::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_known_part_of_a_transaction_stays_known_until_it_ends() {
        let mut position = Position { system: "74".into(), applied: Lsn(100), within: Some((Lsn(200), 3)) };
        for earlier in [Lsn(90), Lsn(100), Lsn(150), Lsn(200)] {
            position.advance(earlier);
            assert_eq!(position.within, Some((Lsn(200), 3)), "{earlier}");
        }
        assert_eq!(position.applied, Lsn(200));
        position.advance(Lsn(208));
        assert_eq!((position.applied, position.within), (Lsn(208), None));
    }
}
