//! Statements over many rows, in few shapes.
//!
//! Invariant: a statement has as many rows as one of [`SIZES`] says, so that a connection prepares
//! each statement in few shapes and finds it prepared ever after. Two or three statements take any
//! number of rows up to the greatest: each costs a message to the database.

use std::sync::OnceLock;

use sea_orm::{DbBackend, Statement, Value};

/// From one size to the next it is a quarter or less. 14 columns of the greatest stay far below the
/// parameters that SQLite (32,766) and PostgreSQL (65,535) take.
const SIZES: [usize; 28] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160,
    192, 224, 256,
];

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
    texts: [OnceLock<String>; SIZES.len()],
}

impl MultiRow {
    pub(super) fn new(
        backend: DbBackend,
        head: &'static str,
        columns: usize,
        tail: &'static str,
    ) -> Self {
        Self { backend, head, columns, tail, texts: [const { OnceLock::new() }; SIZES.len()] }
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
            let shape = SIZES.partition_point(|size| *size <= left) - 1;
            left -= SIZES[shape];
            let values: Vec<Value> = rows.by_ref().take(self.columns * SIZES[shape]).collect();
            Some(Statement::from_sql_and_values(self.backend, self.text(shape), values))
        })
    }

    /// The text for as many rows as the shape has.
    fn text(&self, shape: usize) -> &str {
        self.texts[shape].get_or_init(|| {
            let mut text = String::from(self.head);
            let mut number = 0;
            for row in 0..SIZES[shape] {
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

/// Values up to which statements are joined: a row of each table, so that there are few shapes.
const JOINED_MAX: usize = 32;

/// Makes one statement of all, the first, where that makes sense; in their order.
///
/// SQLite runs several statements that come as one, and each message to its thread costs more than
/// a small statement does. A server takes one statement with parameters at a time.
pub(super) fn join<const PARTS: usize>(backend: DbBackend, parts: &mut [Vec<Statement>; PARTS]) {
    let values = |statement: &Statement| statement.values.as_ref().map_or(0, |it| it.0.len());
    let count: usize = parts.iter().flatten().map(values).sum();
    if backend != DbBackend::Sqlite || count == 0 || count > JOINED_MAX {
        return;
    }
    let mut text = String::new();
    let mut all = Vec::with_capacity(count);
    for Statement { sql, values, .. } in parts.iter_mut().flat_map(std::mem::take) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&sql);
        all.extend(values.into_iter().flat_map(|values| values.0));
    }
    parts[0] = vec![Statement::from_sql_and_values(backend, text, all)];
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

    /// No row is lost, none is written twice, and both shapes and statements are few.
    #[test]
    fn any_number_of_rows_is_cut_into_few_sizes() {
        assert!(texts(DbBackend::Sqlite, 0).is_empty());
        for rows in 1..=1_000_i64 {
            let insert = MultiRow::new(DbBackend::Sqlite, "", 1, "");
            let values: Vec<Value> = (0..rows).map(Value::from).collect();
            let mut seen = Vec::new();
            let mut statements = 0;
            for statement in insert.statements(values.clone()) {
                let chunk = statement.values.unwrap().0;
                assert!(SIZES.contains(&chunk.len()));
                seen.extend(chunk);
                statements += 1;
            }
            assert_eq!(seen, values);
            assert!(statements <= rows / 256 + 3, "{statements} statements for {rows} rows");
        }
    }

    /// What a lone task writes is one message; what a server gets, and what is large, stays as it is.
    #[test]
    fn small_statements_go_to_a_file_as_one() {
        let statements = |backend, rows: i64| {
            let insert = MultiRow::new(backend, "INSERT INTO t VALUES", 2, "");
            let update = MultiRow::new(backend, "UPDATE u SET a = 1 FROM (VALUES", 1, ") AS v");
            let values = (0..rows * 2).map(Value::from).collect();
            let update = update.statements(vec![9.into()]).collect();
            [Vec::new(), insert.statements(values).collect(), update]
        };
        let mut parts = statements(DbBackend::Sqlite, 1);
        join(DbBackend::Sqlite, &mut parts);
        let [one, none, none_either] = &parts;
        assert!(none.is_empty() && none_either.is_empty());
        let [Statement { sql, values: Some(values), .. }] = one.as_slice() else {
            panic!("{one:?}");
        };
        assert_eq!(*sql, "INSERT INTO t VALUES (?,?); UPDATE u SET a = 1 FROM (VALUES (?)) AS v");
        assert_eq!(values.0, [0_i64.into(), 1_i64.into(), Value::from(9)]);
        for (backend, rows) in [(DbBackend::Postgres, 1), (DbBackend::Sqlite, 64)] {
            let as_they_are = statements(backend, rows);
            let mut parts = as_they_are.clone();
            join(backend, &mut parts);
            assert_eq!(parts, as_they_are);
        }
    }
}
