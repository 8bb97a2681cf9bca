//! Random schemas, and values that come near to fitting them.

use gleitzeit_domain::protocol::{
    MethodSpec, OneOrMany, ParameterSpec, ParameterType, validate::Validator,
};
use indexmap::IndexMap;
use proptest::{
    collection::vec,
    option::{of, weighted},
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::{Map, Number, Value, json};

const NAMES: [&str; 5] = ["a", "b", "key/with~signs", "größe", "0"];

const PATTERNS: [&str; 5] = ["a", "^b", "é$", "^[a-c]{1,2}$", "x|y"];

fn kinds() -> impl Strategy<Value = OneOrMany<ParameterType>> {
    use ParameterType::{Any, Array, Boolean, Integer, Null, Number, Object, String};
    let all = vec![String, Integer, Number, Boolean, Array, Object, Null, Any];
    prop_oneof![
        3 => select(all.clone()).prop_map(OneOrMany::One),
        2 => subsequence(all, 1..4).prop_map(OneOrMany::Many),
    ]
}

/// Numbers at the edges where types, signs and floats meet.
fn number() -> impl Strategy<Value = Number> {
    let edges = [
        json!(0),
        json!(-0.0),
        json!(1),
        json!(1.0),
        json!(-1),
        json!(2.5),
        json!(3),
        json!(9_007_199_254_740_992_u64),
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_992.0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
    ];
    let edges: Vec<Number> = edges.iter().filter_map(|v| v.as_number().cloned()).collect();
    let halves = (-6_i32..8).prop_filter_map("a number", |n| Number::from_f64(f64::from(n) / 2.0));
    prop_oneof![select(edges), (-3_i64..4).prop_map(Number::from), halves]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["", "a", "b", "ab", "é", "aé", "𝒳y", "${open}", "abc", "1"])
            .prop_map(str::to_owned),
        "[a-c]{0,4}",
    ]
}

/// Any value.
pub(crate) fn any_value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::Number),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((select(&NAMES[..]), inner), 0..4).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
    .boxed()
}

/// A sound schema.
pub(crate) fn spec() -> BoxedStrategy<ParameterSpec> {
    scalar()
        .prop_recursive(3, 12, 4, |inner| {
            (scalar(), weighted(0.7, inner.clone()), weighted(0.7, fields(inner)), any::<bool>())
                .prop_map(|(mut spec, items, properties, additional)| {
                    spec.items =
                        items.filter(|_| allows(&spec, ParameterType::Array)).map(Box::new);
                    spec.properties = properties.filter(|_| allows(&spec, ParameterType::Object));
                    spec.additional_properties =
                        additional || !allows(&spec, ParameterType::Object);
                    spec
                })
        })
        .prop_flat_map(with_default)
        .boxed()
}

fn fields(
    inner: BoxedStrategy<ParameterSpec>,
) -> impl Strategy<Value = IndexMap<String, ParameterSpec>> {
    vec((select(&NAMES[..]), inner), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(n, spec)| (n.to_owned(), spec)).collect())
}

/// A default now and then, where one that fits is found.
fn with_default(spec: ParameterSpec) -> impl Strategy<Value = ParameterSpec> {
    (weighted(0.3, value_for(&spec)), any::<bool>()).prop_map(move |(default, required)| {
        let mut spec = ParameterSpec { required, ..spec.clone() };
        let validator = Validator::compile(&spec).expect("only sound schemas are generated");
        spec.default = default.filter(|value| validator.check(value).is_empty());
        spec
    })
}

/// A schema whose constraints are possible and in place.
fn scalar() -> impl Strategy<Value = ParameterSpec> {
    let bounds = (weighted(0.3, number()), weighted(0.3, number()));
    let lengths = (weighted(0.3, 0_usize..4), weighted(0.3, 0_usize..4));
    let listed = weighted(0.2, vec(any_value(), 1..4));
    (kinds(), bounds, lengths, weighted(0.3, select(&PATTERNS[..])), listed).prop_map(
        |(kind, (minimum, maximum), (min_length, max_length), pattern, allowed)| {
            let mut spec = ParameterSpec { kind, ..ParameterSpec::any() };
            if allows(&spec, ParameterType::Number) || allows(&spec, ParameterType::Integer) {
                (spec.minimum, spec.maximum) = (minimum, maximum);
            }
            if allows(&spec, ParameterType::String) || allows(&spec, ParameterType::Array) {
                (spec.min_length, spec.max_length) = (min_length, max_length);
            }
            if allows(&spec, ParameterType::String) {
                spec.pattern = pattern.map(str::to_owned);
            }
            let bare = ParameterSpec { kind: spec.kind.clone(), ..ParameterSpec::any() };
            let typed = Validator::compile(&bare).expect("only types");
            let listed = allowed.map(|all| -> Vec<Value> {
                all.into_iter().filter(|value| typed.check(value).is_empty()).collect()
            });
            spec.allowed = listed.filter(|list| !list.is_empty());
            // Bounds drawn the wrong way round are dropped.
            if Validator::compile(&spec).is_err() {
                (spec.maximum, spec.max_length) = (None, None);
            }
            spec
        },
    )
}

