use serde_json::{Value, json};

use super::*;
use crate::{
    error::ErrorCode,
    protocol::{MethodExample, ParameterSpec, ParameterType},
    retry::RetryPolicy,
};

fn id(text: &str) -> ProtocolId {
    text.parse().unwrap()
}

fn protocol(text: &str, methods: impl IntoIterator<Item = MethodSpec>) -> ProtocolSpec {
    let id = id(text);
    let empty = ProtocolSpec::new(id.name(), id.version());
    methods.into_iter().fold(empty, ProtocolSpec::method)
}

fn extending(
    text: &str,
    parent: &str,
    methods: impl IntoIterator<Item = MethodSpec>,
) -> ProtocolSpec {
    ProtocolSpec { extends: Some(id(parent)), ..protocol(text, methods) }
}

fn method(name: &str, param: &str) -> MethodSpec {
    MethodSpec::new(name).param(param, ParameterSpec::string())
}

fn catalog(specs: impl IntoIterator<Item = ProtocolSpec>) -> ProtocolCatalog {
    let mut catalog = ProtocolCatalog::new();
    catalog.register_all(specs).unwrap();
    catalog
}

fn resolved(
    catalog: &ProtocolCatalog,
    protocol: Option<&str>,
    method: &str,
) -> Result<String, String> {
    match catalog.resolve(protocol, method) {
        Ok(method) => Ok(method.capability.to_string()),
        Err(error) => Err(format!("{}: {error}", error.code())),
    }
}

/// What ships must register, examples and all.
#[test]
fn the_built_in_protocols_are_valid() {
    let catalog = ProtocolCatalog::builtin();
    let ids: Vec<_> = catalog.list().map(|spec| spec.protocol_id().to_string()).collect();
    assert_eq!(ids, ["echo/v1.0", "llm/v1.0", "python/v1.0"]);
    let served: Vec<_> =
        catalog.capabilities(&id("echo/v1")).iter().map(ToString::to_string).collect();
    let methods = ["echo", "sleep", "fail", "ping", "timestamp", "delay"];
    assert_eq!(served, methods.map(|method| format!("echo/v1.0:{method}")));
    assert_eq!(catalog.capabilities(&id("echo/v2")), []);
}

/// The first version's contract, by position: new parameters come behind.
#[test]
fn built_in_parameters_keep_their_order() {
    let catalog = ProtocolCatalog::builtin();
    let names = |method: &str| -> Vec<String> {
        catalog.resolve(None, method).unwrap().spec.params_schema.keys().cloned().collect()
    };
    let execute =
        ["code", "timeout", "environment", "imports", "file", "context", "stdin", "result_type"];
    assert_eq!(names("python/execute"), execute);
    let chat = ["messages", "model", "temperature", "max_tokens", "stream", "file_path"];
    let steering = ["num_ctx", "format", "keep_alive", "options"];
    assert_eq!(names("llm/chat"), [&chat[..], &steering].concat());
    assert_eq!(names("llm/embed"), ["text", "model", "options", "keep_alive"]);
    let vision = ["messages", "images", "model", "temperature", "max_tokens", "stream"];
    let added = ["image_path", "prompt", "image_paths"];
    assert_eq!(names("llm/vision"), [&vision[..], &added, &steering].concat());
}

/// A child has its parent's methods, in their order, except where it has its own.
#[test]
fn methods_are_inherited_and_overridden() {
    let catalog = catalog([
        extending("c/v1", "b/v1", [method("third", "c")]),
        extending("b/v1", "a/v1", [method("second", "b"), method("first", "b")]),
        protocol("a/v1", [method("zero", "a"), method("first", "a")]),
    ]);
    let whole = catalog.get(&id("c/v1")).unwrap();
    assert_eq!(whole.methods.keys().collect::<Vec<_>>(), ["zero", "first", "second", "third"]);
    assert_eq!(catalog.declared(&id("c/v1")).unwrap().methods.len(), 1);
    let first = catalog.method(&"c/v1:first".parse().unwrap()).unwrap();
    assert_eq!(first.capability.to_string(), "c/v1.0:first");
    assert!(first.spec.params_schema.contains_key("b"), "the nearer one counts");
    assert_eq!(catalog.find_compatible_protocols("first"), [id("a/v1"), id("b/v1"), id("c/v1")]);
    assert_eq!(catalog.find_compatible_protocols("third"), [id("c/v1")]);
}

