//! Reads JSON of an untrusted source into a tree of bounded size.
//!
//! Used wherever text of a task, a model server or another stranger becomes a [`Value`]: the reply
//! of a Python task, the answer of a provider.
//!
//! A tree takes far more memory than its text: `{"":0},` is 7 bytes of text and several hundred
//! bytes of memory. A bound on the text alone is therefore no bound on memory. The reader charges
//! each value to a budget before it keeps it, and stops at the value that does not fit.
//!
//! Invariant: whatever the text, the tree never takes more than [`Bounds::tree_bytes`] by the
//! estimate below, also when the text is refused in the end.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Charged for each value: its place in an array, twice, because a growing array leaves as much free.
const VALUE_BYTES: usize = 2 * size_of::<Value>();
/// Charged for an object that has a field: the smallest table of its map, with room for four fields.
const OBJECT_BYTES: usize = 640;
/// Charged for each field besides its value: its hash, its index and its key's place, each twice as
/// for a value, and the key's own allocation.
const FIELD_BYTES: usize = 96;
/// A tree of so many bytes is always allowed by [`Bounds::of_text`]: a list of numbers of one digit
/// in 1 MiB of text.
const TREE_BYTES: usize = 80 << 20;
/// Bytes of memory that [`Bounds::of_text`] allows for each byte of text beyond [`TREE_BYTES`].
/// Lists of numbers, the densest honest data, take 18 to 72.
const TREE_FACTOR: usize = 24;

/// How large a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of text.
    pub text_bytes: usize,
    /// Bytes of memory that the tree may take, as estimated: each value 144, each object with a
    /// field 640 more, each field 96 more, and the bytes of every text and key.
    pub tree_bytes: usize,
}

impl Bounds {
    /// `text_bytes` of text, and a tree of 80 MiB or of 24 times the text, whichever is larger.
    pub const fn of_text(text_bytes: usize) -> Self {
        let scaled = text_bytes.saturating_mul(TREE_FACTOR);
        Self { text_bytes, tree_bytes: if scaled > TREE_BYTES { scaled } else { TREE_BYTES } }
    }
}

/// Why a text is refused. The same text is refused again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is longer than allowed; nothing of it was read.
    #[error("{bytes} bytes of JSON, more than the {limit} allowed")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// [`Bounds::text_bytes`].
        limit: usize,
    },
    /// The text has more values than fit into the memory allowed.
    #[error("its many small values take more than the {limit} bytes of memory allowed")]
    TooManyValues {
        /// [`Bounds::tree_bytes`].
        limit: usize,
    },
    /// The text is no JSON, or is nested more than 127 levels deep.
    #[error("not valid JSON: {0}")]
    Invalid(String),
}

/// Reads one value; white space may surround it, and a byte order mark may precede it.
///
/// ```
/// use gleitzeit_domain::json::{Bounds, JsonError, read};
///
/// let bounds = Bounds { text_bytes: 100, tree_bytes: 1_000 };
/// assert_eq!(read(b"[1, 2]", bounds), Ok(serde_json::json!([1, 2])));
/// let many = read(br#"[{"a":1},{"a":1},{"a":1}]"#, bounds);
/// assert_eq!(many, Err(JsonError::TooManyValues { limit: 1_000 }));
/// ```
///
/// # Errors
/// [`JsonError`]. Numbers that no float can hold, `NaN` among them, are not valid.
pub fn read(text: &[u8], bounds: Bounds) -> Result<Value, JsonError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.len() > bounds.text_bytes {
        return Err(JsonError::TooLong { bytes: text.len(), limit: bounds.text_bytes });
    }
    let budget = Budget { left: Cell::new(bounds.tree_bytes), is_spent: Cell::new(false) };
    let mut input = serde_json::Deserializer::from_slice(text);
    let value = Node(&budget).deserialize(&mut input);
    value.and_then(|value| input.end().map(|()| value)).map_err(|error| {
        if budget.is_spent.get() {
            JsonError::TooManyValues { limit: bounds.tree_bytes }
        } else {
            JsonError::Invalid(error.to_string())
        }
    })
}

