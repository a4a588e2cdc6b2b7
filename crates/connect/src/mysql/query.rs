//! Statements in the binary log: begins and ends of transactions, changes of tables, and changes of rows that are not logged as rows.

use super::table::Place;

/// Meaning of a statement for the feed of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Begin,
    Commit,
    Rollback,
    /// Part of the transaction is undone.
    RollbackToSavepoint,
    /// Begin of a transaction that is only prepared, with its name.
    Prepare(String),
    /// The named transaction, which was prepared before, is committed or undone.
    Settle {
        name: String,
        is_commit: bool,
    },
    /// All rows of the table are deleted.
    Truncate,
    /// The table may be another one, or have other rows.
    Define,
    /// Rows are changed by a statement; which ones is not known.
    Write,
    Other,
}

/// Words with which a statement begins that changes rows.
const WRITES: [&str; 8] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "MERGE"];

/// Words with which a statement begins that may change a table.
const DEFINITIONS: [&str; 5] = ["ALTER", "CREATE", "DROP", "RENAME", "SET"];

impl Meaning {
    /// Returns the meaning of `sql`, executed in `database`, for the table at `place`.
    pub(super) fn of(sql: &str, database: &str, place: &Place, ignores_case: bool) -> Meaning {
        let mut words = words(sql);
        let mut next = || words.next().unwrap_or_default().to_ascii_uppercase();
        let verb = next();
        match verb.as_str() {
            "BEGIN" => return Meaning::Begin,
            "COMMIT" => return Meaning::Commit,
            "ROLLBACK" => {
                return if next().is_empty() { Meaning::Rollback } else { Meaning::RollbackToSavepoint };
            }
            "START" => return Meaning::Begin,
            "XA" => {
                let step = next();
                let name = sql.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
                let name = name.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim());
                let name = name.strip_suffix("ONE PHASE").unwrap_or(name).trim().to_string();
                return match step.as_str() {
                    "START" | "BEGIN" => Meaning::Prepare(name),
                    "COMMIT" => Meaning::Settle { name, is_commit: true },
                    "ROLLBACK" => Meaning::Settle { name, is_commit: false },
                    _ => Meaning::Other,
                };
            }
            _ => {}
        }
        let is_write = |word: &str| WRITES.iter().any(|write| write.eq_ignore_ascii_case(word));
        // `SET STATEMENT ... FOR` precedes any other statement.
        if is_write(&verb) || verb == "SET" && self::words(sql).any(|word| is_write(&word)) {
            return Meaning::Write;
        }
        let is_same = |a: &str, b: &str| if ignores_case { a.eq_ignore_ascii_case(b) } else { a == b };
        let mentions = |name: &str| self::words(sql).any(|word| is_same(&word, name));
        let is_ours = mentions(&place.table) && (is_same(database, &place.database) || mentions(&place.database));
        let is_database =
            verb == "DROP" && matches!(next().as_str(), "DATABASE" | "SCHEMA") && mentions(&place.database);
        match verb.as_str() {
            "TRUNCATE" if is_ours => Meaning::Truncate,
            verb if DEFINITIONS.contains(&verb) && (is_ours || is_database) => Meaning::Define,
            _ => Meaning::Other,
        }
    }
}

/// Returns the names and keywords of a statement, without comments, quotes and punctuation. Texts count as names.
fn words(sql: &str) -> impl Iterator<Item = String> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            let first = rest.chars().next()?;
            if let Some(comment) = rest.strip_prefix("/*") {
                // The server executes what is in a comment with a version.
                let code = comment.strip_prefix("M!").or_else(|| comment.strip_prefix('!'));
                rest = match code {
                    Some(code) => code.trim_start_matches(|char: char| char.is_ascii_digit()),
                    None => comment.split_once("*/").map_or("", |(_, after)| after),
                };
            } else if let Some(comment) = rest.strip_prefix('#').or_else(|| rest.strip_prefix("-- ")) {
                rest = comment.split_once('\n').map_or("", |(_, after)| after);
            } else if let '`' | '"' | '\'' = first {
                return Some(quoted(&mut rest, first));
            } else if is_name(first) {
                let end = rest.find(|char| !is_name(char)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = after;
                return Some(word.to_string());
            } else {
                rest = &rest[first.len_utf8()..];
            }
        }
    })
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '$') || !char.is_ascii()
}

/// Takes a name in quotes, in which a quote is written twice.
pub(super) fn quoted(rest: &mut &str, quote: char) -> String {
    let mut name = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        if char != quote {
            name.push(char);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            name.push(quote);
        } else {
            *rest = &rest[at + 1..];
            return name;
        }
    }
    *rest = "";
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Meaning {
        Meaning::of(sql, "shop", &Place { database: "shop".into(), table: "orders".into() }, false)
    }

    #[test]
    fn statements_are_recognized_by_their_words() {
        for sql in ["TRUNCATE TABLE orders", "truncate `shop`.`orders`", "/* x */ TRUNCATE orders"] {
            assert_eq!(of(sql), Meaning::Truncate, "{sql}");
        }
        for sql in [
            "ALTER TABLE orders ADD n INT",
            "DROP TABLE `orders` /* generated by server */",
            "RENAME TABLE `orders` TO `old`, new TO orders",
            "CREATE INDEX i ON shop.orders (n)",
            "SET STATEMENT max_statement_time = 5 FOR ALTER TABLE orders ADD n INT",
            "DROP DATABASE shop",
            "/*!50003 CREATE TABLE orders (id INT) */",
        ] {
            assert_eq!(of(sql), Meaning::Define, "{sql}");
        }
        for sql in
            ["ALTER TABLE orders_old ADD n INT", "CREATE TABLE lines (id INT)", "GRANT SELECT ON orders TO x", ""]
        {
            assert_eq!(of(sql), Meaning::Other, "{sql}");
        }
        for sql in ["INSERT INTO t VALUES (1)", "-- why\nupdate t set n = 1", "REPLACE t SELECT 1"] {
            assert_eq!(of(sql), Meaning::Write, "{sql}");
        }
        assert_eq!(of("ALTER TABLE `Orders` ADD n INT"), Meaning::Other, "names differ in case");
        let place = Place { database: "shop".into(), table: "orders".into() };
        let elsewhere = |sql: &str, ignores_case| Meaning::of(sql, "test", &place, ignores_case);
        assert_eq!(elsewhere("ALTER TABLE orders ADD n INT", false), Meaning::Other, "of another database");
        assert_eq!(elsewhere("ALTER TABLE Shop.Orders ADD n INT", true), Meaning::Define);
    }

    #[test]
    fn transactions_are_recognized() {
        assert_eq!((of("BEGIN"), of("COMMIT"), of("ROLLBACK")), (Meaning::Begin, Meaning::Commit, Meaning::Rollback));
        assert_eq!(of("ROLLBACK TO `a`"), Meaning::RollbackToSavepoint);
        assert_eq!(of("SAVEPOINT `a`"), Meaning::Other);
        assert_eq!(of("XA START X'61',X'',1"), Meaning::Prepare("X'61',X'',1".into()));
        let settle = |is_commit| Meaning::Settle { name: "X'61',X'',1".into(), is_commit };
        assert_eq!((of("XA COMMIT X'61',X'',1"), of("XA ROLLBACK X'61',X'',1")), (settle(true), settle(false)));
    }
}
