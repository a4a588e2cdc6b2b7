//! Vectors of the vendors' own libraries, and everything that must not pass.

use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/webhook-vectors.json"));

/// A delivery as a vector describes it: scheme, headers, body, time.
struct Case {
    scheme: Scheme,
    headers: Vec<(&'static str, String)>,
    body: String,
    at: u64,
}

impl Case {
    fn verify(&self) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, value.parse().unwrap());
        }
        self.scheme.verify(&headers, self.body.as_bytes(), self.at)
    }

    fn header(&mut self, name: &str) -> &mut String {
        &mut self.headers.iter_mut().find(|(own, _)| *own == name).unwrap().1
    }
}

fn hmac(secret: &str, header: &'static str, prefix: &str, encoding: Encoding) -> Hmac {
    Hmac {
        secrets: vec![Key::plain(secret).unwrap()],
        header: HeaderName::from_static(header),
        prefix: prefix.into(),
        encoding,
        sha512: false,
        timestamp: None,
        message: "{body}".into(),
    }
}

fn cases() -> Vec<Case> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    let mut cases = Vec::new();
    for vector in all["vectors"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_string();
        let body = match vector["body"].as_str() {
            Some(name) => all["bodies"][name].as_str().unwrap().to_string(),
            None => text("body_text"),
        };
        let (secret, header) = (text("secret"), text("header"));
        let at = vector["timestamp"].as_u64().unwrap_or(1_748_779_200);
        let mut case = |scheme, headers| cases.push(Case { scheme, headers, body: body.clone(), at });
        match vector["scheme"].as_str().unwrap() {
            "standard" => case(
                Scheme::Standard(vec![Key::standard(&secret).unwrap()]),
                vec![("webhook-id", text("id")), ("webhook-timestamp", at.to_string()), ("webhook-signature", header)],
            ),
            "github" => {
                let name = "x-hub-signature-256";
                case(Scheme::Hmac(hmac(&secret, name, "sha256=", Encoding::Hex)), vec![(name, header)]);
            }
            "shopify" => {
                let name = "x-shopify-hmac-sha256";
                case(Scheme::Hmac(hmac(&secret, name, "", Encoding::Base64)), vec![(name, header)]);
            }
            "slack" => {
                let scheme = Hmac {
                    timestamp: Some(HeaderName::from_static("x-slack-request-timestamp")),
                    message: "v0:{timestamp}:{body}".into(),
                    ..hmac(&secret, "x-slack-signature", "v0=", Encoding::Hex)
                };
                let headers = vec![("x-slack-signature", header), ("x-slack-request-timestamp", at.to_string())];
                case(Scheme::Hmac(scheme), headers);
            }
            "hmac" => {
                let scheme = hmac(&secret, "x-signature", "", Encoding::Hex);
                case(Scheme::Hmac(scheme.clone()), vec![("x-signature", text("sha256_hex"))]);
                case(Scheme::Hmac(scheme.clone()), vec![("x-signature", text("sha256_hex").to_uppercase())]);
                let scheme = Hmac { sha512: true, ..scheme };
                case(Scheme::Hmac(scheme), vec![("x-signature", text("sha512_hex"))]);
            }
            other => panic!("{other}"),
        }
    }
    assert!(cases.len() >= 13);
    cases
}

#[test]
fn every_vector_verifies() {
    for case in cases() {
        assert_eq!(case.verify(), Ok(()), "{:?}", case.headers);
    }
}

#[test]
fn a_changed_body_is_refused() {
    for mut case in cases() {
        case.body.push(' ');
        assert_eq!(case.verify(), Err(Refused::Signature));
        case.body.clear();
        assert_eq!(case.verify(), Err(Refused::Signature));
    }
}

#[test]
fn a_foreign_secret_is_refused() {
    for mut case in cases() {
        match &mut case.scheme {
            Scheme::Standard(keys) => *keys = vec![Key::standard("whsec_////////////////////////////////").unwrap()],
            Scheme::Hmac(hmac) => hmac.secrets = vec![Key::plain("another").unwrap()],
            Scheme::Bearer(_) | Scheme::None => {}
        }
        assert_eq!(case.verify(), Err(Refused::Signature));
    }
}