/// A parent must be there, and nobody is its own ancestor.
#[test]
fn unknown_parents_and_circles_are_refused() {
    let mut catalog = catalog([protocol("base/v1", [])]);
    let error = catalog.register(extending("x/v1", "bse/v1", [])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol `x/v1.0` extends `bse/v1.0`, which is not registered; did you mean `base/v1.0`?"
    );
    assert_eq!(error.code(), ErrorCode::ProtocolNotFound);
    let own = catalog.register(extending("x/v1", "x/v1", [])).unwrap_err();
    assert_eq!(own.to_string(), "protocols extend each other in a circle: x/v1.0 → x/v1.0");
    catalog.register(extending("child/v1", "base/v1", [])).unwrap();
    let circle = catalog.replace(extending("base/v1", "child/v1", []), false).unwrap_err();
    assert!(matches!(circle, RegisterError::Cycle { .. }), "{circle}");
    assert_eq!(catalog.generation(), 2, "a refused change is no change");
}

/// Files come in the order of their names; all of them are taken in, or none.
#[test]
fn several_protocols_are_registered_in_any_order_or_not_at_all() {
    let mut catalog = ProtocolCatalog::new();
    let errors = catalog
        .register_all([
            extending("a/v1", "b/v1", []),
            extending("b/v1", "c/v1", []),
            extending("c/v1", "a/v1", []),
            extending("d/v1", "a/v1", []),
            protocol("fine/v1", []),
            extending("lost/v1", "nowhere/v1", []),
            extending("successor/v1", "lost/v1", []),
        ])
        .unwrap_err();
    let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "protocol `lost/v1.0` extends `nowhere/v1.0`, which is not registered",
            "protocols extend each other in a circle: a/v1.0 → b/v1.0 → c/v1.0 → a/v1.0",
        ]
    );
    assert_eq!(catalog.list().count(), 0);
}

/// Starting twice with the same files is no error; two protocols of one name are.
#[test]
fn registering_again_is_allowed_only_for_the_same() {
    let mut catalog = catalog([protocol("a/v1", [method("m", "x")])]);
    assert_eq!(catalog.register(protocol("a/v1", [method("m", "x")])), Ok(id("a/v1")));
    assert_eq!(catalog.generation(), 1);
    let error = catalog.register(protocol("a/v1.0", [method("m", "y")])).unwrap_err();
    assert_eq!(error, RegisterError::AlreadyRegistered { id: id("a/v1") });
}

/// Everything wrong in a protocol at once, with its place.
#[test]
fn invalid_protocols_are_rejected_with_every_pointer() {
    let odd = MethodSpec {
        timeout_seconds: Some(std::time::Duration::ZERO),
        retry_policy: Some(RetryPolicy { max_attempts: 0, ..RetryPolicy::default() }),
        ..MethodSpec::new("odd").param("p", ParameterSpec::string().pattern("("))
    };
    let exemplified = MethodSpec {
        examples: vec![
            MethodExample { params: json!({"p": "x"}), result: Some(json!(1)), description: None },
            MethodExample { params: json!([3]), result: None, description: None },
        ],
        ..MethodSpec::new("shown")
            .param("p", ParameterSpec::string())
            .returns(ParameterSpec::boolean())
    };
    let error = ProtocolCatalog::new().register(protocol("x/v1", [odd, exemplified])).unwrap_err();
    let RegisterError::Invalid { errors, .. } = error else { unreachable!("{error}") };
    let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/methods/odd/params_schema/p/pattern",
            "/methods/odd/timeout_seconds",
            "/methods/odd/retry_policy/max_attempts",
            "/methods/shown/examples/0/result",
            "/methods/shown/examples/1/params/0",
        ]
    );
}

