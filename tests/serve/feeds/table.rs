//! The tables: their columns, their keys, and the id that a key has in the API.

use serde_json::{Value, json};

use super::system::{Dialect, OnConflict};
use crate::harness::Random;

/// Keys of one writer on the server, in each table.
const KEYS: usize = 40;
/// Keys of the client of the API, in each table.
const OWN: usize = 12;
/// Ids of the rows of large transactions begin here; only `goods` has them.
pub(super) const LARGE: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Table {
    Goods,
    Shelves,
    Notes,
    Pages,
}

pub(super) const TABLES: [Table; 4] = [Table::Goods, Table::Shelves, Table::Notes, Table::Pages];

/// Owner of a key: the writer of this number, or the client of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Writer(u64),
    Client,
}

/// Key of a row.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) table: Table,
    owner: Owner,
    number: u64,
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Goods => "goods",
            Table::Shelves => "shelves",
            Table::Notes => "notes",
            Table::Pages => "pages",
        }
    }

    pub(super) fn random(random: &mut Random) -> Table {
        TABLES[random.below(TABLES.len()) as usize]
    }

    /// True if a writer may empty it. The rows of the client in the others are only the client's.
    pub(super) fn is_truncated(self) -> bool {
        matches!(self, Table::Goods | Table::Shelves)
    }

    pub(super) fn key(self, owner: Owner, random: &mut Random) -> Key {
        let count = if owner == Owner::Client { OWN } else { KEYS };
        Key { table: self, owner, number: random.below(count) }
    }

    /// Condition on the rows of an owner.
    pub(super) fn all_of(self, owner: Owner) -> String {
        match self {
            Table::Goods => {
                let first = Key { table: self, owner, number: 0 }.integer();
                format!("id >= {first} AND id < {first} + 1000")
            }
            Table::Shelves => format!("place = '{}'", Key { table: self, owner, number: 0 }.place()),
            Table::Notes | Table::Pages => format!("id LIKE '{}-%'", Key { table: self, owner, number: 0 }.place()),
        }
    }

    /// An assignment to a random column that is neither `n` nor `own`.
    pub(super) fn assignment(self, dialect: &dyn Dialect, random: &mut Random) -> String {
        let column = self.values(dialect, random);
        let at = random.below(column.len()) as usize;
        format!("{} = {}", column[at].0, column[at].1)
    }

    /// Random values of the columns that are neither key nor `n` nor `own`.
    pub(super) fn values(self, dialect: &dyn Dialect, random: &mut Random) -> Vec<(&'static str, String)> {
        let number = random.below(1_000_000);
        let object = format!("'{{\"a\": {number}, \"ü\": [1.50, null, \"{number}\"]}}'");
        let text = |random: &mut Random| match random.below(4) {
            0 => "NULL".to_string(),
            1 => format!("'{number}'"),
            _ => format!("repeat(md5('{number}'), {})", 70 + random.below(400)),
        };
        match self {
            Table::Goods => {
                let d = ["NULL", dialect.odd_decimal(), "12.3400", "-0.00001", "1e25"][random.below(5) as usize];
                let d = if random.below(2) == 0 { d.to_string() } else { format!("{number}.50") };
                let at = format!("TIMESTAMP '2026-01-01 00:00:00.123' + INTERVAL '{number}' SECOND");
                vec![("d", d), ("at", at), ("j", object)]
            }
            Table::Shelves => vec![("j", object)],
            Table::Notes | Table::Pages => vec![("large", text(random)), ("more", text(random))],
        }
    }

    /// Id of a row as a list shows it.
    pub(super) fn id_of(self, row: &Value) -> String {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{row}"));
        match self {
            Table::Goods => row["id"].to_string(),
            Table::Shelves => join(text("place"), text("name")),
            Table::Notes | Table::Pages => text("id").to_string(),
        }
    }
}

fn names(columns: &[(&'static str, String)]) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn join(place: &str, name: &str) -> String {
    format!("{},{}", place.replace(',', "\\,"), name.replace(',', "\\,"))
}

impl Key {
    fn integer(&self) -> u64 {
        match self.owner {
            Owner::Writer(writer) => 1_000 * (writer + 1) + self.number,
            Owner::Client => 50_000 + self.number,
        }
    }

    fn place(&self) -> String {
        match self.owner {
            Owner::Writer(writer) => format!("w,{writer}"),
            Owner::Client => "own".into(),
        }
    }

    fn name(&self) -> String {
        format!("ü \"{}\"", self.number)
    }

    /// Values of the key columns.
    fn columns(&self) -> Vec<(&'static str, String)> {
        match self.table {
            Table::Goods => vec![("id", self.integer().to_string())],
            Table::Shelves => vec![("place", format!("'{}'", self.place())), ("name", format!("'{}'", self.name()))],
            Table::Notes | Table::Pages => vec![("id", format!("'{}'", self.id()))],
        }
    }

    /// Condition on this row.
    pub(super) fn is(&self) -> String {
        self.columns().iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(" AND ")
    }

    /// Assignments that give a row this key.
    pub(super) fn set(&self) -> String {
        self.columns().iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
    }

    /// An INSERT of this row.
    pub(super) fn insert(&self, n: u64, conflict: OnConflict, dialect: &dyn Dialect, random: &mut Random) -> String {
        let mut columns = self.columns();
        let key = names(&columns);
        columns.push(("n", n.to_string()));
        columns.extend(self.table.values(dialect, random));
        let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
        let into = format!("{} ({})", self.table.name(), names(&columns));
        dialect.insert(&into, &format!("VALUES ({})", values.join(", ")), &key, conflict)
    }

    pub(super) fn id(&self) -> String {
        match self.table {
            Table::Goods => self.integer().to_string(),
            Table::Shelves => join(&self.place(), &self.name()),
            Table::Notes | Table::Pages => format!("{}-{}", self.place(), self.number),
        }
    }

    /// Path of the row in the API.
    pub(super) fn path(&self) -> String {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let id: String = self
            .id()
            .bytes()
            .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect();
        format!("/{}/{id}", self.table.name())
    }

    /// The key columns as a body of a write.
    pub(super) fn body(&self) -> Value {
        match self.table {
            Table::Goods => json!({ "id": self.integer() }),
            Table::Shelves => json!({ "place": self.place(), "name": self.name() }),
            Table::Notes | Table::Pages => json!({ "id": self.id() }),
        }
    }
}
