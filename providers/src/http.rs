//! Connections to HTTP servers, for `awc`, with three of its gaps closed.
//!
//! `awc` 3.11 takes a `100 Continue` or `103 Early Hints` for the answer; takes an answer without a
//! length for one without a body; and cannot say whether a server had closed a kept connection before
//! it got the request. All three are decided by the head of an answer, so they are made good below
//! `awc`, on the bytes of the connection: [`wire`] hands `awc` a head that it reads rightly, and an
//! error of its own where nothing was answered. For that, TLS has to be below, too: [`dial`] makes it,
//! with the certificates of [`trust`].

pub(super) mod dial;
mod head;
pub(super) mod trust;
pub(super) mod wire;
