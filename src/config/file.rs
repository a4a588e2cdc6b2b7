//! Reader of the whole file, and configurations made of file names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::allow;
use super::connection::Connections;
use super::problems::{Problem, Problems};
use super::rates;
use super::value::{Context, Reader};
use diorama_connect::{Registry, Source};
use diorama_gateway::RESERVED;

use super::{
    AuditSpec, Config, ConfigError, DioSpec, HookSpec, JwtSpec, KeySpec, LensSpec, NO_AUTHORITY, NOBODY, NotifySpec,
    PUBLIC, ServerSpec, WrittenKeys,
};

pub(super) fn parse(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    registry: &Registry,
) -> Result<Config, ConfigError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let context = Context {
        problems: Problems::default(),
        path,
        folder,
        text,
        env,
        registry,
        #[cfg(test)]
        requested: std::cell::RefCell::default(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let config = read(&context, table.get_ref());
    let syntax = errors.iter().map(|error| {
        Problem::new(error.span().map_or(0, |span| span.start), format!("not valid TOML: {}", error.message()))
    });
    let mut problems: Vec<Problem> = syntax.collect();
    // Other mistakes in a broken file may only be consequences of the syntax error.
    if problems.is_empty() {
        problems = context.problems.take();
    }
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(path, text, problems)) }
}

pub(super) fn read<'a>(context: &'a Context<'a>, table: &'a DeTable<'a>) -> Config {
    let root = Reader::new(context, String::new(), 0, table);
    let server = root.table("server").map(ServerSpec::read).unwrap_or_default();
    let empty = DeTable::new();
    let lens = match root.table("lens") {
        Some(lens) => LensSpec::read(lens),
        None => LensSpec::read(Reader::new(context, "lens".into(), 0, &empty)),
    };
    let connections = Connections::read(&root);
    let tables = root.tables("dio");
    let names: Vec<String> = tables.iter().map(|(name, _)| name.clone()).collect();
    let dios = tables.into_iter().map(|(name, reader)| DioSpec::read(name, reader, &connections));
    let dios: Vec<DioSpec> = dios.collect();
    connections.finish();
    if names.is_empty() {
        root.problem(0, "there is no [dio.NAME]: at least one resource is required");
    }
    let keys: Vec<_> = root.tables("key").into_iter().map(|(name, reader)| KeySpec::read(name, reader)).collect();
    let jwts: Vec<_> = root.tables("jwt").into_iter().map(|(name, reader)| JwtSpec::read(&name, reader)).collect();
    // A mistake in one of them is reported already, and could be the reason for another one.
    let complete = keys.iter().all(Option::is_some) && jwts.iter().all(Option::is_some);
    let (keys, jwts) = (keys.into_iter().flatten().collect(), jwts.into_iter().flatten().collect());
    let loopback = server.listen.ip().is_loopback();
    let hooks = root.tables("webhook").into_iter();
    let webhooks = hooks.filter_map(|(name, reader)| HookSpec::read(name, reader, loopback, &names)).collect();
    let notifications = root.tables("notify").into_iter();
    let notifications = notifications.filter_map(|(name, reader)| NotifySpec::read(name, reader, &names)).collect();
    let allow = allow::read(&root, &names);
    let mut limits = Vec::new();
    for reader in root.array("limit") {
        let limit = rates::read(reader, &limits);
        limits.push(limit);
    }
    let audit = root.table("audit").map(|reader| AuditSpec::read(reader, &lens)).unwrap_or_default();
    let written = WrittenKeys::of(table);
    let config = Config { server, keys, jwts, lens, dios, webhooks, notifications, allow, limits, audit, written };
    if let Some(mistake) = config.access_mistake().filter(|_| complete) {
        let table = root.table("server");
        let at = |key| table.as_ref().and_then(|table| table.position(key));
        let own = match mistake {
            NOBODY => at("auth"),
            NO_AUTHORITY => root.position("key"),
            _ => at("anonymous").or(at("listen")),
        };
        // A value of `auth` that is not valid is reported already.
        if mistake != PUBLIC || at("auth").is_none() {
            root.problem(own.unwrap_or(0), mistake);
        }
    }
    root.finish();
    config
}

/// Checks that `name` can be the name of a resource.
///
/// # Errors
/// The reason why not.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if RESERVED.contains(&name) {
        return Err(format!("{name:?} is reserved for a route of the server: choose another name"));
    }
    if !fits || name.len() > 64 || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!(
            "{name:?} is not a valid resource name: use letters, digits, - and _, beginning with a letter or digit"
        ));
    }
    Ok(())
}

/// A file on the command line: `PATH` or `NAME=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name of the resource.
    pub name: String,
    /// Path of the file.
    pub path: PathBuf,
    /// True if the name differs from the file's name.
    pub renamed: bool,
}

impl File {
    /// Parses an argument.
    ///
    /// # Errors
    /// The name that is not valid.
    pub fn parse(argument: &str) -> Result<File, String> {
        if let Some((name, path)) = argument.split_once('=')
            && !Path::new(argument).exists()
        {
            check_name(name)?;
            return Ok(File { name: name.into(), path: path.into(), renamed: false });
        }
        let path = PathBuf::from(argument);
        let stem = stem(&path);
        let name = resource_name(&stem);
        check_name(&name).map_err(|error| format!("{argument}: {error}, or use NAME={argument}"))?;
        Ok(File { renamed: name != stem, name, path })
    }

    /// Returns the source for the file's extension.
    ///
    /// # Errors
    /// The known extensions, if the file has another one.
    fn source(&self, registry: &Registry) -> Result<Arc<dyn Source>, String> {
        let ending = unpacked(&self.path).extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        ending.and_then(|ending| registry.file(&ending, &self.path)).ok_or_else(|| {
            let endings = registry.connectors().flat_map(|connector| connector.endings());
            let endings: Vec<String> = endings.map(|ending| format!(".{ending}")).collect();
            let known = endings.split_last().map(|(last, before)| format!("{} or {last}", before.join(", ")));
            format!(
                "{}: unknown file extension: use {}, optionally with .gz or .zst; other files and databases require a diorama.toml",
                self.path.display(),
                known.unwrap_or_default()
            )
        })
    }

    /// Returns a configuration that serves `files`.
    ///
    /// # Errors
    /// All mistakes, one per line.
    pub fn config(files: &[File]) -> Result<Config, String> {
        let registry = Registry::builtin();
        let mut seen = HashSet::new();
        let mut wrong = Vec::new();
        let mut dios = Vec::new();
        for file in files {
            if !seen.insert(&file.name) {
                wrong.push(format!("two files are named {:?}: rename one of them with NAME=PATH", file.name));
            }
            match file.source(&registry) {
                Ok(source) => dios.push(DioSpec::new(file.name.clone(), source)),
                Err(error) => wrong.push(error),
            }
        }
        if wrong.is_empty() { Ok(Config { dios, ..Config::default() }) } else { Err(wrong.join("\n")) }
    }
}

/// Returns the path without `.gz` or `.zst`.
fn unpacked(path: &Path) -> PathBuf {
    let is_packing = |ending: &std::ffi::OsStr| ["gz", "zst"].iter().any(|own| ending.eq_ignore_ascii_case(own));
    let packed = path.extension().is_some_and(is_packing);
    if packed { path.with_extension("") } else { path.to_path_buf() }
}

/// Returns a file's name without its extensions.
pub fn stem(path: &Path) -> String {
    unpacked(path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Converts `stem` to a valid resource name.
pub fn resource_name(stem: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = stem.chars().map(fit).take(64).collect();
    name.trim_start_matches(['_', '-']).to_string()
}