/// Names that cannot stand in `name/version:method` would never be found.
#[test]
fn names_that_cannot_be_called_are_refused() {
    for (name, method) in [("a b", "m"), ("", "m"), ("a", "x/y"), ("a", "x:y"), ("a", "")] {
        let mut spec = ProtocolSpec::new(name, Version::default());
        spec.methods.insert(method.to_owned(), MethodSpec::new(method));
        let error = ProtocolCatalog::new().register(spec).unwrap_err();
        assert!(matches!(error, RegisterError::Invalid { .. }), "{name} {method}: {error}");
    }
    let mut spec = ProtocolSpec::new("a", Version::default());
    spec.methods.insert("key".to_owned(), MethodSpec::new("other"));
    assert!(ProtocolCatalog::new().register(spec).is_err());
}

/// In a file the key is the name.
#[test]
fn a_method_without_a_name_takes_its_key() {
    let mut spec = ProtocolSpec::new("a", Version::default());
    spec.methods.insert("run".to_owned(), MethodSpec::default());
    let mut catalog = ProtocolCatalog::new();
    catalog.register(spec).unwrap();
    assert_eq!(catalog.resolve(None, "a/run").unwrap().spec.name, "run");
}

/// Every way in which files name a method.
#[test]
fn methods_are_found_by_every_way_of_writing() {
    let catalog = catalog([
        protocol("llm/v1", [method("chat", "x")]),
        protocol("llm/v1.10", [method("chat", "x")]),
        protocol("llm/v1.9", [method("chat", "x"), method("only", "x")]),
    ]);
    let newest = Ok("llm/v1.10:chat".to_owned());
    let first = Ok("llm/v1.0:chat".to_owned());
    assert_eq!(resolved(&catalog, None, "llm/chat"), newest);
    assert_eq!(resolved(&catalog, Some("llm"), "chat"), newest);
    assert_eq!(resolved(&catalog, Some("llm"), "llm/chat"), newest);
    assert_eq!(resolved(&catalog, Some("llm/v1"), "llm/chat"), first);
    assert_eq!(resolved(&catalog, Some("llm/v1.0"), "chat"), first);
    assert_eq!(resolved(&catalog, Some("llm/v1"), "llm/v1.0:chat"), first);
    assert_eq!(resolved(&catalog, Some("llm"), "llm/v1:chat"), first);
    assert_eq!(resolved(&catalog, None, "llm/v1.0:chat"), first);
    assert_eq!(resolved(&catalog, None, "llm/v1/chat"), first);
    assert_eq!(catalog.newest("llm").unwrap().version, "v1.10".parse().unwrap());
    assert!(catalog.newest("ll").is_none());
}

/// What is not known is reported with what was probably meant, and a code of its own.
#[test]
fn unknown_methods_are_reported_with_the_nearest() {
    let catalog = ProtocolCatalog::builtin();
    let wrong = |protocol, method| resolved(&catalog, protocol, method).unwrap_err();
    assert_eq!(
        wrong(None, "pyton/execute"),
        "PROTOCOL_NOT_FOUND: no protocol `pyton` is registered; did you mean `python`?"
    );
    assert_eq!(
        wrong(Some("sql"), "query"),
        "PROTOCOL_NOT_FOUND: no protocol `sql` is registered; known are `echo`, `llm`, `python`"
    );
    assert_eq!(
        wrong(Some("python/v2"), "execute"),
        "PROTOCOL_VERSION_MISMATCH: protocol `python` has no version `v2`; known are `v1.0`"
    );
    assert_eq!(
        wrong(Some("python/latest"), "execute"),
        "PROTOCOL_VERSION_MISMATCH: protocol `python` has no version `latest`; known are `v1.0`"
    );
    assert_eq!(
        wrong(None, "python/exceute"),
        "METHOD_NOT_FOUND: protocol `python/v1.0` has no method `exceute`; did you mean `execute`?"
    );
    assert_eq!(
        wrong(None, "execute"),
        "PROTOCOL_NOT_FOUND: `execute` does not say which protocol is meant; write \
         `<protocol>/execute`; did you mean `python/execute`?"
    );
    assert_eq!(
        wrong(Some("llm/v1"), "python/execute"),
        "METHOD_NOT_FOUND: protocol `llm/v1` and method `python/execute` name different \
         protocols; leave one out"
    );
    assert!(wrong(Some("llm/v1"), "llm/v2:chat").contains("different protocols"));
}

