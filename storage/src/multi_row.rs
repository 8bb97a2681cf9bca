//! Statements over many rows, in few shapes.
//!
//! Invariant: the number of rows of a statement is one of [`SIZES`], so that a connection prepares
//! few shapes of each statement, each once. Two or three statements take any number of rows up to the
//! largest size; each costs a message to the database.

use std::sync::OnceLock;

use sea_orm::{DbBackend, Statement, Value};

/// The numbers of rows of a statement; each is at most a quarter above the one before, from 4 on. The
/// largest with 14 columns stays far below the parameter limits of SQLite (32,766) and PostgreSQL
/// (65,535).
const SIZES: [usize; 28] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160,
    192, 224, 256,
];

/// A statement with a list of rows in it.
#[derive(Debug)]
pub(super) struct MultiRow {
    backend: DbBackend,
    /// The text before the rows.
    head: &'static str,
    /// The parameters of a row.
    columns: usize,
    /// The text after the rows.
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

    /// The statements for `rows` of one table.
    pub(super) fn part(&self, rows: Vec<Value>) -> Part {
        Part { rows: rows.len() / self.columns, statements: self.statements(rows).collect() }
    }

    /// The same with at most about `bytes_max` bytes of text in a statement, or one row: a driver
    /// copies the values of a statement, and PostgreSQL rejects a message of a gigabyte.
    pub(super) fn part_within(&self, rows: Vec<Value>, bytes_max: usize) -> Part {
        let length = |value: &Value| match value {
            Value::String(Some(text)) => text.len(),
            _ => 0,
        };
        // The usual case, without a second copy of the rows.
        if rows.iter().map(length).sum::<usize>() <= bytes_max {
            return self.part(rows);
        }
        let mut statements = Vec::new();
        let mut chunk = Vec::new();
        let mut bytes = 0;
        let mut rows = rows.into_iter();
        while rows.len() > 0 {
            let row: Vec<Value> = rows.by_ref().take(self.columns).collect();
            let more: usize = row.iter().map(length).sum();
            if bytes + more > bytes_max && !chunk.is_empty() {
                statements.extend(self.statements(std::mem::take(&mut chunk)));
                bytes = 0;
            }
            bytes += more;
            chunk.extend(row);
        }
        statements.extend(self.statements(chunk));
        // Its statements have other sizes than those of a part with as many rows: `join` must not
        // pair them.
        Part { rows: usize::MAX, statements }
    }

    /// The statements for `rows`, whose length is a multiple of the columns.
    pub(super) fn statements(&self, rows: Vec<Value>) -> impl Iterator<Item = Statement> {
        debug_assert!(rows.len().is_multiple_of(self.columns), "a row is not whole");
        let mut left = rows.len() / self.columns;
        let mut rows = rows.into_iter();
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            // The largest size that fits; there is one, because 1 is a size.
            let shape = SIZES.partition_point(|size| *size <= left) - 1;
            left -= SIZES[shape];
            let values: Vec<Value> = rows.by_ref().take(self.columns * SIZES[shape]).collect();
            Some(Statement::from_sql_and_values(self.backend, self.text(shape), values))
        })
    }

    /// The text for the number of rows of a shape.
    fn text(&self, shape: usize) -> &str {
        // Built once for each shape: the text for 256 rows has thousands of placeholders.
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

/// Upper limit of the values of statements that are all joined: about a row of each table. Above it
/// the joined texts would have too many shapes.
const JOINED_MAX: usize = 32;

/// The statements for the rows of one table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    rows: usize,
    pub(super) statements: Vec<Statement>,
}

/// Joins statements into one if that is faster; keeps their order. The first part gets the result.
///
/// SQLite runs several statements in one text. A message to its thread costs more than a small
/// statement, and on a busy machine more than a large one. PostgreSQL takes one statement with
/// parameters at a time.
pub(super) fn join<const PARTS: usize>(backend: DbBackend, parts: &mut [Part; PARTS]) {
    let values = |statement: &Statement| statement.values.as_ref().map_or(0, |it| it.0.len());
    let count: usize = parts.iter().flat_map(|part| &part.statements).map(values).sum();
    if backend != DbBackend::Sqlite || count == 0 {
        return;
    }
    if count <= JOINED_MAX {
        let all = parts.iter_mut().flat_map(|part| std::mem::take(&mut part.statements)).collect();
        parts[0].statements = vec![one_of(backend, all)];
        return;
    }
    // Parts with the same number of rows have statements of the same sizes: joined one by one, they
    // have as many shapes as a single table.
    let mut parts = parts.iter_mut().filter(|part| part.rows > 0);
    let Some(first) = parts.next() else { return };
    let alike = parts.take_while(|part| part.rows == first.rows);
    let mut alike: Vec<_> = alike.map(|part| part.statements.drain(..)).collect();
    for statement in &mut first.statements {
        let own = std::mem::replace(statement, Statement::from_string(backend, ""));
        let likes = alike.iter_mut().filter_map(Iterator::next);
        *statement = one_of(backend, std::iter::once(own).chain(likes).collect());
    }
}

