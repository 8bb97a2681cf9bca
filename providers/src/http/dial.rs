//! Makes connections for `awc`: name resolution, TCP, and TLS if there are certificates for it.
//!
//! The address that `awc` asks for is always one of plain `http`: it would make TLS above these
//! connections, where [`Wire`] must be. [`address`] writes such an address.

use std::{io, sync::Arc, time::Duration};

use actix_service::{Service, always_ready};
use actix_tls::connect::{
    ConnectError, ConnectInfo, Connection, Connector, ConnectorService,
    rustls_0_23::{TlsConnector, TlsConnectorService},
};
use awc::http::Uri;
use chrono::{DateTime, Utc};
use futures_util::future::LocalBoxFuture;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::wire::Wire;

/// Makes connections, one at a time or many at once.
#[derive(Clone)]
pub(crate) struct Dialer {
    tcp: ConnectorService,
    tls: Option<TlsConnectorService>,
    limit: Duration,
}

impl Dialer {
    /// Connections with TLS if there is a configuration for it. Each of lookup with TCP, and TLS, may
    /// take `limit`.
    pub(crate) fn new(tls: Option<Arc<ClientConfig>>, limit: Duration) -> Self {
        Self { tcp: Connector::default().service(), tls: tls.map(TlsConnector::service), limit }
    }
}

impl Service<ConnectInfo<Uri>> for Dialer {
    type Response = Connection<Uri, Wire>;
    type Error = ConnectError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Self::Error>>;

    always_ready!();

    fn call(&self, asked: ConnectInfo<Uri>) -> Self::Future {
        let connecting = self.tcp.call(asked);
        let (tls, limit) = (self.tls.clone(), self.limit);
        Box::pin(async move {
            check_clock(std::time::SystemTime::now().into()).map_err(ConnectError::Io)?;
            let tcp = timeout(limit, connecting).await.map_err(|_| late("connection", limit))??;
            let Some(tls) = tls else {
                let (tcp, rest) = tcp.replace_io(());
                return Ok(rest.replace_io(Wire::plain(tcp)).1);
            };
            let shaken = timeout(limit, tls.call(tcp)).await;
            let shaken = shaken.map_err(|_| late("TLS handshake", limit))?;
            let (tls, rest) = shaken.map_err(ConnectError::Io)?.replace_io(());
            Ok(rest.replace_io(Wire::tls(tls)).1)
        })
    }
}

/// Refuses a clock before 1970: `actix-http`, which has such a clock in each connection, panics, and
/// so does rustls.
fn check_clock(now: DateTime<Utc>) -> io::Result<()> {
    if now >= DateTime::UNIX_EPOCH {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the clock of this machine says {now}, and HTTP needs a time after 1970; set the clock"
    )))
}

fn late(what: &str, limit: Duration) -> ConnectError {
    let message = format!("no {what} within {limit:?}");
    ConnectError::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// The address of `base` for `awc`, and its `Host` field.
pub(crate) fn address(base: &Uri) -> (String, String) {
    let host = base.host().unwrap_or_default();
    let (scheme_port, is_tls) = match base.scheme_str() {
        Some("https") => (443, true),
        _ => (80, false),
    };
    let port = base.port_u16().unwrap_or(scheme_port);
    let path = base.path().trim_end_matches('/');
    let named = if port == scheme_port { host.to_owned() } else { format!("{host}:{port}") };
    let asked = if is_tls || base.port().is_some() {
        format!("http://{host}:{port}{path}")
    } else {
        format!("http://{host}{path}")
    };
    (asked, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By a clock before 1970, `actix-http` and rustls panic.
    #[test]
    fn a_connection_by_a_clock_before_1970_is_refused() {
        let before = DateTime::from_timestamp(-1, 0).unwrap();
        let error = check_clock(before).unwrap_err().to_string();
        assert!(error.contains("1969-12-31 23:59:59"), "{error}");
        assert!(check_clock(DateTime::UNIX_EPOCH).is_ok());
    }

    /// `awc` must neither make TLS itself nor tell the server another name.
    #[test]
    fn addresses_are_plain_and_hosts_unchanged() {
        for (base, asked, host) in [
            ("http://localhost:11434", "http://localhost:11434", "localhost:11434"),
            ("http://host/", "http://host", "host"),
            ("https://host", "http://host:443", "host"),
            ("https://host:8443/a/b/", "http://host:8443/a/b", "host:8443"),
            ("https://[::1]:443", "http://[::1]:443", "[::1]"),
            ("https://host:80", "http://host:80", "host:80"),
        ] {
            let expected = (asked.to_owned(), host.to_owned());
            assert_eq!(address(&base.parse().unwrap()), expected, "{base}");
        }
    }
}
