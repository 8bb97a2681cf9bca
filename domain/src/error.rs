//! The table of error codes, and the error that a task or a workflow ends with.
//!
//! The numbers are those of the workflow format, in the manner of JSON-RPC; they never change.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

macro_rules! codes {
    ($($variant:ident = $number:literal, $name:literal, $retryable:literal, $doc:literal;)*) => {
        /// The kind of an error; stable over releases.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = $doc] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number of the table.
            pub const fn number(self) -> i32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The name of the table, in capitals.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// True if another attempt may help, unless the error itself overrides it.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }
        }
    };
}

codes! {
    ParseError = -32700, "PARSE_ERROR", false, "A text could not be read.";
    InvalidRequest = -32600, "INVALID_REQUEST", false, "A request has the wrong shape.";
    MethodNotFound = -32601, "METHOD_NOT_FOUND", false, "The protocol has no such method.";
    InvalidParams = -32602, "INVALID_PARAMS", false, "Parameters break the method's schema.";
    InternalError = -32603, "INTERNAL_ERROR", false, "A defect of gleitzeit itself.";
    SystemNotInitialized = -31001, "SYSTEM_NOT_INITIALIZED", false, "Asked before the start was done.";
    SystemShutdown = -31002, "SYSTEM_SHUTDOWN", false, "The runtime stops or has stopped.";
    ConfigurationError = -31003, "CONFIGURATION_ERROR", false, "The settings are wrong.";
    ResourceExhausted = -31004, "RESOURCE_EXHAUSTED", true, "A resource is used up.";
    RateLimitExceeded = -31005, "RATE_LIMIT_EXCEEDED", true, "Asked too often.";
    ProtocolNotFound = -30001, "PROTOCOL_NOT_FOUND", false, "No such protocol is registered.";
    ProviderNotFound = -30002, "PROVIDER_NOT_FOUND", false, "No such provider is registered.";
    ProviderNotAvailable = -30003, "PROVIDER_NOT_AVAILABLE", true, "No provider could take the call in time.";
    ProviderInitializationFailed = -30004, "PROVIDER_INITIALIZATION_FAILED", false, "A provider could not start.";
    ProviderUnhealthy = -30005, "PROVIDER_UNHEALTHY", true, "The provider broke down during the call.";
    ProviderTimeout = -30006, "PROVIDER_TIMEOUT", true, "The provider's own peer did not answer in time.";
    ProviderOverloaded = -30007, "PROVIDER_OVERLOADED", true, "The provider refuses for load.";
    MethodNotSupported = -30008, "METHOD_NOT_SUPPORTED", false, "No provider serves this method.";
    ProtocolVersionMismatch = -30009, "PROTOCOL_VERSION_MISMATCH", false, "The protocol exists, but not in this version.";
    TaskValidationFailed = -29001, "TASK_VALIDATION_FAILED", false, "The task is refused by a rule or policy.";
    TaskExecutionFailed = -29002, "TASK_EXECUTION_FAILED", false, "The call ran and failed.";
    TaskTimeout = -29003, "TASK_TIMEOUT", true, "The call did not end in time.";
    TaskCancelled = -29004, "TASK_CANCELLED", false, "Someone cancelled the task.";
    TaskDependencyFailed = -29005, "TASK_DEPENDENCY_FAILED", false, "A task that this one needs did not complete.";
    TaskParameterError = -29006, "TASK_PARAMETER_ERROR", false, "A reference in the parameters has no value.";
    TaskResultInvalid = -29007, "TASK_RESULT_INVALID", false, "The result breaks the method's schema.";
    TaskRetryExhausted = -29008, "TASK_RETRY_EXHAUSTED", false, "Every allowed attempt failed.";
    TaskNotFound = -29009, "TASK_NOT_FOUND", false, "The workflow has no such task.";
    TaskConditionError = -29010, "TASK_CONDITION_ERROR", false, "A condition or a value of the task cannot be evaluated.";
    TaskSkipped = -29014, "TASK_SKIPPED", false, "A condition left the task out.";
    WorkflowValidationFailed = -28001, "WORKFLOW_VALIDATION_FAILED", false, "The workflow cannot be accepted as it is.";
    WorkflowNotFound = -28002, "WORKFLOW_NOT_FOUND", false, "No such workflow.";
    WorkflowExecutionFailed = -28003, "WORKFLOW_EXECUTION_FAILED", false, "A task of the workflow failed.";
    WorkflowTimeout = -28004, "WORKFLOW_TIMEOUT", false, "The workflow's time ran out.";
    WorkflowCancelled = -28005, "WORKFLOW_CANCELLED", false, "Someone cancelled the workflow.";
    WorkflowCircularDependency = -28006, "WORKFLOW_CIRCULAR_DEPENDENCY", false, "Tasks wait for each other in a circle.";
    WorkflowInvalidState = -28007, "WORKFLOW_INVALID_STATE", false, "Not possible in the state it is in.";
    QueueFull = -27002, "QUEUE_FULL", false, "Intake is at its bound; submit again later.";
    PersistenceConnectionFailed = -26001, "PERSISTENCE_CONNECTION_FAILED", true, "The store cannot be reached.";
    PersistenceWriteFailed = -26002, "PERSISTENCE_WRITE_FAILED", false, "The store refused a write.";
    PersistenceReadFailed = -26003, "PERSISTENCE_READ_FAILED", false, "The store could not read.";
    PersistenceTransactionFailed = -26004, "PERSISTENCE_TRANSACTION_FAILED", false, "A transaction could not be committed.";
    PersistenceIntegrityError = -26005, "PERSISTENCE_INTEGRITY_ERROR", false, "What is stored contradicts itself.";
    NetworkUnreachable = -25001, "NETWORK_UNREACHABLE", true, "No way to the peer.";
    ConnectionRefused = -25002, "CONNECTION_REFUSED", true, "The peer does not listen.";
    ConnectionTimeout = -25003, "CONNECTION_TIMEOUT", true, "The peer did not answer in time.";
    ConnectionLost = -25004, "CONNECTION_LOST", true, "The line was cut.";
    AuthenticationFailed = -25005, "AUTHENTICATION_FAILED", false, "The peer does not know us.";
    AuthorizationFailed = -25006, "AUTHORIZATION_FAILED", false, "The peer does not let us.";
}

