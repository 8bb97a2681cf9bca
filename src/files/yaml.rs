//! Reads YAML into the tree, from the events of the parser.
//!
//! Used by [`parse`](super::parse). Anchors, aliases and merge keys work. The expansion of aliases
//! is bounded, so that a file of a kilobyte cannot fill the memory. Duplicate keys, several
//! documents and tags beyond the core schema are all reported at once; a text that is no YAML stops
//! at the first error.

mod scalars;

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span as EventSpan, Tag};

use super::{
    findings::Findings,
    node::{DEPTH_MAX, Entry, Kind, Node, shorten, unique},
    span::{Lines, Span},
};

use scalars::{check_tag, location, plain, scalar_location, scalar_text, tagged};

/// Bytes of memory, about, that all anchors and aliases of a file may be copied into: 64 MiB.
const COPIED_MAX: usize = 64 << 20;

/// Bytes of memory, about, that a node takes beside its text.
const NODE_COST: usize = 64;

/// The value of a YAML text, or `None` when it could not be read.
pub(super) fn read(text: &str, lines: &Lines, findings: &mut Findings) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
    };
    let mut builder = Builder {
        lines,
        findings,
        stack: Vec::new(),
        anchors: HashMap::new(),
        copied: 0,
        documents: 0,
        root: None,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => builder.take(event, &span).ok()?,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.len());
                builder.findings.unreadable(Span::new(at, at), error.info());
                return None;
            }
        }
    }
    let empty = Node { span: Span::default(), kind: Kind::Null };
    Some(builder.root.unwrap_or(empty))
}

/// Parsing stops; the finding was added already.
struct Aborted;

/// Puts the tree together from events.
struct Builder<'t> {
    lines: &'t Lines,
    findings: &'t mut Findings,
    /// The collections that are open.
    stack: Vec<OpenCollection>,
    /// The nodes of anchors, by the parser's number.
    anchors: HashMap<usize, Done>,
    /// The size of all copies so far, in bytes.
    copied: usize,
    documents: usize,
    root: Option<Node>,
}

/// A collection that is open.
struct OpenCollection {
    start: usize,
    anchor: usize,
    /// The greatest height of a child.
    height: usize,
    /// The cost of all children.
    cost: usize,
    content: Content,
}

enum Content {
    Items(Vec<Node>),
    Entries { entries: Vec<Entry>, merged: Vec<Entry>, key: Option<PendingKey> },
}

struct PendingKey {
    text: String,
    span: Span,
    /// An unquoted `<<`.
    is_merge: bool,
}

