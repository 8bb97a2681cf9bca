//! The ids that begin with a text: one range of the index on ids, however many workflows there are.

use gleitzeit_domain::id::WorkflowId;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
};

use super::{Answer, Reader};
use crate::{
    encode::{escape, unescape},
    entity::workflow,
};

impl Reader {
    /// In the order of their bytes, at most `limit`.
    pub(crate) async fn ids(&self, prefix: &str, limit: usize) -> Answer<Vec<WorkflowId>> {
        let select = range(&escape(prefix), limit);
        let ids: Vec<String> = select.into_tuple().all(&self.db()).await?;
        Ok(ids.into_iter().map(|id| WorkflowId::from(unescape(id))).collect())
    }
}

fn range(prefix: &str, limit: usize) -> Select<workflow::Entity> {
    use workflow::Column;
    let select = workflow::Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.gte(prefix))
        .order_by_asc(Column::Id)
        .limit(u64::try_from(limit).unwrap_or(u64::MAX).min(i64::MAX as u64));
    match after(prefix) {
        Some(end) => select.filter(Column::Id.lt(end)),
        None => select,
    }
}

/// The first text, in the order of bytes, after all that begin with `prefix`; `None` if there is none.
fn after(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Between U+D7FF and U+E000 there is no character.
        let next =
            if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text with the prefix is below its end, and the end has not the prefix.
    #[test]
    fn the_end_of_a_range_is_after_all_that_begin_so() {
        for (prefix, end) in [
            ("ab", Some("ac")),
            ("a\u{7f}", Some("a\u{80}")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(after(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    /// A million workflows must not be read for one of them.
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_prefix_is_looked_up_in_the_index() {
        use sea_orm::{ConnectionTrait as _, Database, DbBackend, QueryTrait as _, Statement};

        let db = Database::connect("sqlite::memory:").await.unwrap();
        crate::migrate::migrate(&db).await.unwrap();
        let select = range("0197c5e0", 11).build(DbBackend::Sqlite);
        let sql = format!("EXPLAIN QUERY PLAN {}", select.sql);
        let explain = Statement { sql, ..select };
        let plan = db.query_all_raw(explain).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
        assert!(plan[0].starts_with("SEARCH") && plan[0].contains("id>? AND id<?"), "{plan:?}");
        assert!(
            !plan.iter().any(|step| step.contains("SORT") || step.contains("B-TREE")),
            "{plan:?}"
        );
    }
}
