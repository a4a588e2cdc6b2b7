//! Commands of clients on a socket: `ping`, and on `/events` also `subscribe`, `unsubscribe` and `auth`.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::frame::{self, Encoding};
use super::request::{LiveSubscription, Subscription};
use super::subscriptions::{MOST_SUBS, Subscriptions, find_live_scope, find_scope};
use crate::http::bounds::may_hold_regex;
use crate::http::problem::{ApiError, Code};
use crate::state::GatewayState;
use diorama_core::record::{CborValue, JsonLimits, parse_json};

/// Maximum length of a subscription's name, in bytes.
const MOST_NAME: usize = 128;

/// Limits on the JSON or CBOR of a command.
const LIMITS: JsonLimits = JsonLimits { nodes: 10_000, depth: 16 };

/// Message of a client.
pub(super) struct Command {
    members: Vec<(CborValue, CborValue)>,
    /// True if the command may contain regular expressions, which take long to compile.
    may_hold_regex: bool,
}

/// Parses a message; `None` if it is not a valid object.
pub(super) fn read(encoding: Encoding, message: &[u8]) -> Option<Command> {
    let value = match encoding {
        Encoding::Json => parse_json(message, LIMITS).ok()?,
        Encoding::Cbor => {
            let mut rest = message;
            let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, LIMITS.depth).ok()?;
            rest.is_empty().then_some(value)?
        }
    };
    match value {
        CborValue::Map(members) => {
            // A CBOR text of indefinite length could hide the operator's name, because it is split into chunks.
            let pieces = encoding == Encoding::Cbor && message.contains(&0x7f);
            Some(Command { members, may_hold_regex: pieces || may_hold_regex(message) })
        }
        _ => None,
    }
}

/// Returns the error text that lists the supported commands.
pub(super) fn usage(many: bool) -> &'static str {
    match many {
        true => {
            r#"this socket understands {"type":"subscribe","dio":...}, {"type":"unsubscribe","sub":...}, {"type":"auth","token":...} and {"type":"ping","n":1}"#
        }
        false => r#"this socket understands {"type":"ping","n":1}; sockets of /events can subscribe"#,
    }
}

/// Executes a command and returns its reply frames; `None` if the socket does not support the command.
pub(super) async fn execute(
    command: Command,
    subs: &mut Subscriptions,
    gateway: Option<&Weak<GatewayState>>,
) -> Option<impl Iterator<Item = Bytes> + use<>> {
    let encoding = subs.encoding;
    let kind = command.text("type")?;
    // Pings keep the socket open, and have the rate of the socket.
    if kind != "ping"
        && let Err(error) = subs.bounds().take_command()
    {
        let name = command.text("sub").or(command.text("dio")).unwrap_or_default();
        return Some(Some(frame::tagged(encoding, name, &refusal(encoding, &error))).into_iter());
    }
    let answer = match (kind, gateway) {
        ("ping", _) => Some(frame::pong(encoding, command.member("n"), subs.position().as_ref())),
        ("subscribe", Some(gateway)) => {
            let name = command.text("sub").or(command.text("dio"))?;
            let refused = subscribe(&command, name, subs, gateway).await.err();
            // On success, the subscription's hello is the reply.
            refused.map(|error| frame::tagged(encoding, name, &refusal(encoding, &error)))
        }
        ("unsubscribe", Some(_)) => {
            let name = command.text("sub")?;
            let answer = match subs.remove(name) {
                true => frame::type_only(encoding, "unsubscribed"),
                false => frame::error(encoding, "not-found", "no subscription has this name", None),
            };
            Some(frame::tagged(encoding, name, &answer))
        }
        ("auth", Some(gateway)) => Some(match authenticate(command.text("token")?, subs, gateway).await {
            Ok(()) => frame::type_only(encoding, "authenticated"),
            Err(error) => refusal(encoding, &error),
        }),
        _ => return None,
    };
    Some(answer.into_iter())
}

impl Command {
    fn member(&self, name: &str) -> Option<&CborValue> {
        self.members.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.member(name)?.as_text()
    }
}

async fn subscribe(
    command: &Command,
    name: &str,
    subs: &mut Subscriptions,
    gateway: &Weak<GatewayState>,
) -> Result<(), ApiError> {
    let bad = |detail: String| ApiError::new(Code::InvalidParameter, detail);
    let gateway = gateway.upgrade().ok_or_else(|| ApiError::new(Code::ShuttingDown, "the server is stopping"))?;
    if name.is_empty() || name.len() > MOST_NAME {
        return Err(bad(format!("sub must be a text of 1 to {MOST_NAME} bytes")));
    }
    if subs.has(name) {
        return Err(bad("a subscription of this name exists already; unsubscribe it, or choose another sub".into()));
    }
    if subs.len() >= MOST_SUBS {
        return Err(ApiError::new(Code::LimitTooLarge, format!("at most {MOST_SUBS} subscriptions on one connection")));
    }
    let dio = command.text("dio").ok_or_else(|| bad("dio is missing: it must be the name of a resource".into()))?;
    let bounds = subs.bounds();
    let live = command.member("live");
    let scope = match live {
        Some(CborValue::Bool(true)) => find_live_scope(&gateway, dio, &bounds.principal)?,
        _ => find_scope(&gateway, dio, &bounds.principal)?,
    };
    match live {
        None | Some(CborValue::Bool(false)) => {
            let subscription = match command.may_hold_regex {
                false => Subscription::from_frame(&command.members, &scope.schema),
                true => {
                    let (members, schema) = (command.members.clone(), Arc::clone(&scope.schema));
                    bounds.run(scope.dio.workers(), move || Subscription::from_frame(&members, &schema)).await?
                }
            }?;
            subs.add(Some(name), &scope, subscription).await
        }
        Some(CborValue::Bool(true)) => {
            let subscription = match command.may_hold_regex {
                false => LiveSubscription::from_frame(&command.members, &scope.schema, &scope.options),
                true => {
                    let (members, owner) = (command.members.clone(), scope.clone());
                    bounds
                        .run(scope.dio.workers(), move || {
                            LiveSubscription::from_frame(&members, &owner.schema, &owner.options)
                        })
                        .await?
                }
            }?;
            subs.add_live(Some(name), &scope, subscription).await
        }
        Some(_) => Err(bad("live must be true or false".into())),
    }
}

/// Checks a token, which prolongs the connection. Open subscriptions have the rights of the principal that opened them. So the token must
/// be one of the same principal, with the same rights.
async fn authenticate(token: &str, subs: &mut Subscriptions, gateway: &Weak<GatewayState>) -> Result<(), ApiError> {
    let gateway = gateway.upgrade().ok_or_else(|| ApiError::new(Code::ShuttingDown, "the server is stopping"))?;
    let principal = gateway.auth.token(token).await?;
    let own = subs.principal();
    if own.identity().is_some() && !own.has_rights_of(&principal) {
        let detail = "the token is one of another principal, or of one with another role or other claims";
        return Err(ApiError::new(Code::Conflict, detail).hint("open another connection with the token"));
    }
    subs.authenticate(principal);
    Ok(())
}

fn refusal(encoding: Encoding, error: &ApiError) -> Bytes {
    frame::error(encoding, error.code().as_str(), error.detail(), error.tip())
}
