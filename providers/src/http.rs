//! Connections to HTTP servers, for `awc`, with three of its gaps closed.
//!
//! `awc` 3.11 has three faults. It takes a `100 Continue` or `103 Early Hints` for the answer. It
//! takes an answer without a length for one without a body. It does not report whether a server had
//! closed a kept connection before it received the request. All three depend on the head of an
//! answer, so they are corrected below `awc`, on the bytes of the connection: [`wire`] passes `awc`
//! a head that it parses correctly, and an error of its own if there was no answer. Therefore TLS
//! has to be below `awc`, too: [`dial`] adds it, with the certificates of [`trust`].

pub(super) mod dial;
mod head;
pub(super) mod trust;
pub(super) mod wire;
