//! A parameter tree with its references found: parsed once, rendered for each attempt.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Reference, ReferenceError, ReferenceFault, RenderError, Root, Scope, grammar, has_reference,
};
use crate::problem::push_pointer;

/// Characters of a reference that an error repeats.
const EXCERPT_MAX: usize = 80;

/// A parameter tree with its references found.
///
/// Two words for a tree without any.
///
/// ```
/// use std::sync::Arc;
/// use gleitzeit_domain::reference::{Root, Template};
/// use serde_json::json;
///
/// let mut template =
///     Template::parse(Arc::new(json!({"prompt": "Sort ${numbers.values}"}))).unwrap();
/// template.bind(&mut |name| (name == "numbers").then_some(0), std::iter::empty).unwrap();
/// assert_eq!(template.references().next().unwrap().root(), Root::Result(0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    parameters: Arc<Value>,
    /// Absent for a literal tree.
    open: Option<Box<Open>>,
}

/// The work that rendering has to do.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    node: TemplateNode,
    references: Vec<Reference>,
}

/// A part of the tree with something to fill in. Parts without are not listed.
#[derive(Debug, Clone, PartialEq)]
enum TemplateNode {
    /// A string that is this reference and nothing else.
    Whole(usize),
    /// A string with references or escapes in it.
    Text(Box<[TextPart]>),
    /// An object or list; each child with its place in the order of iteration.
    Children(Box<[(usize, TemplateNode)]>),
}

/// A part of a string.
#[derive(Debug, Clone, PartialEq)]
enum TextPart {
    /// These bytes of the string.
    Literal { from: usize, to: usize },
    /// The text of this reference's value.
    Reference(usize),
}

impl Template {
    /// Finds the references of `parameters`.
    ///
    /// # Errors
    /// Every malformed reference, each with its place.
    pub fn parse(parameters: Arc<Value>) -> Result<Self, Vec<ReferenceError>> {
        let mut finder = Finder::default();
        let node = finder.node(&parameters);
        if !finder.errors.is_empty() {
            return Err(finder.errors);
        }
        let references = finder.references;
        let open = node.map(|node| Box::new(Open { node, references }));
        Ok(Self { parameters, open })
    }

    /// Takes `parameters` as they are; nothing in them is a reference.
    pub fn literal(parameters: Arc<Value>) -> Self {
        Self { parameters, open: None }
    }

    /// True without any reference or escape: rendering returns the same tree.
    pub fn is_literal(&self) -> bool {
        self.open.is_none()
    }

    /// The tree as written.
    pub fn parameters(&self) -> &Arc<Value> {
        &self.parameters
    }

    /// The references, in the order of the tree.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.open.iter().flat_map(|open| &open.references)
    }

    /// The tasks that it refers to, by index; one that is referred to twice comes twice. Empty
    /// before [`bind`](Self::bind).
    pub fn tasks(&self) -> impl Iterator<Item = u32> {
        self.references().filter_map(Reference::task)
    }

    /// Looks up the tasks that references name. `find` gives the index of the task whose id or
    /// name is exactly the text; the longest run of a reference's segments that it knows is the
    /// task, the rest is the path. `names` is asked once for each unknown name, to suggest the
    /// nearest of them; give [`std::iter::empty`] for no suggestion.
    ///
    /// # Errors
    /// Every reference to an unknown task or to unknown metadata; such references stay unbound.
    pub fn bind<'n, I>(
        &mut self,
        find: &mut dyn FnMut(&str) -> Option<u32>,
        mut names: impl FnMut() -> I,
    ) -> Result<(), Vec<ReferenceError>>
    where
        I: Iterator<Item = &'n str>,
    {
        let mut errors = Vec::new();
        let references = self.open.iter_mut().flat_map(|open| &mut open.references);
        for reference in references.filter(|reference| reference.is_task()) {
            let Err(fault) = reference.bind(find) else { continue };
            reference.root = Root::Unbound;
            let fault = fault.unwrap_or_else(|| unknown_task(reference, names()));
            errors.push(ReferenceError {
                pointer: reference.pointer.to_string(),
                text: excerpt(&reference.text),
                fault,
            });
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The tree with every reference replaced by what it stands for: the same tree for a literal
    /// one, else a new one, in which only what must be is copied.
    ///
    /// # Errors
    /// [`RenderError`] for the first reference without a value.
    pub fn render(&self, scope: &dyn Scope) -> Result<Arc<Value>, RenderError> {
        match &self.open {
            None => Ok(Arc::clone(&self.parameters)),
            Some(open) => open.render(&open.node, &self.parameters, scope).map(Arc::new),
        }
    }
}

fn unknown_task<'n>(reference: &Reference, names: impl Iterator<Item = &'n str>) -> ReferenceFault {
    let name = &*reference.segments[0].key;
    // A name with a typing error is about as long as the right one.
    let tolerance = (name.chars().count() / 3).max(1);
    let nearest = names
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known.to_owned());
    ReferenceFault::UnknownTask { name: name.to_owned(), nearest }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Open {
    fn render(
        &self,
        node: &TemplateNode,
        value: &Value,
        scope: &dyn Scope,
    ) -> Result<Value, RenderError> {
        match (node, value) {
            (TemplateNode::Whole(reference), _) => {
                Ok(self.references[*reference].resolve(scope)?.into_owned())
            }
            (TemplateNode::Text(parts), Value::String(text)) => {
                self.text(parts, text, scope).map(Value::String)
            }
            (TemplateNode::Children(open), Value::Object(object)) => {
                let mut open = open.iter().peekable();
                let mut filled = Map::new();
                for (at, (key, child)) in object.iter().enumerate() {
                    let value = match open.next_if(|(position, _)| *position == at) {
                        Some((_, node)) => self.render(node, child, scope)?,
                        None => child.clone(),
                    };
                    filled.insert(key.clone(), value);
                }
                Ok(Value::Object(filled))
            }
            (TemplateNode::Children(open), Value::Array(list)) => {
                let mut open = open.iter().peekable();
                let fill = |(at, child): (usize, &Value)| match open
                    .next_if(|(position, _)| *position == at)
                {
                    Some((_, node)) => self.render(node, child, scope),
                    None => Ok(child.clone()),
                };
                list.iter().enumerate().map(fill).collect()
            }
            (TemplateNode::Text(_) | TemplateNode::Children(_), other) => {
                debug_assert!(false, "the nodes were made from this very tree");
                Ok(other.clone())
            }
        }
    }

    fn text(
        &self,
        parts: &[TextPart],
        text: &str,
        scope: &dyn Scope,
    ) -> Result<String, RenderError> {
        let mut filled = String::with_capacity(text.len());
        for part in parts {
            match part {
                TextPart::Literal { from, to } => filled.push_str(&text[*from..*to]),
                TextPart::Reference(reference) => {
                    let reference = &self.references[*reference];
                    match &*reference.resolve(scope)? {
                        Value::String(value) => filled.push_str(value),
                        value => match reference.spelling(value, scope) {
                            Some(written) => filled.push_str(written),
                            // Writing to a string cannot fail.
                            None => _ = write!(filled, "{value}"),
                        },
                    }
                }
            }
        }
        Ok(filled)
    }
}

