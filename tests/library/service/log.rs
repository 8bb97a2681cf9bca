//! What is logged in this process, for tests that wait for a line.

use std::{
    fmt::{self, Write as _},
    sync::{Condvar, Mutex, OnceLock, PoisonError},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

static LINES: OnceLock<&'static Lines> = OnceLock::new();

struct Capture(&'static Lines);

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Capture {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(text);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let spans = context.event_scope(event).into_iter().flatten().map(|span| {
            let extensions = span.extensions();
            let fields = extensions.get::<Text>().map_or("", |text| text.0.trim());
            format!("{}{{{fields}}}", span.name())
        });
        let spans: Vec<String> = spans.collect();
        let line = format!("{} {}in {}", event.metadata().level(), text.0, spans.join(" < "));
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        self.0.more.notify_all();
    }
}

/// Begins to keep what is logged; once a process.
pub(crate) fn capture() {
    LINES.get_or_init(|| {
        let lines: &'static Lines = Box::leak(Box::default());
        let subscriber = tracing_subscriber::registry().with(Capture(lines));
        tracing::subscriber::set_global_default(subscriber).unwrap();
        lines
    });
}

/// Blocks this thread until a line has all of these parts, and gives it.
pub(crate) fn wait_for(parts: &[&str]) -> String {
    let log = LINES.get().expect("`capture` comes first");
    let mut lines = log.lines.lock().unwrap();
    loop {
        let found = lines.iter().find(|line| parts.iter().all(|part| line.contains(part)));
        if let Some(line) = found {
            return line.clone();
        }
        lines = log.more.wait(lines).unwrap();
    }
}

/// How many lines have all of these parts.
pub(crate) fn count(parts: &[&str]) -> usize {
    let lines = LINES.get().expect("`capture` comes first").lines.lock().unwrap();
    lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}
