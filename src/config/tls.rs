//! Reader of `[server.tls]`.

use std::path::PathBuf;

use super::value::{Reader, Secret};

/// Settings of `[server.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSpec {
    /// File with the certificate of the server, followed by those of its intermediate authorities.
    pub cert: PathBuf,
    /// Private key of the certificate.
    pub key: PrivateKey,
    /// Authentication of clients by certificates; `None` to ask for none.
    pub clients: Option<ClientAuth>,
}

/// Place of a private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateKey {
    /// A file in PEM format, which is read again when it changes.
    File(PathBuf),
    /// PEM text of the environment.
    Text(Secret),
}

/// Authentication of clients by certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// File with the certificates of the authorities that issue certificates to clients.
    pub ca: PathBuf,
    /// True to refuse connections without a certificate.
    pub required: bool,
}

impl TlsSpec {
    /// Reads the table; `None` if a part is missing, which is reported.
    pub(super) fn read(reader: Reader<'_>) -> Option<TlsSpec> {
        let (cert, key) = (reader.path("cert"), reader.private_key("key"));
        for (name, is_missing) in [("cert", cert.is_none()), ("key", key.is_none())] {
            if is_missing && reader.position(name).is_none() {
                reader.problem(reader.at, format!("server.tls requires {name} = \"PATH\": a file in PEM format"));
            }
        }
        let (ca, word) = (reader.path("client_ca"), reader.word("client_auth", &["required", "optional"]));
        if let (None, Some(at)) = (&ca, reader.position("client_auth"))
            && reader.position("client_ca").is_none()
        {
            reader.problem(at, "server.tls.client_auth requires client_ca = \"PATH\"");
        }
        reader.finish();
        let clients = ca.map(|ca| ClientAuth { ca, required: word != Some("optional") });
        Some(TlsSpec { cert: cert?, key: key?, clients })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn read(tls: &str) -> Result<Option<TlsSpec>, String> {
        let text = format!("[server]\ntls = {tls}\n[dio.a]\nsource = {{ csv = \"a.csv\" }}\n");
        let env = |name: &str| (name == "KEY").then(|| "the key".to_string());
        let config = Config::parse(&text, Path::new("shop/diorama.toml"), &env);
        config.map(|config| config.server.tls).map_err(|error| error.to_string())
    }

    #[test]
    fn certificate_and_key_are_files_of_the_folder_and_a_key_may_be_a_variable() {
        let plain = read(r#"{ cert = "a.pem", key = "b.pem" }"#).unwrap().unwrap();
        let (cert, key) = (PathBuf::from("shop/a.pem"), PrivateKey::File("shop/b.pem".into()));
        assert_eq!(plain, TlsSpec { cert, key: key.clone(), clients: None });
        assert_eq!(read(r#"{ cert = "a.pem", key = "file:b.pem" }"#).unwrap().unwrap().key, key);
        let secret = read(r#"{ cert = "a.pem", key = "env:KEY" }"#).unwrap().unwrap();
        assert!(matches!(&secret.key, PrivateKey::Text(text) if text.reveal() == "the key"));
        assert!(!format!("{secret:?}").contains("the key"), "a key is not printed");
        for (more, required) in
            [("", true), (", client_auth = \"required\"", true), (", client_auth = \"optional\"", false)]
        {
            let text = format!(r#"{{ cert = "a.pem", key = "b.pem", client_ca = "c.pem"{more} }}"#);
            let clients = ClientAuth { ca: "shop/c.pem".into(), required };
            assert_eq!(read(&text).unwrap().unwrap().clients, Some(clients), "{more}");
        }
    }

    #[test]
    fn what_is_missing_or_contradicts_is_reported_with_its_place() {
        for (tls, says) in [
            (r#"{ key = "b.pem" }"#, "2:7: server.tls requires cert"),
            (r#"{ cert = "a.pem" }"#, "server.tls requires key"),
            (r#"{ cert = "a.pem", key = 5 }"#, "server.tls.key must be a path"),
            (r#"{ cert = "a.pem", key = "env:NONE" }"#, "the environment variable NONE is not set"),
            (r#"{ cert = "a.pem", key = "b.pem", client_auth = "optional" }"#, "client_auth requires client_ca"),
            (r#"{ cert = "a.pem", key = "b.pem", client_ca = "c.pem", client_auth = "maybe" }"#, "one of required"),
            (r#"{ cert = "a.pem", key = "b.pem", certificate = "c" }"#, "no key \"certificate\""),
            ("true", "server.tls must be a table"),
        ] {
            let told = read(tls).unwrap_err();
            assert!(told.contains(says) && told.lines().count() == 1, "{tls}: {told}");
        }
    }
}
