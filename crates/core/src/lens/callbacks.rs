//! The callbacks of a Lens and of a single Dio, written once for both builders.

/// Adds a setter for each callback to a builder that has `hooks`.
macro_rules! callbacks {
    ($builder:ty) => {
        impl $builder {
            /// Runs once for each Dio, when it is made, and again if it fails there and the Dio lives on. The usual thing to do is
            /// to list the master into the cache. Refreshes wait until it has returned, so it must neither wait for one nor go on
            /// for ever: what follows a source belongs into a task or a feed.
            pub fn on_start<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.hooks.on_start = Some(hook(callback));
                self
            }

            /// Runs at every refresh, timed or asked for; while `on_start` has not succeeded, that runs in its place.
            pub fn on_refresh<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.hooks.on_refresh = Some(hook(callback));
                self
            }

            /// Gets every write instead of the master.
            pub fn on_write<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio, WriteOp) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.hooks.on_write = Some(hook_with(callback));
                self
            }

            /// Gets every upstream event instead of the built-in rules.
            pub fn on_event<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio, ChangeEvent) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.hooks.on_event = Some(hook_with(callback));
                self
            }

            /// Runs before a table or value scenery reads: when it is opened, when it gets another search or order, when its viewport
            /// has come to rest over rows that it does not hold, and when everything may be different (`Invalidated`). Gets what is
            /// asked: filter, search, order, and the range as offset and limit, in whole pages.
            ///
            /// It may fill the cache, and says who answers: `Ok(())` or [`QueryRoute::Cache`] the Dio as usual, the others as
            /// [`QueryRoute`] says. What it invalidates has it run again, so it should leave that to a task or to `on_refresh`; a
            /// refresh of its own counts as part of the read.
            ///
            /// ```
            /// # use diorama_core::{Lens, Result, Rows};
            /// # async fn search_engine(words: String, from: u64, rows: Option<u64>) -> Result<Rows> { Ok(Rows::new()) }
            /// use diorama_core::QueryRoute;
            ///
            /// let lens = Lens::new().on_query(|_dio, query| async move {
            ///     match query.search {
            ///         Some(words) => Ok(QueryRoute::Rows(search_engine(words, query.offset, query.limit).await?)),
            ///         None => Ok(QueryRoute::Cache),
            ///     }
            /// });
            /// ```
            pub fn on_query<F, Fut, R>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio, Query) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<R>> + Send + 'static,
                R: Into<QueryRoute>,
            {
                self.hooks.on_query = Some(hook_with(move |dio, query| {
                    let answer = callback(dio, query);
                    async move { answer.await.map(Into::into) }
                }));
                self
            }

            /// Says how many rows there are, when a scenery opens.
            pub fn total_provider<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<u64>> + Send + 'static,
            {
                self.hooks.total_provider = Some(hook(callback));
                self
            }

            /// Fetches a range of rows from the master when a scenery shows it: exactly the rows asked for, fewer at the end. A Dio
            /// with this callback does not take the cache for a whole copy until it has seen a complete list.
            ///
            /// The [`ChunkRequest`] is the range, and has the filter, search and order of the view. Those are empty unless `on_query`
            /// routes a view here by [`QueryRoute::Load`]; without that, the master itself answers a view that is filtered or sorted,
            /// if it can.
            ///
            /// ```
            /// use diorama_core::Lens;
            ///
            /// let lens = Lens::new().on_load_chunk(|dio, request, sink| {
            ///     let dio = dio.clone();
            ///     async move {
            ///         println!("rows {} to {}", request.start, request.end);
            ///         sink.put(dio.master().shell().list(request.query()).await?);
            ///         Ok(())
            ///     }
            /// });
            /// ```
            pub fn on_load_chunk<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio, ChunkRequest, ChunkSink) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.hooks.on_load_chunk = Some(hook_with(move |dio, (request, sink)| callback(dio, request, sink)));
                self
            }
        }
    };
}

pub(super) use callbacks;