/// The rest of [`Bounds::tree_bytes`].
struct Budget {
    left: Cell<usize>,
    is_spent: Cell<bool>,
}

impl Budget {
    fn charge<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        if let Some(left) = self.left.get().checked_sub(bytes) {
            self.left.set(left);
            Ok(())
        } else {
            self.is_spent.set(true);
            Err(E::custom("too many values"))
        }
    }
}

/// Reads one value of the tree, charged to the budget before it is kept.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.0.charge(VALUE_BYTES)?;
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.0.charge(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        self.0.charge(text.len())?;
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let first = if map.is_empty() { OBJECT_BYTES } else { 0 };
            self.0.charge(first + FIELD_BYTES + key.len())?;
            let value = fields.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const WIDE: Bounds = Bounds { text_bytes: usize::MAX, tree_bytes: usize::MAX };

    fn invalid(text: &[u8]) -> String {
        match read(text, WIDE) {
            Err(JsonError::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// An object of one empty field is refused long before its tree is a hundred times its text.
    #[test]
    fn many_small_objects_are_refused_by_their_tree() {
        let text = format!("[{}0]", "{\"\":0},".repeat(1 << 20));
        let bounds = Bounds::of_text(text.len());
        assert_eq!(bounds.tree_bytes, text.len() * TREE_FACTOR);
        let refused = read(text.as_bytes(), bounds).unwrap_err();
        assert_eq!(refused, JsonError::TooManyValues { limit: bounds.tree_bytes });
        assert!(refused.to_string().contains("many small values"), "{refused}");
    }

    /// The densest honest data fits: a list of one-digit numbers that uses all of its text.
    #[test]
    fn a_full_list_of_numbers_is_accepted() {
        let text = format!("[{}0]", "1,".repeat((1 << 19) - 2));
        let value = read(text.as_bytes(), Bounds::of_text(1 << 20)).unwrap();
        assert_eq!(value.as_array().map(Vec::len), Some((1 << 19) - 1));
    }

    /// The length is held against its bound before anything is read.
    #[test]
    fn a_long_text_is_refused_unread() {
        let bounds = Bounds { text_bytes: 3, ..WIDE };
        assert_eq!(read(b"1234", bounds), Err(JsonError::TooLong { bytes: 4, limit: 3 }));
        assert_eq!(read(b"123", bounds), Ok(json!(123)));
    }

    /// Some servers and editors begin a file with a byte order mark.
    #[test]
    fn a_byte_order_sign_is_skipped() {
        assert_eq!(read(b"\xef\xbb\xbf {\"a\": null} ", WIDE), Ok(json!({"a": null})));
    }

    /// A text that is no JSON is refused with its place, and a budget that holds is not blamed.
    #[test]
    fn broken_text_is_refused_with_a_reason() {
        assert!(invalid(b"").contains("EOF"));
        assert!(invalid(b"[NaN]").contains("column"));
        assert!(invalid(b"1e999").contains("number out of range"));
        assert!(invalid(b"{} {}").contains("trailing characters"));
        assert!(invalid(b"\"\xff\"").contains("unicode"));
        assert!(invalid("[".repeat(100_000).as_bytes()).contains("recursion limit"));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// With room, every value comes back as it was written, as by the plain reader.
        #[test]
        fn values_are_read_back_as_they_were(value in tree()) {
            prop_assert_eq!(read(value.to_string().as_bytes(), WIDE), Ok(value));
        }

        /// Whatever the bytes, the answer is a value or a reason.
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bounded = read(&bytes, Bounds { text_bytes: 48, tree_bytes: 400 });
            if let Ok(value) = bounded {
                prop_assert_eq!(Ok(value), read(&bytes, WIDE));
            }
        }
    }
}
