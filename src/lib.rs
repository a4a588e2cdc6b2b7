#![doc = include_str!("guide.md")]

#[cfg(feature = "command")]
pub mod app;
#[cfg(feature = "command")]
pub mod config;

pub use diorama_core::{
    CacheBackend, Capabilities, CborValue, ChangeEvent, Column, ColumnType, Dio, DioEvent, Error, EventReceiver,
    Filter, Flag, Generation, Inferred, Lens, LensBuilder, LoadState, OrderTerm, Query, QueryRoute, Record,
    RecordScenery, RecordStatus, Result, Rows, Schema, TableScenery, TableShell, ValueScenery, Vista, WeakDio, WriteOp,
    Written,
};

/// Storage of a Dio's rows: in memory, in a file, or elsewhere.
pub mod cache {
    pub use diorama_core::cache::{
        Bytes, CacheBackend, CacheError, CacheTable, CachedRow, Id, MemoryCache, RedbCache, RemoteCache,
    };
}

/// Connectors for external systems, and their contract.
pub mod connect {
    #[cfg(feature = "ws")]
    pub use diorama_connect::WsFeed;
    pub use diorama_connect::{
        Connector, Deferred, Key, MemoryTable, Registry, Route, Settings, Source, SourceRequest,
    };
    #[cfg(feature = "csv")]
    pub use diorama_connect::{Csv, CsvOptions};
    #[cfg(feature = "feed")]
    pub use diorama_connect::{Feed, FeedFormat, FeedSlot, FollowMode};
    #[cfg(feature = "sqlite")]
    pub use diorama_connect::{JournalMode, Sqlite, SqliteOptions};
    #[cfg(feature = "json")]
    pub use diorama_connect::{Json, JsonOptions};
    #[cfg(feature = "postgres")]
    pub use diorama_connect::{Postgres, PostgresOptions, PostgresRelation, PostgresTls};
}

/// The [`Dio`] with its settings, operations and events.
pub mod dio {
    pub use diorama_core::dio::{
        Backoff, BlockingWrite, BreakerLimits, BreakerState, ChunkRequest, ChunkSink, Condition, Counters,
        DeliveryBatch, Dio, DioCache, DioEvent, DroppedColumn, EventReceiver, FeedLag, FeedMark, FeedMeter, FeedStatus,
        Freshness, Histogram, IdempotencyKey, Inbound, Mismatch, OnUnknown, OpError, OpId, Operation, OperationQuery,
        OperationState, Origin, Position, PurgeReport, QueryRoute, Reachability, Reconciled, RefreshReport, Retry,
        RingLimits, Settings, Status, Ticket, Times, WeakDio, WholeList, Workers, WriteOptions, WriteOrder, WriteRoute,
    };
}

/// HTTP gateway: Dios as resources in an axum router.
#[cfg(feature = "gateway")]
pub mod gateway {
    pub use diorama_gateway::{
        Ack, ApiError, Archive, AuditLog, Auth, Backup, Caller, ClientCertificate, Code, Explorer, Gateway,
        GatewayService, Limits, Loopback, MountOptions, Rate, RateLimit, RateSubject, Sockets,
    };
    pub use diorama_gateway::{access, auth, notify, webhook};
}

/// Webhooks: signatures, senders, maps.
#[cfg(feature = "gateway")]
pub use diorama_inbound as inbound;

/// The durable log of writes, operations and events: in a file, in memory, or elsewhere.
pub mod journal {
    pub use diorama_core::journal::{
        AppendError, AuditAction, AuditEntry, AuditLimits, AuditQuery, AuditUse, Changes, Claim, Delivery, DeliveryId,
        DeliveryQuery, DeliveryState, InboxLimits, InboxUse, Journal, JournalError, LogBatch, LogEntry, LogId,
        LogState, MemoryJournal, OutboxLimits, OutboxUse, Outgoing, RawRequest, RedbJournal, Rewrite, Seq,
        StoredDelivery,
    };
}

/// Infrastructure shared by Dios.
pub mod lens {
    pub use diorama_core::lens::{DioBuilder, Lens, LensBuilder};
}

/// Rows and their values.
pub mod record {
    pub use diorama_core::record::{
        Body, BodyError, BodyRef, CborValue, Id, JsonError, JsonLimits, Layout, Record, Rows, RowsIter, Stamp,
        Undecodable, parse_json, value_to_json,
    };
}

/// Reactive views of a Dio.
pub mod scenery {
    pub use diorama_core::scenery::{
        Generation, LoadState, RecordScenery, RecordStatus, TableScenery, TableSceneryBuilder, ValueScenery,
        ValueSceneryBuilder,
    };
}

/// The contract of sources.
pub mod vista {
    pub use diorama_core::vista::{
        Capabilities, ChangeEvent, Coercion, Column, ColumnType, Error, ErrorKind, Filter, Flag, Inferred, Kinds,
        Narrowing, OrderTerm, Query, Reference, Result, Schema, SourceShape, TableShell, Token, UnknownColumns, Vista,
        WriteBounds, WriteColumns, WriteKind, WriteOp, Written,
    };

    /// The query language.
    pub mod query {
        pub use diorama_core::vista::query::{
            AggregateItem, Aggregation, CompiledQuery, Cursor, Fields, Filter, Function, IsTest, JsonRow, OrderTerm,
            Path, Pattern, Projection, Query, SelectItem, Test,
        };
    }
}

/// Compiles the examples of the embedding guide as doctests.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
#[derive(Debug)]
pub struct Embedding;