fn allows(spec: &ParameterSpec, kind: ParameterType) -> bool {
    spec.kind.as_slice().iter().any(|one| *one == kind || *one == ParameterType::Any)
}

/// Values that mostly fit `spec`, and sometimes do not.
pub(crate) fn value_for(spec: &ParameterSpec) -> BoxedStrategy<Value> {
    let mut ways: Vec<(u32, BoxedStrategy<Value>)> = vec![(1, any_value())];
    if let Some(allowed) = &spec.allowed {
        ways.push((20, select(allowed.clone()).boxed()));
    }
    for kind in spec.kind.as_slice() {
        ways.push((8, value_of(*kind, spec)));
    }
    proptest::strategy::Union::new_weighted(ways).boxed()
}

fn value_of(kind: ParameterType, spec: &ParameterSpec) -> BoxedStrategy<Value> {
    match kind {
        ParameterType::String => text().prop_map(Value::from).boxed(),
        ParameterType::Integer | ParameterType::Number => {
            let bounds = [spec.minimum.clone(), spec.maximum.clone()];
            let bounds: Vec<Number> = bounds.into_iter().flatten().collect();
            if bounds.is_empty() {
                number().prop_map(Value::Number).boxed()
            } else {
                prop_oneof![number(), select(bounds)].prop_map(Value::Number).boxed()
            }
        }
        ParameterType::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        ParameterType::Null => Just(Value::Null).boxed(),
        ParameterType::Any => any_value(),
        ParameterType::Array => {
            let item = spec.items.as_deref().map_or_else(any_value, value_for);
            vec(item, 0..4).prop_map(Value::from).boxed()
        }
        ParameterType::Object => object_for(spec.properties.iter().flatten()),
    }
}

/// An object with most of the fields, and now and then one too many.
fn object_for<'a>(
    fields: impl Iterator<Item = (&'a String, &'a ParameterSpec)>,
) -> BoxedStrategy<Value> {
    let fields: Vec<_> =
        fields.map(|(name, spec)| (Just(name.clone()), weighted(0.8, value_for(spec)))).collect();
    let extra = weighted(0.2, (select(&NAMES[..]), any_value()));
    (fields, extra)
        .prop_map(|(fields, extra)| {
            let mut map: Map<String, Value> =
                fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            if let Some((name, value)) = extra {
                map.entry(name).or_insert(value);
            }
            Value::Object(map)
        })
        .boxed()
}

/// A schema and a value that comes near to it.
pub(crate) fn spec_and_value() -> impl Strategy<Value = (ParameterSpec, Value)> {
    spec().prop_flat_map(|spec| {
        let value = value_for(&spec);
        (Just(spec), value)
    })
}

/// A method and parameters for it, by name or by position.
pub(crate) fn params_and_value() -> impl Strategy<Value = (MethodSpec, Value)> {
    (fields(spec()), any::<bool>()).prop_flat_map(|(params_schema, additional_params)| {
        let method = MethodSpec { params_schema, additional_params, ..MethodSpec::new("m") };
        let named = object_for(method.params_schema.iter());
        let items: Vec<_> = method.params_schema.values().map(value_for).collect();
        let positional =
            (items, of(any_value()), any::<bool>()).prop_map(|(mut items, more, short)| {
                items.extend(more);
                if short {
                    items.pop();
                }
                Value::from(items)
            });
        (Just(method), prop_oneof![named, positional])
    })
}

/// The schema with one thing changed, for better or worse.
pub(crate) fn loosened(spec: ParameterSpec) -> impl Strategy<Value = ParameterSpec> {
    let other = self::spec();
    (only_loosened(spec), other, 0_usize..10).prop_map(|(mut spec, other, change)| {
        match change {
            0 => spec.kind = other.kind,
            1 => spec.minimum = other.minimum,
            2 => spec.maximum = other.maximum,
            3 => spec.min_length = other.min_length,
            4 => spec.max_length = other.max_length,
            5 => spec.allowed = other.allowed,
            6 => spec.items = other.items,
            7 => spec.properties = other.properties,
            8 if allows(&spec, ParameterType::Object) => {
                spec.properties.get_or_insert_default().insert("a".to_owned(), other);
            }
            _ => spec.additional_properties = other.additional_properties,
        }
        spec
    })
}

/// The schema with one constraint dropped or one type added.
pub(crate) fn only_loosened(spec: ParameterSpec) -> impl Strategy<Value = ParameterSpec> {
    (0_usize..9).prop_map(move |change| {
        let mut spec = spec.clone();
        match change {
            0 => spec.minimum = None,
            1 => spec.maximum = None,
            2 => spec.min_length = None,
            3 => spec.max_length = None,
            4 => spec.pattern = None,
            5 => spec.allowed = None,
            6 => spec.items = None,
            7 => spec.required = false,
            _ => {
                let mut kinds = spec.kind.as_slice().to_vec();
                kinds.push(ParameterType::Null);
                spec.kind = OneOrMany::Many(kinds);
            }
        }
        spec
    })
}
