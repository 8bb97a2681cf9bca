//! Functions of values.

use std::{borrow::Cow, rc::Rc};

use super::{
    Span,
    ast::Function,
    evaluate::{Evaluation, Fault, Found, wrong},
    limits, number,
    value::Val,
};

impl<'a> Evaluation<'a> {
    pub(super) fn call(
        &self,
        function: Function,
        mut values: Vec<Val<'a>>,
        span: Span,
    ) -> Found<'a> {
        let mut taken = values.drain(..);
        let (Some(first), second, third) = (taken.next(), taken.next(), taken.next()) else {
            return wrong(span, "this function needs a value");
        };
        match (function, second) {
            (Function::Dyn, _) => Ok(first),
            (Function::Size, _) => self.size(&first, span),
            (Function::Int, _) => self.int(&first, span),
            (Function::Double, _) => self.double(&first, span),
            (Function::Text, _) => self.string(first, span),
            (Function::Bool, _) => self.boolean(&first, span),
            (Function::LowerAscii | Function::UpperAscii, _) => {
                let text = self.text_of(&first, function, span)?;
                self.produce(span, text.len())?;
                let changed = if function == Function::LowerAscii {
                    text.to_ascii_lowercase()
                } else {
                    text.to_ascii_uppercase()
                };
                Ok(Val::Text(changed.into()))
            }
            (Function::Join, second) => self.join(&first, second.as_ref(), span),
            (Function::Split, Some(second)) => self.split(&first, &second, third.as_ref(), span),
            (_, Some(second)) => {
                let text = self.text_of(&first, function, span)?;
                let part = self.text_of(&second, function, span)?;
                self.step(span, text.len() / limits::TEXT_STEP)?;
                Ok(Val::Bool(match function {
                    Function::StartsWith => text.starts_with(&**part),
                    Function::EndsWith => text.ends_with(&**part),
                    _ => text.contains(&**part),
                }))
            }
            (_, None) => wrong(span, format!("`{}` needs a second value", function.name())),
        }
    }

    fn not_for<T>(&self, function: Function, value: &Val<'a>, span: Span) -> Result<T, Fault> {
        let text = self.text(span);
        let message = format!("`{text}`: `{}` does not take {}", function.name(), value.kind());
        wrong(span, message)
    }

    fn text_of<'v>(
        &self,
        value: &'v Val<'a>,
        function: Function,
        span: Span,
    ) -> Result<&'v Cow<'a, str>, Fault> {
        match value {
            Val::Text(text) => Ok(text),
            other => self.not_for(function, other, span),
        }
    }

    fn size(&self, value: &Val<'a>, span: Span) -> Found<'a> {
        let size = match value {
            Val::Text(text) => {
                self.step(span, text.len() / limits::TEXT_STEP)?;
                text.chars().count()
            }
            other => match other.len() {
                Some(len) => len,
                None => return self.not_for(Function::Size, other, span),
            },
        };
        Ok(Val::Int(i64::try_from(size).unwrap_or(i64::MAX)))
    }

    fn int(&self, value: &Val<'a>, span: Span) -> Found<'a> {
        let found = match value {
            Val::Int(value) => Some(*value),
            Val::Double(value) => number::truncated(*value),
            Val::Text(text) => text.parse().ok(),
            other => return self.not_for(Function::Int, other, span),
        };
        match found {
            Some(value) => Ok(Val::Int(value)),
            None => wrong(span, format!("{} is no int in the range of 64 bits", value.describe())),
        }
    }

    fn double(&self, value: &Val<'a>, span: Span) -> Found<'a> {
        match value {
            Val::Int(value) => Ok(Val::Double(number::as_double(*value))),
            Val::Double(value) => Ok(Val::Double(*value)),
            Val::Text(text) => match text.parse() {
                Ok(value) => Ok(Val::Double(value)),
                Err(_) => wrong(span, format!("{} is no number", value.describe())),
            },
            other => self.not_for(Function::Double, other, span),
        }
    }

    fn string(&self, value: Val<'a>, span: Span) -> Found<'a> {
        let text: String = match value {
            Val::Text(text) => return Ok(Val::Text(text)),
            Val::Int(value) => value.to_string(),
            Val::Double(value) => number::text_of(value),
            Val::Bool(value) => value.to_string(),
            other => return self.not_for(Function::Text, &other, span),
        };
        self.produce(span, text.len())?;
        Ok(Val::Text(text.into()))
    }

    fn boolean(&self, value: &Val<'a>, span: Span) -> Found<'a> {
        let text = match value {
            Val::Bool(value) => return Ok(Val::Bool(*value)),
            Val::Text(text) => &**text,
            other => return self.not_for(Function::Bool, other, span),
        };
        match text {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Val::Bool(false)),
            _ => wrong(span, format!("Type conversion error: {} is no boolean", value.describe())),
        }
    }

    fn split(&self, text: &Val<'a>, by: &Val<'a>, most: Option<&Val<'a>>, span: Span) -> Found<'a> {
        let text = self.text_of(text, Function::Split, span)?;
        let by = self.text_of(by, Function::Split, span)?;
        let most = match most {
            None => usize::MAX,
            Some(Val::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
            Some(other) => return self.not_for(Function::Split, other, span),
        };
        self.produce(span, text.len())?;
        let mut parts: Vec<Val<'a>> = Vec::new();
        let own = |part: &str| Val::Text(part.to_owned().into());
        self.step(span, text.len())?;
        if by.is_empty() {
            parts.extend(text.chars().map(|c| own(c.encode_utf8(&mut [0; 4]))));
        } else if most > 0 {
            parts.extend(text.splitn(most, &**by).map(own));
        }
        self.produce(span, parts.len() * 32)?;
        Ok(Val::List(Rc::new(parts)))
    }

    fn join(&self, list: &Val<'a>, by: Option<&Val<'a>>, span: Span) -> Found<'a> {
        let by = match by {
            Some(by) => &**self.text_of(by, Function::Join, span)?,
            None => "",
        };
        let (Some(len), false) = (list.len(), list.is_object()) else {
            return self.not_for(Function::Join, list, span);
        };
        let mut joined = String::new();
        for at in 0..len {
            let Some(item) = list.item(at) else { break };
            let text = self.text_of(&item, Function::Join, span)?;
            self.produce(span, text.len() + by.len())?;
            if at > 0 {
                joined.push_str(by);
            }
            joined.push_str(text);
        }
        Ok(Val::Text(joined.into()))
    }
}
