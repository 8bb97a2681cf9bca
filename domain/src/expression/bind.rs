//! Finds what the names of an expression stand for, and how it uses the tasks among them.

use super::{
    Names, Span, SyntaxError,
    ast::{Kind, Node},
};

/// What an expression needs of a task; the strongest use of several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// How it ended: inside `status()`, `completed()`, `failed()`, `skipped()`, `error()`.
    End,
    /// Its result, if it has one: inside `has()` and `coalesce()`.
    After,
    /// Its result.
    Value,
}

pub(super) fn bind(root: &mut Node, names: &dyn Names) -> Result<Vec<(u32, Use)>, SyntaxError> {
    let mut binder = Binder { names, variables: Vec::new(), tasks: Vec::new() };
    binder.node(root, Use::Value)?;
    Ok(binder.tasks)
}

struct Binder<'n> {
    names: &'n dyn Names,
    /// Of the macros around the current place.
    variables: Vec<Box<str>>,
    tasks: Vec<(u32, Use)>,
}

impl Binder<'_> {
    fn node(&mut self, node: &mut Node, as_: Use) -> Result<(), SyntaxError> {
        if let Some(task) = self.quoted_task(node)? {
            self.note(task.0, as_);
            node.kind = Kind::Task(task.0, task.1);
            return Ok(());
        }
        match &mut node.kind {
            Kind::Name(name) => {
                let name = std::mem::take(name);
                node.kind = self.name(name, node.span, as_)?;
            }
            Kind::Field(of, _) | Kind::Not(of) | Kind::Negate(of) | Kind::Matches(of, _) => {
                self.node(of, as_)?;
            }
            Kind::Has(of) => self.node(of, as_.min(Use::After))?,
            Kind::OfTask(_, task) => {
                self.node(task, Use::End)?;
                if !matches!(task.kind, Kind::Task(..)) {
                    let message = "this function asks for a task, by its id".into();
                    return Err(SyntaxError { message, span: task.span });
                }
            }
            Kind::Coalesce(items) => {
                for item in items {
                    self.node(item, as_.min(Use::After))?;
                }
            }
            Kind::List(items) | Kind::Call(_, items) => {
                for item in items {
                    self.node(item, as_)?;
                }
            }
            Kind::Index(one, two) | Kind::Binary(_, one, two) => {
                self.node(one, as_)?;
                self.node(two, as_)?;
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    self.node(key, as_)?;
                    self.node(value, as_)?;
                }
            }
            Kind::Choose(parts) => {
                for part in parts.iter_mut() {
                    self.node(part, as_)?;
                }
            }
            Kind::Macro(it) => {
                self.node(&mut it.over, as_)?;
                self.variables.push(it.variable.clone());
                if let Some(condition) = &mut it.condition {
                    self.node(condition, as_)?;
                }
                self.node(&mut it.body, as_)?;
                self.variables.pop();
            }
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Double(_)
            | Kind::Text(_)
            | Kind::Variable(_)
            | Kind::Local(_)
            | Kind::Task(..) => {}
        }
        Ok(())
    }

    /// The task of `tasks["odd name"]` or `tasks.name`.
    fn quoted_task(&self, node: &Node) -> Result<Option<(u32, Box<str>)>, SyntaxError> {
        let (of, name) = match &node.kind {
            Kind::Field(of, name) => (of, name),
            Kind::Index(of, key) => match &key.kind {
                Kind::Text(name) => (of, name),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let is_tasks =
            matches!(&of.kind, Kind::Name(of) if &**of == "tasks" && !self.is_variable(of));
        if !is_tasks {
            return Ok(None);
        }
        match self.names.task(name) {
            Some(index) => Ok(Some((index, name.clone()))),
            None => Err(self.unknown(name, node.span)),
        }
    }

    fn is_variable(&self, name: &str) -> bool {
        self.variables.iter().any(|it| &**it == name)
    }

    fn name(&mut self, name: Box<str>, span: Span, as_: Use) -> Result<Kind, SyntaxError> {
        if let Some(depth) = self.variables.iter().rposition(|it| *it == name) {
            return Ok(Kind::Variable(depth));
        }
        if self.names.is_local(&name) {
            return Ok(Kind::Local(name));
        }
        if &*name == "tasks" {
            let message = "write `tasks[\"id\"]` for a task".into();
            return Err(SyntaxError { message, span });
        }
        let Some(index) = self.names.task(&name) else { return Err(self.unknown(&name, span)) };
        self.note(index, as_);
        Ok(Kind::Task(index, name))
    }

    fn unknown(&self, name: &str, span: Span) -> SyntaxError {
        let hint = match self.names.nearest(name) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        SyntaxError { message: format!("there is no task and no value `{name}`{hint}"), span }
    }

    fn note(&mut self, index: u32, as_: Use) {
        match self.tasks.iter_mut().find(|(task, _)| *task == index) {
            Some((_, known)) => *known = (*known).max(as_),
            None => self.tasks.push((index, as_)),
        }
    }
}
