//! Requests of subscribers: the parameters of `/events`, and the members of a `subscribe` frame.

mod live;

pub(super) use live::LiveTarget;
pub(crate) use live::{LiveSubscription, MOST_ROWS};

use std::collections::HashSet;
use std::time::Duration;

use super::frame::Kind;
use crate::http::problem::{ApiError, Code};
use diorama_core::dio::Position;
use diorama_core::record::CborValue;
use diorama_core::vista::query::url::{self, ParamOptions};
use diorama_core::vista::{Query, Schema};

/// Maximum number of ids in one subscription.
const MOST_IDS: usize = 1_000;
/// Default interval of heartbeats, in seconds.
pub(super) const HEARTBEAT: u64 = 25;
/// Maximum time that a long poll waits for events, in seconds.
const MOST_WAIT: u64 = 30;
/// Parameters of events; other names are columns.
const PARAMETERS: [&str; 8] = ["since", "snapshot", "records", "ids", "ops", "heartbeat", "wait", "dio"];
/// Parameters of lists, which are not supported for events.
const LIST_PARAMETERS: [&str; 4] = ["order", "limit", "offset", "after"];

/// Parsed subscription to events.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Subscription {
    /// Start point; `None` means now.
    pub(super) since: Option<StartPoint>,
    pub(super) snapshot: SnapshotMode,
    /// True if rows are sent with their events.
    pub(super) records: bool,
    /// Ids of the rows to send events for; `None` for all rows.
    pub(super) ids: Option<HashSet<String>>,
    /// Kinds of changes to send; `None` for all.
    pub(super) ops: Option<Ops>,
    /// Filter and projection of the rows.
    pub(super) query: Query,
}

/// Options of a connection, which apply to all of its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    /// Seconds between two heartbeats.
    pub(super) heartbeat: u64,
    /// Seconds that a long poll waits for the first event.
    pub(super) wait: u64,
}

impl Default for ConnectionOptions {
    fn default() -> ConnectionOptions {
        ConnectionOptions { heartbeat: HEARTBEAT, wait: 0 }
    }
}

/// Start point of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartPoint {
    Now,
    Earliest,
    Position(Position),
}

/// Choice of a snapshot of the rows before the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SnapshotMode {
    #[default]
    None,
    Full,
    /// If the subscription does not resume from a position.
    Auto,
}

/// Kinds of changes that are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ops {
    insert: bool,
    update: bool,
    delete: bool,
}

impl Ops {
    /// Returns true if an event of this kind is sent. Failures and invalidations are always sent, commits of writes never.
    pub(super) fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Inserted | Kind::Entered => self.insert,
            Kind::Changed => self.update,
            Kind::Removed | Kind::Left => self.delete,
            Kind::Committed => false,
            Kind::Failed | Kind::Invalidated => true,
        }
    }

    /// Returns true if a newest state of this kind is sent. Unlike in [`Ops::has`], a change may be an insert.
    pub(super) fn has_newest(self, kind: Kind) -> bool {
        self.has(kind) || kind == Kind::Changed && self.insert
    }

    fn read(text: &str) -> Option<Ops> {
        let mut ops = Ops::default();
        for word in text.split(',') {
            match word {
                "insert" => ops.insert = true,
                "update" => ops.update = true,
                "delete" => ops.delete = true,
                _ => return None,
            }
        }
        Some(ops)
    }
}

/// Parses the query string of one resource's `/events`. Unknown parameters are errors.
pub(super) fn parse(raw: &str, schema: &Schema) -> Result<(Subscription, ConnectionOptions), ApiError> {
    refuse_paging(raw)?;
    let parsed = url::parse(raw, schema, &ParamOptions { extra: &PARAMETERS, ..ParamOptions::default() })?;
    if !parsed.query.order.is_empty() || parsed.query.limit.is_some() || parsed.query.offset > 0 {
        return Err(list_parameter("an order or a page"));
    }
    let mut subscription = Subscription { records: true, query: parsed.query, ..Subscription::default() };
    let mut connection = ConnectionOptions::default();
    for (name, value) in &parsed.extra {
        match name.as_str() {
            "heartbeat" | "wait" => connection.set(name, value)?,
            "dio" => {
                return Err(
                    unknown(name).hint("the path names the resource; GET /events?dio=a,b subscribes to several")
                );
            }
            _ => subscription.set(name, value)?,
        }
    }
    Ok((subscription, connection))
}

/// Parsed subscriptions to several resources on one connection.
pub(super) struct ManySubscriptions {
    /// Names of the resources, each with its subscription.
    pub(super) subs: Vec<(String, Subscription)>,
    pub(super) connection: ConnectionOptions,
}

