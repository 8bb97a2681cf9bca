//! The tree of an expression.

use regex::Regex;

use super::Span;

/// A part of an expression, with its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: Kind,
}

/// What a part is.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    /// A name, until it is bound.
    Name(Box<str>),
    /// A variable of a macro, by its depth among the macros around it.
    Variable(usize),
    /// A name of the place.
    Local(Box<str>),
    /// The result of a task.
    Task(u32, Box<str>),
    Field(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Choose(Box<[Node; 3]>),
    /// A field that is there: `has(a.b)`.
    Has(Box<Node>),
    Coalesce(Vec<Node>),
    /// A function of the state of a task.
    OfTask(OfTask, Box<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Box<Regex>),
    Macro(Box<Macro>),
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// A function of the state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfTask {
    Status,
    Completed,
    Failed,
    Skipped,
    Error,
}

/// A function of values; a receiver is the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Int,
    Double,
    Text,
    Bool,
    StartsWith,
    EndsWith,
    Contains,
    LowerAscii,
    UpperAscii,
    Split,
    Join,
    /// The value itself, of a type that is not known before it is there.
    Dyn,
}

impl Function {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bool => "bool",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Contains => "contains",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Split => "split",
            Self::Join => "join",
            Self::Dyn => "dyn",
        }
    }
}

/// What a macro does with the values for which its body was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// A macro over the items of a list or the keys of a map.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) kind: MacroKind,
    pub(super) over: Node,
    pub(super) variable: Box<str>,
    /// Of `map(x, condition, value)`.
    pub(super) condition: Option<Node>,
    pub(super) body: Node,
}
