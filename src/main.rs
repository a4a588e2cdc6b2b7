//! The command `diorama`.

mod telemetry;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use axum::body::Bytes;
use clap::{Args, Parser, Subcommand};
#[cfg(feature = "http")]
use diorama::app::explore;
use diorama::app::{self, Failure, access, demo, feeds, key, notify, ops, webhook};
use diorama::config::{Access, CacheAt, Config, File, HookSpec};
use diorama_gateway::Gateway;

/// Global allocator. A source's list is many small allocations that are freed together; unlike glibc's allocator, this one
/// returns their memory to the system.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts slow data behind a fast, live HTTP and WebSocket API.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Log level: error, warn, info, debug, trace, or a filter in the syntax of RUST_LOG.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// Log format (default: DIORAMA_LOG_FORMAT, else text).
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<telemetry::Format>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve files (each becomes a resource) or the resources of a diorama.toml.
    Serve(Serve),
    /// Serve the demo bakery from a new folder.
    Demo(Demo),
    /// Print the OpenAPI document of the resources that serve would serve.
    Openapi(Serve),
    /// Print the AsyncAPI document of its events and live queries.
    Asyncapi(Serve),
    /// Explain how a running server answers a list: rows read, filters checked, time taken.
    Explain(ops::Explain),
    /// Copy a consistent snapshot of a running server's cache and journal into a folder.
    Backup(ops::Backup),
    /// Print the audit log: of a running server with --url, else in a stopped server's files.
    Audit(ops::Audit),
    #[command(subcommand)]
    Ops(ops::Ops),
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    #[command(subcommand)]
    Notify(notify::Notify),
    #[command(subcommand)]
    Key(key::Keys),
    #[command(subcommand)]
    Feed(feeds::Feeds),
    /// Print the SQL of the triggers that report a table's changes where replication is not allowed.
    Trigger(feeds::Trigger),
    /// Explore an HTTP API with at most three requests, and print the configuration for it.
    #[cfg(feature = "http")]
    Try(explore::Try),
    Access(access::Access),
    /// Report every mistake in a configuration.
    Check {
        /// The configuration.
        #[arg(default_value = "diorama.toml")]
        file: PathBuf,
        /// Do not open the sources.
        #[arg(long)]
        offline: bool,
    },
}

#[derive(Args, Debug, Default)]
struct Demo {
    /// Address and port to listen on.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Folder of its files; missing files are created (default: diorama-demo).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep its rows in the schema "bakery" of this PostgreSQL database, which is created.
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Use "none" to serve a public address without authentication.
    #[arg(long, value_parser = ["none"])]
    auth: Option<String>,
}

impl Demo {
    /// Makes what is missing of the demo. Returns its folder and its configuration.
    fn unpack(&self) -> Result<(PathBuf, PathBuf), Failure> {
        #[cfg(feature = "postgres")]
        if let Some(url) = &self.postgres {
            let folder = self.dir.clone().unwrap_or_else(|| demo::POSTGRES_FOLDER.into());
            let file = runtime()?.block_on(demo::unpack_postgres(&folder, url))?;
            return Ok((folder, file));
        }
        let folder = self.dir.clone().unwrap_or_else(|| demo::FOLDER.into());
        let file = demo::unpack(&folder)?;
        Ok((folder, file))
    }
}

#[derive(Args, Debug, Default)]
struct Serve {
    /// Files (PATH or NAME=PATH), or one configuration (default: ./diorama.toml).
    files: Vec<String>,
    /// Address and port to listen on.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Cache file for rows and writes, or "memory".
    #[arg(long)]
    cache: Option<String>,
    /// Use "none" to serve a public address without authentication.
    #[arg(long, value_parser = ["none"])]
    auth: Option<String>,
}

impl Serve {
    /// Returns true if the arguments are data files instead of a configuration.
    fn names_files(&self) -> bool {
        !matches!(self.files.as_slice(), [] | [_]) || self.files.iter().any(|file| !file.ends_with(".toml"))
    }

    fn config(&self) -> Result<Config, Failure> {
        let mut config = match self.files.as_slice() {
            [] => app::read(Path::new("diorama.toml")).map_err(|mut failure| {
                if !Path::new("diorama.toml").exists() {
                    failure.message =
                        "there is no ./diorama.toml: pass the files to serve, like diorama serve products.csv".into();
                }
                failure
            })?,
            [one] if one.ends_with(".toml") => app::read(Path::new(one))?,
            files => zero_config(files)?,
        };
        config.server.listen = self.listen.unwrap_or(config.server.listen);
        if self.names_files() && config.server.listen.ip().is_loopback() {
            // Every client of a loopback address may write, so webhooks without authentication add no risk.
            config.webhooks = config.dios.iter().map(|dio| HookSpec::open(&dio.name)).collect();
        }
        match self.cache.as_deref() {
            None => {}
            Some("memory") => config.lens.cache = CacheAt::Memory,
            Some(url) if url.contains("://") => {
                return Err(Failure::config(
                    "--cache takes a file: a cache on a server is lens.cache in a configuration",
                ));
            }
            Some(path) => config.lens.cache = CacheAt::File(path.into()),
        }
        if self.auth.is_some() {
            config.server.auth = Some(Access::Anybody);
        }
        Ok(config)
    }
}

/// Reports the files that are served under another name than their own.
fn report_renamed_files(arguments: &[String]) {
    let files = arguments.iter().filter_map(|argument| File::parse(argument).ok());
    for file in files.filter(|file| file.renamed) {
        app::say(format_args!(
            "{} is served as {}; use NAME=PATH to choose another name",
            file.path.display(),
            file.name
        ));
    }
}

