//! Whether a protocol still accepts and promises what the one before it did.
//!
//! The rule is structural and on the safe side: it may refuse a change that would do no harm, and
//! never allows one that would. It compares schema with schema and tries no values, except those
//! that a list of allowed values spells out.

use std::cmp::Ordering;

use indexmap::IndexMap;
use serde_json::Number;

use super::{derive::method_pointer, error::Incompatibility};
use crate::{
    id::ProtocolId,
    problem::push_pointer,
    protocol::{
        parameter::{ParameterSpec, ParameterType},
        spec::{MethodSpec, ProtocolSpec},
        validate::{Validator, number::compare},
    },
};

/// Everything in which `new` is less than `old`.
pub(super) fn protocol(
    id: &ProtocolId,
    old: &ProtocolSpec,
    new: &ProtocolSpec,
) -> Vec<Incompatibility> {
    let mut findings = Comparison::default();
    for (name, before) in &old.methods {
        findings.at = method_pointer(name);
        match new.methods.get(name) {
            Some(after) => findings.method(before, after),
            None => findings.report("", "the method is gone"),
        }
    }
    let found = findings.found.into_iter();
    found
        .map(|(pointer, message)| Incompatibility { protocol: id.clone(), pointer, message })
        .collect()
}

/// The form of a value, which decides the constraints that apply to it.
#[derive(Clone, Copy, PartialEq)]
enum ValueForm {
    Number,
    Text,
    List,
    Object,
}

impl ValueForm {
    /// True when a value of `spec` can have this shape.
    fn can_be(self, spec: &ParameterSpec) -> bool {
        spec.kind.as_slice().iter().any(|kind| match kind {
            ParameterType::Any => true,
            ParameterType::String => self == Self::Text,
            ParameterType::Integer | ParameterType::Number => self == Self::Number,
            ParameterType::Array => self == Self::List,
            ParameterType::Object => self == Self::Object,
            ParameterType::Boolean | ParameterType::Null => false,
        })
    }
}

#[derive(Default)]
struct Comparison {
    at: String,
    found: Vec<(String, String)>,
}

impl Comparison {
    fn report(&mut self, keyword: &str, message: impl Into<String>) {
        self.found.push((format!("{}{keyword}", self.at), message.into()));
    }

    fn within(&mut self, segments: &[&str], work: impl FnOnce(&mut Self)) {
        let length = self.at.len();
        for segment in segments {
            push_pointer(&mut self.at, segment);
        }
        work(self);
        self.at.truncate(length);
    }

    fn method(&mut self, old: &MethodSpec, new: &MethodSpec) {
        let mut after = new.params_schema.keys();
        for before in old.params_schema.keys() {
            if after.next() != Some(before) {
                let message = format!("the parameter `{before}` lost its place in the order");
                self.report("/params_schema", message);
                break;
            }
        }
        self.within(&["params_schema"], |this| {
            let open = (old.additional_params, new.additional_params);
            this.fields(&old.params_schema, &new.params_schema, open);
        });
        // The promise of a result is kept if the old schema accepts everything that the new one
        // allows.
        if let Some(before) = &old.returns_schema {
            self.within(&["returns_schema"], |this| match &new.returns_schema {
                Some(after) => this.value(after, before),
                None => this.report("", "nothing is promised of the result any more"),
            });
        }
    }