/// A step from a value to one of its children.
enum PathStep<'a> {
    Key(&'a str),
    Index(usize),
}

/// Walks a tree and collects its references.
#[derive(Default)]
struct Finder<'a> {
    /// The path from the root to the current value; formatted as a pointer only if needed.
    steps: Vec<PathStep<'a>>,
    references: Vec<Reference>,
    errors: Vec<ReferenceError>,
}

impl<'a> Finder<'a> {
    fn node(&mut self, value: &'a Value) -> Option<TemplateNode> {
        let children: Vec<(usize, TemplateNode)> = match value {
            Value::String(text) if has_reference(text) => return Some(self.string(text)),
            Value::Object(object) => (object.iter().enumerate())
                .filter_map(|(at, (key, child))| Some((at, self.child(PathStep::Key(key), child)?)))
                .collect(),
            Value::Array(list) => (list.iter().enumerate())
                .filter_map(|(at, child)| Some((at, self.child(PathStep::Index(at), child)?)))
                .collect(),
            _ => return None,
        };
        if children.is_empty() { None } else { Some(TemplateNode::Children(children.into())) }
    }

    fn child(&mut self, step: PathStep<'a>, child: &'a Value) -> Option<TemplateNode> {
        self.steps.push(step);
        let node = self.node(child);
        self.steps.pop();
        node
    }

    fn string(&mut self, text: &str) -> TemplateNode {
        let pointer = self.pointer();
        let mut parts = Vec::new();
        let literal = |from, to| (from < to).then_some(TextPart::Literal { from, to });
        let (mut from, mut at) = (0, 0);
        while let Some(found) = text[at..].find("${") {
            let dollar = at + found;
            if dollar > at && text.as_bytes()[dollar - 1] == b'$' {
                // An escape is its own text without the first of its two dollars.
                parts.extend(literal(from, dollar - 1));
                (from, at) = (dollar, dollar + "${".len());
                continue;
            }
            parts.extend(literal(from, dollar));
            at = dollar + self.reference(&pointer, &text[dollar..], &mut parts);
            from = at;
        }
        parts.extend(literal(from, text.len()));
        match parts.as_slice() {
            [TextPart::Reference(only)] => TemplateNode::Whole(*only),
            _ => TemplateNode::Text(parts.into()),
        }
    }

    /// Takes the reference that `text` begins with, well-formed or not, and answers its length.
    fn reference(&mut self, pointer: &Arc<str>, text: &str, parts: &mut Vec<TextPart>) -> usize {
        let read = grammar::parse(text).and_then(|parsed| {
            let end = parsed.end;
            Ok((Reference::new(Arc::clone(pointer), &text[..end], parsed)?, end))
        });
        match read {
            Ok((reference, end)) => {
                parts.push(TextPart::Reference(self.references.len()));
                self.references.push(reference);
                end
            }
            Err(fault) => {
                let end = text.find('}').map_or(text.len(), |close| close + 1);
                let (pointer, text) = (pointer.to_string(), excerpt(&text[..end]));
                self.errors.push(ReferenceError { pointer, text, fault });
                end
            }
        }
    }

    fn pointer(&self) -> Arc<str> {
        let mut pointer = String::new();
        for step in &self.steps {
            match step {
                PathStep::Key(key) => push_pointer(&mut pointer, key),
                PathStep::Index(index) => push_pointer(&mut pointer, &index.to_string()),
            }
        }
        pointer.into()
    }
}
