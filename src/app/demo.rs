//! Demo bakery: a configuration with its data, unpacked into a folder and served like any other.

use std::fs;
use std::path::{Path, PathBuf};

use super::Failure;

/// Default folder.
pub const FOLDER: &str = "diorama-demo";

const CONFIG: &str = "diorama.toml";
const DATABASE: &str = "shop.db";
const PRODUCTS: &str = include_str!("../../demo/products.csv");
const FILES: [(&str, &str); 6] = [
    (CONFIG, include_str!("../../demo/diorama.toml")),
    ("products.csv", PRODUCTS),
    ("categories.json", include_str!("../../demo/categories.json")),
    ("webhook.secret", include_str!("../../demo/webhook.secret")),
    ("webhook.sh", include_str!("../../demo/webhook.sh")),
    // Keeps the demo out of a surrounding repository.
    (".gitignore", "*\n"),
];

/// Creates the missing files of the demo's folder and leaves existing files unchanged. Returns the path of the configuration.
///
/// # Errors
/// The file that cannot be written.
pub fn unpack(folder: &Path) -> Result<PathBuf, Failure> {
    let failed = |path: &Path, error: String| Failure::config(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| failed(folder, error.to_string()))?;
    let write = |name: &str, make: &dyn Fn(&Path) -> Result<(), String>| {
        let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
        if path.exists() {
            return Ok(());
        }
        // The file gets its name only when it is complete.
        let made = make(&new).and_then(|()| fs::rename(&new, &path).map_err(|error| error.to_string()));
        made.map_err(|error| failed(&path, error))
    };
    for (name, text) in FILES {
        let script = text.starts_with("#!");
        write(name, &|path| {
            let written = fs::write(path, text).and_then(|()| if script { make_executable(path) } else { Ok(()) });
            written.map_err(|error| error.to_string())
        })?;
    }
    write(DATABASE, &|path| {
        let _ = fs::remove_file(path);
        database(path).map_err(|error| error.to_string())
    })?;
    Ok(folder.join(CONFIG))
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(feature = "csv", feature = "sqlite"))]
fn database(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut shop = rusqlite::Connection::open(path)?;
    let filling = shop.transaction()?;
    filling.execute_batch(include_str!("../../demo/shop.sql"))?;
    let mut insert = filling.prepare("INSERT INTO products VALUES (?, ?, ?, ?, ?)")?;
    for row in csv::Reader::from_reader(PRODUCTS.as_bytes()).records() {
        insert.execute(rusqlite::params_from_iter(row?.iter()))?;
    }
    drop(insert);
    filling.commit()?;
    Ok(())
}

#[cfg(not(all(feature = "csv", feature = "sqlite")))]
fn database(_: &Path) -> Result<(), &'static str> {
    Err("this program was built without the connectors of the demo: build it with --features csv,json,sqlite")
}

/// Returns example requests for the demo served at `base`.
pub fn greeting(base: &str) -> String {
    format!(
        "try\n  \
         curl '{base}/products?category_id=eq.2&order=price.desc&select=id,name,price&limit=3'\n  \
         curl {base}/products/muffin --json '{{\"name\":\"Muffin\",\"price\":175,\"category_id\":3}}'\n  \
         curl '{base}/orders?status=eq.new'\n\
         or open {base}/ in a browser"
    )
}
