//! Every embedded answer is the join that SQLite computes over the same rows.

use diorama::{CborValue, ColumnType};
use rusqlite::{Connection, types::Value as SqlValue};
use serde_json::{Map, Value, json};

use super::{relation, table};
use crate::access::world::World;
use crate::harness::{Random, cells};

/// Relations: of a table, its name, the other table, the column, and whether there are many.
const RELATIONS: [(&str, &str, &str, &str, bool); 8] = [
    ("a", "b", "b", "b_id", false),
    ("b", "all_a", "a", "b_id", true),
    ("b", "up", "b", "b_up", false),
    ("b", "down", "b", "b_up", true),
    ("a", "c", "c", "a_id", true),
    ("c", "a", "a", "a_id", false),
    ("c", "b", "b", "b_id", false),
    ("b", "all_c", "c", "b_id", true),
];
/// Tables with their columns that hold ids of others.
const TABLES: [(&str, &[&str]); 3] = [("a", &["b_id"]), ("b", &["b_up"]), ("c", &["a_id", "b_id"])];
const ROWS: usize = 60;

/// Rows of a query: columns, conditions, order, limit, and embedded rows.
struct Asked {
    table: &'static str,
    filter: Option<(&'static str, usize)>,
    descending: bool,
    limit: usize,
    embeds: Vec<Embed>,
    /// Relations of which one row has to have `n` above a number.
    conditions: Vec<(usize, usize)>,
}

struct Embed {
    key: String,
    relation: usize,
    inner: bool,
    /// The rows; `None` for their number.
    rows: Option<Asked>,
}

fn relations_of(table: &str) -> Vec<usize> {
    (0..RELATIONS.len()).filter(|index| RELATIONS[*index].0 == table).collect()
}

fn random(table: &'static str, level: usize, random: &mut Random) -> Asked {
    let mut number = |most: usize| usize::try_from(random.below(most)).unwrap();
    let filter = match number(4) {
        0 => Some(("gte", number(10))),
        1 => Some(("lt", number(10))),
        _ => None,
    };
    let (descending, limit) = (number(2) == 0, 1 + number(6));
    let own = relations_of(table);
    let mut embeds = Vec::new();
    for count in 0..if level < 2 { number(3) } else { 0 } {
        let mut number = |most: usize| usize::try_from(random.below(most)).unwrap();
        let relation = own[number(own.len())];
        let (inner, is_count) = (number(4) == 0, number(5) == 0);
        let rows = (!is_count).then(|| self::random(RELATIONS[relation].2, level + 1, random));
        embeds.push(Embed { key: format!("e{count}"), relation, inner, rows });
    }
    let mut number = |most: usize| usize::try_from(random.below(most)).unwrap();
    let conditions = match number(4) {
        0 => vec![(own[number(own.len())], number(8))],
        _ => Vec::new(),
    };
    Asked { table, filter, descending, limit, embeds, conditions }
}

impl Asked {
    /// Parameters, as they stand in a query string or in parentheses. One row has no order and no limit.
    fn parameters(&self, is_list: bool) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.filter.map(|(operator, number)| format!("n={operator}.{number}")));
        if is_list {
            let direction = if self.descending { "desc" } else { "asc" };
            all.extend([format!("order=n.{direction}"), format!("limit={}", self.limit)]);
        }
        all.extend(self.conditions.iter().map(|(index, least)| format!("{}.n=gte.{least}", RELATIONS[*index].1)));
        all
    }

    fn select(&self) -> String {
        let embed = |embed: &Embed| {
            let (_, name, _, _, many) = RELATIONS[embed.relation];
            let inside = match &embed.rows {
                None => "count".to_string(),
                Some(rows) => [vec![rows.select()], rows.parameters(many)].concat().join(","),
            };
            format!("{}:{name}{}({inside})", embed.key, if embed.inner { "!inner" } else { "" })
        };
        [vec!["id".to_string(), "n".to_string()], self.embeds.iter().map(embed).collect()].concat().join(",")
    }

    fn url(&self) -> String {
        format!("/{}?select={}&{}", self.table, self.select(), self.parameters(true).join("&"))
    }

    /// Condition of SQL on the rows `alias`.
    fn condition(&self, alias: &str) -> String {
        let mut all = vec!["1".to_string()];
        all.extend(
            self.filter
                .map(|(operator, number)| format!("{alias}.n {} {number}", if operator == "gte" { ">=" } else { "<" })),
        );
        all.extend(self.conditions.iter().map(|(index, least)| {
            let inner = format!("{alias}x");
            format!("EXISTS (SELECT 1 {} AND {inner}.n >= {least})", joined(*index, alias, &inner))
        }));
        for (at, embed) in self.embeds.iter().enumerate().filter(|(_, embed)| embed.inner) {
            let inner = format!("{alias}y{at}");
            let condition = embed.rows.as_ref().map_or("1".to_string(), |rows| rows.condition(&inner));
            all.push(format!("EXISTS (SELECT 1 {} AND {condition})", joined(embed.relation, alias, &inner)));
        }
        all.join(" AND ")
    }

    /// Rows of the answer. `from` has the rows `t`.
    fn rows(&self, from: &str, is_list: bool, database: &Connection) -> Vec<Value> {
        let direction = if self.descending { "DESC" } else { "ASC" };
        let order = format!("ORDER BY t.n IS NULL, t.n {direction}, t.id {direction} LIMIT {}", self.limit);
        let order = if is_list { order } else { String::new() };
        let sql = format!("SELECT t.id, t.n {from} AND {} {order}", self.condition("t"));
        let mut statement = database.prepare(&sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
        let found =
            statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))).unwrap();
        found
            .map(|row| {
                let (id, n) = row.unwrap();
                let mut shown = Map::from_iter([("id".to_string(), json!(id)), ("n".to_string(), json!(n))]);
                for embed in &self.embeds {
                    shown.insert(embed.key.clone(), embed.value(&id, database));
                }
                Value::Object(shown)
            })
            .collect()
    }
}

