//! Implementation of `diorama check`: reports every mistake of a configuration at once.

use super::{Failure, hooks};
use crate::config::{CacheAt, Config, DioSpec, HookSpec, Page};
use diorama_connect::SourceRequest;
use diorama_core::state::COLUMN_CLOCK;
use diorama_gateway::access::Allow;

/// Checks a configuration without opening sources: only the existence of their files is checked. A certificate is read.
///
/// # Errors
/// All mistakes, one per line.
pub fn check(config: &Config) -> Result<(), Failure> {
    check_with(config, false)
}

/// Returns warnings about a valid configuration: an expired certificate.
pub fn warnings(config: &Config) -> Vec<String> {
    let spec = config.server.tls.as_ref();
    spec.and_then(|spec| super::tls::check(spec).ok().flatten()).into_iter().collect()
}

/// Runs [`check`] and opens every source and route as `serve` would, to compare them with their settings. Nothing is stored.
///
/// # Errors
/// All mistakes, one per line.
pub async fn check_all(config: &Config) -> Result<(), Failure> {
    let mut mistakes = check(config).err().map(|failure| failure.message);
    let mut add_mistake = |message: String| match &mut mistakes {
        Some(all) => *all = format!("{all}\n{message}"),
        None => mistakes = Some(message),
    };
    missing_folders(config).for_each(&mut add_mistake);
    for spec in config.dios.iter().filter(|spec| spec.source.missing().is_none()) {
        // Each resource is opened by itself, so that a mistake in one does not hide those of another.
        let alone = Config { dios: vec![spec.clone()], ..config.clone() };
        let alone = Config { webhooks: of_dio(&alone.webhooks, &spec.name), ..alone };
        let alone = Config { allow: about_dio(&config.allow, &spec.name), ..alone };
        if let Err(failure) = super::opened(&alone, |_| ()).await {
            add_mistake(failure.message);
        } else if let Err(mistake) = inspect_feed(spec).await {
            add_mistake(mistake);
        }
    }
    mistakes.map_or(Ok(()), |mistakes| Err(Failure::config(mistakes)))
}

/// Checks that the feed of a resource can connect, and prints how its changes arrive.
async fn inspect_feed(spec: &DioSpec) -> Result<(), String> {
    let Some(feed) = &spec.feed else { return Ok(()) };
    let request = SourceRequest { name: spec.name.clone(), id: spec.id.clone(), ..SourceRequest::default() };
    match feed.feed.inspect(&request).await {
        Ok(note) => {
            note.iter().for_each(|note| super::say(format_args!("[dio.{}] {note}", spec.name)));
            Ok(())
        }
        Err(mistake) => Err(format!("[dio.{}.feed] {mistake}", spec.name)),
    }
}

/// Returns the rules about a resource.
fn about_dio(rules: &[Allow], dio: &str) -> Vec<Allow> {
    rules.iter().filter(|rule| rule.dio == dio || rule.dio == "*").cloned().collect()
}

/// Returns the webhooks of a resource, without invalid ones, which are reported already.
fn of_dio(hooks: &[HookSpec], dio: &str) -> Vec<HookSpec> {
    hooks.iter().filter(|spec| spec.dio == dio && hooks::hook(spec).is_ok()).cloned().collect()
}

/// Reports missing folders of cache and journal: files are created, folders are not.
fn missing_folders(config: &Config) -> impl Iterator<Item = String> {
    let cache = match &config.lens.cache {
        CacheAt::File(path) => Some(path.clone()),
        CacheAt::Memory | CacheAt::Server(_) => None,
    };
    [("cache", cache), ("journal", super::journal_path(&config.lens))].into_iter().filter_map(|(key, path)| {
        let path = path?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
        (!folder.is_dir()).then(|| format!("[lens] {key}: there is no folder {}", folder.display()))
    })
}

/// Runs [`check`]; `cached` is true if a cache file exists, which may hold a copy of an unavailable source.
pub(super) fn check_with(config: &Config, cached: bool) -> Result<(), Failure> {
    let hooks = config.webhooks.iter().filter_map(|spec| hooks::hook(spec).err());
    let feeds = config.dios.iter().filter_map(|spec| {
        let feed = spec.feed.as_ref()?;
        let mistakes = feed.feed.check().and_then(|()| hooks::feed_format(feed).map(drop)).err()?;
        Some(format!("[dio.{}.feed] {mistakes}", spec.name))
    });
    let missing = config
        .dios
        .iter()
        .filter(|_| !cached)
        .filter_map(|spec| spec.source.missing().map(|what| format!("[dio.{}] {what}", spec.name)));
    let public = !config.server.listen.ip().is_loopback();
    let access = config.access_mistake().map(str::to_string);
    let auth = super::build_auth(config).err().map(|failure| failure.message);
    let open_hooks =
        config.webhooks.iter().filter(|spec| public && spec.auth.scheme == crate::config::AuthScheme::None);
    let open_hooks = open_hooks
        .map(|spec| format!("[webhook.{}] scheme \"none\" is permitted only on loopback addresses", spec.name));
    let memory_with_route = config.dios.iter().filter(|spec| spec.log_in_memory && spec.write.is_some());
    let memory_with_route = memory_with_route.map(|spec| {
        format!(
            "[dio.{}] ack = \"memory\" cannot be combined with write: routed writes must be kept in the journal",
            spec.name
        )
    });
    let clock_without_version = config.webhooks.iter().filter(|spec| {
        let versioned = |dio: &&DioSpec| dio.name == spec.dio && dio.version.is_some();
        spec.clock.as_deref() == Some(COLUMN_CLOCK) && !config.dios.iter().any(|dio| versioned(&dio))
    });
    let clock_without_version = clock_without_version
        .map(|spec| format!("[webhook.{}] clock = \"column\" requires version in [dio.{}]", spec.name, spec.dio));
    let ttl_without_route = config.dios.iter().filter(|spec| spec.routed_ttl.is_some() && spec.write.is_none());
    let ttl_without_route = ttl_without_route
        .map(|spec| format!("[dio.{}] routed_ttl requires write: it applies to routed writes only", spec.name));
    let tls = config.server.tls.as_ref().and_then(|spec| super::tls::check(spec).err());
    let explorer_without_page = match &config.server.explorer {
        Page::Folder(folder) if !folder.join("index.html").is_file() => {
            Some(format!("server.explorer: there is no file {}", folder.join("index.html").display()))
        }
        _ => None,
    };
    let mistakes: Vec<String> = hooks
        .chain(feeds)
        .chain(missing)
        .chain(explorer_without_page)
        .chain(tls)
        .chain(access)
        .chain(auth)
        .chain(open_hooks)
        .chain(memory_with_route)
        .chain(clock_without_version)
        .chain(ttl_without_route)
        .collect();
    if mistakes.is_empty() { Ok(()) } else { Err(Failure::config(mistakes.join("\n"))) }
}
