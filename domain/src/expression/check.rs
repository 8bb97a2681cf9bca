//! Types an expression against the schemas of what it reads.

use super::{
    Span,
    ast::{Function, Kind, Macro, MacroKind, Node, OfTask, Operator},
    types::Type,
};

/// A part of an expression that can have no value, whatever runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeProblem {
    /// What is wrong, and what to write.
    pub message: String,
    /// Where.
    pub span: Span,
}

/// The types of what an expression can read.
pub trait TypeScope {
    /// The type of a name of the place, such as `inputs`.
    fn name(&self, name: &str) -> Type;

    /// The type of the result of a task.
    fn task(&self, index: u32) -> Type;
}

pub(super) fn check(root: &Node, scope: &dyn TypeScope) -> (Type, Vec<TypeProblem>) {
    let mut checker = Checker { scope, variables: Vec::new(), problems: Vec::new(), lenient: 0 };
    let found = checker.node(root);
    (found, checker.problems)
}

struct Checker<'s> {
    scope: &'s dyn TypeScope,
    variables: Vec<Type>,
    problems: Vec<TypeProblem>,
    /// Within `has` and `coalesce`, where a key may be absent.
    lenient: usize,
}

impl Checker<'_> {
    fn problem(&mut self, span: Span, message: String) -> Type {
        self.problems.push(TypeProblem { message, span });
        Type::Any
    }

    fn node(&mut self, node: &Node) -> Type {
        match &node.kind {
            Kind::Null => Type::Null,
            Kind::Int(_) => Type::Int,
            Kind::Double(_) => Type::Number,
            Kind::Name(name) | Kind::Local(name) => self.scope.name(name),
            Kind::Variable(depth) => self.variables.get(*depth).cloned().unwrap_or(Type::Any),
            Kind::Task(index, _) => self.scope.task(*index),
            Kind::Field(of, key) => {
                let of_type = self.node(of);
                self.field(&of_type, key, node.span)
            }
            Kind::Index(of, key) => self.index(of, key, node.span),
            Kind::List(items) => {
                let types: Vec<Type> = items.iter().map(|item| self.node(item)).collect();
                Type::List(Box::new(united(types)))
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    self.node(key);
                    self.node(value);
                }
                Type::Object { fields: indexmap::IndexMap::new(), is_open: true }
            }
            Kind::Not(of) => {
                self.boolean(of);
                Type::Bool
            }
            Kind::Negate(of) => self.number(of, "-"),
            Kind::Binary(operator, one, two) => self.binary(*operator, one, two, node.span),
            Kind::Choose(parts) => {
                let [condition, yes, no] = &**parts;
                self.boolean(condition);
                let types = vec![self.node(yes), self.node(no)];
                united(types)
            }
            Kind::Has(of) => {
                self.leniently(of);
                Type::Bool
            }
            Kind::Coalesce(items) => {
                // Where none of them is there, it is null.
                let mut types: Vec<Type> = items.iter().map(|item| self.leniently(item)).collect();
                types.push(Type::Null);
                united(types)
            }
            Kind::Text(_) | Kind::OfTask(OfTask::Status, _) => Type::Text,
            Kind::OfTask(OfTask::Error, _) => Type::Any,
            Kind::Bool(_) | Kind::OfTask(..) => Type::Bool,
            Kind::Matches(of, _) => {
                self.text(of, "matches");
                Type::Bool
            }
            Kind::Call(function, arguments) => self.call(*function, arguments),
            Kind::Macro(it) => self.macro_(it),
        }
    }

    fn leniently(&mut self, node: &Node) -> Type {
        self.lenient += 1;
        let found = self.node(node);
        self.lenient -= 1;
        found
    }

    fn expect(
        &mut self,
        node: &Node,
        what: &str,
        wanted: &str,
        test: &dyn Fn(&Type) -> bool,
    ) -> Type {
        let found = self.node(node);
        if found.may_be(test) {
            return found;
        }
        let message = format!("`{what}` needs {wanted}, and this is {}", found.describe());
        self.problem(node.span, message)
    }

    fn boolean(&mut self, node: &Node) {
        let found = self.node(node);
        if !found.may_be_bool() {
            let message = format!("a condition is true or false, and this is {}", found.describe());
            self.problem(node.span, message);
        }
    }

    fn text(&mut self, node: &Node, what: &str) {
        self.expect(node, what, "a text", &|it| *it == Type::Text);
    }

    fn number(&mut self, node: &Node, what: &str) -> Type {
        self.expect(node, what, "a number", &|it| matches!(it, Type::Int | Type::Number))
    }

    fn field(&mut self, of: &Type, key: &str, span: Span) -> Type {
        let types: &[Type] = match of {
            Type::Union(types) => types,
            one => std::slice::from_ref(one),
        };
        let mut found = Vec::new();
        let mut known = Vec::new();
        let mut is_open = false;
        for of in types {
            match of {
                Type::Any => is_open = true,
                Type::Object { fields, is_open: open } => {
                    is_open |= open;
                    found.extend(fields.get(key).cloned());
                    known.extend(fields.keys().cloned());
                }
                // An absent path, which `has` and `coalesce` pass over.
                Type::Null => is_open |= self.lenient > 0,
                _ => {}
            }
        }
        if is_open {
            return if found.len() == 1 && types.len() == 1 { found.remove(0) } else { Type::Any };
        }
        if !found.is_empty() {
            return united(found);
        }
        if !of.may_be(&|it| matches!(it, Type::Object { .. })) {
            return self
                .problem(span, format!("this is {}, which has no key `{key}`", of.describe()));
        }
        let near = known.iter().min_by_key(|it| strsim::osa_distance(it, key));
        let near = near.filter(|it| strsim::osa_distance(it, key) <= (key.len() / 3).max(1));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "it has none".to_owned(),
            None => format!("it has {}", known.join(", ")),
        };
        self.problem(span, format!("there is no key `{key}`; {hint}"))
    }

    fn index(&mut self, of: &Node, key: &Node, span: Span) -> Type {
        let of_type = self.node(of);
        if let Kind::Text(key) = &key.kind {
            return self.field(&of_type, key, span);
        }
        self.node(key);
        match of_type {
            Type::List(item) => *item,
            Type::Any | Type::Object { .. } | Type::Union(_) | Type::Null => Type::Any,
            other => {
                self.problem(span, format!("this is {}, which has no items", other.describe()))
            }
        }
    }

    fn binary(&mut self, operator: Operator, one: &Node, two: &Node, span: Span) -> Type {
        match operator {
            Operator::And | Operator::Or => {
                self.boolean(one);
                self.boolean(two);
                return Type::Bool;
            }
            Operator::Remainder => {
                for side in [one, two] {
                    let may_be_int = |it: &Type| *it == Type::Int || *it == Type::Number;
                    let is_double = matches!(side.kind, Kind::Double(_));
                    if is_double || !self.node(side).may_be(&may_be_int) {
                        self.problem(side.span, "`%` needs ints".into());
                    }
                }
                return Type::Int;
            }
            Operator::Subtract | Operator::Multiply | Operator::Divide => {
                let one = self.number(one, operator.as_str());
                let two = self.number(two, operator.as_str());
                return if (one, two) == (Type::Int, Type::Int) { Type::Int } else { Type::Number };
            }
            _ => {}
        }
        let (one_type, two_type) = (self.node(one), self.node(two));
        match operator {
            Operator::In => {
                let holds = |it: &Type| matches!(it, Type::List(_) | Type::Object { .. });
                if !two_type.may_be(&holds) {
                    let found = two_type.describe();
                    self.problem(
                        two.span,
                        format!("`in` needs a list or an object, and this is {found}"),
                    );
                }
                Type::Bool
            }
            Operator::Add => {
                let adds = |it: &Type| !matches!(it, Type::Bool | Type::Null | Type::Object { .. });
                let fits = one_type.may_be(&adds) && two_type.may_be(&adds);
                if !fits || one_type.is_apart_from(&two_type) {
                    return self.apart(operator, &one_type, &two_type, span);
                }
                if one_type == two_type { one_type } else { Type::Any }
            }
            // Nothing else compares with null, and to ask for it is what it is there for.
            Operator::Equal | Operator::Unequal
                if one_type == Type::Null || two_type == Type::Null =>
            {
                Type::Bool
            }
            _ => {
                if one_type.is_apart_from(&two_type) {
                    self.apart(operator, &one_type, &two_type, span);
                }
                Type::Bool
            }
        }
    }

    fn apart(&mut self, operator: Operator, one: &Type, two: &Type, span: Span) -> Type {
        let (symbol, one, two) = (operator.as_str(), one.describe(), two.describe());
        self.problem(span, format!("`{symbol}` does not take {one} and {two}"))
    }

    fn call(&mut self, function: Function, arguments: &[Node]) -> Type {
        let name = function.name();
        match function {
            Function::Size => {
                let sized =
                    |it: &Type| matches!(it, Type::Text | Type::List(_) | Type::Object { .. });
                for argument in arguments {
                    self.expect(argument, name, "a text, a list or an object", &sized);
                }
                return Type::Int;
            }
            Function::Int | Function::Double | Function::Text | Function::Bool | Function::Dyn => {
                for argument in arguments {
                    self.node(argument);
                }
            }
            Function::Join => {
                let list = |it: &Type| matches!(it, Type::List(_));
                for (at, argument) in arguments.iter().enumerate() {
                    if at == 0 {
                        self.expect(argument, name, "a list", &list);
                    } else {
                        self.text(argument, name);
                    }
                }
            }
            _ => {
                for argument in arguments.iter().take(2) {
                    self.text(argument, name);
                }
            }
        }
        match function {
            Function::Dyn => Type::Any,
            Function::Int => Type::Int,
            Function::Double => Type::Number,
            Function::Split => Type::List(Box::new(Type::Text)),
            Function::Text | Function::LowerAscii | Function::UpperAscii | Function::Join => {
                Type::Text
            }
            _ => Type::Bool,
        }
    }

    fn macro_(&mut self, it: &Macro) -> Type {
        let over = |it: &Type| matches!(it, Type::List(_) | Type::Object { .. });
        let item = match self.expect(&it.over, "a macro", "a list or an object", &over) {
            Type::List(item) => *item,
            // Keys of a literal map may be numbers.
            _ => Type::Any,
        };
        self.variables.push(item.clone());
        if let Some(condition) = &it.condition {
            self.boolean(condition);
        }
        let found = if it.kind == MacroKind::Map {
            Type::List(Box::new(self.node(&it.body)))
        } else {
            self.boolean(&it.body);
            if it.kind == MacroKind::Filter { Type::List(Box::new(item)) } else { Type::Bool }
        };
        self.variables.pop();
        found
    }
}

fn united(mut types: Vec<Type>) -> Type {
    let mut different: Vec<Type> = Vec::new();
    for found in types.drain(..) {
        if found == Type::Any {
            return Type::Any;
        }
        if !different.contains(&found) {
            different.push(found);
        }
    }
    match different.len() {
        0 => Type::Any,
        1 => different.remove(0),
        _ => Type::Union(different),
    }
}
