//! `[webhook.NAME]`

use super::intake::IntakeSpec;
use super::value::{LEAST_TOKEN, Reader, Secret, nearest};

/// One webhook.
#[derive(Clone, Debug)]
pub struct HookSpec {
    /// Its name, as in the URL.
    pub name: String,
    /// The Dio it feeds; the one of its own name if nothing is written.
    pub dio: String,
    /// How senders prove who they are.
    pub auth: HookAuth,
    /// How deliveries are taken.
    pub intake: IntakeSpec,
}

/// How senders prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookAuth {
    /// `standard`, `hmac`, `bearer` or `none`.
    pub scheme: &'static str,
    /// What they know.
    pub secrets: Vec<Secret>,
    /// `hmac`: the header with the signature.
    pub header: String,
    /// `hmac`: what stands before it.
    pub prefix: String,
    /// `hmac`: `hex`, `base64` or `base64url`.
    pub encoding: &'static str,
    /// `hmac`: `sha256` or `sha512`.
    pub algorithm: &'static str,
    /// `hmac`: the header with the time.
    pub timestamp_header: Option<String>,
    /// `hmac`: what is signed.
    pub message: String,
    /// The header with the delivery's id.
    pub delivery: Option<String>,
}

/// Schemes that are known.
const SCHEMES: [&str; 4] = ["standard", "hmac", "bearer", "none"];

impl HookAuth {
    /// No proof at all; for loopback addresses only.
    fn none() -> HookAuth {
        HookAuth {
            scheme: "none",
            secrets: Vec::new(),
            header: String::new(),
            prefix: String::new(),
            encoding: "hex",
            algorithm: "sha256",
            timestamp_header: None,
            message: String::new(),
            delivery: None,
        }
    }
}

impl HookSpec {
    /// The hook of a Dio's own name that anybody on this machine may use.
    pub fn open(dio: &str) -> HookSpec {
        HookSpec { name: dio.to_string(), dio: dio.to_string(), auth: HookAuth::none(), intake: IntakeSpec::default() }
    }

    pub(super) fn read(name: String, reader: Reader<'_>, loopback: bool, dios: &[String]) -> Option<HookSpec> {
        let dio = reader.text("dio").unwrap_or_else(|| name.clone());
        if !dios.contains(&dio) {
            let at = reader.place("dio").unwrap_or(reader.at);
            let hint = match nearest(&dio, dios.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", dios.join(", ")),
            };
            reader.problem(at, format!("[webhook.{name}] feeds {dio:?}, but there is no [dio.{dio}]: {hint}"));
        }
        if reader.place("auth").is_none() {
            let example = format!("auth = {{ scheme = \"standard\", secrets = [\"env:{}\"] }}", variable(&name));
            reader.problem(reader.at, format!("[webhook.{name}] needs {example}"));
        }
        let auth = reader.table("auth").and_then(|table| auth(table, loopback));
        let intake = IntakeSpec::read(&reader);
        reader.finish();
        Some(HookSpec { name, dio, auth: auth?, intake })
    }
}

fn variable(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    format!("{}_SECRET", upper.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

fn auth(table: Reader<'_>, loopback: bool) -> Option<HookAuth> {
    let at = table.place("scheme").unwrap_or(table.at);
    if table.place("scheme").is_none() {
        table.problem(at, format!("auth needs a scheme: one of {}", SCHEMES.join(", ")));
    }
    let scheme = table.word("scheme", &SCHEMES);
    let least = if scheme == Some("bearer") { LEAST_TOKEN } else { 1 };
    let secrets = table.secrets("secrets", least);
    let delivery = table.text("delivery");
    let mut auth = HookAuth {
        scheme: scheme.unwrap_or("none"),
        delivery: delivery.map(|delivery| delivery.trim_start_matches("header:").to_string()),
        secrets: secrets.unwrap_or_default(),
        ..HookAuth::none()
    };
    match scheme {
        Some("hmac") => {
            hmac(&table, &mut auth);
        }
        Some("none") if !loopback => {
            table.problem(at, "scheme \"none\" lets anybody change rows: it is for loopback addresses only");
        }
        _ => {}
    }
    if let Some("standard" | "hmac" | "bearer") = scheme {
        secrets_fit(&table, at, &auth);
    }
    table.finish();
    scheme.map(|_| auth)
}

fn secrets_fit(table: &Reader<'_>, at: usize, auth: &HookAuth) {
    match table.place("secrets") {
        None => table.problem(at, format!("scheme {:?} needs secrets = [\"env:NAME\"]", auth.scheme)),
        Some(at) if auth.secrets.len() > 5 => table.problem(at, "there are at most 5 secrets"),
        Some(_) => {}
    }
}

fn hmac(table: &Reader<'_>, auth: &mut HookAuth) {
    if table.place("header").is_none() {
        table.problem(table.at, "scheme \"hmac\" needs header = \"NAME\", the header with the signature");
    }
    auth.header = table.text("header").unwrap_or_default();
    auth.prefix = table.text("prefix").unwrap_or_default();
    auth.encoding = table.word("encoding", &["hex", "base64", "base64url"]).unwrap_or("hex");
    auth.algorithm = table.word("algorithm", &["sha256", "sha512"]).unwrap_or("sha256");
    auth.timestamp_header = table.text("timestamp_header");
    let signed_time = auth.timestamp_header.is_some();
    let default = if signed_time { "{timestamp}.{body}" } else { "{body}" };
    auth.message = table.text("message").unwrap_or_else(|| default.to_string());
    let at = table.place("message").unwrap_or(table.at);
    if !auth.message.contains("{body}") {
        table.problem(at, "message must contain {body}: what is not signed proves nothing");
    }
    if signed_time != auth.message.contains("{timestamp}") {
        table.problem(at, "timestamp_header and {timestamp} in message need each other");
    }
}