/// One statement with the texts and values of all.
fn one_of(backend: DbBackend, statements: Vec<Statement>) -> Statement {
    let mut text = String::new();
    let mut all = Vec::new();
    for Statement { sql, values, .. } in statements {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&sql);
        all.extend(values.into_iter().flat_map(|values| values.0));
    }
    Statement::from_sql_and_values(backend, text, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(backend: DbBackend, rows: usize) -> Vec<String> {
        let insert = MultiRow::new(backend, "INSERT INTO t VALUES", 2, " ON CONFLICT DO NOTHING");
        let values = (0..rows * 2).map(|at| Value::from(i64::try_from(at).unwrap())).collect();
        insert.statements(values).map(|statement| statement.sql).collect()
    }

    /// Each database has its own form of placeholders.
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

    /// No row is lost or written twice, and both shapes and statements are few.
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

    /// Large texts are spread over statements, in their order; a row is never split.
    #[test]
    fn no_statement_holds_more_text_than_is_allowed() {
        let insert = MultiRow::new(DbBackend::Postgres, "INSERT INTO t VALUES", 2, "");
        let lengths = [10, 400, 30, 1_500, 600, 300, 200, 5];
        let rows = lengths.iter().flat_map(|length| [1.into(), Value::from("x".repeat(*length))]);
        let part = insert.part_within(rows.clone().collect(), 1_000);
        let held = part.statements.iter().map(|statement| {
            let texts = statement.values.iter().flat_map(|values| &values.0).skip(1).step_by(2);
            let length = |value: &Value| match value {
                Value::String(Some(text)) => text.len(),
                _ => panic!("{value:?}"),
            };
            texts.map(length).collect::<Vec<_>>()
        });
        let held: Vec<Vec<usize>> = held.collect();
        assert_eq!(held.concat(), lengths);
        let fits = |texts: &Vec<usize>| texts.len() == 1 || texts.iter().sum::<usize>() <= 1_000;
        assert!(held.iter().all(fits), "{held:?}");
        assert_eq!(insert.part_within(rows.clone().collect(), 10_000), insert.part(rows.collect()));
    }

    fn insert(backend: DbBackend, rows: i64) -> Part {
        let insert = MultiRow::new(backend, "INSERT INTO t VALUES", 2, "");
        insert.part((0..rows * 2).map(Value::from).collect())
    }

    fn update(backend: DbBackend, rows: i64) -> Part {
        let update = MultiRow::new(backend, "UPDATE u SET a = 1 FROM (VALUES", 1, ") AS v");
        update.part((0..rows).map(Value::from).collect())
    }

    /// The rows of a single task are one message.
    #[test]
    fn small_statements_go_to_a_file_as_one() {
        let backend = DbBackend::Sqlite;
        let mut parts = [insert(backend, 0), insert(backend, 2), update(backend, 1)];
        join(backend, &mut parts);
        let [one, none, none_either] = &parts;
        assert!(none.statements.is_empty() && none_either.statements.is_empty());
        let [Statement { sql, values: Some(values), .. }] = one.statements.as_slice() else {
            panic!("{one:?}");
        };
        assert_eq!(
            *sql,
            "INSERT INTO t VALUES (?,?), (?,?); UPDATE u SET a = 1 FROM (VALUES (?)) AS v"
        );
        assert_eq!(values.0, [0, 1, 2, 3, 0].map(|it: i64| Value::from(it)));
    }

    /// If each workflow has a row in each table, the tables are written together.
    #[test]
    fn statements_of_as_many_rows_go_to_a_file_together() {
        let backend = DbBackend::Sqlite;
        let [inserts, updates] = [insert(backend, 70), update(backend, 70)];
        let texts = |part: &Part| part.statements.iter().map(|it| it.sql.clone()).collect();
        let (inserts_as, updates_as): (Vec<String>, Vec<String>) =
            (texts(&inserts), texts(&updates));
        let mut parts =
            [insert(backend, 0), inserts, updates, update(backend, 3), update(backend, 70)];
        join(backend, &mut parts);
        let both: Vec<String> =
            inserts_as.iter().zip(&updates_as).map(|(a, b)| format!("{a}; {b}")).collect();
        assert_eq!(texts(&parts[1]), both);
        let values = |part: &Part| {
            let values = part.statements.iter().filter_map(|it| it.values.clone());
            values.flat_map(|it| it.0).collect::<Vec<_>>()
        };
        // 64 rows and 6.
        let expected: Vec<Value> = [0..128, 0..64, 128..140, 64..70]
            .into_iter()
            .flatten()
            .map(|it: i64| it.into())
            .collect();
        assert_eq!(values(&parts[1]), expected);
        assert!(parts[2].statements.is_empty());
        // A part after one of another size is not joined: it must run after it.
        assert_eq!(texts(&parts[3]).len(), 1);
        assert_eq!(texts(&parts[4]), updates_as);
    }

    /// PostgreSQL takes one statement at a time.
    #[test]
    fn a_server_gets_each_statement_alone() {
        let backend = DbBackend::Postgres;
        for rows in [1, 64] {
            let as_they_are = [insert(backend, rows), update(backend, rows)];
            let mut parts = as_they_are.clone();
            join(backend, &mut parts);
            assert_eq!(parts, as_they_are);
        }
    }
}