#[test]
fn any_of_several_secrets_will_do() {
    for mut case in cases() {
        match &mut case.scheme {
            Scheme::Standard(keys) => keys.insert(0, Key::standard("whsec_////////////////////////////////").unwrap()),
            Scheme::Hmac(hmac) => hmac.secrets.insert(0, Key::plain("newer").unwrap()),
            Scheme::Bearer(_) | Scheme::None => {}
        }
        assert_eq!(case.verify(), Ok(()));
    }
}

#[test]
fn missing_doubled_and_mangled_headers_are_refused() {
    for at in 0..3 {
        for mut case in cases() {
            if at >= case.headers.len() {
                continue;
            }
            let taken = case.headers.remove(at);
            assert_eq!(case.verify(), Err(Refused::Missing));
            case.headers.extend([taken.clone(), taken]);
            assert_eq!(case.verify(), Err(Refused::Malformed));
        }
    }
    // Of several signatures, those that are mangled do not spoil the one that fits.
    let single = cases().into_iter().filter(|case| case.headers.iter().all(|(_, value)| !value.contains(' ')));
    for mut case in single {
        for (name, _) in case.headers.clone() {
            let good = case.header(name).clone();
            if good.contains(' ') {
                // Of several signatures one good one is enough.
                continue;
            }
            for bad in [format!("{good}0"), good[..good.len() - 1].to_string(), "v1,%%%".into(), String::new()] {
                *case.header(name) = bad;
                assert!(case.verify().is_err(), "{name}: {:?}", case.headers);
            }
            *case.header(name) = good;
        }
    }
}

#[test]
fn signed_times_hold_for_five_minutes_in_both_directions() {
    let signed = cases().into_iter().filter(|case| case.headers.len() > 1);
    for mut case in signed {
        let at = case.at;
        for off in [at - TOLERANCE, at + TOLERANCE] {
            case.at = off;
            assert_eq!(case.verify(), Ok(()));
        }
        for off in [at - TOLERANCE - 1, at + TOLERANCE + 1] {
            case.at = off;
            assert_eq!(case.verify(), Err(Refused::Stale));
        }
    }
}

#[test]
fn svix_names_are_understood_but_not_both_at_once() {
    let mut case = cases().remove(0);
    let standard = case.headers.clone();
    for (name, _) in &mut case.headers {
        *name = match *name {
            "webhook-id" => "svix-id",
            "webhook-timestamp" => "svix-timestamp",
            _ => "svix-signature",
        };
    }
    assert_eq!(case.verify(), Ok(()));
    case.headers.extend(standard);
    assert_eq!(case.verify(), Err(Refused::Malformed));
}

#[test]
fn tokens_are_compared_whole() {
    let scheme = Scheme::Bearer(vec![Key::plain("old").unwrap(), Key::plain("s3cr3t").unwrap()]);
    for (header, result) in [
        ("Bearer s3cr3t", Ok(())),
        ("bearer s3cr3t", Ok(())),
        ("Bearer old", Ok(())),
        ("Bearer s3cr3t ", Err(Refused::Signature)),
        ("Bearer s3cr3", Err(Refused::Signature)),
        ("Bearer ", Err(Refused::Signature)),
        ("Basic s3cr3t", Err(Refused::Malformed)),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, hyper::header::HeaderValue::from_bytes(header.as_bytes()).unwrap());
        assert_eq!(scheme.verify(&headers, b"", 0), result, "{header:?}");
    }
    assert_eq!(scheme.verify(&HeaderMap::new(), b"", 0), Err(Refused::Missing));
}

#[test]
fn secrets_that_protect_nothing_are_refused_and_none_is_printed() {
    for bad in ["", "whsec_", "whsec_AAECAwQFBgcICQ==", "whsec_%%%"] {
        assert!(Key::standard(bad).is_err(), "{bad}");
    }
    assert!(Key::plain("").is_err());
    assert_eq!(format!("{:?}", Key::plain("hush").unwrap()), "Key(..)");
}
