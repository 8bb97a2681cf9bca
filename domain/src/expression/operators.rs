//! Operators between two values.

use std::{cmp::Ordering, rc::Rc};

use super::{
    Span,
    ast::{Node, Operator},
    evaluate::{Evaluation, Found, Variables, wrong},
    number,
    value::Val,
};

/// Bytes that an entry of a list or map takes.
const ENTRY: usize = 32;

impl<'a> Evaluation<'a> {
    pub(super) fn list(
        &self,
        items: &'a [Node],
        span: Span,
        variables: &mut Variables<'a>,
    ) -> Found<'a> {
        self.produce(span, items.len() * ENTRY)?;
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(self.node(item, variables)?);
        }
        Ok(Val::List(Rc::new(values)))
    }

    pub(super) fn map(
        &self,
        entries: &'a [(Node, Node)],
        span: Span,
        variables: &mut Variables<'a>,
    ) -> Found<'a> {
        self.produce(span, entries.len() * 2 * ENTRY)?;
        let mut values: Vec<(Val<'a>, Val<'a>)> = Vec::with_capacity(entries.len());
        for (key_node, value) in entries {
            let key = self.node(key_node, variables)?;
            if !matches!(key, Val::Text(_) | Val::Int(_) | Val::Bool(_)) {
                return wrong(key_node.span, format!("{} is no key of a map", key.kind()));
            }
            if values.iter().any(|(known, _)| known.is_same_key(&key)) {
                return wrong(key_node.span, format!("the key {} is repeated", key.describe()));
            }
            let value = self.node(value, variables)?;
            values.push((key, value));
        }
        Ok(Val::Map(Rc::new(values)))
    }

    pub(super) fn negate(
        &self,
        of: &'a Node,
        span: Span,
        variables: &mut Variables<'a>,
    ) -> Found<'a> {
        match self.node(of, variables)? {
            Val::Int(value) => match value.checked_neg() {
                Some(value) => Ok(Val::Int(value)),
                None => wrong(span, "the int is out of range"),
            },
            Val::Double(value) => Ok(Val::Double(-value)),
            other => wrong(span, format!("`-` needs a number, not {}", other.kind())),
        }
    }

    pub(super) fn binary(
        &self,
        operator: Operator,
        one: &Val<'a>,
        two: &Val<'a>,
        span: Span,
    ) -> Found<'a> {
        match operator {
            Operator::Equal | Operator::Unequal => {
                Ok(Val::Bool(self.is_same(one, two, span)? == (operator == Operator::Equal)))
            }
            Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
                self.compare(operator, one, two, span)
            }
            Operator::In => self.is_in(one, two, span),
            Operator::Add => self.add(one, two, span),
            _ => self.calculate(operator, one, two, span),
        }
    }

    fn no_such(&self, operator: Operator, one: &Val<'a>, two: &Val<'a>, span: Span) -> Found<'a> {
        let symbol = operator.as_str();
        wrong(
            span,
            format!(
                "`{}`: `{symbol}` does not take {} and {}",
                self.text(span),
                one.kind(),
                two.kind()
            ),
        )
    }

    fn compare(&self, operator: Operator, one: &Val<'a>, two: &Val<'a>, span: Span) -> Found<'a> {
        let order = match (one, two) {
            (Val::Text(one), Val::Text(two)) => {
                self.step(span, one.len().min(two.len()) / super::limits::TEXT_STEP)?;
                Some(one.cmp(two))
            }
            (Val::Bool(one), Val::Bool(two)) => Some(one.cmp(two)),
            (Val::Int(_) | Val::Double(_), Val::Int(_) | Val::Double(_)) => {
                number::compare(one, two)
            }
            _ => return self.no_such(operator, one, two, span),
        };
        let holds = order.is_some_and(|order| match operator {
            Operator::Less => order == Ordering::Less,
            Operator::LessEqual => order != Ordering::Greater,
            Operator::Greater => order == Ordering::Greater,
            _ => order != Ordering::Less,
        });
        Ok(Val::Bool(holds))
    }

    fn is_in(&self, one: &Val<'a>, two: &Val<'a>, span: Span) -> Found<'a> {
        if two.is_object() {
            return Ok(Val::Bool(two.field(one).is_some()));
        }
        let Some(len) = two.len() else { return self.no_such(Operator::In, one, two, span) };
        for at in 0..len {
            let Some(item) = two.item(at) else { break };
            if self.is_same(&item, one, span)? {
                return Ok(Val::Bool(true));
            }
        }
        Ok(Val::Bool(false))
    }

    fn add(&self, one: &Val<'a>, two: &Val<'a>, span: Span) -> Found<'a> {
        match (one, two) {
            (Val::Text(one), Val::Text(two)) => {
                self.produce(span, one.len() + two.len())?;
                Ok(Val::Text(format!("{one}{two}").into()))
            }
            (Val::Array(_) | Val::List(_), Val::Array(_) | Val::List(_)) => {
                let len = one.len().unwrap_or(0) + two.len().unwrap_or(0);
                self.produce(span, len * ENTRY)?;
                self.step(span, len)?;
                let mut items = Vec::with_capacity(len);
                for list in [one, two] {
                    items.extend((0..list.len().unwrap_or(0)).filter_map(|at| list.item(at)));
                }
                Ok(Val::List(Rc::new(items)))
            }
            _ => self.calculate(Operator::Add, one, two, span),
        }
    }

    fn calculate(&self, operator: Operator, one: &Val<'a>, two: &Val<'a>, span: Span) -> Found<'a> {
        let (one_double, two_double) = match (one, two) {
            (Val::Int(one), Val::Int(two)) => return self.whole(operator, *one, *two, span),
            (Val::Double(one), Val::Double(two)) => (*one, *two),
            (Val::Int(one), Val::Double(two)) => (number::as_double(*one), *two),
            (Val::Double(one), Val::Int(two)) => (*one, number::as_double(*two)),
            _ => return self.no_such(operator, one, two, span),
        };
        Ok(Val::Double(match operator {
            Operator::Add => one_double + two_double,
            Operator::Subtract => one_double - two_double,
            Operator::Multiply => one_double * two_double,
            Operator::Divide => one_double / two_double,
            _ => return self.no_such(operator, one, two, span),
        }))
    }

    fn whole(&self, operator: Operator, one: i64, two: i64, span: Span) -> Found<'a> {
        let is_division = matches!(operator, Operator::Divide | Operator::Remainder);
        if is_division && two == 0 {
            let what = if operator == Operator::Divide { "divide" } else { "modulus" };
            return wrong(span, format!("`{}`: {what} by zero", self.text(span)));
        }
        let value = match operator {
            Operator::Add => one.checked_add(two),
            Operator::Subtract => one.checked_sub(two),
            Operator::Multiply => one.checked_mul(two),
            Operator::Divide => one.checked_div(two),
            _ => one.checked_rem(two),
        };
        match value {
            Some(value) => Ok(Val::Int(value)),
            None => wrong(span, format!("`{}`: the int is out of range", self.text(span))),
        }
    }
}
