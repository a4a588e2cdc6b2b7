//! Decoding of the messages of `pgoutput`, PostgreSQL's plugin for logical replication.
//!
//! Format: PostgreSQL documentation, section 55.9, "Logical Replication Message Formats", protocol version 1.

/// A change of a table, or the description of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message<'m> {
    /// Columns of a table, sent before its first change and after each change of its shape.
    Relation {
        oid: u32,
        columns: Vec<RelationColumn<'m>>,
    },
    Insert {
        oid: u32,
        new: Tuple<'m>,
    },
    /// `old` is the former key, sent only if the key has changed (or the whole former row of a table that sends it).
    Update {
        oid: u32,
        old: Option<Tuple<'m>>,
        new: Tuple<'m>,
    },
    Delete {
        oid: u32,
        old: Tuple<'m>,
    },
    Truncate {
        oids: Vec<u32>,
    },
    /// A message without meaning here: origins, types.
    Other,
}

/// Column of a relation message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelationColumn<'m> {
    pub(super) name: &'m str,
    pub(super) type_oid: u32,
}

/// Cells of a row, in the order of the relation's columns.
pub(super) type Tuple<'m> = Vec<Cell<'m>>;

/// A cell of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell<'m> {
    Null,
    /// A large value that the change did not touch, and that is therefore not sent.
    Unchanged,
    Text(&'m str),
}

/// Decodes a message.
///
/// # Errors
/// The problem, if the bytes are not such a message.
pub(super) fn decode(bytes: &[u8]) -> Result<Message<'_>, String> {
    let mut reader = Reader(bytes);
    let wrong = || format!("a message of type {:?} is cut short", bytes.first().map(|kind| char::from(*kind)));
    reader.message().ok_or_else(wrong)
}

struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<usize> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?).into())
    }

    fn long(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'m str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(self.take(end)?).ok()?;
        self.take(1)?;
        Some(text)
    }

    fn message(&mut self) -> Option<Message<'m>> {
        match self.byte()? {
            b'R' => self.relation(),
            b'I' => {
                let oid = self.long()?;
                self.byte().filter(|kind| *kind == b'N')?;
                Some(Message::Insert { oid, new: self.tuple()? })
            }
            b'U' => {
                let oid = self.long()?;
                let old = match self.byte()? {
                    b'K' | b'O' => {
                        let old = self.tuple()?;
                        self.byte().filter(|kind| *kind == b'N')?;
                        Some(old)
                    }
                    kind => (kind == b'N').then_some(None)?,
                };
                Some(Message::Update { oid, old, new: self.tuple()? })
            }
            b'D' => {
                let oid = self.long()?;
                self.byte().filter(|kind| matches!(kind, b'K' | b'O'))?;
                Some(Message::Delete { oid, old: self.tuple()? })
            }
            b'T' => {
                let count = self.long()?;
                self.byte()?;
                Some(Message::Truncate { oids: (0..count).map(|_| self.long()).collect::<Option<_>>()? })
            }
            _ => Some(Message::Other),
        }
    }

    fn relation(&mut self) -> Option<Message<'m>> {
        let oid = self.long()?;
        let (_schema, _table, _identity) = (self.text()?, self.text()?, self.byte()?);
        let count = self.short()?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let (_flags, name, type_oid, _modifier) = (self.byte()?, self.text()?, self.long()?, self.long()?);
            columns.push(RelationColumn { name, type_oid });
        }
        Some(Message::Relation { oid, columns })
    }

    fn tuple(&mut self) -> Option<Tuple<'m>> {
        let count = self.short()?;
        let mut cells = Vec::with_capacity(count);
        for _ in 0..count {
            cells.push(match self.byte()? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let length = usize::try_from(self.long()?).ok()?;
                    Cell::Text(std::str::from_utf8(self.take(length)?).ok()?)
                }
                _ => return None,
            });
        }
        Some(cells)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(cells: &[Cell<'_>]) -> Vec<u8> {
        let mut bytes = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                Cell::Null => bytes.push(b'n'),
                Cell::Unchanged => bytes.push(b'u'),
                Cell::Text(text) => {
                    bytes.push(b't');
                    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        bytes
    }

    #[test]
    fn changes_have_their_cells() {
        let cells = vec![Cell::Text("7"), Cell::Null, Cell::Unchanged];
        let update = [b"U\0\0\0\x09N".as_slice(), &tuple(&cells)].concat();
        assert_eq!(decode(&update), Ok(Message::Update { oid: 9, old: None, new: cells.clone() }));
        let moved = [b"U\0\0\0\x09K".as_slice(), &tuple(&cells[..1]), b"N", &tuple(&cells)].concat();
        let old = Some(cells[..1].to_vec());
        assert_eq!(decode(&moved), Ok(Message::Update { oid: 9, old, new: cells }));
        assert_eq!(decode(b"T\0\0\0\x01\0\0\0\0\x09"), Ok(Message::Truncate { oids: vec![9] }));
        let relation = b"R\0\0\0\x09public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff";
        let columns = vec![RelationColumn { name: "id", type_oid: 23 }];
        assert_eq!(decode(relation), Ok(Message::Relation { oid: 9, columns }));
        for length in 0..update.len() {
            assert!(decode(&update[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0..6usize) {
            let _ = decode(&bytes);
            let _ = decode(&[&[b"RIUDTY"[kind]], bytes.as_slice()].concat());
        }
    }
}