/// Parses the query string of `/events`: resources, and the options of all their subscriptions.
pub(super) fn parse_many(parameters: &[(String, String)], last: Option<&str>) -> Result<ManySubscriptions, ApiError> {
    let (mut names, mut since, mut connection): (Vec<&str>, _, _) = (Vec::new(), last, ConnectionOptions::default());
    let mut subscription = Subscription { records: true, ..Subscription::default() };
    for (name, value) in parameters {
        match name.as_str() {
            "dio" => names.extend(value.split(',').filter(|name| !name.is_empty())),
            "since" => since = last.or(Some(value)),
            "heartbeat" | "wait" => connection.set(name, value)?,
            "snapshot" | "records" | "ops" => subscription.set(name, value)?,
            _ if LIST_PARAMETERS.contains(&name.as_str()) => return Err(list_parameter(name)),
            _ => {
                let hint = "the parameters are dio, since, snapshot, records, ops, heartbeat and wait; filters are \
                    parameters of the events of one resource, or members of a subscribe frame";
                return Err(unknown(name).hint(hint));
            }
        }
    }
    let mut subs: Vec<(String, Subscription)> = Vec::new();
    for name in names {
        if subs.iter().any(|(known, _)| known == name) {
            return Err(invalid("dio", format!("names {name:?} twice")));
        }
        subs.push((name.to_string(), subscription.clone()));
    }
    match since {
        Some(all) if !all.contains('=') => {
            subs.iter_mut().try_for_each(|(_, subscription)| subscription.set("since", all))?
        }
        Some(each) => {
            for part in each.split(';') {
                let (name, position) = part.split_once('=').unwrap_or((part, ""));
                let Some((_, subscription)) = subs.iter_mut().find(|(known, _)| known == name) else {
                    return Err(invalid("since", format!("has a position of {name:?}, which is not subscribed to")));
                };
                subscription.set("since", position)?;
            }
        }
        None => {}
    }
    Ok(ManySubscriptions { subs, connection })
}

impl ConnectionOptions {
    /// Returns the time that a long poll waits.
    pub(super) fn wait(self) -> Duration {
        Duration::from_secs(self.wait)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let (field, range) = match name {
            "heartbeat" => (&mut self.heartbeat, 5..=60),
            _ => (&mut self.wait, 0..=MOST_WAIT),
        };
        let seconds = value.parse().ok().filter(|seconds| range.contains(seconds));
        let (low, high) = (range.start(), range.end());
        *field = seconds.ok_or_else(|| invalid(name, format!("must be a number of seconds from {low} to {high}")))?;
        Ok(())
    }
}

impl Subscription {
    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let bad = |detail: &str| invalid(name, detail);
        match name {
            "since" => {
                self.since = Some(since(value).ok_or_else(|| bad("must be a position (EPOCH:SEQ), now or earliest"))?)
            }
            "records" => self.records = value.parse().map_err(|_| bad("must be true or false"))?,
            "snapshot" => {
                self.snapshot = match value {
                    "none" => SnapshotMode::None,
                    "full" => SnapshotMode::Full,
                    "auto" => SnapshotMode::Auto,
                    _ => return Err(bad("must be none, full or auto")),
                }
            }
            "ops" => self.ops = Some(Ops::read(value).ok_or_else(|| bad("takes insert, update and delete"))?),
            "ids" => self.add_ids(value.split(','))?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn add_ids<'a>(&mut self, new: impl IntoIterator<Item = &'a str>) -> Result<(), ApiError> {
        let ids = self.ids.get_or_insert_with(HashSet::new);
        ids.extend(new.into_iter().filter(|id| !id.is_empty()).map(str::to_string));
        match ids.len() {
            1..=MOST_IDS => Ok(()),
            _ => Err(invalid("ids", "takes 1 to 1000 ids")),
        }
    }

    /// Parses the members of a `subscribe` frame, without those that name the resource and the subscription.
    pub(super) fn from_frame(members: &[(CborValue, CborValue)], schema: &Schema) -> Result<Subscription, ApiError> {
        let mut subscription = Subscription { records: true, ..Subscription::default() };
        let mut query = Vec::new();
        for (key, value) in members {
            let name = key.as_text().unwrap_or_default();
            match (name, value) {
                ("type" | "sub" | "dio" | "live", _) => {}
                (name, CborValue::Text(text)) if matches!(name, "since" | "snapshot") => {
                    subscription.set(name, text)?
                }
                ("records", CborValue::Bool(records)) => subscription.records = *records,
                ("ids" | "ops", CborValue::Array(words)) => {
                    let words = words.iter().map(|word| word.as_text().map(str::to_string).or_else(|| number(word)));
                    let words =
                        words.collect::<Option<Vec<_>>>().ok_or_else(|| invalid(name, "must be an array of texts"))?;
                    match name {
                        "ids" => subscription.add_ids(words.iter().map(String::as_str))?,
                        _ => subscription.set("ops", &words.join(","))?,
                    }
                }
                (name, _) if LIST_PARAMETERS.contains(&name) => return Err(list_parameter(name)),
                (name, _) if PARAMETERS.contains(&name) => return Err(wrong_type(name)),
                _ => query.push((key.clone(), value.clone())),
            }
        }
        let query = Query::from_json(&CborValue::Map(query), schema);
        subscription.query = query.map_err(|error| ApiError::new(Code::InvalidParameter, error.to_string()))?;
        Ok(subscription)
    }
}