/// Who holds a snapshot reads what was, whatever happens to the catalog.
#[test]
fn snapshots_do_not_change() {
    let mut catalog = catalog([protocol("a/v1", [method("m", "x")])]);
    let before = catalog.clone();
    catalog.register(protocol("b/v1", [])).unwrap();
    assert_eq!((before.generation(), catalog.generation()), (1, 2));
    assert!(before.get(&id("b/v1")).is_none());
    let capability: Capability = "a/v1:m".parse().unwrap();
    let (old, new) = (before.method(&capability).unwrap(), catalog.method(&capability).unwrap());
    assert!(Arc::ptr_eq(&old, &new), "what has not changed is shared");
}

/// Unused protocols are replaced freely; children follow their parent.
#[test]
fn children_follow_a_replaced_parent() {
    let mut catalog = catalog([
        protocol("a/v1", [method("m", "old")]),
        extending("b/v1", "a/v1", []),
        extending("c/v1", "b/v1", []),
    ]);
    catalog.replace(protocol("a/v1", [method("m", "new"), method("n", "x")]), false).unwrap();
    let inherited = catalog.resolve(Some("c"), "m").unwrap();
    assert!(inherited.spec.params_schema.contains_key("new"));
    assert!(catalog.resolve(Some("c"), "n").is_ok());
    assert_eq!(catalog.generation(), 4);
    let error = catalog.replace(protocol("aa/v1", []), false).unwrap_err();
    assert!(error.to_string().ends_with("did you mean `a/v1.0`?"), "{error}");
}

fn reasons(old: MethodSpec, new: MethodSpec) -> Vec<String> {
    let mut catalog = catalog([protocol("a/v1", [old])]);
    match catalog.replace(protocol("a/v1", [new]), true) {
        Ok(()) => Vec::new(),
        Err(RegisterError::Incompatible { reasons, .. }) => {
            reasons.iter().map(ToString::to_string).collect()
        }
        Err(other) => unreachable!("{other}"),
    }
}

/// While tasks use a protocol, it may only grow.
#[test]
fn a_protocol_in_use_may_grow() {
    let old = MethodSpec::new("m")
        .param("n", ParameterSpec::integer().minimum(1).maximum(5))
        .param("tone", ParameterSpec::string().one_of(["a", "b"]))
        .returns(ParameterSpec::object([("x", ParameterSpec::number())]));
    let new = MethodSpec::new("m")
        .param("n", ParameterSpec::number().minimum(0).maximum(5.5).optional())
        .param("tone", ParameterSpec::string().one_of(["a", "b", "c"]))
        .param("more", ParameterSpec::boolean().default_value(false))
        .returns(ParameterSpec::object([
            ("x", ParameterSpec::integer()),
            ("y", ParameterSpec::string()),
        ]));
    assert_eq!(reasons(old, new), [""; 0]);
}

/// Whatever could refuse a task that was fine before is reported, with its place.
#[test]
fn a_protocol_in_use_may_not_accept_less() {
    let point = |spec: ParameterSpec| ParameterSpec::object([("x", spec)]);
    let old = MethodSpec::new("m")
        .param("n", ParameterSpec::number().minimum(1))
        .param("text", ParameterSpec::string().optional())
        .param("points", ParameterSpec::array(point(ParameterSpec::integer())))
        .param("gone", ParameterSpec::any());
    let new = MethodSpec::new("m")
        .param("text", ParameterSpec::string().pattern("x").max_length(3))
        .param("n", ParameterSpec::integer().minimum(2))
        .param("points", ParameterSpec::array(point(ParameterSpec::string()).closed()));
    let messages = reasons(old, new);
    assert_eq!(
        messages,
        [
            "a/v1.0 /methods/m/params_schema: the parameter `n` lost its place in the order",
            "a/v1.0 /methods/m/params_schema/text/required: `text` must be given",
            "a/v1.0 /methods/m/params_schema/text/max_length: a bound of 3 where there was none",
            "a/v1.0 /methods/m/params_schema/text/pattern: the pattern is another one",
            "a/v1.0 /methods/m/params_schema/n/type: number is not allowed",
            "a/v1.0 /methods/m/params_schema/n/minimum: a bound of 2 where it was 1",
            "a/v1.0 /methods/m/params_schema/points/items/properties: fields that are not \
             declared are not allowed any more",
            "a/v1.0 /methods/m/params_schema/points/items/properties/x/type: integer is not \
             allowed",
            "a/v1.0 /methods/m/params_schema/gone: `gone` is not allowed",
        ]
    );
}

