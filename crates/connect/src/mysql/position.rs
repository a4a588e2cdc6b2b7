//! Places in the binary log, and the position of a feed as it is stored with the changes before it.

use std::cmp::Ordering;

/// Place in the binary log: a file and an offset in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) offset: u64,
}

impl Place {
    /// Number of the file, which its name ends with.
    fn number(&self) -> u64 {
        self.file.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
    }

    /// Returns the place of `offset`, of which events have the lower 32 bits, in the same file and not far before this place.
    pub(super) fn at(&self, offset: u32) -> Place {
        const HIGH: u64 = 1 << 32;
        let low = u64::from(offset);
        let high = self.offset & !(HIGH - 1);
        let offset = if high + low + HIGH / 2 < self.offset { high + HIGH + low } else { high + low };
        Place { file: self.file.clone(), offset }
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Place) -> Ordering {
        let key = |place: &Place| (place.number(), place.offset);
        key(self).cmp(&key(other)).then_with(|| self.file.cmp(&other.file))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// Position of a feed: the transactions whose changes are applied, and how many rows of the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The server's `server_id`.
    pub(super) server: u32,
    /// Second at which the file of the place was made, 0 if not known. A file of the same name with another history has another one.
    pub(super) created: u32,
    /// Every transaction that ends here or before is applied.
    pub(super) applied: Place,
    /// Number of rows of the transaction after it that are applied.
    pub(super) within: u64,
}

impl Position {
    /// Parses `SERVER CREATED OFFSET+WITHIN FILE`.
    pub(super) fn parse(bytes: &[u8]) -> Option<Position> {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(4, ' ');
        let (server, created) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (offset, within) = parts.next()?.split_once('+')?;
        let (offset, within) = (offset.parse().ok()?, within.parse().ok()?);
        let file = parts.next()?.to_string();
        Some(Position { server, created, applied: Place { file, offset }, within })
    }

    /// Notes that every transaction that ends at `place` or before is applied.
    pub(super) fn advance(&mut self, place: Place) {
        if place > self.applied {
            self.applied = place;
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Position { server, created, applied, within } = self;
        write!(f, "{server} {created} {}+{within} {}", applied.offset, applied.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: &str, offset: u64) -> Place {
        Place { file: file.into(), offset }
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for within in [0, 300] {
            let position =
                Position { server: 1, created: 1_700_000_000, applied: place("my log.000003", 1 << 33), within };
            assert_eq!(Position::parse(position.to_string().as_bytes()), Some(position));
        }
        for wrong in ["", "1", "1 2 3 binlog.1", "1 2 x+0 binlog.1", "1 2 3+0"] {
            assert_eq!(Position::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn places_are_ordered_by_the_number_of_their_file() {
        assert!(place("b.999999", 9_000) < place("b.1000000", 4));
        assert!(place("b.000002", 4) < place("b.000002", 5));
    }

    #[test]
    fn offsets_beyond_32_bits_are_restored() {
        let large = 1 << 32;
        assert_eq!(place("b.1", 100).at(200), place("b.1", 200));
        assert_eq!(place("b.1", large - 10).at(5), place("b.1", large + 5));
        assert_eq!(place("b.1", large + 5).at(9), place("b.1", large + 9));
    }
}
