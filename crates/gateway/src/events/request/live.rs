//! What a live query asks for: the parameters of `/{dio}/live` and of a live `/{dio}/_aggregate`, and the members of a `subscribe`
//! frame with `live`.

use std::sync::Arc;

use super::{ConnectionOptions, StartPoint, of_type, since, unknown, wrong};
use crate::http::problem::{ApiError, Code};
use crate::options::MountOptions;
use crate::rows::aggregate_request::AggregateRequest;
use diorama_core::record::CborValue;
use diorama_core::vista::query::Aggregation;
use diorama_core::vista::query::url::{self, ParamOptions, percent_decoded};
use diorama_core::vista::{Query, Schema};

/// Rows of a window, at most: each change of it looks at all of them.
pub(crate) const MOST_ROWS: u64 = 1_000;
/// Parameters that are no columns.
const OWN: [&str; 5] = ["since", "records", "heartbeat", "wait", "live"];

/// What a live query asks for.
#[derive(Clone, Debug)]
pub(crate) struct LiveSubscription {
    /// The position that a list is of that the client has.
    pub(in crate::events) since: Option<StartPoint>,
    /// Whether rows are sent, or their ids only.
    pub(in crate::events) records: bool,
    /// What is shown.
    pub(in crate::events) of: LiveTarget,
}

/// What a live query shows.
#[derive(Clone, Debug)]
pub(crate) enum LiveTarget {
    /// A window of rows; it has a limit.
    Rows(Arc<Query>),
    /// Groups of the rows that pass a filter, and a window of these.
    Groups { aggregation: Arc<Aggregation>, rows: Arc<Query>, page: Arc<Query> },
}

impl LiveSubscription {
    /// Reads the query string of `/{dio}/live`; nothing is ignored.
    pub(in crate::events) fn parse(
        raw: &str,
        schema: &Schema,
        options: &MountOptions,
    ) -> Result<(LiveSubscription, ConnectionOptions), ApiError> {
        let parameters = ParamOptions { max_limit: MOST_ROWS.min(options.max_limit), extra: &OWN };
        let asked = url::parse(raw, schema, &parameters)?;
        let mut subscription = LiveSubscription {
            since: None,
            records: true,
            of: LiveTarget::Rows(windowed(asked.query, schema, options)?.into()),
        };
        let mut connection = ConnectionOptions::default();
        for (name, value) in &asked.extra {
            match name.as_str() {
                "live" => return Err(unknown(name).hint("the path says it")),
                _ => subscription.set(name, value, &mut connection)?,
            }
        }
        Ok((subscription, connection))
    }

    /// Reads the query string of `/{dio}/_aggregate`, `None` if it is not to be live.
    pub(crate) fn parse_groups(
        raw: &str,
        schema: &Schema,
        options: &MountOptions,
    ) -> Result<Option<(LiveSubscription, ConnectionOptions)>, ApiError> {
        let decoded = |text: &str| percent_decoded(text, true).map(std::borrow::Cow::into_owned).unwrap_or_default();
        let name = |piece: &str| decoded(piece.split('=').next().unwrap_or_default());
        let (own, asked): (Vec<&str>, Vec<&str>) =
            raw.split('&').partition(|piece| OWN.contains(&name(piece).as_str()));
        let value = |piece: &str| decoded(piece.split_once('=').map_or("", |(_, value)| value));
        let Some(live) = own.iter().find(|piece| name(piece) == "live") else { return Ok(None) };
        match value(live).as_str() {
            "" | "true" => {}
            "false" => return Ok(None),
            _ => return Err(wrong("live", "is true or false")),
        }
        let AggregateRequest { aggregation, rows, mut groups, .. } =
            AggregateRequest::read(&asked.join("&"), schema, options)?;
        groups.limit = Some(groups.limit.unwrap_or(MOST_ROWS));
        check_limit(&groups)?;
        let of = LiveTarget::Groups { aggregation, rows: rows.into(), page: groups.into() };
        let (mut subscription, mut connection) =
            (LiveSubscription { since: None, records: true, of }, ConnectionOptions::default());
        for piece in own {
            let name = name(piece);
            if name != "live" {
                subscription.set(&name, &value(piece), &mut connection)?;
            }
        }
        Ok(Some((subscription, connection)))
    }

    /// Reads a `subscribe` frame's members but those that say what is subscribed to.
    pub(in crate::events) fn from_frame(
        members: &[(CborValue, CborValue)],
        schema: &Schema,
        options: &MountOptions,
    ) -> Result<LiveSubscription, ApiError> {
        let (mut from, mut records, mut query) = (None, true, Vec::new());
        for (key, value) in members {
            match (key.as_text().unwrap_or_default(), value) {
                ("type" | "sub" | "dio" | "live", _) => {}
                ("since", CborValue::Text(text)) => from = Some(read_since(text)?),
                ("records", CborValue::Bool(said)) => records = *said,
                (name @ ("since" | "records"), _) => return Err(of_type(name)),
                (name @ ("snapshot" | "ids" | "ops"), _) => return Err(of_events(name)),
                _ => query.push((key.clone(), value.clone())),
            }
        }
        let query = Query::from_json(&CborValue::Map(query), schema);
        let query = query.map_err(|error| ApiError::new(Code::InvalidParameter, error.to_string()))?;
        Ok(LiveSubscription { since: from, records, of: LiveTarget::Rows(windowed(query, schema, options)?.into()) })
    }

    fn set(&mut self, name: &str, value: &str, connection: &mut ConnectionOptions) -> Result<(), ApiError> {
        match name {
            "since" => self.since = Some(read_since(value)?),
            "records" => self.records = value.parse().map_err(|_| wrong(name, "is true or false"))?,
            _ => connection.set(name, value)?,
        }
        Ok(())
    }
}

/// A window of the rows: a list's, but no longer than can be followed.
fn windowed(mut query: Query, schema: &Schema, options: &MountOptions) -> Result<Query, ApiError> {
    if query.after.is_some() {
        return Err(wrong("after", "makes no sense for live rows: their window is a place in the list")
            .hint("offset and limit say which"));
    }
    query.limit = Some(query.limit.unwrap_or_else(|| options.limit_of(&query, schema).min(MOST_ROWS)));
    check_limit(&query)?;
    Ok(query)
}

fn check_limit(query: &Query) -> Result<(), ApiError> {
    match query.limit {
        Some(limit) if limit > MOST_ROWS => {
            Err(ApiError::new(Code::LimitTooLarge, format!("limit is at most {MOST_ROWS} for live queries")))
        }
        _ => Ok(()),
    }
}

fn read_since(text: &str) -> Result<StartPoint, ApiError> {
    match since(text) {
        Some(StartPoint::Position(position)) => Ok(StartPoint::Position(position)),
        _ => Err(wrong("since", "is the position of a list that this live query gave")),
    }
}

fn of_events(name: &str) -> ApiError {
    wrong(name, "makes no sense for live rows").hint("events take it: subscribe without live")
}
