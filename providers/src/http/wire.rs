//! One connection, on whose bytes the head of each answer is replaced by one that `awc` reads rightly.
//!
//! Invariants: every byte of a body passes as it came; a connection that was closed or reset before
//! any byte of an answer came, and that had answered a request before, fails with [`Closed`], and
//! nothing else does.

use std::{
    fmt,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_rt::net::{ActixStream, Ready, TcpStream};
use actix_tls::connect::rustls_0_23::reexports::AsyncTlsStream;
use awc::error::{ConnectError, SendRequestError};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{self, HEAD_MAX, HeadParse};

/// The server had closed a kept connection before it answered: the request may be sent again over
/// another one, as RFC 9112, section 9.3.1, has it for clients that know nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server has closed the connection before it answered")]
struct Closed;

fn closed() -> io::Error {
    io::Error::other(Closed)
}

/// True if a request failed because the server had closed the kept connection that it was sent over.
pub(crate) fn was_closed(error: &SendRequestError) -> bool {
    use std::error::Error;
    let error = match error {
        SendRequestError::Send(error) | SendRequestError::Connect(ConnectError::Io(error)) => {
            Some(error)
        }
        SendRequestError::Response(error) => {
            error.source().and_then(|error| error.downcast_ref::<io::Error>())
        }
        _ => None,
    };
    error.and_then(io::Error::get_ref).is_some_and(<dyn Error + Send + Sync>::is::<Closed>)
}

/// The transport of the bytes.
enum Transport {
    Plain(TcpStream),
    Tls(Box<AsyncTlsStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WirePhase {
    /// A request is being sent, or its answer's head is coming.
    HeadParse,
    /// Bytes pass as they come: of a body, or of nothing that was asked for.
    Body,
}

/// A connection for `awc`.
pub(crate) struct Wire {
    line: Transport,
    phase: WirePhase,
    /// Bytes of a head that is not complete.
    coming: BytesMut,
    /// Bytes for the reader: the rewritten head, and the bytes after the original one.
    ready: BytesMut,
    /// True once anything of the answer came, an interim head included.
    has_received: bool,
    /// True once it has answered a request.
    kept: bool,
}

impl Wire {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self::new(Transport::Plain(tcp))
    }

    pub(super) fn tls(tls: AsyncTlsStream<TcpStream>) -> Self {
        Self::new(Transport::Tls(Box::new(tls)))
    }

    fn new(line: Transport) -> Self {
        // An answer without a request is passed on unparsed.
        let phase = WirePhase::Body;
        let (coming, ready) = (BytesMut::new(), BytesMut::new());
        Self { line, phase, coming, ready, has_received: false, kept: false }
    }

    fn line(&mut self) -> Pin<&mut (dyn Duplex + 'static)> {
        match &mut self.line {
            Transport::Plain(tcp) => Pin::new(tcp),
            Transport::Tls(tls) => Pin::new(&mut **tls),
        }
    }

    /// A request begins with the first byte written behind an answer.
    fn begins_request(&mut self) {
        if self.phase == WirePhase::Body {
            self.phase = WirePhase::HeadParse;
            self.has_received = false;
            self.coming.clear();
            self.ready.clear();
        }
    }

    /// The effect of a failed connection on the request in progress.
    fn judged(&self, error: io::Error) -> io::Error {
        let is_gone = matches!(
            error.kind(),
            ErrorKind::BrokenPipe
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::NotConnected
                // The error of rustls for a connection that ends without `close_notify`.
                | ErrorKind::UnexpectedEof
        );
        let is_unheard = self.phase == WirePhase::HeadParse && !self.has_received;
        if self.kept && is_unheard && is_gone { closed() } else { error }
    }

    /// Takes what has come of a head; true when there is something for the reader.
    fn takes_head(&mut self) -> bool {
        loop {
            match head::read(&self.coming) {
                HeadParse::Partial if self.coming.len() <= HEAD_MAX => return false,
                HeadParse::Interim(length) => self.coming.advance(length),
                HeadParse::Final(length, head) => {
                    self.coming.advance(length);
                    self.ready = BytesMut::from(&head[..]);
                    self.kept = true;
                    break;
                }
                // `awc` reports what is wrong with it.
                HeadParse::Partial | HeadParse::Malformed => break,
            }
        }
        self.ready.unsplit(std::mem::take(&mut self.coming));
        self.phase = WirePhase::Body;
        true
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            if let Err(error) = ready!(self.line().poll_read(cx, &mut buffer)) {
                return Poll::Ready(Err(self.judged(error)));
            }
            let received = buffer.filled();
            if received.is_empty() {
                if self.kept && !self.has_received {
                    return Poll::Ready(Err(closed()));
                }
                // The end, for the reader to find.
                self.ready = std::mem::take(&mut self.coming);
                self.phase = WirePhase::Body;
                return Poll::Ready(Ok(()));
            }
            self.has_received = true;
            // A head that comes byte by byte is read once, at its end: each of its lines may be the
            // last one.
            let may_end = received.contains(&b'\n');
            self.coming.extend_from_slice(received);
            if (may_end || self.coming.len() > HEAD_MAX) && self.takes_head() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Both directions of a line.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl fmt::Debug for Wire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Wire").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase == WirePhase::HeadParse {
            ready!(this.poll_head(cx))?;
        }
        if this.ready.is_empty() {
            return this.line().poll_read(cx, buffer);
        }
        let count = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begins_request();
        let written = ready!(this.line().poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| this.judged(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(this.line().poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| this.judged(error)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().line().poll_shutdown(cx)
    }
}

impl ActixStream for Wire {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.line.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.line.tcp(), cx)
    }
}