    /// Tells where `wide` refuses what `narrow` allows.
    fn value(&mut self, narrow: &ParameterSpec, wide: &ParameterSpec) {
        if let Some(values) = &narrow.allowed {
            return self.each_value(values, narrow, wide);
        }
        for kind in narrow.kind.as_slice() {
            if !covers(wide.kind.as_slice(), *kind) {
                self.report("/type", format!("{kind:?} is not allowed").to_lowercase());
            }
        }
        if wide.allowed.is_some() {
            self.report("/enum", "only listed values are allowed");
        }
        if ValueForm::Number.can_be(narrow) {
            self.bound("/minimum", narrow.minimum.as_ref(), wide.minimum.as_ref(), Ordering::Less);
            self.bound(
                "/maximum",
                narrow.maximum.as_ref(),
                wide.maximum.as_ref(),
                Ordering::Greater,
            );
        }
        if ValueForm::Text.can_be(narrow) || ValueForm::List.can_be(narrow) {
            let number = |length: Option<usize>| length.map(Number::from);
            let (before, after) = (number(narrow.min_length), number(wide.min_length));
            self.bound("/min_length", before.as_ref(), after.as_ref(), Ordering::Less);
            let (before, after) = (number(narrow.max_length), number(wide.max_length));
            self.bound("/max_length", before.as_ref(), after.as_ref(), Ordering::Greater);
        }
        if ValueForm::Text.can_be(narrow)
            && wide.pattern.is_some()
            && narrow.pattern != wide.pattern
        {
            self.report("/pattern", "the pattern is another one");
        }
        if let (true, Some(items)) = (ValueForm::List.can_be(narrow), &wide.items) {
            let anything = ParameterSpec::any();
            let before = narrow.items.as_deref().unwrap_or(&anything);
            self.within(&["items"], |this| this.value(before, items));
        }
        if ValueForm::Object.can_be(narrow) {
            let none = IndexMap::new();
            let before = narrow.properties.as_ref().unwrap_or(&none);
            let after = wide.properties.as_ref().unwrap_or(&none);
            let open = (narrow.additional_properties, wide.additional_properties);
            self.within(&["properties"], |this| this.fields(before, after, open));
        }
    }

    /// Listed values are few: each is tried.
    fn each_value(
        &mut self,
        values: &[serde_json::Value],
        narrow: &ParameterSpec,
        wide: &ParameterSpec,
    ) {
        let compiled = (Validator::compile(narrow), Validator::compile(wide));
        let (Ok(narrow), Ok(wide)) = compiled else {
            return self.report("", "the schema does not compile");
        };
        for value in values.iter().filter(|value| narrow.check(value).is_empty()) {
            if let Some(wrong) = wide.check(value).into_iter().next() {
                self.report(&wrong.pointer, format!("`{value}` is refused: {}", wrong.message));
            }
        }
    }

    /// A bound may be dropped or moved in the direction that allows more.
    fn bound(
        &mut self,
        keyword: &str,
        narrow: Option<&Number>,
        wide: Option<&Number>,
        looser: Ordering,
    ) {
        let Some(after) = wide else { return };
        match narrow {
            None => self.report(keyword, format!("a bound of {after} where there was none")),
            Some(before) => {
                let order = compare(after, before);
                if order != Ordering::Equal && order != looser {
                    self.report(keyword, format!("a bound of {after} where it was {before}"));
                }
            }
        }
    }

    fn fields(
        &mut self,
        narrow: &IndexMap<String, ParameterSpec>,
        wide: &IndexMap<String, ParameterSpec>,
        (narrow_open, wide_open): (bool, bool),
    ) {
        if narrow_open && !wide_open {
            self.report("", "fields that are not declared are not allowed any more");
        }
        for (name, after) in wide {
            let before = narrow.get(name);
            let was_required = before.is_some_and(is_required);
            let anything = ParameterSpec::any();
            self.within(&[name], |this| {
                if is_required(after) && !was_required {
                    this.report("/required", format!("`{name}` must be given"));
                }
                match before {
                    Some(before) => this.value(before, after),
                    // A caller could pass a field of this name with any value.
                    None if narrow_open => this.value(&anything, after),
                    None => {}
                }
            });
        }
        for name in narrow.keys().filter(|name| !wide.contains_key(*name) && !wide_open) {
            self.within(&[name], |this| this.report("", format!("`{name}` is not allowed")));
        }
    }
}

fn is_required(spec: &ParameterSpec) -> bool {
    spec.required && spec.default.is_none()
}

/// True when one of `kinds` allows every value of `kind`.
fn covers(kinds: &[ParameterType], kind: ParameterType) -> bool {
    let single = kinds.iter().any(|wide| {
        *wide == kind
            || *wide == ParameterType::Any
            || (*wide, kind) == (ParameterType::Number, ParameterType::Integer)
    });
    single || (kind == ParameterType::Any && covers_all(kinds))
}

/// True when the types together allow every value, as `any` does.
fn covers_all(kinds: &[ParameterType]) -> bool {
    use ParameterType::{Array, Boolean, Null, Number, Object, String};
    [String, Number, Boolean, Array, Object, Null].iter().all(|one| kinds.contains(one))
}
