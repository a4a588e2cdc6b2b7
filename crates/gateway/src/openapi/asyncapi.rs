//! AsyncAPI document: the channels of events and live queries, with the same schemas of frames as the OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};

use super::catalog::Catalog;
use super::credentials::BEARER;
use super::parameters;
use super::{Api, frames, rows, shapes, titles};
use crate::state::{GatewayState, Resource};

const ABOUT: &str = "Frames that a Diorama server sends over WebSocket. The same frames are available as server-sent events \
    (`Accept: text/event-stream`) and as the responses of long polls; see openapi.json. Clients must ignore unknown types and \
    members.\n\nFrames are JSON text. With the subprotocol `diorama.v1+cbor`, client and server send them as CBOR maps (RFC \
    8949), one in each binary message.";

/// Schemas of the document while it is built: those of messages, and those that they refer to.
struct Schemas<'a> {
    all: &'a BTreeMap<String, RefOr<Schema>>,
    used: BTreeMap<String, Value>,
    messages: Map<String, Value>,
}

/// Builds the document.
pub(super) fn build(gateway: &GatewayState, catalog: &Catalog) -> Value {
    let mut api = Api::default();
    shapes::add(&mut api);
    frames::add(&mut api);
    frames::tagged(&mut api);
    let dios: Vec<(String, &Resource)> =
        titles(catalog.dios.keys()).into_iter().zip(catalog.dios.values().map(|resource| &**resource)).collect();
    dios.iter().for_each(|(title, resource)| rows::add(&mut api, title, resource));
    let mut schemas = Schemas { all: &api.schemas, used: BTreeMap::new(), messages: Map::new() };
    let (mut channels, mut operations) = (Map::new(), Map::new());
    let mut add = |channel: Channel<'_>| {
        if !catalog.permits(&channel.address, "GET") {
            return;
        }
        operations.extend(channel.operations());
        channels.insert(channel.id.clone(), channel.describe(&mut schemas));
    };
    add(many());
    for (title, resource) in &dios {
        of_dio(title, resource).into_iter().for_each(&mut add);
    }
    let mut components = json!({ "messages": schemas.messages, "schemas": schemas.used });
    let mut server = json!({
        "host": "{host}",
        "protocol": "ws",
        "description": "The server. Use `wss` if a proxy adds TLS.",
        "variables": { "host": { "default": "127.0.0.1:8080", "description": "Host name and port of the server." } },
    });
    if !gateway.base_path.is_empty() {
        server["pathname"] = json!(gateway.base_path);
    }
    if gateway.auth.is_required() {
        let about = "One of the server's tokens, in the header `Authorization`. Clients that cannot set it offer the subprotocol \
            `bearer.TOKEN` in addition to that of the frames.";
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

/// Channel: a URL to connect to.
struct Channel<'a> {
    id: String,
    address: String,
    title: String,
    about: &'a str,
    /// Parameters of the path.
    path: Map<String, Value>,
    /// Parameters of the query.
    query: Vec<Parameter>,
    /// Schemas of the messages of the server.
    sends: Vec<String>,
    /// Schemas of the messages of clients.
    receives: Vec<&'static str>,
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_string).into()
}

/// Returns the frames of all subscriptions to events, without those that carry a row.
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
        about: "Events and live queries of several resources. A frame of a subscription is a frame of the channel of its resource, \
            with the name of the subscription in `sub`.",
        path: Map::new(),
        query: parameters::many_events(),
        sends,
        receives: vec!["SubscribeFrame", "UnsubscribeFrame", "AuthFrame", "PingFrame"],
    }
}

fn of_dio<'a>(title: &str, resource: &Resource) -> [Channel<'a>; 4] {
    let name = resource.dio.name();
    let mut sends = ["RecordInserted", "RecordChanged"].map(|kind| format!("{title}{kind}Frame")).to_vec();
    sends.extend(of_events());
    let live = frames::OF_LIVE.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let groups =
        parameters::groups(resource).into_iter().chain(parameters::filters(resource)).chain(parameters::live_groups());
    let id = ("id".to_string(), json!({ "description": "Id of the row, percent-encoded." }));
    let channel =
        |kind: &str, path: &str, label: &str, about: &'static str, query: Vec<Parameter>, sends: &[String]| Channel {
            id: format!("{title}{kind}"),
            address: format!("/{name}{path}"),
            title: format!("{label} of {name}"),
            about,
            path: Map::new(),
            query,
            sends: sends.to_vec(),
            receives: vec!["PingFrame"],
        };
    let row_about = "Changes of one row.";
    let mut row =
        channel("RowEvents", "/{id}/events", "Events of a row", row_about, parameters::events(resource, true), &sends);
    row.path.extend([id]);
    [
        channel(
            "Events",
            "/events",
            "Events",
            "Changes of the rows, from any position that the log still has. With a filter, rows that begin or cease to match are \
             reported too.",
            parameters::events(resource, false),
            &sends,
        ),
        row,
        channel(
            "Live",
            "/live",
            "Live list",
            "The rows of a list, followed by every change of the list with its index. Changes must be applied in order.",
            parameters::live(resource),
            &live,
        ),
        channel(
            "LiveGroups",
            "/_aggregate",
            "Live aggregate",
            "With `live=true`: the groups of an aggregate as the rows of a live list. The id of a group is its key as a JSON array.",
            groups.collect(),
            &live,
        ),
    ]
}

impl Channel<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.sends.iter().map(String::as_str).chain(self.receives.iter().copied())
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
        let sends = operation("send", "Messages of the server.", &mut self.sends.iter().map(String::as_str));
        let receives = operation("receive", "Messages of clients.", &mut self.receives.iter().copied());
        [(format!("send{}", self.id), sends), (format!("receive{}", self.id), receives)]
    }
}

/// Returns the name of a message within its channel, which in most cases is the type of its frames.
fn key(schema: &str) -> String {
    schema.strip_suffix("Frame").unwrap_or(schema).to_string()
}

impl Schemas<'_> {
    fn message(&mut self, name: &str) {
        if self.messages.contains_key(name) {
            return;
        }
        self.add(name);
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

    /// Adds a schema of the OpenAPI document, with those that it refers to.
    fn add(&mut self, name: &str) {
        if self.used.contains_key(name) {
            return;
        }
        let schema = self.all.get(name).map(serde_json::to_value).and_then(Result::ok).unwrap_or_default();
        let mut names = BTreeSet::new();
        references(&schema, &mut names);
        self.used.insert(name.to_string(), schema);
        names.iter().for_each(|name| self.add(name));
    }
}

/// Collects the names of the schemas that `value` refers to.
fn references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str);
            names.extend(own.and_then(|url| url.strip_prefix("#/components/schemas/")).map(str::to_string));
            members.values().for_each(|member| references(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}
