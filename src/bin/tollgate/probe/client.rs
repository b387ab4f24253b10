//! One call on a connection of its own.
//!
//! hyper's connections, without a client above them: paths go out to the letter, where clients that take URLs
//! normalize them; a redirect is a response; no proxy is taken from the environment; nothing is sent twice.

use std::cell::Cell;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::calls::{Call, Form};
use super::target::Target;
use super::tls::{self, Trust};

/// The module's code, in every response that it makes.
pub(crate) const CODE_HEADER: &str = "x-tollgate-code";

/// How much of a head is read; codes are in the first few hundred bytes.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;

/// How much of a body HTTP/2 may send before it is asked for, which it never is.
const WINDOW: u32 = 16 * 1024;

/// What a response's head says about who made it. The body is not read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) protocol: &'static str,
    /// Every value of `x-tollgate-code`.
    pub(crate) codes: Vec<String>,
}

/// Why there is no response.
#[derive(Clone, Debug)]
pub(crate) enum Unanswered {
    Resolve(String),
    Connect(io::ErrorKind),
    Tls(String),
    TimedOut(Phase),
    /// The gateway closed the connection or reset the stream.
    Closed,
    /// It sent what is no response.
    NotHttp(String),
}

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Resolve,
    Connect,
    Tls,
    Response,
}

/// Sends calls to one gateway.
pub(crate) struct Client {
    target: Target,
    trust: Option<Trust>,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(target: Target, trust: Option<Trust>, timeout: Duration) -> Self {
        Self {
            target,
            trust,
            timeout,
        }
    }

    /// Sends a call and waits for its response, for no longer than the time-out and `at_most`.
    pub(crate) async fn send(
        &self,
        call: &Call,
        at_most: Duration,
    ) -> Result<Response, Unanswered> {
        let phase = Cell::new(Phase::Resolve);
        let limit = self.timeout.min(at_most);
        timeout(limit, self.head(call, &phase))
            .await
            .unwrap_or_else(|_| Err(Unanswered::TimedOut(phase.get())))
    }

    async fn head(&self, call: &Call, phase: &Cell<Phase>) -> Result<Response, Unanswered> {
        let stream = self.connect(phase).await?;
        let Some(trust) = &self.trust else {
            phase.set(Phase::Response);
            return self.exchange(call, stream, false).await;
        };
        phase.set(Phase::Tls);
        let config = trust.config(call.form == Form::Negotiated);
        let name = ServerName::try_from(self.target.host.clone()).map_err(|_| {
            Unanswered::Tls("the host is no name that a certificate can have".into())
        })?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
            .map_err(|error| Unanswered::Tls(tls::describe(&error)))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        phase.set(Phase::Response);
        self.exchange(call, stream, is_http2).await
    }

    async fn connect(&self, phase: &Cell<Phase>) -> Result<TcpStream, Unanswered> {
        let address = (self.target.host.as_str(), self.target.port);
        let found = lookup_host(address).await;
        let found = found.map_err(|error| Unanswered::Resolve(error.to_string()))?;
        let found: Vec<_> = found.take(8).collect();
        phase.set(Phase::Connect);
        let stream = TcpStream::connect(found.as_slice()).await;
        stream.map_err(|error| Unanswered::Connect(error.kind()))
    }

    /// The request and the response's head.
    async fn exchange<S>(
        &self,
        call: &Call,
        stream: S,
        is_http2: bool,
    ) -> Result<Response, Unanswered>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = self.request(call, is_http2)?;
        let io = TokioIo::new(stream);
        let (response, _driver) = if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .initial_stream_window_size(WINDOW);
            let (mut sender, connection) = builder.handshake(io).await?;
            let driver = Driver::spawn(connection);
            (sender.send_request(request).await?, driver)
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
            let (mut sender, connection) = builder.handshake(io).await?;
            let driver = Driver::spawn(connection);
            (sender.send_request(request).await?, driver)
        };
        let codes = response.headers().get_all(CODE_HEADER).into_iter();
        Ok(Response {
            status: response.status().as_u16(),
            protocol: match response.version() {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            codes: codes
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect(),
        })
    }

    fn request(&self, call: &Call, is_http2: bool) -> Result<Request<Empty<Bytes>>, Unanswered> {
        let path = self.target.path(&call.path);
        let uri = if is_http2 || call.form == Form::Absolute {
            Uri::builder()
                .scheme(self.target.scheme())
                .authority(self.target.authority.as_str())
                .path_and_query(path)
                .build()
        } else {
            Uri::builder().path_and_query(path).build()
        };
        let mut request =
            Request::get(uri.map_err(|error| Unanswered::NotHttp(error.to_string()))?)
                .header("accept", "application/json")
                .header(
                    "user-agent",
                    concat!("tollgate-probe/", env!("CARGO_PKG_VERSION")),
                );
        if !is_http2 {
            request = request.header("host", &self.target.authority);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Empty::new());
        request.map_err(|error| Unanswered::NotHttp(error.to_string()))
    }
}

/// What moves a connection's bytes. It ends with its call.
struct Driver(JoinHandle<()>);

impl Driver {
    fn spawn<F>(connection: F) -> Self
    where
        F: Future<Output = Result<(), hyper::Error>> + Send + 'static,
    {
        // The same error reaches whoever waits for the response.
        Self(tokio::spawn(async move {
            let _ = connection.await;
        }))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Unanswered {
    /// There was no connection, and so there is none for other calls.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Resolve(_) | Self::Connect(_) | Self::Tls(_) => true,
            Self::TimedOut(phase) => *phase != Phase::Response,
            Self::Closed | Self::NotHttp(_) => false,
        }
    }

    /// The gateway denied the call without a response, as Envoy does for some that it does not accept.
    pub(crate) fn is_close(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl From<hyper::Error> for Unanswered {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            return Self::NotHttp(error.to_string());
        }
        let mut is_closed = error.is_incomplete_message() || error.is_canceled();
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(error) = inner.downcast_ref::<io::Error>() {
                // What TLS finds after its handshake, such as a client certificate that is missing.
                if let Some(text) = tls::describe_late(error) {
                    return Self::Tls(text);
                }
                is_closed = true;
            }
            if let Some(error) = inner.downcast_ref::<h2::Error>() {
                // What this side resets is a response all the same, of whatever kind.
                is_closed = error.is_remote() || error.is_io();
            }
            cause = inner.source();
        }
        if is_closed {
            Self::Closed
        } else {
            Self::NotHttp(error.to_string())
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(formatter, "the host's name is not found: {error}"),
            Self::Connect(kind) => write!(formatter, "no connection: {kind}"),
            Self::Tls(error) => write!(formatter, "TLS: {error}"),
            Self::TimedOut(phase) => {
                let what = match phase {
                    Phase::Resolve => "the host's address",
                    Phase::Connect => "a connection",
                    Phase::Tls => "the TLS handshake",
                    Phase::Response => "a response",
                };
                write!(formatter, "timed out waiting for {what}")
            }
            Self::Closed => formatter.write_str("closed without a response"),
            Self::NotHttp(error) => write!(formatter, "no HTTP response: {error}"),
        }
    }
}
