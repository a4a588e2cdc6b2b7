//! A bakery in memory behind a gateway, on a clock that runs as fast as nobody has anything to do.

use axum::Router;
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::gateway::Gateway;
use diorama::gateway::webhook::Hook;
use diorama::inbound::{self, Scheme};
use diorama::{Column, ColumnType, Dio, Lens, Record, Schema};
use tokio::runtime::{Builder, Runtime};

/// A runtime, the gateway that runs on it, and the Dio behind that.
pub struct Bakery {
    /// Runs everything.
    pub runtime: Runtime,
    /// Answers requests.
    pub router: Router,
    /// The products.
    pub dio: Dio,
}

/// Columns of every type that parameters are read by.
pub fn schema() -> Schema {
    let columns = [
        ("id", ColumnType::String),
        ("name", ColumnType::String),
        ("price", ColumnType::Integer),
        ("weight", ColumnType::Number),
        ("cost", ColumnType::Decimal),
        ("sold", ColumnType::Boolean),
        ("baked", ColumnType::Datetime),
        ("tags", ColumnType::Json),
    ];
    Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec())
}

/// A few rows.
pub fn rows() -> Vec<(String, Record)> {
    let row = |at: i64| {
        let cells = [("name".to_string(), format!("Bun {at}").into()), ("price".to_string(), (at * 50).into())];
        (at.to_string(), Record::from_iter(cells))
    };
    (1..8).map(row).collect()
}

impl Bakery {
    /// A new one.
    pub fn open() -> Bakery {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let dio = runtime.block_on(async {
            let fill = |dio: &Dio| {
                let dio = dio.clone();
                async move { dio.cache().insert_values(dio.master().list_values().await?).await }
            };
            let lens = Lens::new().cache_source(MemoryCache::default()).on_start(fill).build().expect("a lens");
            lens.make_dio(MemoryTable::vista("products", schema(), rows())).await.expect("a Dio")
        });
        let hook = Hook::new("shop", "products", inbound::Hook::new(Scheme::None));
        let gateway = Gateway::new().mount(dio.clone()).try_hook(hook).expect("a hook");
        let router = {
            let _runtime = runtime.enter();
            gateway.into_router()
        };
        Bakery { runtime, router, dio }
    }
}
