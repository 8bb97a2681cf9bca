//! Walks through all workflows in the order of submission, some at a time.
//!
//! Asked by [`check`](super::check) and [`export`](super::export).
//!
//! Invariant: a page has few tasks, unless a single workflow has more: what is held in memory is
//! bounded by the largest workflow, however many there are.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use crate::entity::workflow;

/// Workflows of a page.
const WORKFLOWS_MAX: u64 = 64;

/// Tasks of a page, unless a single workflow has more.
const TASKS_MAX: i64 = 2_000;

/// How far a walk has come.
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
            // A broken row may say any number.
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
