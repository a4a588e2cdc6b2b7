//! Requests of live queries: the parameters of `/{dio}/live` and of a live `/{dio}/_aggregate`, and the members of a
//! `subscribe` frame with `live`.

use std::sync::Arc;

use super::{ConnectionOptions, StartPoint, invalid, since, unknown, wrong_type};
use crate::http::problem::{ApiError, Code};
use crate::options::MountOptions;
use crate::rows::aggregate_request::AggregateRequest;
use diorama_core::record::CborValue;
use diorama_core::vista::query::Aggregation;
use diorama_core::vista::query::url::{self, ParamOptions, percent_decoded};
use diorama_core::vista::{Query, Schema};

/// Maximum number of rows in a window. Every change compares all of them.
pub(crate) const MOST_ROWS: u64 = 1_000;
/// Parameters of live queries; other names are columns.
const PARAMETERS: [&str; 5] = ["since", "records", "heartbeat", "wait", "live"];

/// Parsed subscription to a live query.
#[derive(Clone, Debug)]
pub(crate) struct LiveSubscription {
    /// Position of the client's list, if it resumes.
    pub(in crate::events) since: Option<StartPoint>,
    /// True if rows are sent, false if only their ids are.
    pub(in crate::events) records: bool,
    /// Query that is kept live.
    pub(in crate::events) target: LiveTarget,
}

/// Query of a live query.
#[derive(Clone, Debug)]
pub(crate) enum LiveTarget {
    /// Window of rows; the query has a limit.
    Rows(Arc<Query>),
    /// Groups of the rows that pass a filter, and a window of the groups.
    Groups { aggregation: Arc<Aggregation>, rows: Arc<Query>, page: Arc<Query> },
}

impl LiveSubscription {
    /// Parses the query string of `/{dio}/live`. Unknown parameters are errors.
    pub(in crate::events) fn parse(
        raw: &str,
        schema: &Schema,
        options: &MountOptions,
    ) -> Result<(LiveSubscription, ConnectionOptions), ApiError> {
        let parameters = ParamOptions { max_limit: MOST_ROWS.min(options.max_limit), extra: &PARAMETERS, holes: false };
        let parsed = url::parse(raw, schema, &parameters)?;
        let mut subscription = LiveSubscription {
            since: None,
            records: true,
            target: LiveTarget::Rows(windowed(parsed.query, schema, options)?.into()),
        };
        let mut connection = ConnectionOptions::default();
        for (name, value) in &parsed.extra {
            match name.as_str() {
                "live" => return Err(unknown(name).hint("every query of this path is live")),
                _ => subscription.set(name, value, &mut connection)?,
            }
        }
        Ok((subscription, connection))
    }

    /// Parses the query string of `/{dio}/_aggregate`; `None` if it is not live.
    pub(crate) fn parse_groups(
        raw: &str,
        schema: &Schema,
        options: &MountOptions,
    ) -> Result<Option<(LiveSubscription, ConnectionOptions)>, ApiError> {
        let decoded = |text: &str| percent_decoded(text, true).map(std::borrow::Cow::into_owned).unwrap_or_default();
        let name = |piece: &str| decoded(piece.split('=').next().unwrap_or_default());
        let (own, rest): (Vec<&str>, Vec<&str>) =
            raw.split('&').partition(|piece| PARAMETERS.contains(&name(piece).as_str()));
        let value = |piece: &str| decoded(piece.split_once('=').map_or("", |(_, value)| value));
        let Some(live) = own.iter().find(|piece| name(piece) == "live") else { return Ok(None) };
        match value(live).as_str() {
            "" | "true" => {}
            "false" => return Ok(None),
            _ => return Err(invalid("live", "must be true or false")),
        }
        let AggregateRequest { aggregation, rows, mut groups, .. } =
            AggregateRequest::read(&rest.join("&"), schema, options)?;
        groups.limit = Some(groups.limit.unwrap_or(MOST_ROWS));
        check_limit(&groups)?;
        let target = LiveTarget::Groups { aggregation, rows: rows.into(), page: groups.into() };
        let (mut subscription, mut connection) =
            (LiveSubscription { since: None, records: true, target }, ConnectionOptions::default());
        for piece in own {
            let name = name(piece);
            if name != "live" {
                subscription.set(&name, &value(piece), &mut connection)?;
            }
        }
        Ok(Some((subscription, connection)))
    }

    /// Parses the members of a `subscribe` frame, without those that name the resource and the subscription.
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
                ("records", CborValue::Bool(value)) => records = *value,
                (name @ ("since" | "records"), _) => return Err(wrong_type(name)),
                (name @ ("snapshot" | "ids" | "ops"), _) => return Err(event_parameter(name)),
                _ => query.push((key.clone(), value.clone())),
            }
        }
        let query = Query::from_json(&CborValue::Map(query), schema);
        let query = query.map_err(|error| ApiError::new(Code::InvalidParameter, error.to_string()))?;
        Ok(LiveSubscription {
            since: from,
            records,
            target: LiveTarget::Rows(windowed(query, schema, options)?.into()),
        })
    }

    fn set(&mut self, name: &str, value: &str, connection: &mut ConnectionOptions) -> Result<(), ApiError> {
        match name {
            "since" => self.since = Some(read_since(value)?),
            "records" => self.records = value.parse().map_err(|_| invalid(name, "must be true or false"))?,
            _ => connection.set(name, value)?,
        }
        Ok(())
    }
}

/// Adds the window to a query: the limit of a list, but at most [`MOST_ROWS`].
fn windowed(mut query: Query, schema: &Schema, options: &MountOptions) -> Result<Query, ApiError> {
    if query.after.is_some() {
        return Err(invalid("after", "is not supported for live rows, whose window is given by position")
            .hint("use offset and limit"));
    }
    query.limit = Some(query.limit.unwrap_or_else(|| options.limit_of(&query, schema).min(MOST_ROWS)));
    check_limit(&query)?;
    Ok(query)
}

fn check_limit(query: &Query) -> Result<(), ApiError> {
    match query.limit {
        Some(limit) if limit > MOST_ROWS => {
            Err(ApiError::new(Code::LimitTooLarge, format!("limit: at most {MOST_ROWS} for live queries")))
        }
        _ => Ok(()),
    }
}

fn read_since(text: &str) -> Result<StartPoint, ApiError> {
    match since(text) {
        Some(StartPoint::Position(position)) => Ok(StartPoint::Position(position)),
        _ => Err(invalid("since", "must be a position that this live query has sent")),
    }
}

fn event_parameter(name: &str) -> ApiError {
    invalid(name, "is not supported for live rows").hint("subscribe to events, without live")
}
