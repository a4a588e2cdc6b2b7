//! The AsyncAPI document: the channels of events and live queries, with the schemas of frames that the OpenAPI document has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};

use super::parameters;
use super::{Api, BEARER, frames, rows, shapes, titles};
use crate::http::auth::Auth;
use crate::state::{GatewayState, Resource};

const ABOUT: &str = "What a Diorama server pushes, over WebSocket. The same frames come as server-sent events (`Accept: \
    text/event-stream`) and as the answers of long polls; see openapi.json. Clients ignore types and members they do not \
    know.\n\nFrames are JSON text. Where the subprotocol `diorama.v1+cbor` is agreed on, they are the same maps as CBOR (RFC \
    8949), one in each binary message, and clients speak so too.";

/// Schemas while they are gathered: those that messages need, and those that these need.
struct Schemas<'a> {
    all: &'a BTreeMap<String, RefOr<Schema>>,
    used: BTreeMap<String, Value>,
    messages: Map<String, Value>,
}

/// The document.
pub(super) fn build(gateway: &GatewayState) -> Value {
    let mut api = Api::default();
    shapes::add(&mut api);
    frames::add(&mut api);
    frames::tagged(&mut api);
    let dios: Vec<(String, &Resource)> =
        titles(gateway.dios.keys()).into_iter().zip(gateway.dios.values().map(|at| &**at)).collect();
    dios.iter().for_each(|(title, at)| rows::add(&mut api, title, at));
    let mut schemas = Schemas { all: &api.schemas, used: BTreeMap::new(), messages: Map::new() };
    let (mut channels, mut operations) = (Map::new(), Map::new());
    let mut add = |channel: Channel<'_>| {
        operations.extend(channel.operations());
        channels.insert(channel.id.clone(), channel.describe(&mut schemas));
    };
    add(many());
    for (title, at) in &dios {
        of_dio(title, at).into_iter().for_each(&mut add);
    }
    let mut components = json!({ "messages": schemas.messages, "schemas": schemas.used });
    let mut server = json!({
        "host": "{host}",
        "protocol": "ws",
        "description": "Where the server is; `wss` behind a proxy that speaks TLS.",
        "variables": { "host": { "default": "127.0.0.1:8080", "description": "Its name and port." } },
    });
    if !gateway.base_path.is_empty() {
        server["pathname"] = json!(gateway.base_path);
    }
    if matches!(gateway.auth, Auth::Tokens(_)) {
        let about = "One of the server's tokens, in `Authorization`; where that cannot be set, as the subprotocol \
            `bearer.TOKEN` beside the one that is spoken.";
        let scheme = json!({ "type": "http", "scheme": "bearer", "description": about });
        components["securitySchemes"] = json!({ BEARER: scheme });
        server["security"] = json!([{ "$ref": format!("#/components/securitySchemes/{BEARER}") }]);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Diorama",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "servers": { "this": server },
        "channels": channels,
        "operations": operations,
        "components": components,
    })
}

/// Something to connect to.
struct Channel<'a> {
    id: String,
    address: String,
    title: String,
    about: &'a str,
    /// What the path names, and what the query may say.
    path: Map<String, Value>,
    query: Vec<Parameter>,
    /// Schemas of what the server says, and of what the client may.
    sends: Vec<String>,
    takes: Vec<&'static str>,
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_string).into()
}

/// The frames of any subscription to events, beside those with rows.
fn of_events() -> Vec<String> {
    frames::OF_EVENTS.iter().map(|name| name.to_string()).collect()
}

fn many() -> Channel<'static> {
    let mut sends = names(["TaggedFrame", "UnsubscribedFrame", "AuthenticatedFrame"]);
    sends.extend(names(["HeartbeatFrame", "PongFrame", "ErrorFrame", "ByeFrame"]));
    Channel {
        id: "events".into(),
        address: "/events".into(),
        title: "Several subscriptions".into(),
        about: "Events and live queries of several resources. A frame of a subscription is one of its resource's channels, with \
            `sub`, which says whose it is.",
        path: Map::new(),
        query: parameters::many_events(),
        sends,
        takes: vec!["SubscribeFrame", "UnsubscribeFrame", "AuthFrame", "PingFrame"],
    }
}