impl ErrorCode {
    /// The code of a number.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| i64::from(code.number()) == number)
    }

    /// The code of a name; case does not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Written as its number; read from the number or the name.
impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i32(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Name(String),
        }
        let (found, text) = match Either::deserialize(input)? {
            Either::Number(number) => (Self::from_number(number), number.to_string()),
            Either::Name(name) => (Self::from_name(&name), name),
        };
        found.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no error code")))
    }
}

/// Why a task or workflow failed; also what a provider answers when a call fails.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TaskError {
    /// The kind.
    pub code: ErrorCode,
    /// For a person: what failed, where, the value, and what to do.
    pub message: Cow<'static, str>,
    /// For a program: more about it, such as the kept output of Python code.
    pub data: Option<Box<Value>>,
    /// Says otherwise than the code whether another attempt may help.
    pub retryable: Option<bool>,
    /// The provider asks for at least this pause before the next attempt.
    pub retry_after: Option<Duration>,
}

impl TaskError {
    /// An error with nothing but a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), data: None, retryable: None, retry_after: None }
    }

    /// The call ran and failed: [`ErrorCode::TaskExecutionFailed`].
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::TaskExecutionFailed, message)
    }

    /// Adds data for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(Box::new(data));
        self
    }

    /// Overrides whether another attempt may help, regardless of the code.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }

    /// Asks for a pause before the next attempt, and allows one.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self.retryable = Some(true);
        self
    }

    /// True when another attempt may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable.unwrap_or(self.code.is_retryable())
    }
}

/// `{"code", "name", "message", "data"}`, plus `retryable` and `retry_after` (seconds) where set.
impl Serialize for TaskError {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = out.serialize_map(None)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("name", self.code.name())?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("data", &self.data)?;
        if let Some(retryable) = self.retryable {
            map.serialize_entry("retryable", &retryable)?;
        }
        if let Some(pause) = self.retry_after {
            map.serialize_entry("retry_after", &pause.as_secs_f64())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for TaskError {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            code: ErrorCode,
            message: String,
            #[serde(default)]
            data: Option<Value>,
            #[serde(default)]
            retryable: Option<bool>,
            #[serde(default)]
            retry_after: Option<f64>,
        }
        let Raw { code, message, data, retryable, retry_after } = Raw::deserialize(input)?;
        Ok(Self {
            code,
            message: message.into(),
            data: data.map(Box::new),
            retryable,
            retry_after: retry_after.and_then(|s| Duration::try_from_secs_f64(s).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Clients branch on numbers and names, so both must be unique and reversible.
    #[test]
    fn codes_are_unique_and_reversible() {
        let numbers: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number().into()), Some(*code));
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
        }
    }

    /// The list of the workflow format, to the letter.
    #[test]
    fn retryable_codes_are_those_of_the_format() {
        let retryable: Vec<i32> = ErrorCode::ALL
            .iter()
            .filter(|code| code.is_retryable())
            .map(|code| code.number())
            .collect();
        let expected = [
            -31004, -31005, -30003, -30005, -30006, -30007, -29003, -26001, -25001, -25002, -25003,
            -25004,
        ];
        assert_eq!(retryable, expected);
    }

    /// A stored error is read back as it was.
    #[test]
    fn errors_survive_json() {
        let error = TaskError::new(ErrorCode::ProviderOverloaded, "busy")
            .with_data(serde_json::json!({"status": 503}))
            .retry_after(Duration::from_millis(1500));
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<TaskError>(&text).unwrap(), error);
    }
}
