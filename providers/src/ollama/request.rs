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
    #[serde(default)]
    pub(super) image_paths: Vec<String>,
    #[serde(default)]
    num_ctx: Option<u64>,
    #[serde(default)]
    format: Option<Value>,
    #[serde(default)]
    keep_alive: Option<Value>,
    #[serde(default)]
    options: Map<String, Value>,
}

/// The contents of the files that the parameters name.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached {
    /// The content of `file_path`.
    pub(super) text: Option<String>,
    /// The pictures of `images`, `image_path` and `image_paths`, in base64.
    pub(super) images: Vec<String>,
}

/// One request of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OllamaRequest {
    /// Below the server's address.
    pub(super) path: &'static str,
    /// The model asked for.
    pub(super) model: String,
    /// True when the answer comes in lines.
    pub(super) streamed: bool,
    /// The JSON body.
    pub(super) body: Value,
}

/// The model of a call: the one that its task names; that of the settings; the protocol's default; the
/// `last` resort.
pub(super) fn choose_model(call: &Call, configured: Option<&str>, last: &str) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    call.supplied("model")
        .and_then(text)
        .or_else(|| configured.map(str::to_owned))
        .or_else(|| call.param("model").and_then(text))
        .unwrap_or_else(|| last.to_owned())
}

impl Params {
    /// Reads a call's parameters. The settings' `options` and `keep_alive` stand above the defaults of
    /// the protocol, and below what the task gives.
    pub(super) fn of(
        call: &Call,
        options: &Map<String, Value>,
        keep_alive: Option<&Value>,
    ) -> Result<Self, TaskError> {
        let mut params =
            Self::deserialize(&*call.params).map_err(|wrong| invalid(&wrong.to_string()))?;
        if call.supplied("temperature").is_none()
            && (params.options.contains_key("temperature") || options.contains_key("temperature"))
        {
            params.temperature = None;
        }
        for (name, value) in options {
            params.options.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        if params.keep_alive.is_none() {
            params.keep_alive = keep_alive.cloned();
        }
        Ok(params)
    }

    /// A request for the next message of a conversation, with its images, if any.
    pub(super) fn chat(
        self,
        model: String,
        attached: Attached,
    ) -> Result<OllamaRequest, TaskError> {
        let streamed = self.stream.unwrap_or(false);
        let steering = self.steering();
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
        steering.add_to(&mut body);
        Ok(OllamaRequest { path: "/api/chat", model, streamed, body })
    }

    /// A question about pictures: a conversation that must have one.
    pub(super) fn vision(
        self,
        model: String,
        attached: Attached,
    ) -> Result<OllamaRequest, TaskError> {
        let request = self.chat(model, attached)?;
        let has_image =
            |message: &Value| message["images"].as_array().is_some_and(|images| !images.is_empty());
        if request.body["messages"].as_array().is_some_and(|all| all.iter().any(has_image)) {
            Ok(request)
        } else {
            Err(invalid("no picture: give `image_path`, `image_paths` or `images`"))
        }
    }

    /// A request for the continuation of a prompt.
    pub(super) fn generate(
        self,
        model: String,
        attached: Attached,
    ) -> Result<OllamaRequest, TaskError> {
        let streamed = self.stream.unwrap_or(false);
        let steering = self.steering();
        let Some(prompt) = joined(self.prompt, attached.text) else {
            return Err(invalid("nothing to go on from: give `prompt` or `file_path`"));
        };
        let mut body = json!({ "model": model, "prompt": prompt, "stream": streamed });
        steering.add_to(&mut body);
        if let Some(system) = self.system {
            body["system"] = system.into();
        }
        Ok(OllamaRequest { path: "/api/generate", model, streamed, body })
    }

    /// The text to embed, as the body without it, and it.
    pub(super) fn embed(mut self, model: &str) -> Result<(Value, String), TaskError> {
        let text = self.text.take().ok_or_else(|| invalid("nothing to embed: give `text`"))?;
        let mut body = json!({ "model": model });
        let steering = self.steering();
        if !steering.options.is_empty() || steering.keep_alive.is_some() {
            steering.add_to(&mut body);
        }
        Ok((body, text))
    }

    /// The settings of the model. A named parameter takes precedence over the option of that name.
    fn steering(&self) -> Steering {
        let mut options = self.options.clone();
        if let Some(temperature) = self.temperature {
            options.insert("temperature".to_owned(), temperature.into());
        }
        if let Some(most) = self.max_tokens {
            options.insert("num_predict".to_owned(), most.into());
        }
        if let Some(context) = self.num_ctx {
            options.insert("num_ctx".to_owned(), context.into());
        }
        Steering { options, format: self.format.clone(), keep_alive: self.keep_alive.clone() }
    }
}

/// Parameters of a request besides the question.
struct Steering {
    options: Map<String, Value>,
    format: Option<Value>,
    keep_alive: Option<Value>,
}

impl Steering {
    fn add_to(self, body: &mut Value) {
        body["options"] = self.options.into();
        for (name, value) in [("format", self.format), ("keep_alive", self.keep_alive)] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
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

/// The last message of the user; a new one if there is none.
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
        Some(system) if !system.is_empty() => format!("{system}\n\n{text}"),
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

    /// Whatever the server is told besides the question has one place each.
    #[test]
    fn options_format_and_keep_alive_are_passed_on() {
        let request = params(json!({
            "prompt": "?", "temperature": 0.5, "num_ctx": 16384, "max_tokens": 9, "format": "json",
            "keep_alive": "10m", "options": { "seed": 7, "num_ctx": 1 },
        }));
        let expected = json!({ "seed": 7, "num_ctx": 16384, "temperature": 0.5, "num_predict": 9 });
        for body in [
            request.clone().chat("m".to_owned(), Attached::default()).unwrap().body,
            request.generate("m".to_owned(), Attached::default()).unwrap().body,
        ] {
            assert_eq!(body["options"], expected);
            assert_eq!((&body["format"], &body["keep_alive"]), (&json!("json"), &json!("10m")));
        }
        let plain = params(json!({ "text": "x" })).embed("m").unwrap();
        assert_eq!(plain, (json!({ "model": "m" }), "x".to_owned()));
        let kept = params(json!({ "text": "x", "keep_alive": -1 })).embed("m").unwrap().0;
        assert_eq!(kept, json!({ "model": "m", "options": {}, "keep_alive": -1 }));
    }

    /// What lacks its essence is refused here, in the user's words, not by the server in its own.
    #[test]
    fn empty_questions_are_refused() {
        let nothing = || params(json!({ "temperature": 1 }));
        let model = || "m".to_owned();
        let errors = [
            nothing().chat(model(), Attached::default()).unwrap_err(),
            nothing().generate(model(), Attached::default()).unwrap_err(),
            nothing().embed("m").unwrap_err(),
            params(json!({ "prompt": "?" })).vision(model(), Attached::default()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code, ErrorCode::InvalidParams, "{error}");
            assert!(error.message.contains("give `"), "{error}");
        }
    }
}
