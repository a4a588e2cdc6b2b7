//! Demo bakery: a configuration with its data, unpacked into a folder and served like any other.

use std::fs;
use std::path::{Path, PathBuf};

use super::Failure;

/// Default folder.
pub const FOLDER: &str = "diorama-demo";
/// Default folder of the demo in PostgreSQL.
pub const POSTGRES_FOLDER: &str = "diorama-demo-postgres";

const CONFIG: &str = "diorama.toml";
const DATABASE: &str = "shop.db";
const PRODUCTS: &str = include_str!("../../demo/products.csv");
const SHOP: &str = include_str!("../../demo/shop.sql");
const FILES: [(&str, &str); 6] = [
    (CONFIG, include_str!("../../demo/diorama.toml")),
    ("products.csv", PRODUCTS),
    ("categories.json", include_str!("../../demo/categories.json")),
    ("webhook.secret", include_str!("../../demo/webhook.secret")),
    ("webhook.sh", include_str!("../../demo/webhook.sh")),
    // Keeps the demo out of a surrounding repository.
    (".gitignore", "*\n"),
];

/// Creates a missing file of a folder with `make`, and leaves an existing one unchanged.
fn write(folder: &Path, name: &str, make: &dyn Fn(&Path) -> Result<(), String>) -> Result<(), Failure> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    if path.exists() {
        return Ok(());
    }
    // The file gets its name only when it is complete.
    let made = fs::create_dir_all(folder).map_err(|error| error.to_string()).and_then(|()| make(&new));
    let made = made.and_then(|()| fs::rename(&new, &path).map_err(|error| error.to_string()));
    made.map_err(|error| Failure::config(format!("cannot write {}: {error}", path.display())))
}

/// Creates the tables of the demo in the PostgreSQL database at `url`, and the missing files of its folder. Existing tables and
/// files are left unchanged. Returns the path of the configuration.
///
/// # Errors
/// The file that cannot be written, or the database that cannot be reached or does not allow it.
#[cfg(feature = "postgres")]
pub async fn unpack_postgres(folder: &Path, url: &str) -> Result<PathBuf, Failure> {
    let known = fs::read_to_string(folder.join("postgres.url")).ok();
    if known.is_some_and(|known| known != url) {
        let detail = format!("{} is the folder of another database: choose one with --dir", folder.display());
        return Err(Failure::config(detail));
    }
    let sql = postgres_sql().map_err(|error| Failure::config(format!("the data of the demo: {error}")))?;
    diorama_connect::Postgres::run(url, &sql).await.map_err(Failure::config)?;
    let text = |text: &'static str| move |path: &Path| fs::write(path, text).map_err(|error| error.to_string());
    write(folder, ".gitignore", &text("*\n"))?;
    write(folder, "postgres.url", &|path| secret(path, url).map_err(|error| error.to_string()))?;
    write(folder, CONFIG, &text(include_str!("../../demo/postgres.toml")))?;
    Ok(folder.join(CONFIG))
}

/// Writes a file that only its owner can read.
#[cfg(feature = "postgres")]
fn secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// Returns the statements that make and fill the tables; rows that exist are left alone.
#[cfg(feature = "postgres")]
fn postgres_sql() -> Result<String, Box<dyn std::error::Error>> {
    use std::fmt::Write as _;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut sql = String::from(include_str!("../../demo/postgres.sql"));
    let categories: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../demo/categories.json"))?;
    for row in categories {
        let text = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), quoted);
        let values = ["id", "name", "shelf", "vat"].map(text).join(", ");
        writeln!(sql, "INSERT INTO categories VALUES ({values}) ON CONFLICT DO NOTHING;")?;
    }
    for row in csv::Reader::from_reader(PRODUCTS.as_bytes()).records() {
        let values = row?.iter().map(quoted).collect::<Vec<_>>().join(", ");
        writeln!(sql, "INSERT INTO products VALUES ({values}) ON CONFLICT DO NOTHING;")?;
    }
    let (_, orders) = SHOP.split_once("INSERT INTO orders").ok_or("shop.sql has no orders")?;
    let orders = orders.trim_end().trim_end_matches(';');
    writeln!(sql, "INSERT INTO orders{orders} ON CONFLICT DO NOTHING;")?;
    Ok(sql)
}

/// Creates the missing files of the demo's folder and leaves existing files unchanged. Returns the path of the configuration.
///
/// # Errors
/// The file that cannot be written.
pub fn unpack(folder: &Path) -> Result<PathBuf, Failure> {
    let write = |name: &str, make: &dyn Fn(&Path) -> Result<(), String>| write(folder, name, make);
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
    filling.execute_batch(SHOP)?;
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
