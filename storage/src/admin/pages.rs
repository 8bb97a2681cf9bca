//! Reads all workflows in the order of submission, page by page, for [`check`](super::check) and
//! [`export`](super::export).
//!
//! Invariant: a page has few tasks, unless a single workflow has more. So the memory is bounded by
//! the largest workflow, not by their number.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use crate::entity::workflow;

/// Workflows of a page.
const WORKFLOWS_MAX: u64 = 64;

/// Tasks of a page, unless a single workflow has more.
const TASKS_MAX: i64 = 2_000;

/// The position of a scan.
#[derive(Debug, Default)]
pub(super) struct Pages {
    after: i64,
}

impl Pages {
    /// The rows of the next page; empty at the end.
    pub(super) async fn next<C: ConnectionTrait>(
        &mut self,
        db: &C,
    ) -> Result<Vec<workflow::Model>, DbErr> {
        // The sizes first, without the specs: the rows of large workflows would not fit into
        // memory.
        let sizes: Vec<(i64, i64)> = workflow::Entity::find()
            .select_only()
            .columns([workflow::Column::Key, workflow::Column::TaskCount])
            .filter(workflow::Column::Key.gt(self.after))
            .order_by_asc(workflow::Column::Key)
            .limit(WORKFLOWS_MAX)
            .into_tuple()
            .all(db)
            .await?;
        let mut tasks = 0;
        let fits = sizes.iter().take_while(|(_, count)| {
            let is_first = tasks == 0;
            // Saturating, and at least 1: a broken row may have any count.
            tasks = i64::saturating_add(tasks, (*count).max(1));
            is_first || tasks <= TASKS_MAX
        });
        let Some((last, _)) = fits.last() else { return Ok(Vec::new()) };
        let page = workflow::Entity::find()
            .filter(workflow::Column::Key.gt(self.after))
            .filter(workflow::Column::Key.lte(*last))
            .order_by_asc(workflow::Column::Key)
            .all(db)
            .await?;
        self.after = *last;
        Ok(page)
    }
}
