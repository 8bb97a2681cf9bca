//! Work on whole values, charged part by part: two values may share what they are made of, so that
//! their size says nothing about the work.

use serde_json::{Map, Number, Value};

use super::{
    Span,
    evaluate::{Evaluation, Fault, wrong},
    limits, number,
    value::Val,
};

impl Evaluation<'_> {
    /// Equal as CEL has it: across kinds nothing is, but for an int and a double.
    pub(super) fn is_same(&self, one: &Val<'_>, two: &Val<'_>, span: Span) -> Result<bool, Fault> {
        self.step(span, 1)?;
        Ok(match (one, two) {
            (Val::Null, Val::Null) => true,
            (Val::Text(one), Val::Text(two)) => {
                self.step(span, one.len().min(two.len()) / limits::TEXT_STEP)?;
                one == two
            }
            (Val::Bool(_), Val::Bool(_))
            | (Val::Int(_) | Val::Double(_), Val::Int(_) | Val::Double(_)) => one.is_same_key(two),
            (Val::Array(_) | Val::List(_), Val::Array(_) | Val::List(_)) => {
                if one.len() != two.len() {
                    return Ok(false);
                }
                for at in 0..one.len().unwrap_or(0) {
                    let (Some(one), Some(two)) = (one.item(at), two.item(at)) else {
                        return Ok(false);
                    };
                    if !self.is_same(&one, &two, span)? {
                        return Ok(false);
                    }
                }
                true
            }
            (one, two) if one.is_object() && two.is_object() => {
                if one.len() != two.len() {
                    return Ok(false);
                }
                self.step(span, one.len().unwrap_or(0))?;
                for (key, value) in one.entries() {
                    let Some(other) = two.field(&key) else { return Ok(false) };
                    if !self.is_same(&value, &other, span)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// The value as JSON; what JSON does not have is an error.
    pub(super) fn json(&self, value: &Val<'_>, span: Span) -> Result<Value, Fault> {
        self.produce(span, 16)?;
        Ok(match value {
            Val::Null => Value::Null,
            Val::Bool(value) => (*value).into(),
            Val::Int(value) => (*value).into(),
            Val::Double(value) => match Number::from_f64(*value) {
                Some(number) => Value::Number(number),
                None => {
                    return wrong(
                        span,
                        format!("{} is no number of JSON", number::text_of(*value)),
                    );
                }
            },
            Val::Text(text) => {
                self.produce(span, text.len())?;
                Value::String(text.to_string())
            }
            Val::Array(_) | Val::List(_) => {
                let mut items = Vec::new();
                for at in 0..value.len().unwrap_or(0) {
                    let Some(item) = value.item(at) else { break };
                    items.push(self.json(&item, span)?);
                }
                Value::Array(items)
            }
            Val::Object(_) | Val::Map(_) => {
                let mut fields = Map::new();
                self.produce(span, value.len().unwrap_or(0) * 32)?;
                for (key, value) in value.entries() {
                    let key = match key {
                        Val::Text(key) => key.to_string(),
                        Val::Int(key) => key.to_string(),
                        Val::Bool(key) => key.to_string(),
                        other => {
                            return wrong(span, format!("{} is no key of an object", other.kind()));
                        }
                    };
                    self.produce(span, key.len())?;
                    let value = self.json(&value, span)?;
                    if fields.insert(key.clone(), value).is_some() {
                        return wrong(span, format!("the key \"{key}\" is there twice as a text"));
                    }
                }
                Value::Object(fields)
            }
        })
    }
}
