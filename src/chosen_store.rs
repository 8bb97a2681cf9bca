//! The store of a runtime, with what only a store in a database can do.

use std::sync::Arc;

use gleitzeit_domain::store::Store;

/// A store, and the same store again if it takes part in transactions of the host.
#[derive(Clone)]
pub(crate) struct ChosenStore {
    pub(crate) store: Arc<dyn Store>,
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) submit_in: Option<Arc<dyn gleitzeit_storage::SubmitIn>>,
}

impl ChosenStore {
    /// A store that takes part in no transaction.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            submit_in: None,
        }
    }

    /// A store in a database.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn in_database(store: Arc<gleitzeit_storage::SqlStore>) -> Self {
        Self { submit_in: Some(Arc::<gleitzeit_storage::SqlStore>::clone(&store)), store }
    }
}
