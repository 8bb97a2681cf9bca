//! Macros: an expression evaluated for each item of a list, or each key of a map.

use std::rc::Rc;

use super::{
    Span,
    ast::{Macro, MacroKind, Node},
    evaluate::{Evaluation, Fault, Found, Variables, wrong},
    value::Val,
};

impl<'a> Evaluation<'a> {
    pub(super) fn macro_(
        &self,
        it: &'a Macro,
        span: Span,
        variables: &mut Variables<'a>,
    ) -> Found<'a> {
        let over = self.node(&it.over, variables)?;
        let Some(len) = over.len() else {
            let message =
                format!("`{}` is {}, not a list", self.text(it.over.span), over.describe());
            return wrong(it.over.span, message);
        };
        // Keys are found by their place in a list of them: looked up one by one, they would cost a square.
        let keys: Option<Vec<Val<'a>>> = if matches!(over, Val::Object(_)) {
            self.step(span, len)?;
            Some(over.entries().into_iter().map(|(key, _)| key).collect())
        } else {
            None
        };
        let item = |at: usize| match &keys {
            Some(keys) => keys.get(at).cloned(),
            None => over.over(at),
        };
        let depth = variables.len();
        let found = self.rounds(it, len, item, span, variables);
        variables.truncate(depth);
        found
    }

    fn rounds(
        &self,
        it: &'a Macro,
        len: usize,
        item: impl Fn(usize) -> Option<Val<'a>>,
        span: Span,
        variables: &mut Variables<'a>,
    ) -> Found<'a> {
        let mut taken = Vec::new();
        let (mut count, mut fault) = (0, None);
        let depth = variables.len();
        for at in 0..len {
            self.step(span, 1)?;
            let Some(value) = item(at) else { break };
            variables.truncate(depth);
            variables.push(value.clone());
            match it.kind {
                MacroKind::All | MacroKind::Exists => {
                    let deciding = it.kind == MacroKind::Exists;
                    match self.condition(&it.body, variables) {
                        Ok(held) if held == deciding => return Ok(Val::Bool(deciding)),
                        Ok(_) => {}
                        Err(Fault::Limit(error)) => return Err(Fault::Limit(error)),
                        Err(other) => fault = fault.or(Some(other)),
                    }
                }
                MacroKind::ExistsOne => count += usize::from(self.condition(&it.body, variables)?),
                MacroKind::Filter => {
                    if self.condition(&it.body, variables)? {
                        self.produce(span, 32)?;
                        taken.push(value);
                    }
                }
                MacroKind::Map => {
                    let is_wanted = match &it.condition {
                        Some(condition) => self.condition(condition, variables)?,
                        None => true,
                    };
                    if is_wanted {
                        self.produce(span, 32)?;
                        taken.push(self.node(&it.body, variables)?);
                    }
                }
            }
        }
        match (it.kind, fault) {
            (_, Some(fault)) => Err(fault),
            (MacroKind::All, None) => Ok(Val::Bool(true)),
            (MacroKind::Exists, None) => Ok(Val::Bool(false)),
            (MacroKind::ExistsOne, None) => Ok(Val::Bool(count == 1)),
            (MacroKind::Map | MacroKind::Filter, None) => Ok(Val::List(Rc::new(taken))),
        }
    }

    fn condition(&self, node: &'a Node, variables: &mut Variables<'a>) -> Result<bool, Fault> {
        match self.node(node, variables)? {
            Val::Bool(value) => Ok(value),
            other => {
                let what = format!("`{}` is {}", self.text(node.span), other.describe());
                wrong(node.span, format!("{what}, not true or false"))
            }
        }
    }
}
