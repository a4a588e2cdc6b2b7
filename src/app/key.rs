//! Implementation of `diorama key`.

use clap::{Args, Subcommand};

use diorama_gateway::auth::{Key, TokenHash};

/// Work with the keys of programs.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Generate a token, and print the lines for the configuration.
    New(NewKey),
}

/// Arguments of `diorama key new`.
#[derive(Args, Debug)]
pub struct NewKey {
    /// Name of the key in the configuration and in the log.
    name: String,
    /// Role of the key.
    #[arg(long, default_value = "viewer")]
    role: String,
}

/// Returns the text of `diorama key`.
pub fn run(command: &Keys) -> String {
    let Keys::New(NewKey { name, role }) = command;
    let token = Key::generate_token();
    let hash = TokenHash::of(token.as_bytes()).hex();
    format!(
        "The token, which is shown only now:\n\n    {token}\n\nThe lines for diorama.toml, which have only its hash:\n\n\
         [key.{name}]\nrole = {role:?}\ntoken_sha256 = \"{hash}\""
    )
}
