//! Files in an object store that checks signatures: `moto_server` of the Python package `moto[server]`, if it is in `PATH`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::s3::S3File;
use super::*;
use diorama_core::vista::ErrorKind;

/// Requests that the store accepts without a signature: those of [`ObjectStore::start`].
const SETUP: &str = "5";

struct ObjectStore {
    process: Child,
    endpoint: String,
    key: (String, String),
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl ObjectStore {
    /// Starts a store with the object `data/shop/a.csv`, because its check of signatures fails for other names; `None` if it is not installed.
    async fn start(content: &'static str) -> Option<ObjectStore> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let started = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", SETUP)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                diorama_servers::skip_or_fail("files in object stores", &format!("there is no moto_server: {error}"));
                return None;
            }
        };
        let mut store = ObjectStore { process, endpoint, key: Default::default() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while store.send("GET", "/moto-api/", "s3", "").await.is_none() {
            assert!(Instant::now() < deadline, "the store does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        store.iam("Action=CreateUser&UserName=u").await;
        let key = store.iam("Action=CreateAccessKey&UserName=u").await;
        let part = |name: &str| {
            let (_, rest) = key.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_string()
        };
        store.key = (part("AccessKeyId"), part("SecretAccessKey"));
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        store.iam(&format!("Action=PutUserPolicy&UserName=u&PolicyName=p&PolicyDocument={policy}")).await;
        assert_eq!(store.send("PUT", "/data", "s3", "").await.unwrap().0, 200);
        assert_eq!(store.send("PUT", "/data/shop/a.csv", "s3", content).await.unwrap().0, 200);
        Some(store)
    }

    async fn iam(&self, form: &str) -> String {
        let (status, body) = self.send("POST", "/", "iam", form).await.unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Sends a request that is not signed, to a service that the header names.
    async fn send(&self, method: &str, path: &str, service: &str, body: &str) -> Option<(u16, String)> {
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=x"
        );
        let kind = if service == "iam" { "application/x-www-form-urlencoded" } else { "text/csv" };
        let url = format!("{}{path}", self.endpoint);
        let tls = crate::tls::client(&crate::tls::Verification::Public).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured((*tls).clone()).build().unwrap();
        let request = client.request(method.parse().unwrap(), url);
        let request = request.header("authorization", scope).header("content-type", kind).body(body.to_string());
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    fn file(&self, secret: &str) -> RemoteFile {
        let env = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some(self.key.0.clone()),
            "AWS_SECRET_ACCESS_KEY" => Some(secret.to_string()),
            _ => None,
        };
        let (s3, url) = S3File::new("s3://data/shop/a.csv", None, Some(self.endpoint.clone()), &env).unwrap();
        RemoteFile { s3: Some(s3), ..RemoteFile::new(url, HttpOptions::default()) }
    }
}

#[tokio::test]
async fn an_object_is_read_with_a_signed_request() {
    let Some(store) = ObjectStore::start("id,name\n1,a\n").await else { return };
    let file = store.file(&store.key.1);
    let download = file.fetch().await.unwrap();
    assert_eq!(std::fs::read_to_string(download.path()).unwrap(), "id,name\n1,a\n");
    let fingerprint = download.fingerprint().unwrap().clone();
    assert!(file.fetch_changed(&fingerprint).await.unwrap().is_none());
    let error = store.file("another secret").fetch().await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Permanent);
}
