//! Turns a task's parameters into the request that Ollama's API takes.
//!
//! Asked by the provider, with the files already read. Pure. The shapes are those of Ollama's
//! `docs/api.md`.

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    provider::Call,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The parameters of every method of `llm/v1.0`; which of them a method takes is its schema's.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Params {
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Value>>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    system: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    pub(super) file_path: Option<String>,
    #[serde(default)]
    pub(super) image_path: Option<String>,
    #[serde(default)]
    pub(super) images: Vec<String>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    stream: Option<bool>,
}

/// What was read from the files that the parameters name.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached {
    /// The content of `file_path`.
    pub(super) text: Option<String>,
    /// The pictures of `images` and `image_path`, in base64.
    pub(super) images: Vec<String>,
}

/// What a text in `images` is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Picture<'a> {
    /// The picture itself, in base64.
    Base64(&'a str),
    /// Where it is.
    Path(&'a str),
}

impl<'a> Picture<'a> {
    /// Base64 where it can be that, with or without what a browser writes in front of it; else a
    /// path. The dot before a file's extension is no part of base64.
    pub(super) fn of(text: &'a str) -> Self {
        if let Some((kind, data)) = text.split_once(";base64,")
            && kind.starts_with("data:")
        {
            return Self::Base64(data);
        }
        let text = text.trim_ascii_end();
        let digits = text.trim_end_matches('=');
        let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '\r' | '\n');
        let padding = text.len() - digits.len();
        let whole = text.chars().filter(|c| !c.is_ascii_whitespace()).count() % 4 == 0;
        if whole && padding <= 2 && digits.chars().all(is_digit) {
            Self::Base64(text)
        } else {
            Self::Path(text)
        }
    }
}

/// One request of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// Below the server's address.
    pub(super) path: &'static str,
    /// The model asked for.
    pub(super) model: String,
    /// True when the answer comes in lines.
    pub(super) streamed: bool,
    /// What is sent.
    pub(super) body: Value,
}

/// The model of a call: the one that it names, unless that is the protocol's default and the
/// settings have another; the settings'; the `last` resort.
pub(super) fn choose_model(
    call: &Call,
    asked: Option<&str>,
    configured: Option<&str>,
    last: &str,
) -> String {
    let declared = call.method.spec.params_schema.get("model").and_then(|it| it.default.as_ref());
    let by_default = declared.and_then(Value::as_str) == asked;
    let chosen = if by_default { configured.or(asked) } else { asked };
    chosen.or(configured).unwrap_or(last).to_owned()
}

impl Params {
    /// Reads a call's parameters.
    pub(super) fn of(call: &Call) -> Result<Self, TaskError> {
        Self::deserialize(&*call.params).map_err(|wrong| invalid(&wrong.to_string()))
    }

    /// A turn of a conversation, with pictures where there are any.
    pub(super) fn chat(self, model: String, attached: Attached) -> Result<Request, TaskError> {
        let streamed = self.stream.unwrap_or(false);
        let options = self.options();
        let mut messages = self.messages.unwrap_or_default();
        if let Some(system) = self.system {
            messages.insert(0, json!({ "role": "system", "content": system }));
        }
        if let Some(prompt) = self.prompt {
            messages.push(json!({ "role": "user", "content": prompt }));
        }
        if let Some(text) = attached.text {
            add_text(&mut messages, &text);
        }
        if !attached.images.is_empty() {
            add_images(&mut messages, attached.images);
        }
        if messages.is_empty() {
            return Err(invalid("nothing to answer: give `messages`, `prompt` or `file_path`"));
        }
        let mut body = json!({ "model": model, "messages": messages, "stream": streamed });
        body["options"] = options;
        Ok(Request { path: "/api/chat", model, streamed, body })
    }

    /// A question about pictures: a conversation that must have one.
    pub(super) fn vision(self, model: String, attached: Attached) -> Result<Request, TaskError> {
        let request = self.chat(model, attached)?;
        let has_image =
            |message: &Value| message["images"].as_array().is_some_and(|images| !images.is_empty());
        if request.body["messages"].as_array().is_some_and(|all| all.iter().any(has_image)) {
            Ok(request)
        } else {
            Err(invalid("no picture: give `image_path`, or `images` in base64"))
        }
    }

    /// A text that goes on from a prompt.
    pub(super) fn generate(self, model: String, attached: Attached) -> Result<Request, TaskError> {
        let streamed = self.stream.unwrap_or(false);
        let options = self.options();
        let Some(prompt) = joined(self.prompt, attached.text) else {
            return Err(invalid("nothing to go on from: give `prompt` or `file_path`"));
        };
        let mut body = json!({ "model": model, "prompt": prompt, "stream": streamed });
        body["options"] = options;
        if let Some(system) = self.system {
            body["system"] = system.into();
        }
        Ok(Request { path: "/api/generate", model, streamed, body })
    }

    /// The text to embed.
    pub(super) fn embed(self) -> Result<String, TaskError> {
        self.text.ok_or_else(|| invalid("nothing to embed: give `text`"))
    }