impl Embed {
    fn value(&self, owner: &str, database: &Connection) -> Value {
        let (from, _, _, _, many) = RELATIONS[self.relation];
        let joined =
            joined(self.relation, "o", "t").replace(" WHERE ", &format!(", {from} o WHERE o.id = '{owner}' AND "));
        match &self.rows {
            None => {
                let sql = format!("SELECT count(*) {joined}");
                json!([{ "count": database.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() }])
            }
            Some(rows) => {
                let mut rows = rows.rows(&joined, many, database);
                if many { Value::Array(rows) } else { rows.pop().unwrap_or(Value::Null) }
            }
        }
    }
}

/// `FROM` and `WHERE` of the rows `inner` that are related to `outer`.
fn joined(relation: usize, outer: &str, inner: &str) -> String {
    let (_, _, other, column, many) = RELATIONS[relation];
    match many {
        true => format!("FROM {other} {inner} WHERE {inner}.{column} = {outer}.id"),
        false => format!("FROM {other} {inner} WHERE {inner}.id = {outer}.{column}"),
    }
}

#[tokio::test]
async fn every_embedded_answer_is_the_join_of_sqlite() {
    let seed = std::env::var("DIORAMA_SEED").ok().map_or_else(|| 20_261_130, |seed| seed.parse().unwrap());
    let mut dice = Random(seed);
    let database = Connection::open_in_memory().unwrap();
    let mut tables = Vec::new();
    for (name, keys) in TABLES {
        let columns: String = keys.iter().map(|key| format!(", {key} TEXT")).collect();
        database.execute_batch(&format!("CREATE TABLE {name} (id TEXT PRIMARY KEY, n INTEGER{columns})")).unwrap();
        let mut rows = Vec::new();
        for number in 0..ROWS {
            let id = format!("{number}");
            let n = Some(dice.below(10)).filter(|n| *n > 0).map(|n| i64::try_from(n).unwrap());
            // Some ids are of no row, and some cells are empty.
            let keys: Vec<Option<String>> =
                keys.iter().map(|_| Some(dice.below(ROWS + 10)).filter(|n| n % 7 > 0).map(|n| n.to_string())).collect();
            let mut values = vec![SqlValue::from(id.clone()), SqlValue::from(n)];
            values.extend(keys.iter().map(|key| SqlValue::from(key.clone())));
            let places = vec!["?"; values.len()].join(",");
            database
                .execute(&format!("INSERT INTO {name} VALUES ({places})"), rusqlite::params_from_iter(values))
                .unwrap();
            let mut row = cells([("id", id.clone().into()), ("n", n.map_or(CborValue::Null, CborValue::from))]);
            for (column, key) in TABLES.iter().find(|table| table.0 == name).unwrap().1.iter().zip(keys) {
                row.insert(*column, key.map_or(CborValue::Null, CborValue::from));
            }
            rows.push((id, row));
        }
        let own = [("id", ColumnType::String), ("n", ColumnType::Integer)];
        let keys = keys.iter().map(|key| (*key, ColumnType::String));
        tables.push((name, table(&own.into_iter().chain(keys).collect::<Vec<_>>()), rows));
    }
    let relations = RELATIONS.map(|(from, name, to, column, many)| (from, relation(name, to, column, many)));
    let world = World::of_tables(tables, &relations, &[]).await;
    let mut embedded = 0;
    for _ in 0..400 {
        let table = TABLES[usize::try_from(dice.below(3)).unwrap()].0;
        let asked = random(table, 0, &mut dice);
        let answer = world.get("", &asked.url()).await;
        assert_eq!(answer.status, 200, "{}: {}", asked.url(), answer.text());
        let expected = Value::Array(asked.rows(&format!("FROM {table} t WHERE 1"), true, &database));
        assert_eq!(answer.json(), expected, "seed {seed}: {}", asked.url());
        embedded += answer.text().matches("\"e0\":").count();
    }
    assert!(embedded > 200, "{embedded} embedded rows");
}
