//! Callback setters shared by the builders of a Lens and of a single Dio.

/// Adds a setter for each callback to a builder that has `callbacks`.
macro_rules! callbacks {
    ($builder:ty) => {
        impl $builder {
            /// Runs once for each Dio when it is made, and again if it fails and the Dio stays open. It usually lists the
            /// master into the cache. Refreshes wait until it returns, so it must neither wait for a refresh nor run forever: a
            /// task or a feed is the place to follow a source.
            pub fn on_start<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.callbacks.on_start = Some(boxed_callback(callback));
                self
            }

            /// Runs at every refresh, timed or requested. Until `on_start` has succeeded, `on_start` runs in its place.
            pub fn on_refresh<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.callbacks.on_refresh = Some(boxed_callback(callback));
                self
            }

            /// Receives every write instead of the master.
            pub fn on_write<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio, WriteOp) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.callbacks.on_write = Some(boxed_callback_with(callback));
                self
            }

            /// Receives every upstream event instead of the built-in rules.
            pub fn on_event<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio, ChangeEvent) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<()>> + Send + 'static,
            {
                self.callbacks.on_event = Some(boxed_callback_with(callback));
                self
            }

            /// Runs before a table or value scenery reads: when it is opened, when its search or order changes, when its
            /// viewport has been unchanged over rows that it does not hold, and when everything may have changed
            /// (`Invalidated`). It receives filter, search, order, and the range as offset and limit, in whole pages.
            ///
            /// It may fill the cache, and returns the source of the answer: `Ok(())` or [`QueryRoute::Cache`] for the Dio as
            /// usual, otherwise as described in [`QueryRoute`]. An invalidation makes it run again, so it should leave
            /// invalidations to a task or to `on_refresh`. A refresh by the callback itself counts as part of the read.
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
                self.callbacks.on_query = Some(boxed_callback_with(move |dio, query| {
                    let answer = callback(dio, query);
                    async move { answer.await.map(Into::into) }
                }));
                self
            }

            /// Provides the total number of rows when a scenery opens.
            pub fn total_provider<F, Fut>(mut self, callback: F) -> Self
            where
                F: Fn(&Dio) -> Fut + Send + Sync + 'static,
                Fut: Future<Output = Result<u64>> + Send + 'static,
            {
                self.callbacks.total_provider = Some(boxed_callback(callback));
                self
            }

            /// Fetches a range of rows from the master when a scenery shows it: exactly the requested rows, fewer at the end. A
            /// Dio with this callback does not treat the cache as a complete copy until it has seen a complete list.
            ///
            /// The [`ChunkRequest`] is the range, with the filter, search and order of the view. Those are empty unless
            /// `on_query` routes a view here with [`QueryRoute::Load`]. Otherwise the master itself answers a filtered or
            /// sorted view, if it can.
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
                let callback = move |dio: &Dio, (request, sink)| callback(dio, request, sink);
                self.callbacks.on_load_chunk = Some(boxed_callback_with(callback));
                self
            }
        }
    };
}

pub(super) use callbacks;
