//! Reader of `[key.NAME]`.

use std::time::SystemTime;

use diorama_core::record::{CborValue, JsonLimits, parse_json};
use diorama_gateway::access::{Verb, Verbs};
use diorama_gateway::auth::{Key, TokenHash};

use super::value::{LEAST_TOKEN, Reader, Secret, nearest};

/// Configuration of a key: tokens or client certificates of a program, with a role.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// The name, which the log has.
    pub name: String,
    /// Its tokens.
    pub tokens: Vec<Secret>,
    /// Hashes of further tokens.
    pub hashes: Vec<TokenHash>,
    /// Names of client certificates.
    pub certificates: Vec<String>,
    /// Role, which rules name.
    pub role: String,
    /// Claims, which rules compare with cells.
    pub claims: CborValue,
    /// Verbs that it can be used for at most.
    pub verbs: Verbs,
    /// Time at which it expires.
    pub expires: Option<SystemTime>,
}

impl KeySpec {
    pub(super) fn read(name: String, reader: Reader<'_>) -> Option<KeySpec> {
        check_name(&reader, &name);
        let mut tokens: Vec<Secret> = reader.secret_of("token", LEAST_TOKEN).into_iter().collect();
        tokens.extend(reader.secrets("tokens", LEAST_TOKEN).unwrap_or_default());
        let hashes = hashes(&reader);
        let certificates = certificates(&reader);
        if ["token", "tokens", "token_sha256", "certificate"].iter().all(|key| reader.position(key).is_none()) {
            let example = format!(
                "[key.{name}] requires token = \"env:NAME\" or certificate = \"NAME\"; diorama key new {name} generates a token"
            );
            reader.problem(reader.at, example);
        }
        let role = reader.required_text("role");
        let claims = reader.json_table("claims").map(|claims| claims.to_string()).unwrap_or_else(|| "{}".into());
        let claims = parse_json(claims.as_bytes(), JsonLimits::default()).unwrap_or(CborValue::Map(Vec::new()));
        let spec = KeySpec {
            tokens,
            hashes,
            certificates,
            claims,
            verbs: verbs(&reader),
            expires: reader.time("expires"),
            role: role?,
            name,
        };
        reader.finish();
        Some(spec)
    }

    /// Returns the key for the gateway.
    pub fn key(&self) -> Key {
        let key = Key::new(&self.name, &self.role).claims(self.claims.clone()).verbs(self.verbs);
        let key = self.tokens.iter().fold(key, |key, token| key.token(token.reveal()));
        let key = self.hashes.iter().fold(key, |key, hash| key.token_hash(*hash));
        let key = self.certificates.iter().fold(key, |key, name| key.certificate(name));
        match self.expires {
            Some(at) => key.expires(at),
            None => key,
        }
    }
}

/// Reports a name that is not a word. Names are in logs, and between colons in the names of principals.
pub(super) fn check_name(reader: &Reader<'_>, name: &str) {
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !fits || name.is_empty() || name.len() > 64 {
        reader.problem(reader.at, format!("{name:?} is not a valid name: use 1 to 64 letters, digits, - and _"));
    }
}

fn hashes(reader: &Reader<'_>) -> Vec<TokenHash> {
    let texts = reader.text_or_texts("token_sha256").unwrap_or_default();
    let hashes = texts.iter().map(|text| TokenHash::parse(text));
    hashes.collect::<Option<_>>().unwrap_or_else(|| {
        let at = reader.position("token_sha256").unwrap_or(reader.at);
        reader.problem(at, "token_sha256 must be 64 hexadecimal digits: printf %s TOKEN | sha256sum prints them");
        Vec::new()
    })
}

fn certificates(reader: &Reader<'_>) -> Vec<String> {
    let names = reader.text_or_texts("certificate").unwrap_or_default();
    if names.iter().any(String::is_empty) {
        let at = reader.position("certificate").unwrap_or(reader.at);
        reader.problem(at, "certificate is empty: it is the common name of the client certificate");
    }
    names
}

