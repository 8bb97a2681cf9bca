//! The statements of the writer; each takes many rows.
//!
//! They are texts because the shape of a statement decides its cost, not its content: see
//! [`MultiRow`]. Both databases accept the same texts.

use sea_orm::DbBackend;

use super::multi_row::MultiRow;

/// The statements of the writer.
#[derive(Debug)]
pub(super) struct Statements {
    /// `hash, body`
    pub(super) add_blobs: MultiRow,
    /// `hash, body`
    pub(super) add_needs: MultiRow,
    /// [`WORKFLOW_COLUMNS`]; returns `id, key` of the workflows that did not exist.
    pub(super) add_workflows: MultiRow,
    /// The key and [`WORKFLOW_COLUMNS`]; for SQLite only.
    pub(super) add_keyed_workflows: MultiRow,
    /// [`TASK_COLUMNS`]
    pub(super) set_tasks: MultiRow,
    /// [`EVENT_COLUMNS`]: `workflow_key, first_sequence, event_count, body`
    pub(super) add_events: MultiRow,
    /// [`STATE_COLUMNS`]: `key, status, started_at, completed_at, error, last_sequence`
    pub(super) set_states: MultiRow,
    /// [`SEQUENCE_COLUMNS`]: `key, last_sequence`
    pub(super) raise_sequences: MultiRow,
    /// `id`; returns `id, key, task_count, status`, the lease that owns the workflow, `last_sequence`;
    /// locks the rows against deletion and claims.
    pub(super) find_workflows: MultiRow,
}

/// The columns of `add_workflows`.
pub(super) const WORKFLOW_COLUMNS: usize = 13;

/// The columns of `set_tasks`.
pub(super) const TASK_COLUMNS: usize = 14;

/// The columns of `add_events`.
pub(super) const EVENT_COLUMNS: usize = 4;

/// The columns of `set_states`.
pub(super) const STATE_COLUMNS: usize = 6;

/// The columns of `raise_sequences`.
pub(super) const SEQUENCE_COLUMNS: usize = 2;

impl Statements {
    pub(super) fn new(backend: DbBackend) -> Self {
        let rows = |head, columns, tail| MultiRow::new(backend, head, columns, tail);
        Self {
            add_blobs: rows(
                "INSERT INTO gleitzeit_blobs (hash, body) VALUES",
                2,
                " ON CONFLICT DO NOTHING",
            ),
            add_needs: rows(
                "INSERT INTO gleitzeit_needs (hash, body) VALUES",
                2,
                " ON CONFLICT DO NOTHING",
            ),
            add_workflows: rows(
                "INSERT INTO gleitzeit_workflows (id, name, status, created_at, started_at, \
                 completed_at, task_count, last_sequence, lease_epoch, error, spec, spec_blob, \
                 needs) VALUES",
                WORKFLOW_COLUMNS,
                " ON CONFLICT (id) DO NOTHING RETURNING id, key",
            ),
            add_keyed_workflows: rows(
                "INSERT INTO gleitzeit_workflows (key, id, name, status, created_at, started_at, \
                 completed_at, task_count, last_sequence, lease_epoch, error, spec, spec_blob, \
                 needs) VALUES",
                1 + WORKFLOW_COLUMNS,
                " ON CONFLICT (id) DO NOTHING",
            ),
            set_tasks: rows(
                "INSERT INTO gleitzeit_tasks (workflow_key, position, id, name, status, attempts, \
                 provider_id, started_at, completed_at, due_at, duration, error, result, \
                 result_blob) VALUES",
                TASK_COLUMNS,
                " ON CONFLICT (workflow_key, position) DO UPDATE SET id = excluded.id, \
                 name = excluded.name, status = excluded.status, attempts = excluded.attempts, \
                 provider_id = excluded.provider_id, started_at = excluded.started_at, \
                 completed_at = excluded.completed_at, due_at = excluded.due_at, \
                 duration = excluded.duration, error = excluded.error, result = excluded.result, \
                 result_blob = excluded.result_blob",
            ),
            add_events: rows(
                "INSERT INTO gleitzeit_events (workflow_key, first_sequence, event_count, body) \
                 VALUES",
                EVENT_COLUMNS,
                // A repeated write finds its own rows: an error here would fail its whole group.
                " ON CONFLICT DO NOTHING",
            ),
            set_states: rows(
                "UPDATE gleitzeit_workflows SET status = v.column2, started_at = v.column3, \
                 completed_at = v.column4, error = v.column5, last_sequence = v.column6, \
                 lease_epoch = CASE WHEN v.column2 IN ('pending', 'running') THEN lease_epoch \
                 ELSE 0 END FROM (VALUES",
                STATE_COLUMNS,
                ") AS v WHERE gleitzeit_workflows.key = v.column1",
            ),
            raise_sequences: rows(
                "UPDATE gleitzeit_workflows SET last_sequence = v.column2 FROM (VALUES",
                SEQUENCE_COLUMNS,
                // Never backwards: a repeated write may arrive after a later one.
                ") AS v WHERE gleitzeit_workflows.key = v.column1 \
                 AND gleitzeit_workflows.last_sequence < v.column2",
            ),
            find_workflows: rows(
                "SELECT id, key, task_count, status, COALESCE((SELECT to_epoch \
                 FROM gleitzeit_lease_transfers WHERE from_epoch = lease_epoch), lease_epoch), \
                 last_sequence \
                 FROM gleitzeit_workflows WHERE id IN (VALUES",
                1,
                if backend == DbBackend::Postgres {
                    // Sorted: two processes that lock the same workflows in different orders would
                    // deadlock.
                    ") ORDER BY key FOR NO KEY UPDATE"
                } else {
                    ")"
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ColumnTrait as _, EntityTrait, IdenStatic as _, Iterable as _};

    use super::*;
    use crate::entity::{blob, event, task, workflow};

    /// The columns between the first parentheses of an insert.
    fn named(insert: &str) -> Vec<&str> {
        let (_, rest) = insert.split_once('(').unwrap();
        let (columns, _) = rest.split_once(')').unwrap();
        columns.split(", ").collect()
    }

    fn columns<E: EntityTrait>() -> Vec<&'static str> {
        E::Column::iter().map(|column| column.as_str()).collect()
    }

    /// The columns that a submission sets.
    fn submitted() -> Vec<&'static str> {
        let mut table = columns::<workflow::Entity>();
        table.retain(|column| *column != "left_by");
        table
    }

    /// A column of an entity that an insert lacks would be read as if it were never set.
    #[test]
    fn inserts_name_the_columns_of_their_entities() {
        let statements = Statements::new(DbBackend::Sqlite);
        for (insert, table) in [
            (&statements.add_blobs, columns::<blob::Entity>()),
            (&statements.set_tasks, columns::<task::Entity>()),
            (&statements.add_events, columns::<event::Entity>()),
            (&statements.add_keyed_workflows, submitted()),
        ] {
            assert_eq!(named(insert.head()), table);
            assert_eq!(insert.columns(), table.len());
        }
        // The database chooses the key.
        let mut table = submitted();
        table.retain(|column| *column != "key");
        assert_eq!(named(statements.add_workflows.head()), table);
        assert_eq!(statements.add_workflows.columns(), table.len());
        assert_eq!(workflow::Column::Key.entity_name().to_string(), "gleitzeit_workflows");
    }
}
