//! `diorama check`: every mistake of a configuration at once.

use super::{Failure, hooks};
use crate::config::{CacheAt, Config, DioSpec, HookSpec, Page};
use diorama_core::state::COLUMN_CLOCK;

/// Checks what can be checked without opening anything but the files' names.
///
/// # Errors
/// Everything that is wrong, one per line.
pub fn check(config: &Config) -> Result<(), Failure> {
    check_with(config, false)
}

/// [`check`], and opens every source and route as `serve` would, to see whether they fit what is said of them. Nothing is kept.
///
/// # Errors
/// Everything that is wrong, one per line.
pub async fn check_all(config: &Config) -> Result<(), Failure> {
    let mut wrong = check(config).err().map(|failure| failure.message);
    let mut add = |message: String| match &mut wrong {
        Some(all) => *all = format!("{all}\n{message}"),
        None => wrong = Some(message),
    };
    missing_folders(config).for_each(&mut add);
    for spec in config.dios.iter().filter(|spec| spec.source.missing().is_none()) {
        // Each by itself, so that a mistake in one hides none of another.
        let one = Config { dios: vec![spec.clone()], ..config.clone() };
        let one = Config { webhooks: of_dio(&one.webhooks, &spec.name), ..one };
        if let Err(failure) = super::opened(&one, |_| ()).await {
            add(failure.message);
        }
    }
    wrong.map_or(Ok(()), |wrong| Err(Failure::config(wrong)))
}

/// The webhooks of a resource, without those that cannot be understood: they are told already.
fn of_dio(hooks: &[HookSpec], dio: &str) -> Vec<HookSpec> {
    hooks.iter().filter(|spec| spec.dio == dio && hooks::hook(spec).is_ok()).cloned().collect()
}

/// Folders of cache and journal that are not there: their files are made, folders are not.
fn missing_folders(config: &Config) -> impl Iterator<Item = String> {
    let cache = match &config.lens.cache {
        CacheAt::File(path) => Some(path.clone()),
        CacheAt::Memory => None,
    };
    [("cache", cache), ("journal", super::journal_path(&config.lens))].into_iter().filter_map(|(key, path)| {
        let path = path?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
        (!folder.is_dir()).then(|| format!("[lens] {key}: there is no folder {}", folder.display()))
    })
}

/// [`check`] for a program that has served before: a source that is away may have a copy.
pub(super) fn check_with(config: &Config, cached: bool) -> Result<(), Failure> {
    let hooks = config.webhooks.iter().filter_map(|spec| hooks::hook(spec).err());
    let feeds = config.dios.iter().filter_map(|spec| {
        let feed = spec.feed.as_ref()?;
        let wrong = feed.feed.check().and_then(|()| hooks::feed_format(feed).map(drop)).err()?;
        Some(format!("[dio.{}.feed] {wrong}", spec.name))
    });
    let missing = config
        .dios
        .iter()
        .filter(|_| !cached)
        .filter_map(|spec| spec.source.missing().map(|what| format!("[dio.{}] {what}", spec.name)));
    let public = !config.server.listen.ip().is_loopback();
    let unguarded = (public && config.server.auth.is_none()).then(|| crate::config::PUBLIC.to_string());
    let open = config.webhooks.iter().filter(|spec| public && spec.auth.scheme == crate::config::AuthScheme::None);
    let open = open.map(|spec| format!("[webhook.{}] scheme \"none\" is for loopback addresses only", spec.name));
    let unkept = config.dios.iter().filter(|spec| spec.log_in_memory && spec.write.is_some());
    let unkept = unkept.map(|spec| {
        format!(
            "[dio.{}] ack = \"memory\" does not go with write: what goes around the source is kept in the journal",
            spec.name
        )
    });
    let clockless = config.webhooks.iter().filter(|spec| {
        let versioned = |dio: &&DioSpec| dio.name == spec.dio && dio.version.is_some();
        spec.clock.as_deref() == Some(COLUMN_CLOCK) && !config.dios.iter().any(|dio| versioned(&dio))
    });
    let clockless = clockless.map(|spec| {
        format!(
            "[webhook.{}] clock = \"column\" is the version column of [dio.{}]: it needs version",
            spec.name, spec.dio
        )
    });
    let unrouted = config.dios.iter().filter(|spec| spec.routed_ttl.is_some() && spec.write.is_none());
    let unrouted = unrouted
        .map(|spec| format!("[dio.{}] routed_ttl is for writes that go around the source: it needs write", spec.name));
    let pageless = match &config.server.explorer {
        Page::Folder(folder) if !folder.join("index.html").is_file() => {
            Some(format!("server.explorer: there is no file {}", folder.join("index.html").display()))
        }
        _ => None,
    };
    let wrong: Vec<String> = hooks
        .chain(feeds)
        .chain(missing)
        .chain(pageless)
        .chain(unguarded)
        .chain(open)
        .chain(unkept)
        .chain(clockless)
        .chain(unrouted)
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::config(wrong.join("\n"))) }
}