fn verbs(reader: &Reader<'_>) -> Verbs {
    let Some(words) = reader.texts("can") else { return Verbs::ALL };
    let at = reader.position("can").unwrap_or(reader.at);
    let mut verbs = Verbs::NONE;
    for word in &words {
        match Verb::parse(word) {
            Some(verb) => verbs = verbs.union(Verbs::from_iter([verb])),
            None => {
                let names = || Verb::ALL.into_iter().map(Verb::as_str);
                let hint = match nearest(word, names()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("the verbs are {}", names().collect::<Vec<_>>().join(", ")),
                };
                reader.problem(at, format!("can has no verb {word:?}: {hint}"));
            }
        }
    }
    verbs
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        let env = |name: &str| match name {
            "TOKEN" => Some("s3cr3t-0123456789".to_string()),
            "SHORT" => Some("fifteen bytes !".to_string()),
            "SECRET" => Some("0123456789abcdef0123456789abcdef".to_string()),
            _ => None,
        };
        let text = format!("{text}\n[dio.a]\nsource = {{ csv = \"a.csv\" }}\n");
        Config::parse(&text, Path::new("diorama.toml"), &env).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_has_tokens_hashes_claims_verbs_and_an_end() {
        let hash = TokenHash::of(b"other").hex();
        let text = format!(
            "[key.dash]\ntokens = [\"env:TOKEN\"]\ntoken_sha256 = [\"{hash}\"]\nrole = \"viewer\"\nclaims = {{ org_id = 7 }}\n\
             can = [\"read\", \"events\"]\nexpires = 2027-01-01T00:00:00Z"
        );
        let config = parse(&text).unwrap();
        let [key] = &config.keys[..] else { panic!("{config:?}") };
        assert_eq!(
            (key.name.as_str(), key.role.as_str(), key.tokens.len(), key.hashes.len()),
            ("dash", "viewer", 1, 1)
        );
        assert_eq!(key.claims, CborValue::Map(vec![("org_id".into(), 7.into())]));
        assert_eq!(key.verbs, Verbs::from_iter([Verb::Read, Verb::Events]));
        let end = key.expires.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(end, 1_798_761_600);
        assert!(config.is_guarded());
        let plain = parse("[server]\nanonymous = true\n[key.b]\ntoken = \"env:TOKEN\"\nrole = \"x\"").unwrap();
        assert_eq!((plain.keys[0].verbs, plain.keys[0].expires), (Verbs::ALL, None));
        assert!(plain.server.anonymous);
    }

    #[test]
    fn a_key_has_certificates_in_place_of_tokens_or_beside_them() {
        let tls = "[server.tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\nclient_ca = \"ca.pem\"\n";
        let keys = "[key.a]\ncertificate = \"robot\"\nrole = \"x\"\n\
                    [key.b]\ntoken = \"env:TOKEN\"\ncertificate = [\"c\", \"d\"]\nrole = \"x\"";
        let config = parse(&format!("{tls}{keys}")).unwrap();
        let own = config.keys.iter().map(|key| (key.tokens.len(), key.certificates.clone()));
        assert_eq!(own.collect::<Vec<_>>(), [(0, vec!["robot".into()]), (1, vec!["c".into(), "d".into()])]);
        assert!(config.is_guarded());
    }

    #[test]
    fn mistakes_in_keys_and_issuers_are_named() {
        let key = "[key.a]\ntoken = \"env:TOKEN\"\nrole = \"x\"\n";
        let jwt = "[jwt.a]\nissuer = \"https://i\"\naudience = \"d\"\n";
        let jwks = "jwks = \"https://i/keys\"\n";
        for (text, message) in [
            ("[key.a]\ntoken = \"env:TOKEN\"".to_string(), "[key.a] requires role"),
            ("[key.a]\nrole = \"x\"".into(), "diorama key new a"),
            ("[key.a]\ntoken = \"env:SHORT\"\nrole = \"x\"".into(), "shorter than 16 bytes"),
            ("[key.a]\ntoken = \"hunter2\"\nrole = \"x\"".into(), "secrets do not belong in this file"),
            ("[key.a]\ntoken_sha256 = \"abc\"\nrole = \"x\"".into(), "64 hexadecimal digits"),
            ("[key.a]\nrole = \"x\"".into(), "or certificate = \"NAME\""),
            ("[key.a]\ncertificate = \"\"\nrole = \"x\"".into(), "certificate is empty"),
            ("[key.a]\ncertificate = 7\nrole = \"x\"".into(), "must be a text or an array of texts"),
            ("[key.a]\ncertificate = \"robot\"\nrole = \"x\"".into(), "requires client_ca in [server.tls]"),
            (format!("{key}can = [\"raed\"]"), "did you mean read?"),
            (format!("{key}expires = 2027-01-01"), "must be a time like 2027-01-01T00:00:00Z"),
            (format!("{key}claims = 7"), "must be a table of values"),
            ("[key.\"a b\"]\ntoken = \"env:TOKEN\"\nrole = \"x\"".into(), "is not a valid name"),
            (format!("[server]\nauth = \"none\"\n{key}"), "cannot be combined with [key.NAME]"),
            ("[server]\nanonymous = true".into(), "server.anonymous requires"),
            ("[server]\nlisten = \"0.0.0.0:80\"".into(), "a public address requires"),
            (format!("{jwt}{jwks}"), "requires algorithms"),
            (format!("{jwt}{jwks}algorithms = [\"RS265\"]"), "did you mean RS256?"),
            (format!("{jwt}{jwks}algorithms = [\"HS256\", \"RS256\"]"), "everybody could sign"),
            (format!("{jwt}{jwks}algorithms = [\"none\"]"), "algorithms has no \"none\""),
            (format!("{jwt}secret = \"env:TOKEN\"\nalgorithms = [\"HS256\"]"), "shorter than 32 bytes"),
            (format!("{jwt}secret = \"env:SECRET\"\nalgorithms = [\"RS256\"]"), "secret verifies HS256 only"),
            (format!("{jwt}{jwks}secret = \"env:SECRET\"\nalgorithms = [\"RS256\"]"), "use one of them"),
            (format!("{jwt}algorithms = [\"RS256\"]"), "requires jwks"),
            (format!("{jwt}jwks = \"http://i/keys\"\nalgorithms = [\"RS256\"]"), "must be an https URL"),
            (format!("[jwt.a]\nissuer = \"https://i\"\n{jwks}algorithms = [\"RS256\"]"), "requires audience"),
            (format!("[jwt.a]\naudience = \"d\"\n{jwks}algorithms = [\"RS256\"]"), "[jwt.a] requires issuer"),
        ] {
            let problems = parse(&text).unwrap_err();
            assert!(problems.contains(message), "{text}\n{problems}");
            assert!(!problems.contains("s3cr3t-") && !problems.contains("0123456789abcdef"), "{problems}");
        }
        assert!(parse(&format!("[server]\nlisten = \"0.0.0.0:80\"\n{key}")).is_ok());
        assert!(parse(&format!("{jwt}jwks = \"http://127.0.0.1:9/keys\"\nalgorithms = [\"RS256\"]")).is_ok());
    }
}