/// A finished node.
#[derive(Clone)]
struct Done {
    node: Node,
    /// Levels below it.
    height: usize,
    /// Bytes of memory, about, that it takes.
    cost: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: &EventSpan) -> Result<(), Aborted> {
        let location = location(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.findings.wrong(location, "a second document begins; expected one a file");
                    return Err(Aborted);
                }
            }
            Event::Alias(anchor) => self.alias(anchor, location)?,
            Event::UnresolvedAlias(name) => self.unresolved(&name, location),
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), span)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", span, self.findings);
                self.open(location.start, anchor, Content::Items(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", span, self.findings);
                let entries = Vec::new();
                let content = Content::Entries { entries, merged: Vec::new(), key: None };
                self.open(location.start, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(location.end)?,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, start: usize, anchor: usize, content: Content) -> Result<(), Aborted> {
        self.check_depth(1, Span::new(start, start))?;
        self.stack.push(OpenCollection { start, anchor, height: 0, cost: NODE_COST, content });
        Ok(())
    }

    fn check_depth(&mut self, more: usize, location: Span) -> Result<(), Aborted> {
        if self.stack.len() + more <= DEPTH_MAX {
            return Ok(());
        }
        self.findings.unreadable(location, format!("nested deeper than {DEPTH_MAX} levels"));
        Err(Aborted)
    }

    fn close(&mut self, end: usize) -> Result<(), Aborted> {
        let Some(OpenCollection { start, anchor, height, cost, content }) = self.stack.pop() else {
            return Ok(());
        };
        let kind = match content {
            Content::Items(items) => Kind::Array(items),
            Content::Entries { entries, merged, .. } => {
                let mut entries = unique(entries, self.lines, self.findings);
                merge(&mut entries, merged);
                Kind::Object(entries)
            }
        };
        let node = Node { span: Span::new(start, end), kind };
        self.settle(anchor, Done { node, height: height + 1, cost })
    }

    /// Stores a finished node under its anchor, and adds it to its parent.
    fn settle(&mut self, anchor: usize, done: Done) -> Result<(), Aborted> {
        if anchor != 0 {
            charge(&mut self.copied, done.cost, done.node.span, self.findings)?;
            self.anchors.insert(anchor, done.clone());
        }
        self.put(done);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, location: Span) -> Result<(), Aborted> {
        let Some(target) = self.anchors.get(&anchor) else {
            self.findings.unreadable(location, "an alias that stands inside of what it names");
            return Err(Aborted);
        };
        let (height, cost) = (target.height, target.cost);
        charge(&mut self.copied, cost, location, self.findings)?;
        let mut copy = target.clone();
        self.check_depth(height, location)?;
        copy.node.span = location;
        if let (true, Some(text)) = (self.awaits_key(), scalar_text(&copy.node.kind)) {
            self.set_key(PendingKey { text, span: location, is_merge: false });
        } else {
            self.put(copy);
        }
        Ok(())
    }

    /// Reports an alias without an anchor, and continues as if it were empty.
    fn unresolved(&mut self, name: &str, location: Span) {
        let found = format!("nothing before this is named `&{}`", shorten(name));
        self.findings.unreadable(location, found);
        let top = self.stack.last().map(|frame| &frame.content);
        let is_merged = matches!(
            top,
            Some(Content::Entries { key: Some(PendingKey { is_merge: true, .. }), .. })
        );
        let kind = if is_merged { Kind::Object(Vec::new()) } else { Kind::Null };
        self.put(Done { node: Node { span: location, kind }, height: 0, cost: NODE_COST });
    }

    fn awaits_key(&self) -> bool {
        let top = self.stack.last().map(|frame| &frame.content);
        matches!(top, Some(Content::Entries { key: None, .. }))
    }

    fn set_key(&mut self, new: PendingKey) {
        if let Some(OpenCollection { content: Content::Entries { key, .. }, cost, .. }) =
            self.stack.last_mut()
        {
            *cost = cost.saturating_add(new.text.len());
            *key = Some(new);
        }
    }

    /// Puts a finished node into the collection that is open, or makes it the root.
    fn put(&mut self, Done { node, height, cost }: Done) {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        frame.height = frame.height.max(height);
        frame.cost = frame.cost.saturating_add(cost);
        match &mut frame.content {
            Content::Items(items) => items.push(node),
            Content::Entries { entries, merged, key } => match key.take() {
                None => {
                    if matches!(node.kind, Kind::Array(_) | Kind::Object(_)) {
                        let found = "a list or mapping as a key; expected a text";
                        self.findings.wrong(node.span, found);
                    }
                    // The value that follows belongs to this key.
                    *key =
                        Some(PendingKey { text: String::new(), span: node.span, is_merge: false });
                }
                Some(PendingKey { is_merge: true, span, .. }) => match sources(node) {
                    Some(found) => merged.extend(found),
                    None => self.findings.error_with_help(
                        span,
                        "`<<` takes a mapping, or a list of mappings",
                        "write `<<: *name`, or put the key into quotes",
                    ),
                },
                Some(PendingKey { text, span, .. }) => {
                    entries.push(Entry { key: text, key_span: span, value: node });
                }
            },
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: &EventSpan,
    ) -> Result<(), Aborted> {
        let location = scalar_location(span);
        let kind = match tag {
            Some(tag) => tagged(text, tag, span, self.findings),
            None if style == ScalarStyle::Plain => plain(text, location, self.findings),
            None => Kind::String(text.to_owned()),
        };
        let cost = text.len().saturating_add(NODE_COST);
        let done = Done { node: Node { span: location, kind }, height: 0, cost };
        if self.awaits_key() {
            let is_merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
            if anchor != 0 {
                charge(&mut self.copied, cost, location, self.findings)?;
                self.anchors.insert(anchor, done);
            }
            self.set_key(PendingKey { text: text.to_owned(), span: location, is_merge });
            Ok(())
        } else {
            self.settle(anchor, done)
        }
    }
}

/// Counts a copy of `cost` bytes, and refuses it above the limit of the file.
fn charge(
    copied: &mut usize,
    cost: usize,
    location: Span,
    findings: &mut Findings,
) -> Result<(), Aborted> {
    *copied = copied.saturating_add(cost);
    if *copied <= COPIED_MAX {
        return Ok(());
    }
    findings.unreadable(location, "the anchors and aliases up to here expand to too much");
    Err(Aborted)
}

/// The entries that a merge key adds: those of a mapping, or of a list of mappings.
fn sources(node: Node) -> Option<Vec<Entry>> {
    match node.kind {
        Kind::Object(entries) => Some(entries),
        Kind::Array(items) => {
            let mut all = Vec::new();
            for item in items {
                let Kind::Object(entries) = item.kind else { return None };
                all.extend(entries);
            }
            Some(all)
        }
        _ => None,
    }
}

/// Adds what merge keys bring in: own keys go before, and earlier sources before later ones.
fn merge(entries: &mut Vec<Entry>, merged: Vec<Entry>) {
    if merged.is_empty() {
        return;
    }
    let mut known: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    entries.extend(merged.into_iter().filter(|entry| known.insert(entry.key.clone())));
}
