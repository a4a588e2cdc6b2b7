//! Address of a topic and the way to connect to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::client::error::Error as ClientError;
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use tokio::time::timeout;

use super::errors::Failure;
use crate::connector::Settings;
use crate::tls::{self, Verification};

/// Timeout for connecting to the brokers of a topic.
const CONNECT: Duration = Duration::from_secs(10);
/// Time within which a broker answers a request of a feed. The client itself waits for ever.
const ANSWER: Duration = Duration::from_secs(30);
/// Time for which the client repeats a failed request. None, so that the caller hears of each failure and its kind.
const RETRIES: Duration = Duration::ZERO;
/// Maximum size of an answer of a broker in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// A topic.
#[derive(Clone)]
pub(super) struct KafkaTopic {
    /// `HOST:PORT` of some brokers of the cluster.
    pub(super) brokers: Vec<String>,
    pub(super) topic: String,
    tls: bool,
    ca: Option<PathBuf>,
    login: Option<(Mechanism, String, String)>,
}

/// Way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram256,
    Scram512,
}

impl std::fmt::Debug for KafkaTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTopic")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("tls", &self.tls)
            .field("mechanism", &self.login.as_ref().map(|(mechanism, ..)| mechanism))
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for KafkaTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kafka://{}/{}", self.brokers.join(","), self.topic)
    }
}

/// The clients of the partitions of a topic, with their numbers, in order.
pub(super) type Partitions = Vec<(i32, Arc<PartitionClient>)>;

impl KafkaTopic {
    /// Reads the settings of a route or feed; `None` after reporting a mistake.
    pub(super) fn read(settings: &dyn Settings) -> Option<KafkaTopic> {
        let brokers = settings.text("kafka").unwrap_or_default();
        let brokers: Vec<String> = brokers.split(',').map(|broker| with_port(broker.trim())).collect();
        if brokers.iter().any(|broker| broker.starts_with(':') || broker.contains(['/', ' '])) {
            settings.wrong("kafka", r#"kafka = "HOST:PORT", or several with commas, without a scheme"#.into());
            return None;
        }
        let topic = settings.text("topic").filter(|topic| is_topic(topic));
        if topic.is_none() {
            settings.wrong("topic", r#"kafka requires topic = "TOPIC": letters, digits, `.`, `_`, `-`"#.into());
        }
        let (user, password) = (settings.text("user"), settings.secret("password"));
        let mechanism = match settings.word("sasl", &["plain", "scram-sha-256", "scram-sha-512"]) {
            Some("scram-sha-256") => Mechanism::Scram256,
            Some("scram-sha-512") => Mechanism::Scram512,
            _ => Mechanism::Plain,
        };
        let login = match (user, password) {
            (Some(user), Some(password)) => Some((mechanism, user, password)),
            (None, None) => None,
            _ => {
                settings.wrong("password", "user and password are both required to log in".into());
                return None;
            }
        };
        let ca = settings.path("ca");
        let tls = settings.word("tls", &["require", "off"]).map_or(ca.is_some(), |word| word == "require");
        Some(KafkaTopic { brokers, topic: topic?, tls, ca, login })
    }

    /// Topic of a broker without TLS and password.
    #[cfg(test)]
    pub(super) fn plain(broker: &str, topic: &str) -> KafkaTopic {
        KafkaTopic { brokers: vec![broker.into()], topic: topic.into(), tls: false, ca: None, login: None }
    }

    /// Connects to the brokers of all partitions.
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) async fn connect(&self) -> Result<Partitions, Failure> {
        match timeout(CONNECT, self.connect_all()).await {
            Ok(connected) => connected,
            Err(_) => Err(Failure::unreachable(format!("{self}: no answer within {} s", CONNECT.as_secs()))),
        }
    }

    async fn connect_all(&self) -> Result<Partitions, Failure> {
        let client = self.builder()?.build().await.map_err(|error| self.failure(&error))?;
        let topics = client.list_topics().await.map_err(|error| self.failure(&error))?;
        let Some(topic) = topics.into_iter().find(|topic| topic.name == self.topic) else {
            return Err(Failure::unreachable(format!(
                "{self}: there is no such topic, or no permission to see it: make it, or let the user describe it"
            )));
        };
        let partitions = topic.partitions.into_iter().map(|number| self.partition(&client, number));
        let mut all = futures_util::future::try_join_all(partitions).await?;
        if all.is_empty() {
            return Err(Failure::unreachable(format!("{self}: the topic has no partition")));
        }
        all.sort_unstable_by_key(|(number, _)| *number);
        Ok(all)
    }

    async fn partition(&self, client: &Client, number: i32) -> Result<(i32, Arc<PartitionClient>), Failure> {
        let partition = client.partition_client(self.topic.as_str(), number, UnknownTopicHandling::Error).await;
        Ok((number, Arc::new(partition.map_err(|error| self.failure(&error))?)))
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) async fn answer<T>(&self, request: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
        match timeout(ANSWER, request).await {
            Ok(answer) => answer.map_err(|error| self.failure(&error)),
            Err(_) => Err(Failure::unreachable(format!("{self}: no answer within {} s", ANSWER.as_secs()))),
        }
    }

    /// Describes an error of the client.
    pub(super) fn failure(&self, error: &ClientError) -> Failure {
        Failure::of(&self.to_string(), error)
    }

    fn builder(&self) -> Result<ClientBuilder, Failure> {
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
            deadline: Some(RETRIES),
        };
        let mut builder = ClientBuilder::new(self.brokers.clone())
            .client_id("diorama")
            .max_message_size(MAX_ANSWER)
            .backoff_config(backoff);
        if self.tls {
            let wrong = |problem: String| Failure::unreachable(format!("{self}: {problem}"));
            let pem = match &self.ca {
                Some(path) => {
                    Some(std::fs::read(path).map_err(|error| wrong(format!("ca {}: {error}", path.display())))?)
                }
                None => None,
            };
            let verification = pem.as_deref().map_or(Verification::Public, Verification::Authorities);
            builder = builder.tls_config(tls::client(&verification).map_err(wrong)?);
        }
        if let Some((mechanism, user, password)) = &self.login {
            let credentials = Credentials::new(user.clone(), password.clone());
            builder = builder.sasl_config(match mechanism {
                Mechanism::Plain => SaslConfig::Plain(credentials),
                Mechanism::Scram256 => SaslConfig::ScramSha256(credentials),
                Mechanism::Scram512 => SaslConfig::ScramSha512(credentials),
            });
        }
        Ok(builder)
    }
}

/// Adds the usual port to an address without one.
fn with_port(broker: &str) -> String {
    match broker.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => broker.to_string(),
        _ => format!("{broker}:9092"),
    }
}

/// Returns true for a legal name of a topic.
fn is_topic(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}