fn number(value: &CborValue) -> Option<String> {
    value.as_integer().map(|number| i128::from(number).to_string())
}

/// Parses a position, `now` or `earliest`.
pub(super) fn since(value: &str) -> Option<StartPoint> {
    Some(match value {
        "now" => StartPoint::Now,
        "earliest" => StartPoint::Earliest,
        position => StartPoint::Position(position.parse().ok()?),
    })
}

fn refuse_paging(raw: &str) -> Result<(), ApiError> {
    let mut names = raw.split('&').map(|piece| piece.split('=').next().unwrap_or_default());
    names.find(|name| LIST_PARAMETERS.contains(name)).map_or(Ok(()), |name| Err(list_parameter(name)))
}

fn list_parameter(what: &str) -> ApiError {
    invalid(what, "is not supported for events, which are a log and not a list")
        .hint("use /{resource}/live for a window of rows; filters, select and q are supported for events")
}

fn wrong_type(name: &str) -> ApiError {
    invalid(name, "has the wrong type")
}

fn invalid(name: &str, detail: impl AsRef<str>) -> ApiError {
    ApiError::new(Code::InvalidParameter, format!("{name} {}", detail.as_ref()))
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(Code::UnknownParameter, format!("unknown parameter {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::{Column, ColumnType};

    fn read(query: &str) -> Result<(Subscription, ConnectionOptions), ApiError> {
        let columns = [("id", ColumnType::String), ("price", ColumnType::Integer)];
        parse(query, &Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec()))
    }

    #[test]
    fn parameters_are_read_or_refused() {
        let query =
            "since=K3V9Q2M7XA:1042&records=false&ids=7,8&ids=muffin%20top&heartbeat=5&wait=30&ops=insert,delete";
        let (subscription, connection) = read(&format!("{query}&price=gte.100&q=bun&select=id&snapshot=auto")).unwrap();
        assert_eq!(subscription.since, Some(StartPoint::Position("K3V9Q2M7XA:1042".parse().unwrap())));
        assert!(!subscription.records && subscription.snapshot == SnapshotMode::Auto);
        assert_eq!(subscription.ids, Some(["7", "8", "muffin top"].map(String::from).into()));
        assert_eq!(connection, ConnectionOptions { heartbeat: 5, wait: 30 });
        assert_eq!(subscription.ops, Some(Ops { insert: true, update: false, delete: true }));
        assert!(
            !subscription.query.is_unfiltered()
                && subscription.query.search.is_some()
                && subscription.query.select.len() == 1
        );
        assert_eq!(read("").unwrap().0.since, None);
        for refused in ["since=yesterday", "records=maybe", "heartbeat=1", "wait=31", "ids=", "limit=5", "ops=x"] {
            assert_eq!(read(refused).unwrap_err().code(), Code::InvalidParameter, "{refused}");
        }
        for refused in ["order=id", "offset=0", "after=", "_sort=id", "snapshot=yes", "price=gte.x"] {
            assert_eq!(read(refused).unwrap_err().code(), Code::InvalidParameter, "{refused}");
        }
        assert!(read("since=now&live=true").is_err(), "a live query has a path of its own");
        for refused in ["colour=red", "dio=a"] {
            assert!(read(refused).unwrap_err().code().as_str().starts_with("unknown"), "{refused}");
        }
    }

    #[test]
    fn positions_are_given_one_by_one_or_for_all() {
        let text =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
        let many = parse_many(&text(&[("dio", "a,b"), ("since", "a=E:1;b=now")]), None).unwrap();
        let since: Vec<_> = many.subs.into_iter().map(|(_, subscription)| subscription.since.unwrap()).collect();
        assert_eq!(since, [StartPoint::Position("E:1".parse().unwrap()), StartPoint::Now]);
        let many = parse_many(&text(&[("dio", "a"), ("dio", "b"), ("since", "now")]), Some("earliest")).unwrap();
        assert!(many.subs.iter().all(|(_, subscription)| subscription.since == Some(StartPoint::Earliest)));
        for refused in [("dio", "a,a"), ("since", "c=E:1"), ("price", "5"), ("limit", "5")] {
            assert!(parse_many(&text(&[("dio", "a"), refused]), None).is_err(), "{refused:?}");
        }
    }
}
