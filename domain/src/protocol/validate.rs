//! Checks a value against a schema: everything wrong at once, defaults filled in.

/// A compiled schema of one value.
#[derive(Debug)]
pub struct Validator;

/// The compiled schema of a method's parameters.
#[derive(Debug)]
pub struct ParamsValidator;