fn of_dio<'a>(title: &str, resource: &Resource) -> [Channel<'a>; 4] {
    let name = resource.dio.name();
    let mut sends = ["RecordInserted", "RecordChanged"].map(|kind| format!("{title}{kind}Frame")).to_vec();
    sends.extend(of_events());
    let live = frames::OF_LIVE.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let groups =
        parameters::groups(resource).into_iter().chain(parameters::filters(resource)).chain(parameters::live_groups());
    let id = ("id".to_string(), json!({ "description": "The row's id, percent-encoded." }));
    let channel =
        |kind: &str, path: &str, what: &str, about: &'static str, query: Vec<Parameter>, sends: &[String]| Channel {
            id: format!("{title}{kind}"),
            address: format!("/{name}{path}"),
            title: format!("{what} of {name}"),
            about,
            path: Map::new(),
            query,
            sends: sends.to_vec(),
            takes: vec!["PingFrame"],
        };
    let row_about = "What happens to one row.";
    let mut row =
        channel("RowEvents", "/{id}/events", "Events of a row", row_about, parameters::events(resource, true), &sends);
    row.path.extend([id]);
    [
        channel(
            "Events",
            "/events",
            "Events",
            "What happens to the rows, from any position on that is still at hand; a filter sees rows enter and leave.",
            parameters::events(resource, false),
            &sends,
        ),
        row,
        channel(
            "Live",
            "/live",
            "A live list",
            "The rows of a list, then every change of it with its place, to be applied one after the other.",
            parameters::live(resource),
            &live,
        ),
        channel(
            "LiveGroups",
            "/_aggregate",
            "A live aggregate",
            "With `live=true`: groups, as the rows of a live list; the id of one is its key as a JSON array.",
            groups.collect(),
            &live,
        ),
    ]
}

impl Channel<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.sends.iter().map(String::as_str).chain(self.takes.iter().copied())
    }

    fn describe(&self, schemas: &mut Schemas<'_>) -> Value {
        self.names().for_each(|name| schemas.message(name));
        let messages: Map<String, Value> =
            self.names().map(|name| (key(name), json!({ "$ref": format!("#/components/messages/{name}") }))).collect();
        let mut properties = Map::new();
        for parameter in self.query.iter().filter(|parameter| matches!(parameter.parameter_in, ParameterIn::Query)) {
            let mut schema = serde_json::to_value(&parameter.schema).unwrap_or_default();
            schema["description"] = json!(parameter.description);
            properties.entry(parameter.name.as_str()).or_insert(schema);
        }
        let query = json!({ "type": "object", "properties": properties });
        let mut channel = json!({
            "address": self.address,
            "title": self.title,
            "description": self.about,
            "messages": messages,
            "bindings": { "ws": { "method": "GET", "query": query, "bindingVersion": "0.1.0" } },
        });
        if !self.path.is_empty() {
            channel["parameters"] = json!(self.path);
        }
        channel
    }

    fn operations(&self) -> [(String, Value); 2] {
        let operation = |action: &str, summary: &str, names: &mut dyn Iterator<Item = &str>| {
            let message = |name: &str| json!({ "$ref": format!("#/channels/{}/messages/{}", self.id, key(name)) });
            json!({
                "action": action,
                "channel": { "$ref": format!("#/channels/{}", self.id) },
                "summary": summary,
                "messages": names.map(message).collect::<Vec<_>>(),
            })
        };
        let sends = operation("send", "What the server says.", &mut self.sends.iter().map(String::as_str));
        let takes = operation("receive", "What a client may say.", &mut self.takes.iter().copied());
        [(format!("send{}", self.id), sends), (format!("receive{}", self.id), takes)]
    }
}

/// A message's name within its channel: the type that its frames have, in most cases.
fn key(schema: &str) -> String {
    schema.strip_suffix("Frame").unwrap_or(schema).to_string()
}

impl Schemas<'_> {
    fn message(&mut self, name: &str) {
        if self.messages.contains_key(name) {
            return;
        }
        self.take(name);
        let schema = self.used.get(name).cloned().unwrap_or_default();
        let mut message = json!({
            "name": schema["properties"]["type"]["enum"][0].as_str().unwrap_or("frame"),
            "title": key(name),
            "payload": { "$ref": format!("#/components/schemas/{name}") },
        });
        if let Some(about) = schema["description"].as_str() {
            message["summary"] = json!(about);
        }
        self.messages.insert(name.to_string(), message);
    }

    /// Takes a schema over, with those that it needs.
    fn take(&mut self, name: &str) {
        if self.used.contains_key(name) {
            return;
        }
        let schema = self.all.get(name).map(serde_json::to_value).and_then(Result::ok).unwrap_or_default();
        let mut needed = BTreeSet::new();
        references(&schema, &mut needed);
        self.used.insert(name.to_string(), schema);
        needed.iter().for_each(|name| self.take(name));
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str);
            found.extend(own.and_then(|at| at.strip_prefix("#/components/schemas/")).map(str::to_string));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}