/// An open object could hold any field with any value, so a declaration takes something away.
#[test]
fn declaring_a_field_of_an_open_object_is_not_compatible() {
    let taking = |fields: &[(&str, ParameterSpec)]| {
        MethodSpec::new("m").param("o", ParameterSpec::object(fields.iter().cloned()))
    };
    let messages = reasons(taking(&[]), taking(&[("x", ParameterSpec::string().optional())]));
    let at = "a/v1.0 /methods/m/params_schema/o/properties/x/type";
    assert_eq!(messages, [format!("{at}: any is not allowed")]);
    assert_eq!(reasons(taking(&[]), taking(&[("x", ParameterSpec::any().optional())])), [""; 0]);
}

/// Dependents were checked against what the result promises; it must go on promising that.
#[test]
fn a_protocol_in_use_may_not_guarantee_less() {
    let returning = |spec: ParameterSpec| MethodSpec::new("m").returns(spec);
    let number = || ParameterSpec::object([("x", ParameterSpec::number())]);
    let either = ParameterSpec::union([ParameterType::Number, ParameterType::Null]);
    let messages = reasons(returning(number()), returning(ParameterSpec::object([("x", either)])));
    assert_eq!(
        messages,
        ["a/v1.0 /methods/m/returns_schema/properties/x/type: null is not allowed"]
    );
    assert_eq!(reasons(returning(number()), MethodSpec::new("m")).len(), 1);
    assert_eq!(reasons(MethodSpec::new("m"), returning(number())), [""; 0]);
    assert_eq!(reasons(MethodSpec::new("m"), MethodSpec::new("other")).len(), 1);
}

/// A task may use a child only; its parent is in use then as well.
#[test]
fn replacing_a_parent_in_use_minds_its_children() {
    let mut catalog = catalog([
        protocol("a/v1", [method("m", "x")]),
        extending("b/v1", "a/v1", [method("n", "y")]),
    ]);
    let error = catalog.replace(protocol("a/v1", []), true).unwrap_err();
    let RegisterError::Incompatible { reasons, .. } = error else { unreachable!("{error}") };
    let messages: Vec<_> = reasons.iter().map(|reason| reason.protocol.to_string()).collect();
    assert_eq!(messages, ["a/v1.0", "b/v1.0"]);
}

/// Once is help, a thousand times is noise.
#[test]
fn a_deprecated_method_warns_once() {
    let old = MethodSpec { deprecated: true, ..method("old", "x") };
    let mut catalog = catalog([protocol("a/v1", [old, method("new", "x")])]);
    let call = |catalog: &ProtocolCatalog, name: &str| catalog.resolve(Some("a"), name).unwrap();
    assert!(!call(&catalog, "new").warns_now());
    assert!(call(&catalog, "old").warns_now());
    assert!(!call(&catalog, "old").warns_now());
    catalog.register(protocol("b/v1", [])).unwrap();
    assert!(!call(&catalog, "old").warns_now(), "a change elsewhere does not warn again");
}

/// Ready methods carry the schema of their results.
#[test]
fn results_are_checked_by_the_compiled_schema() {
    let catalog = ProtocolCatalog::builtin();
    let embed = catalog.resolve(None, "llm/embed").unwrap();
    let returns = embed.returns.as_ref().unwrap();
    let result = |numbers: Value| json!({"embedding": numbers, "model": "m", "dimensions": 2});
    assert_eq!(returns.check(&result(json!([0.5, 1]))), []);
    assert_eq!(returns.check(&result(json!([0.5, "x"])))[0].pointer, "/embedding/1");
}