fn zero_config(arguments: &[String]) -> Result<Config, Failure> {
    let parsed: Vec<_> = arguments.iter().map(|argument| File::parse(argument)).collect();
    let wrong: Vec<String> = parsed.iter().filter_map(|file| file.as_ref().err().cloned()).collect();
    if !wrong.is_empty() {
        return Err(Failure::config(wrong.join("\n")));
    }
    let files: Vec<File> = parsed.into_iter().flatten().collect();
    app::of_files(&files)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Runtime::new()
        .map_err(|error| Failure { code: 1, message: format!("cannot start the async runtime: {error}") })
}

/// Serves the configuration that `read` returns until a signal stops the server.
fn serve(read: &dyn Fn() -> Result<Config, Failure>, ready: impl FnOnce(&str)) -> Result<(), Failure> {
    let config = read()?;
    let runtime = runtime()?;
    let served = runtime.block_on(app::serve_with(config, read, ready));
    // Work that still blocks in a driver must not delay the exit.
    runtime.shutdown_background();
    served
}

/// Returns the command to run without arguments: serve ./diorama.toml if it exists, else the demo.
fn default_command() -> Command {
    match Path::new("diorama.toml").exists() {
        true => Command::Serve(Serve::default()),
        false => Command::Demo(Demo::default()),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command.unwrap_or_else(default_command) {
        Command::Serve(arguments) => {
            if arguments.names_files() {
                report_renamed_files(&arguments.files);
            }
            serve(&|| arguments.config(), |_| {})
        }
        Command::Demo(arguments) => {
            let (folder, file) = arguments.unpack()?;
            let read = || {
                let mut config = app::read(&file)?;
                config.server.listen = arguments.listen.unwrap_or(config.server.listen);
                config.server.auth = arguments.auth.as_ref().map(|_| Access::Anybody).or(config.server.auth);
                Ok(config)
            };
            app::say(format_args!("the demo bakery is in {}", folder.display()));
            serve(&read, |base| app::say(demo::greeting(base)))
        }
        Command::Openapi(serve) => print(&described(&serve, Gateway::openapi)?),
        Command::Asyncapi(serve) => print(&described(&serve, Gateway::asyncapi)?),
        Command::Explain(arguments) => runtime()?.block_on(ops::explain(arguments)),
        Command::Backup(arguments) => runtime()?.block_on(ops::backup(arguments)),
        Command::Audit(arguments) => runtime()?.block_on(ops::audit(arguments)),
        Command::Ops(arguments) => runtime()?.block_on(ops::run(arguments)),
        Command::Webhook(arguments) => runtime()?.block_on(webhook::run(arguments)),
        Command::Notify(arguments) => runtime()?.block_on(notify::run(arguments)),
        Command::Key(arguments) => {
            app::say(key::run(&arguments));
            Ok(())
        }
        Command::Feed(arguments) => runtime()?.block_on(feeds::run(arguments)),
        Command::Trigger(arguments) => runtime()?.block_on(feeds::trigger(arguments)),
        #[cfg(feature = "http")]
        Command::Try(arguments) => runtime()?.block_on(explore::run(&arguments)),
        Command::Access(arguments) => runtime()?.block_on(access::run(arguments)),
        Command::Check { file, offline } => {
            let config = app::read(&file)?;
            match offline {
                true => app::check(&config)?,
                false => runtime()?.block_on(app::check_all(&config))?,
            }
            app::warnings(&config).iter().for_each(|warning| app::say(format_args!("warning: {warning}")));
            let (dios, hooks) = (config.dios.len(), config.webhooks.len());
            app::say(format_args!("{} is valid: {dios} resources, {hooks} webhooks", file.display()));
            Ok(())
        }
    }
}

fn print(document: &[u8]) -> Result<(), Failure> {
    let written = std::io::stdout().write_all(document);
    written.map_err(|error| Failure { code: 1, message: format!("stdout: {error}") })
}

/// Returns the document of the resources that these arguments would serve; without arguments, of the default command's resources.
fn described(serve: &Serve, document: fn(&Gateway) -> Bytes) -> Result<Bytes, Failure> {
    if !serve.files.is_empty() || Path::new("diorama.toml").exists() {
        return runtime()?.block_on(app::describe(&serve.config()?, document));
    }
    // Use the demo that is unpacked here, or else a temporary copy, so that no files are left behind.
    let temporary =
        tempfile::tempdir().map_err(|error| Failure::config(format!("cannot create a temporary folder: {error}")))?;
    let here = Path::new(demo::FOLDER);
    let folder = if here.exists() { here } else { temporary.path() };
    runtime()?.block_on(app::describe(&app::read(&demo::unpack(folder)?)?, document))
}

/// Returns the file that stands where a subcommand is expected.
fn served_file(error: &clap::Error) -> Option<String> {
    // Arguments that are not UTF-8 are possible.
    let word = std::env::args_os().nth(1)?.into_string().ok()?;
    let is_file = error.kind() == clap::error::ErrorKind::InvalidSubcommand && std::path::Path::new(&word).is_file();
    is_file.then_some(word)
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Writing fails if the stream is closed.
            let _ = error.print();
            if let Some(file) = served_file(&error) {
                let _ = writeln!(std::io::stderr(), "\n  tip: to serve the file, use 'diorama serve {file}'");
            }
            return if error.use_stderr() { ExitCode::from(ops::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let log = match telemetry::start(cli.log.as_deref(), cli.log_format) {
        Ok(log) => log,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(Failure::config("").code);
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log.fail(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}
