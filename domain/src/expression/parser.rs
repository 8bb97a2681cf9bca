//! Makes a tree of tokens, by the precedence of operators.

use regex::RegexBuilder;

use super::{
    Span, SyntaxError,
    ast::{Function, Kind, Macro, MacroKind, Node, OfTask, Operator},
    lexer::{self, Token},
    limits,
};

/// Words that the language keeps for itself.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Reads a source.
pub(super) fn parse(source: &str) -> Result<Node, SyntaxError> {
    if source.len() > limits::SOURCE_MAX {
        let message = format!(
            "an expression has at most {} bytes, and this one has {}",
            limits::SOURCE_MAX,
            source.len()
        );
        return Err(SyntaxError { message, span: Span::new(0, source.len()) });
    }
    let mut parser =
        Parser { tokens: lexer::tokens(source)?, at: 0, depth: 0, nodes: 0, macros: 0 };
    let node = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(node),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
    nodes: usize,
    /// Macros around the current place.
    macros: usize,
}

type Read<T> = Result<T, SyntaxError>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> (Token, Span) {
        let next = self.tokens[self.at].clone();
        self.at += usize::from(self.at + 1 < self.tokens.len());
        next
    }

    fn take(&mut self, symbol: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Symbol(next) if *next == symbol);
        if is_next {
            self.next();
        }
        is_next
    }

    fn expect(&mut self, symbol: &str) -> Read<Span> {
        let span = self.span();
        if self.take(symbol) { Ok(span) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    fn expected(&self, what: &str) -> SyntaxError {
        let found = self.found();
        SyntaxError { message: format!("expected {what}, and found {found}"), span: self.span() }
    }

    fn unexpected(&self) -> SyntaxError {
        SyntaxError { message: format!("unexpected {}", self.found()), span: self.span() }
    }

    fn found(&self) -> String {
        match self.peek() {
            Token::End => "the end of the expression".into(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::Name(name) => format!("`{name}`"),
            Token::Text(_) => "a text".into(),
            Token::Int(_) | Token::IntMin | Token::Double(_) => "a number".into(),
        }
    }

    fn node(&mut self, span: Span, kind: Kind) -> Read<Node> {
        self.nodes += 1;
        if self.nodes > limits::NODES_MAX {
            let message = format!("an expression has at most {} parts", limits::NODES_MAX);
            return Err(SyntaxError { message, span });
        }
        Ok(Node { span, kind })
    }

    fn expression(&mut self) -> Read<Node> {
        self.depth += 1;
        if self.depth > limits::DEPTH_MAX + 1 {
            let message =
                format!("parts lie within each other more than {} deep", limits::DEPTH_MAX);
            return Err(SyntaxError { message, span: self.span() });
        }
        let node = self.choice();
        self.depth -= 1;
        node
    }

    fn choice(&mut self) -> Read<Node> {
        let condition = self.binary(0)?;
        if !self.take("?") {
            return Ok(condition);
        }
        let yes = self.binary(0)?;
        self.expect(":")?;
        let no = self.expression()?;
        let span = condition.span.with(no.span);
        self.node(span, Kind::Choose(Box::new([condition, yes, no])))
    }

    /// Operators of this precedence and above; those of one precedence go from left to right.
    fn binary(&mut self, least: u8) -> Read<Node> {
        let mut left = self.unary()?;
        while let Some((operator, precedence)) = self.operator().filter(|(_, it)| *it >= least) {
            self.next();
            let right = self.binary(precedence + 1)?;
            let span = left.span.with(right.span);
            left = self.node(span, Kind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        Some(match self.peek() {
            Token::Name(name) if &**name == "in" => (Operator::In, 3),
            Token::Symbol(symbol) => match *symbol {
                "||" => (Operator::Or, 1),
                "&&" => (Operator::And, 2),
                "==" => (Operator::Equal, 3),
                "!=" => (Operator::Unequal, 3),
                "<" => (Operator::Less, 3),
                "<=" => (Operator::LessEqual, 3),
                ">" => (Operator::Greater, 3),
                ">=" => (Operator::GreaterEqual, 3),
                "+" => (Operator::Add, 4),
                "-" => (Operator::Subtract, 4),
                "*" => (Operator::Multiply, 5),
                "/" => (Operator::Divide, 5),
                "%" => (Operator::Remainder, 5),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn unary(&mut self) -> Read<Node> {
        let from = self.span();
        if self.take("!") {
            let mut count = 1;
            while self.take("!") {
                count += 1;
            }
            // Two cancel each other out, but their value must still be a boolean.
            let mut node = self.postfix()?;
            for _ in 0..2 - count % 2 {
                let span = from.with(node.span);
                node = self.node(span, Kind::Not(Box::new(node)))?;
            }
            return Ok(node);
        }
        let mut count = 0;
        while self.take("-") {
            count += 1;
            if *self.peek() == Token::IntMin {
                let (_, span) = self.next();
                let least = self.node(from.with(span), Kind::Int(i64::MIN))?;
                return self.negated(count - 1, from, least);
            }
        }
        let node = self.postfix()?;
        self.negated(count, from, node)
    }

    fn negated(&mut self, count: usize, from: Span, mut node: Node) -> Read<Node> {
        let times = if count == 0 { 0 } else { 2 - count % 2 };
        for _ in 0..times {
            let span = from.with(node.span);
            node = match node.kind {
                Kind::Int(value) if value != i64::MIN => Node { span, kind: Kind::Int(-value) },
                Kind::Double(value) => Node { span, kind: Kind::Double(-value) },
                _ => self.node(span, Kind::Negate(Box::new(node)))?,
            };
        }
        Ok(node)
    }

    fn postfix(&mut self) -> Read<Node> {
        let mut node = self.primary()?;
        loop {
            if self.take(".") {
                let (token, span) = self.next();
                let Token::Name(name) = token else {
                    self.at -= 1;
                    return Err(self.expected("a name"));
                };
                let span = node.span.with(span);
                node = if self.take("(") {
                    self.method(node, &name, span)?
                } else {
                    self.node(span, Kind::Field(Box::new(node), name))?
                };
            } else if self.take("[") {
                let key = self.expression()?;
                let span = node.span.with(self.expect("]")?);
                node = self.node(span, Kind::Index(Box::new(node), Box::new(key)))?;
            } else {
                return Ok(node);
            }
        }
    }

    fn primary(&mut self) -> Read<Node> {
        let (token, span) = self.next();
        match token {
            Token::Int(value) => self.node(span, Kind::Int(value)),
            Token::Double(value) => self.node(span, Kind::Double(value)),
            Token::Text(value) => self.node(span, Kind::Text(value.into())),
            Token::IntMin => Err(SyntaxError {
                message: "this number is not in the range of 64 bits".into(),
                span,
            }),
            Token::Symbol("(") => {
                let node = self.expression()?;
                let to = self.expect(")")?;
                Ok(Node { span: span.with(to), ..node })
            }
            Token::Symbol("[") => {
                let items = self.items("]")?;
                let span = span.with(self.last());
                self.node(span, Kind::List(items))
            }
            Token::Symbol("{") => self.map(span),
            Token::Name(name) => self.name(name, span),
            Token::Symbol(_) | Token::End => {
                self.at -= usize::from(token != Token::End || self.span() != span);
                Err(self.expected("a value"))
            }
        }
    }

    /// The place of the last token that was taken.
    fn last(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].1
    }

    fn name(&mut self, name: Box<str>, span: Span) -> Read<Node> {
        match &*name {
            "null" => return self.node(span, Kind::Null),
            "true" => return self.node(span, Kind::Bool(true)),
            "false" => return self.node(span, Kind::Bool(false)),
            "in" => {
                return Err(SyntaxError { message: "`in` needs a value before it".into(), span });
            }
            _ => {}
        }
        if self.take("(") {
            return self.function(&name, span);
        }
        // `loop` is a word of the language that repeating tasks give a meaning.
        if RESERVED.contains(&&*name) && &*name != "loop" {
            let message =
                format!("`{name}` is a reserved word; write `tasks[\"{name}\"]` for a task");
            return Err(SyntaxError { message, span });
        }
        self.node(span, Kind::Name(name))
    }

    /// Items up to the closing symbol, which is taken; one comma may follow the last.
    fn items(&mut self, close: &str) -> Read<Vec<Node>> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.expression()?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self, from: Span) -> Read<Node> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        let span = from.with(self.last());
        self.node(span, Kind::Map(entries))
    }

    fn function(&mut self, name: &str, span: Span) -> Read<Node> {
        let arguments = self.items(")")?;
        let span = span.with(self.last());
        let of_task = match name {
            "status" => Some(OfTask::Status),
            "completed" => Some(OfTask::Completed),
            "failed" => Some(OfTask::Failed),
            "skipped" => Some(OfTask::Skipped),
            "error" => Some(OfTask::Error),
            _ => None,
        };
        if let Some(function) = of_task {
            let [task] = take_exactly(name, arguments, span)?;
            return self.node(span, Kind::OfTask(function, Box::new(task)));
        }
        match name {
            "has" => {
                let [field] = take_exactly(name, arguments, span)?;
                if !matches!(field.kind, Kind::Field(..) | Kind::Name(_) | Kind::Index(..)) {
                    let message = "`has` asks for a field, such as `has(a.b)`".into();
                    return Err(SyntaxError { message, span: field.span });
                }
                self.node(span, Kind::Has(Box::new(field)))
            }
            "coalesce" if arguments.is_empty() => {
                Err(SyntaxError { message: "`coalesce` needs a value".into(), span })
            }
            "coalesce" => self.node(span, Kind::Coalesce(arguments)),
            "size" | "dyn" | "int" | "double" | "string" | "bool" | "matches" => {
                self.call(name, arguments, span)
            }
            _ => Err(unknown_function(name, span)),
        }
    }

    fn method(&mut self, receiver: Node, name: &str, span: Span) -> Read<Node> {
        let kind = match name {
            "all" => Some(MacroKind::All),
            "exists" => Some(MacroKind::Exists),
            "exists_one" | "existsOne" => Some(MacroKind::ExistsOne),
            "map" => Some(MacroKind::Map),
            "filter" => Some(MacroKind::Filter),
            _ => None,
        };
        if let Some(kind) = kind {
            return self.macro_of(receiver, kind, name, span);
        }
        let mut arguments = vec![receiver];
        arguments.extend(self.items(")")?);
        self.call(name, arguments, span.with(self.last()))
    }

    fn macro_of(&mut self, over: Node, kind: MacroKind, name: &str, span: Span) -> Read<Node> {
        self.macros += 1;
        let arguments = self.items(")");
        self.macros -= 1;
        let span = span.with(self.last());
        if self.macros >= limits::MACROS_MAX {
            let message =
                format!("macros lie within each other more than {} deep", limits::MACROS_MAX);
            return Err(SyntaxError { message, span });
        }
        let mut arguments = arguments?;
        let has_condition = kind == MacroKind::Map && arguments.len() == 3;
        if arguments.len() != 2 && !has_condition {
            let message =
                format!("`{name}` needs a variable and an expression, such as `{name}(x, x > 0)`");
            return Err(SyntaxError { message, span });
        }
        let body = arguments.pop();
        let condition = if has_condition { arguments.pop() } else { None };
        let (Some(body), Some(variable)) = (body, arguments.pop()) else {
            return Err(SyntaxError { message: format!("`{name}` needs a variable"), span });
        };
        let Kind::Name(variable) = variable.kind else {
            let message = format!("`{name}` needs a name for its variable");
            return Err(SyntaxError { message, span: variable.span });
        };
        self.node(span, Kind::Macro(Box::new(Macro { kind, over, variable, condition, body })))
    }

    fn call(&mut self, name: &str, arguments: Vec<Node>, span: Span) -> Read<Node> {
        if name == "matches" {
            return self.matches(arguments, span);
        }
        let (function, counts) = match name {
            "size" => (Function::Size, 1..=1),
            "dyn" => (Function::Dyn, 1..=1),
            "int" => (Function::Int, 1..=1),
            "double" => (Function::Double, 1..=1),
            "string" => (Function::Text, 1..=1),
            "bool" => (Function::Bool, 1..=1),
            "startsWith" => (Function::StartsWith, 2..=2),
            "endsWith" => (Function::EndsWith, 2..=2),
            "contains" => (Function::Contains, 2..=2),
            "lowerAscii" => (Function::LowerAscii, 1..=1),
            "upperAscii" => (Function::UpperAscii, 1..=1),
            "split" => (Function::Split, 2..=3),
            "join" => (Function::Join, 1..=2),
            _ => return Err(unknown_function(name, span)),
        };
        if !counts.contains(&arguments.len()) {
            let message = format!("`{name}` has the wrong number of arguments");
            return Err(SyntaxError { message, span });
        }
        self.node(span, Kind::Call(function, arguments))
    }

    fn matches(&mut self, arguments: Vec<Node>, span: Span) -> Read<Node> {
        let [text, pattern] = take_exactly("matches", arguments, span)?;
        let Kind::Text(pattern_text) = &pattern.kind else {
            let message = "`matches` needs its pattern as a literal text".into();
            return Err(SyntaxError { message, span: pattern.span });
        };
        let regex = RegexBuilder::new(pattern_text).size_limit(limits::PATTERN_MAX).build();
        let regex = regex.map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            SyntaxError { message: format!("no regular expression: {reason}"), span: pattern.span }
        })?;
        self.node(span, Kind::Matches(Box::new(text), Box::new(regex)))
    }
}

fn take_exactly<const N: usize>(name: &str, arguments: Vec<Node>, span: Span) -> Read<[Node; N]> {
    arguments.try_into().map_err(|arguments: Vec<Node>| {
        let message = format!("`{name}` takes {N} and was given {}", arguments.len());
        SyntaxError { message, span }
    })
}

/// Every function and macro.
const FUNCTIONS: [&str; 24] = [
    "all",
    "bool",
    "coalesce",
    "completed",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "error",
    "exists",
    "exists_one",
    "failed",
    "filter",
    "has",
    "int",
    "join",
    "lowerAscii",
    "map",
    "matches",
    "size",
    "skipped",
    "split",
    "startsWith",
    "status",
];

fn unknown_function(name: &str, span: Span) -> SyntaxError {
    let near = FUNCTIONS
        .into_iter()
        .chain(["string", "upperAscii"])
        .min_by_key(|it| strsim::osa_distance(it, name));
    let hint = match near {
        Some(near) if strsim::osa_distance(near, name) <= 2 => format!("; did you mean `{near}`?"),
        _ => String::new(),
    };
    SyntaxError { message: format!("there is no function `{name}`{hint}"), span }
}
