//! Decides whether this program can use a database, by its applied migrations.

use crate::migrate::Schema;

/// The reason why this program rejects a database of this schema, as the end of a sentence about
/// it; `None` if the schema is current.
pub(super) fn rejection(schema: &Schema) -> Option<String> {
    // First: this program must not apply its migrations to a schema that it does not know.
    if let Some(newer) = schema.newer.first() {
        return Some(format!(
            "was migrated by a newer gleitzeit (its schema has `{newer}`, which this program does \
             not know); use that program"
        ));
    }
    if schema.version().is_none() {
        return Some(
            "holds no workflows of gleitzeit; `gleitzeit db migrate` makes its tables".into(),
        );
    }
    let pending = schema.pending();
    (!pending.is_empty()).then(|| {
        format!("lacks {}; `gleitzeit db migrate` brings its schema up to date", pending.join(", "))
    })
}
