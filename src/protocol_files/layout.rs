//! The keys of a protocol file, and their positions.
//!
//! The same names as the fields of the specifications; a test holds both against each other.

/// The values that are valid at a position of the file.
pub(super) enum Layout {
    /// Any value of JSON, not looked into.
    Value,
    /// A table with these keys.
    Record(&'static [(&'static str, &'static Layout)]),
    /// A table with keys of the author's, whose values are all alike.
    Map(&'static Layout),
    /// An array whose items are all alike.
    List(&'static Layout),
}

/// The whole file.
pub(super) static PROTOCOL: Layout = Layout::Record(&[
    ("name", &Layout::Value),
    ("version", &Layout::Value),
    ("description", &Layout::Value),
    ("extends", &Layout::Value),
    ("methods", &Layout::Map(&METHOD)),
    ("author", &Layout::Value),
    ("license", &Layout::Value),
    ("documentation_url", &Layout::Value),
    ("tags", &Layout::Value),
]);

/// One method.
pub(super) static METHOD: Layout = Layout::Record(&[
    ("name", &Layout::Value),
    ("description", &Layout::Value),
    ("params_schema", &Layout::Map(&PARAMETER)),
    ("additional_params", &Layout::Value),
    ("returns_schema", &PARAMETER),
    ("examples", &Layout::List(&EXAMPLE)),
    ("deprecated", &Layout::Value),
    ("timeout_seconds", &Layout::Value),
    ("timeout_parameter", &Layout::Value),
    ("provider_wait_seconds", &Layout::Value),
    ("retry_policy", &RETRY),
    ("resource_requirements", &RESOURCES),
    ("security_requirements", &SECURITY),
    ("effect", &Layout::Value),
]);

/// The schema of one value.
pub(super) static PARAMETER: Layout = Layout::Record(&[
    ("type", &Layout::Value),
    ("description", &Layout::Value),
    ("required", &Layout::Value),
    ("default", &Layout::Value),
    ("enum", &Layout::Value),
    ("minimum", &Layout::Value),
    ("maximum", &Layout::Value),
    ("min_length", &Layout::Value),
    ("max_length", &Layout::Value),
    ("pattern", &Layout::Value),
    ("items", &PARAMETER),
    ("properties", &Layout::Map(&PARAMETER)),
    ("additional_properties", &Layout::Value),
]);

/// One example.
pub(super) static EXAMPLE: Layout = Layout::Record(&[
    ("params", &Layout::Value),
    ("result", &Layout::Value),
    ("description", &Layout::Value),
]);

/// When an attempt is repeated.
pub(super) static RETRY: Layout = Layout::Record(&[
    ("max_attempts", &Layout::Value),
    ("backoff", &Layout::Value),
    ("strategy", &Layout::Value),
    ("base_delay", &Layout::Value),
    ("max_delay", &Layout::Value),
    ("jitter", &Layout::Value),
    ("retry_on", &Layout::Value),
]);

/// The resources of one call.
pub(super) static RESOURCES: Layout = Layout::Record(&[
    ("cpu_cores", &Layout::Value),
    ("memory_mb", &Layout::Value),
    ("gpu_memory_mb", &Layout::Value),
    ("disk_space_mb", &Layout::Value),
    ("network_bandwidth_mbps", &Layout::Value),
    ("execution_timeout", &Layout::Value),
]);

/// The required isolation.
pub(super) static SECURITY: Layout = Layout::Record(&[
    ("sandbox_minimum", &Layout::Value),
    ("allowed_modules", &Layout::Value),
    ("blocked_modules", &Layout::Value),
    ("network", &Layout::Value),
]);
