//! Implementation of `diorama explain`: shows how a running server answers a list.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::trust::TrustArgs;
use super::{Failure, print};

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// The resource.
    dio: String,
    /// The query as in a URL, like 'category=eq.bread&order=price.desc'.
    #[arg(default_value = "")]
    query: String,
    /// The running server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The server's token.
    #[arg(long, value_name = "env:NAME|file:PATH")]
    token: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Prints the server's explanation as JSON.
///
/// # Errors
/// If the server cannot be reached, or refuses the query.
pub async fn explain(arguments: Explain) -> Result<(), Failure> {
    let Explain { dio, query, url, token, trust } = arguments;
    let client = Client::new(&url, token.as_deref(), &trust)?;
    let path = format!("/{}?{}&explain=true", diorama_gateway::segment(&dio), encoded(&query));
    let explanation: Value = client.send("GET", path.replace("?&", "?").as_str())?;
    print(&format!("{explanation:#}\n"))
}

/// Percent-encodes the characters of a query that are not valid in a URL.
fn encoded(query: &str) -> String {
    query.trim_start_matches('?').bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => drop(write!(out, "%{byte:02X}")),
            0x21..=0x7E => out.push(byte as char),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_query_is_percent_encoded() {
        assert_eq!(super::encoded("?name=eq.Crème brûlée&a=1"), "name=eq.Cr%C3%A8me%20br%C3%BBl%C3%A9e&a=1");
        assert_eq!(super::encoded("\"limit\"=eq.5%20"), "%22limit%22=eq.5%20");
    }
}
