//! The schema of a method is that of its handler's types, or the service is refused.

use std::collections::{BTreeMap, HashMap};

use gleitzeit::{
    ErrorCode, MethodSpec, Runtime, StartError,
    domain::protocol::{catalog::ProtocolCatalog, schema},
    schemars::{self, JsonSchema},
    service::{CallContext, HandlerError, Service},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::whole::settings;

/// Charges a card. This text is for readers of the code.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Charge {
    /// Whom to charge.
    #[schemars(length(min = 1, max = 80), regex(pattern = "^[a-z]+$"))]
    customer: String,
    /// Cents.
    #[schemars(range(min = 1))]
    amount: u32,
    #[schemars(extend("exclusiveMinimum" = 0))]
    parts: i64,
    share: Option<f64>,
    #[serde(default = "eur")]
    currency: Currency,
    /// What was bought.
    items: Vec<Item>,
    #[serde(default)]
    urgent: bool,
    note: Option<Note>,
    labels: BTreeMap<String, u8>,
    place: (f64, f64),
    extra: Value,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Currency {
    /// Euro.
    Eur,
    /// Yen; it has no cents.
    Yen,
}

fn eur() -> Currency {
    Currency::Eur
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is read")]
struct Item {
    /// As in the catalogue.
    number: u64,
    #[serde(default = "one")]
    count: u8,
}

fn one() -> u8 {
    1
}

#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "only its schema is read")]
struct Note(String);

#[derive(Serialize, JsonSchema)]
struct Receipt {
    /// Unique.
    number: String,
    paid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discount: Option<f32>,
}

async fn charge(_: Charge, _: CallContext) -> Result<Receipt, HandlerError> {
    Ok(Receipt { number: "1".into(), paid: None, discount: None })
}

async fn nothing((): (), _: CallContext) -> Result<(), HandlerError> {
    Ok(())
}

fn method(service: Service, name: &str) -> MethodSpec {
    let built = service.build().unwrap();
    // Everything that is lowered is taken by the protocols.
    let mut catalog = ProtocolCatalog::new();
    catalog.register_all(vec![built.protocol.clone()]).unwrap();
    built.protocol.methods[name].clone()
}

/// Doc comments, bounds, lists, nested objects, options and defaults, each in its place.
#[test]
fn a_struct_becomes_the_parameters_of_its_method() {
    let method = method(Service::new("shop", "v1.0").method("charge", charge), "charge");
    let expected = json!({
        "customer": { "type": "string", "description": "Whom to charge.", "min_length": 1,
            "max_length": 80, "pattern": "^[a-z]+$" },
        "amount": { "type": "integer", "description": "Cents.", "minimum": 1,
            "maximum": u32::MAX },
        "parts": { "type": "integer", "minimum": 1, "maximum": i64::MAX },
        "share": { "type": ["number", "null"], "required": false },
        "currency": { "type": "string", "enum": ["eur", "yen"], "default": "eur",
            "required": false, "description": "\"eur\": Euro.\n\"yen\": Yen; it has no cents." },
        "items": { "type": "array", "description": "What was bought.", "items": {
            "type": "object", "additional_properties": false, "properties": {
                "number": { "type": "integer", "description": "As in the catalogue.",
                    "minimum": 0, "maximum": u64::MAX },
                "count": { "type": "integer", "minimum": 0, "maximum": 255, "default": 1,
                    "required": false },
            } } },
        "urgent": { "type": "boolean", "default": false, "required": false },
        "note": { "type": ["string", "null"], "required": false },
        "labels": { "type": "object" },
        "place": { "type": "array", "items": { "type": "number" }, "min_length": 2,
            "max_length": 2 },
        "extra": { "type": "any" },
    });
    assert_eq!(serde_json::to_value(&method.params_schema).unwrap(), expected);
    assert!(!method.additional_params, "a typing error in a name would pass");
    let returns = serde_json::to_value(method.returns_schema.unwrap()).unwrap();
    assert_eq!(
        returns["properties"]["number"],
        json!({ "type": "string", "description": "Unique." })
    );
    assert_eq!(returns["properties"]["paid"]["type"], json!(["integer", "null"]));
    assert_eq!(returns["properties"]["paid"].get("required"), None, "a result always has it");
    assert_eq!(returns["properties"]["discount"]["required"], json!(false));
    assert_eq!(returns["additional_properties"], json!(false), "a reference to more would pass");
}

/// What a workflow's author sees is valid JSON Schema, and `()` is no parameters at all.
#[test]
fn the_protocol_is_exported_as_any_other() {
    let service = Service::new("shop", "v1.2").method("charge", charge).method("nothing", nothing);
    let built = service.build().unwrap();
    let exported = schema::export(&built.protocol);
    jsonschema::meta::validate(&exported).unwrap();
    let nothing = &built.protocol.methods["nothing"];
    assert!(nothing.params_schema.is_empty() && !nothing.additional_params);
    assert_eq!(exported["title"], "shop/v1.2");
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is read")]
enum Either {
    Text(String),
    Number(f64),
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
enum Payment {
    Card { number: String },
    Cash,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Inner {
    by_number: HashMap<u32, String>,
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    rate: f64,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Wrong {
    either: Either,
    payment: Payment,
    tree: Tree,
    mixed: (u8, String),
    inner: Vec<Inner>,
}

async fn wrong(_: Wrong, _: CallContext) -> Result<Vec<u8>, HandlerError> {
    Ok(Vec::new())
}

async fn unnamed(_: u32, _: CallContext) -> Result<u32, HandlerError> {
    Ok(0)
}

/// Each refusal says which method, which type and which field, all at once.
#[tokio::test]
async fn what_has_no_schema_is_refused_by_name() {
    let service = Service::new("shop", "1.x")
        .pure()
        .method("wrong", wrong)
        .method("unnamed", unnamed)
        .method("nothing", nothing)
        .method("nothing", nothing);
    let builder = Runtime::builder(settings("")).without_settings_providers();
    let error = builder.service(service).start().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConfigurationError);
    let StartError::Service(error) = error else { panic!("{error}") };
    assert_eq!(error.service, "shop/1.x");
    let starts = [
        "`pure` stands before the first method",
        "method `wrong`, input `library::service::schemas::Wrong`, field `either`, type \
         `Either`: an enum with data",
        "method `wrong`, input `library::service::schemas::Wrong`, field `payment`, type \
         `Payment`: an enum with data",
        "method `wrong`, input `library::service::schemas::Wrong`, field `tree.children.[]`, \
         type `Tree`: type `Tree` contains itself",
        "method `wrong`, input `library::service::schemas::Wrong`, field `mixed`: a tuple of \
         several types",
        "method `wrong`, input `library::service::schemas::Wrong`, field `inner.[].by_number`, \
         type `Inner`: a map whose keys are not text",
        "method `wrong`, input `library::service::schemas::Wrong`, field `inner.[].rate`, type \
         `Inner`: its schema has the rule `exclusiveMinimum`",
        "method `unnamed`, input `u32`: its parameters have no names",
        "method `nothing` is declared twice",
        "version `1.x`",
    ];
    assert_eq!(error.problems.len(), starts.len(), "{:#?}", error.problems);
    for (problem, start) in error.problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}\nis not\n{start}");
    }
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is read")]
struct Left {
    #[schemars(with = "Value")]
    either: Either,
    #[serde(flatten)]
    others: HashMap<String, Value>,
}

async fn left(_: Left, _: CallContext) -> Result<String, HandlerError> {
    Ok(String::new())
}

/// The way out that the refusals name is one.
#[test]
fn a_field_is_left_to_the_handler_on_request() {
    let method = method(Service::new("shop", "v1.0").method("left", left), "left");
    let expected = json!({ "either": { "type": "any" } });
    assert_eq!(serde_json::to_value(&method.params_schema).unwrap(), expected);
    assert!(method.additional_params, "the type collects what it does not name");
}