    fn options(&self) -> Value {
        let mut options = Map::new();
        if let Some(temperature) = self.temperature {
            options.insert("temperature".to_owned(), temperature.into());
        }
        if let Some(most) = self.max_tokens {
            options.insert("num_predict".to_owned(), most.into());
        }
        options.into()
    }
}

fn invalid(problem: &str) -> TaskError {
    TaskError::new(ErrorCode::InvalidParams, problem.to_owned())
}

fn joined(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}\n\n{second}")),
        (first, second) => first.or(second),
    }
}

/// The last message that the user wrote; a new one where there is none.
fn last_of_user(messages: &mut Vec<Value>) -> &mut Value {
    let at = messages.iter().rposition(|message| message["role"] == "user").unwrap_or_else(|| {
        messages.push(json!({ "role": "user", "content": "" }));
        messages.len() - 1
    });
    &mut messages[at]
}

fn add_text(messages: &mut Vec<Value>, text: &str) {
    let message = last_of_user(messages);
    let content = match message["content"].as_str() {
        Some(said) if !said.is_empty() => format!("{said}\n\n{text}"),
        _ => text.to_owned(),
    };
    message["content"] = content.into();
}

fn add_images(messages: &mut Vec<Value>, images: Vec<String>) {
    let message = last_of_user(messages);
    let images = images.into_iter().map(Value::String);
    match message["images"].as_array_mut() {
        Some(known) => known.extend(images),
        None => message["images"] = images.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(value: Value) -> Params {
        serde_json::from_value(value).unwrap()
    }

    fn text(text: &str) -> Attached {
        Attached { text: Some(text.to_owned()), images: Vec::new() }
    }

    /// The names of the design become the names of Ollama's API.
    #[test]
    fn chat_is_translated() {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let request = params(json!({
            "messages": messages, "temperature": 0.5, "max_tokens": 7, "stream": true,
        }))
        .chat("m".to_owned(), Attached::default())
        .unwrap();
        assert_eq!((request.path, request.streamed), ("/api/chat", true));
        let options = json!({ "temperature": 0.5, "num_predict": 7 });
        let body =
            json!({ "model": "m", "messages": messages, "stream": true, "options": options });
        assert_eq!(request.body, body);
    }

    /// A batch puts each file behind the one question; the question stays first.
    #[test]
    fn a_file_is_put_behind_the_last_question() {
        let both = params(json!({
            "messages": [
                { "role": "user", "content": "first" },
                { "role": "user", "content": "Summarise:" },
                { "role": "assistant", "content": "Yes?" },
            ],
        }));
        let body = both.chat("m".to_owned(), text("FILE")).unwrap().body;
        assert_eq!(body["messages"][1]["content"], "Summarise:\n\nFILE");
        assert_eq!(body["messages"][0]["content"], "first");
        let alone = params(json!({})).chat("m".to_owned(), text("FILE")).unwrap().body;
        assert_eq!(alone["messages"], json!([{ "role": "user", "content": "FILE" }]));
        let prompt = params(json!({ "prompt": "P" }));
        assert_eq!(
            prompt.clone().generate("m".to_owned(), text("F")).unwrap().body["prompt"],
            "P\n\nF"
        );
        assert_eq!(
            prompt.chat("m".to_owned(), text("F")).unwrap().body["messages"][0]["content"],
            "P\n\nF"
        );
    }

    /// A picture belongs to the question about it, behind those that are there already.
    #[test]
    fn pictures_go_with_the_question() {
        let ask = json!([{ "role": "user", "content": "What?", "images": ["AAAA"] }]);
        let attached = Attached { text: None, images: vec!["BBBB".to_owned()] };
        let request = params(json!({ "messages": ask })).vision("m".to_owned(), attached).unwrap();
        let expected = json!([{ "role": "user", "content": "What?", "images": ["AAAA", "BBBB"] }]);
        assert_eq!(request.body["messages"], expected);
    }

    /// `images` takes both; a path sent as a picture would be refused by the server, unreadably.
    #[test]
    fn pictures_are_told_from_paths() {
        for (text, data) in [
            ("data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo="),
            ("iVBORw0KGgo=", "iVBORw0KGgo="),
            ("/9j/4AAQSkZJRg==", "/9j/4AAQSkZJRg=="),
            ("iVBO\nRw0=\n", "iVBO\nRw0="),
        ] {
            assert_eq!(Picture::of(text), Picture::Base64(data));
        }
        for path in ["photo.jpg", "./a/b.png", "/home/me/photo", "my photos/a", "x_y/abc", "a==="] {
            assert_eq!(Picture::of(path), Picture::Path(path));
        }
    }

    /// What lacks its essence is refused here, in the user's words, not by the server in its own.
    #[test]
    fn empty_questions_are_refused() {
        let nothing = || params(json!({ "temperature": 1 }));
        let model = || "m".to_owned();
        let errors = [
            nothing().chat(model(), Attached::default()).unwrap_err(),
            nothing().generate(model(), Attached::default()).unwrap_err(),
            nothing().embed().unwrap_err(),
            params(json!({ "prompt": "?" })).vision(model(), Attached::default()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code, ErrorCode::InvalidParams, "{error}");
            assert!(error.message.contains("give `"), "{error}");
        }
    }
}
