//! Callers with keys and with tokens of an issuer, at the command with its configuration.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::process::{Answer, Server, TOKEN, folder, run, serving};

const SECRET: &str = "a secret of the issuer with 32 bytes";

fn jwt(claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn start(dir: &Path, access: &str) -> Server {
    let text = format!("{access}\n[dio.products]\nsource = {{ csv = \"products.csv\" }}\n");
    std::fs::write(dir.join("diorama.toml"), text).unwrap();
    let mut server = Server::spawn(serving(dir, &[]).env("JWT_SECRET", SECRET));
    server.wait_for("ready");
    server
}

fn get(server: &Server, token: &str) -> Answer {
    server.request("GET", "/products", &[("authorization", &format!("Bearer {token}"))], "")
}

#[test]
fn keys_are_accepted_by_token_and_by_hash_until_they_expire() {
    let dir = folder();
    let hash = |token| Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = format!(
        "[key.a]\ntoken = \"env:TOKEN\"\nrole = \"viewer\"\n[key.b]\ntoken_sha256 = \"{}\"\nrole = \"admin\"\n\
         [key.old]\ntoken_sha256 = \"{}\"\nrole = \"viewer\"\nexpires = 2020-01-01T00:00:00Z",
        hash("a token of another program"),
        hash("an old token")
    );
    let server = start(dir.path(), &text);
    assert_eq!(get(&server, "an old token").json()["detail"], "the token has expired");
    assert_eq!((get(&server, TOKEN).status, get(&server, "a token of another program").status), (200, 200));
    assert_eq!((server.get("/products").status, get(&server, "another").status), (401, 401));
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn tokens_of_an_issuer_are_accepted_and_refusals_say_why() {
    let dir = folder();
    let text = "[jwt.main]\nissuer = \"https://idp.example\"\naudience = [\"diorama\", \"shop\"]\n\
                algorithms = [\"HS256\"]\nsecret = \"env:JWT_SECRET\"\nroles = [\"member\"]";
    let server = start(dir.path(), text);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |audience: &str, role: &str, end: u64| {
        jwt(&format!(r#"{{"iss":"https://idp.example","aud":"{audience}","sub":"u1","role":"{role}","exp":{end}}}"#))
    };
    assert_eq!(get(&server, &token("shop", "member", now + 60)).status, 200);
    for (token, reason) in [
        (token("other", "member", now + 60), "the token is for another audience"),
        (token("shop", "admin", now + 60), "the role of the token is not accepted"),
        (token("shop", "member", now - 60), "the token has expired"),
        (token("shop", "member", now + 60) + "A", "the signature of the token is not valid"),
    ] {
        let refused = get(&server, &token);
        assert_eq!((refused.status, &refused.json()["detail"]), (401, &reason.into()), "{reason}");
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{reason}""#);
        assert_eq!(refused.raw_header("www-authenticate"), Some(challenge.as_str()));
    }
}

#[test]
fn a_generated_key_works_with_the_lines_that_are_printed() {
    let dir = folder();
    let printed = run(dir.path(), &["key", "new", "dashboard", "--role", "viewer"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    let token = printed.lines().find_map(|line| line.strip_prefix("    ")).unwrap().to_string();
    let lines = printed.split_once("[key.dashboard]").unwrap().1;
    assert!(!lines.contains(&token), "the configuration has no secret");
    let server = start(dir.path(), &format!("[key.dashboard]{lines}"));
    assert_eq!((get(&server, &token).status, get(&server, &token[1..]).status), (200, 401));
}

#[test]
fn a_file_of_keys_that_is_missing_or_is_no_key_set_is_a_mistake() {
    let dir = folder();
    let text = "[jwt.main]\nissuer = \"https://idp.example\"\naudience = \"shop\"\nalgorithms = [\"RS256\"]\njwks = \"keys.json\"\n\
                [dio.products]\nsource = { csv = \"products.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let check = || String::from_utf8(run(dir.path(), &["check", "--offline"]).stderr).unwrap();
    assert!(check().contains("[jwt.main] jwks:"), "{}", check());
    std::fs::write(dir.path().join("keys.json"), r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).unwrap();
    assert!(check().contains("it has no key that verifies"), "{}", check());
}

#[test]
fn a_token_that_two_keys_have_is_a_mistake() {
    let dir = folder();
    let text = "[key.a]\ntoken = \"env:TOKEN\"\nrole = \"x\"\n[key.b]\ntoken = \"env:TOKEN\"\nrole = \"y\"\n\
                [dio.products]\nsource = { csv = \"products.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let refused = run(dir.path(), &["check", "--offline"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(78) && said.contains("also one of another key"), "{said}");
}
