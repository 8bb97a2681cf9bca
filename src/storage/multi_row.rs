//! Statements over many rows, in few shapes.
//!
//! Invariant: a statement has a power of two of rows, at most [`ROWS_MAX`], so that a connection
//! prepares each statement in nine shapes at most and finds it prepared ever after.

use std::sync::OnceLock;

use sea_orm::{DbBackend, Statement, Value};

/// 14 columns of as many rows stay far below the parameters that SQLite (32,766) and PostgreSQL
/// (65,535) take.
const ROWS_MAX: usize = 256;

/// One shape for each power of two.
const SHAPES: usize = ROWS_MAX.trailing_zeros() as usize + 1;

/// A statement with a list of rows in it.
#[derive(Debug)]
pub(super) struct MultiRow {
    backend: DbBackend,
    /// What stands before the rows.
    head: &'static str,
    /// Parameters of a row.
    columns: usize,
    /// What stands behind the rows.
    tail: &'static str,
    texts: [OnceLock<String>; SHAPES],
}

impl MultiRow {
    pub(super) fn new(
        backend: DbBackend,
        head: &'static str,
        columns: usize,
        tail: &'static str,
    ) -> Self {
        Self { backend, head, columns, tail, texts: [const { OnceLock::new() }; SHAPES] }
    }

    #[cfg(test)]
    pub(super) fn head(&self) -> &'static str {
        self.head
    }

    #[cfg(test)]
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The statements that together take `rows`, each a multiple of the columns.
    pub(super) fn statements(&self, rows: Vec<Value>) -> impl Iterator<Item = Statement> {
        debug_assert!(rows.len().is_multiple_of(self.columns), "a row is not whole");
        let mut left = rows.len() / self.columns;
        let mut rows = rows.into_iter();
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let shape = (left.ilog2() as usize).min(SHAPES - 1);
            left -= 1 << shape;
            let values: Vec<Value> = rows.by_ref().take(self.columns << shape).collect();
            Some(Statement::from_sql_and_values(self.backend, self.text(shape), values))
        })
    }

    /// The text for `1 << shape` rows.
    fn text(&self, shape: usize) -> &str {
        self.texts[shape].get_or_init(|| {
            let mut text = String::from(self.head);
            let mut number = 0;
            for row in 0..1 << shape {
                text.push_str(if row == 0 { " (" } else { ", (" });
                for column in 0..self.columns {
                    if column > 0 {
                        text.push(',');
                    }
                    number += 1;
                    match self.backend {
                        DbBackend::Postgres => {
                            text.push('$');
                            text.push_str(&number.to_string());
                        }
                        _ => text.push('?'),
                    }
                }
                text.push(')');
            }
            text.push_str(self.tail);
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(backend: DbBackend, rows: usize) -> Vec<String> {
        let insert = MultiRow::new(backend, "INSERT INTO t VALUES", 2, " ON CONFLICT DO NOTHING");
        let values = (0..rows * 2).map(|at| Value::from(i64::try_from(at).unwrap())).collect();
        insert.statements(values).map(|statement| statement.sql).collect()
    }

    /// Placeholders are written as each database wants them.
    #[test]
    fn a_statement_has_a_placeholder_for_each_value() {
        assert_eq!(
            texts(DbBackend::Sqlite, 2),
            ["INSERT INTO t VALUES (?,?), (?,?) ON CONFLICT DO NOTHING"]
        );
        assert_eq!(
            texts(DbBackend::Postgres, 2),
            ["INSERT INTO t VALUES ($1,$2), ($3,$4) ON CONFLICT DO NOTHING"]
        );
    }

    /// No row is lost, none is written twice, and the shapes are few.
    #[test]
    fn any_number_of_rows_is_cut_into_powers_of_two() {
        assert!(texts(DbBackend::Sqlite, 0).is_empty());
        for rows in [1_i64, 2, 3, 255, 256, 257, 1000] {
            let insert = MultiRow::new(DbBackend::Sqlite, "", 1, "");
            let values: Vec<Value> = (0..rows).map(Value::from).collect();
            let mut seen = Vec::new();
            for statement in insert.statements(values.clone()) {
                let chunk = statement.values.unwrap().0;
                assert!(chunk.len().is_power_of_two() && chunk.len() <= ROWS_MAX);
                seen.extend(chunk);
            }
            assert_eq!(seen, values);
        }
    }
}
