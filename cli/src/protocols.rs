//! `protocols`: what can be called, and whether parameters fit. Needs neither store nor providers.

use std::{fs, io, path::Path, sync::Arc};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::{Capability, ProtocolId},
    protocol::{ProtocolSpec, catalog::ProtocolCatalog, schema, validate::Violation},
};
use serde_json::{Value, json};

use super::{
    Outcome,
    args::Protocols,
    output::{self, Exit, Failure},
    session::Session,
};

/// Runs the command.
pub(crate) fn protocols(session: &Session, command: Protocols) -> Outcome {
    match command {
        Protocols::List(more) => Ok(list(session, &session.catalog(&more.protocol_file)?)),
        Protocols::Show { protocol, more } => {
            let catalog = session.catalog(&more.protocol_file)?;
            show(session, find(&catalog, &protocol)?)
        }
        Protocols::Validate { protocol, method, params, more } => {
            let catalog = session.catalog(&more.protocol_file)?;
            let protocol = find(&catalog, &protocol)?.protocol_id();
            validate(session, &catalog, &protocol, &method, &params)
        }
    }
}

/// The protocol that a person names: with a version, or without for the newest.
fn find<'b>(catalog: &'b ProtocolCatalog, name: &str) -> Result<&'b Arc<ProtocolSpec>, Failure> {
    let found = match name.parse::<ProtocolId>() {
        Ok(id) => catalog.get(&id),
        Err(_) => catalog.newest(name),
    };
    found.ok_or_else(|| {
        let known: Vec<String> = catalog.list().map(|it| it.protocol_id().to_string()).collect();
        let message = format!("no protocol `{name}`; known are {}", known.join(", "));
        TaskError::new(ErrorCode::ProtocolNotFound, message).into()
    })
}

fn list(session: &Session, catalog: &ProtocolCatalog) -> Exit {
    if session.json {
        let all: Vec<Value> = catalog
            .list()
            .map(|it| {
                json!({
                    "protocol_id": it.protocol_id(),
                    "description": it.description,
                    "extends": it.extends,
                    "methods": it.methods.keys().collect::<Vec<_>>(),
                })
            })
            .collect();
        output::document(&all);
        return Exit::Success;
    }
    let mut table = output::table(["protocol", "methods", "description"]);
    for it in catalog.list() {
        let methods: Vec<&str> = it.methods.keys().map(String::as_str).collect();
        table.add_row([
            it.protocol_id().to_string(),
            methods.join(", "),
            it.description.clone().unwrap_or_default(),
        ]);
    }
    output::text(table.trim_fmt());
    Exit::Success
}

fn show(session: &Session, protocol: &ProtocolSpec) -> Outcome {
    if session.json {
        output::document(&schema::export(protocol));
        return Ok(Exit::Success);
    }
    let text = toml::to_string(protocol).map_err(|error| {
        let id = protocol.protocol_id();
        Failure::infrastructure(format!("cannot write {id} as TOML: {error}"))
    })?;
    output::text(text.trim_end());
    Ok(Exit::Success)
}

fn validate(
    session: &Session,
    catalog: &ProtocolCatalog,
    protocol: &ProtocolId,
    method: &str,
    file: &Path,
) -> Outcome {
    let capability = Capability::new(protocol.clone(), method);
    let Some(method) = catalog.method(&capability) else {
        let known = catalog.get(protocol).into_iter().flat_map(|it| it.methods.keys());
        let known: Vec<&str> = known.map(String::as_str).collect();
        let message = format!("{protocol} has no method `{method}`; it has {}", known.join(", "));
        return Err(TaskError::new(ErrorCode::MethodNotFound, message).into());
    };
    let given = Arc::new(read_json(file)?);
    let (params, violations) = match method.params.validate(&given) {
        Ok(filled) => (filled, Vec::new()),
        Err(violations) => (given, violations),
    };
    let valid = violations.is_empty();
    if session.json {
        output::document(&json!({
            "valid": valid,
            "params": params,
            "violations": violations.iter().map(violation_json).collect::<Vec<_>>(),
        }));
    } else if valid {
        output::text(format_args!("valid for {capability}; with defaults:"));
        output::document(&params);
    } else {
        output::text(format_args!("not valid for {capability}:"));
        for violation in &violations {
            output::text(format_args!("  {violation}"));
        }
    }
    Ok(if valid { Exit::Success } else { Exit::Usage })
}

fn violation_json(violation: &Violation) -> Value {
    json!({
        "pointer": violation.pointer,
        "rule": violation.rule,
        "message": violation.message,
    })
}

fn read_json(file: &Path) -> Result<Value, Failure> {
    let name = file.display();
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("{name} is no JSON: {error}");
        Failure::new(Exit::Usage, TaskError::new(ErrorCode::ParseError, message))
    })
}
