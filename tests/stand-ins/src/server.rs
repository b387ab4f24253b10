//! Connections: HTTP/1.1 and HTTP/2, plain or TLS, and how to break them.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::body::ScriptedBody;
use crate::message::{Action, Content, Outcome, Received, Reply};

/// Room for every header that a test may send: oversized tokens are for the gateway to refuse.
const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// The same for the number of headers.
const MAX_HEADERS: usize = 1000;

/// Something that answers requests.
pub trait Site: Send + Sync + 'static {
    /// Decides what happens to a request.
    fn answer(&self, received: &Received) -> Outcome;
}

/// Serves a site on a listener for as long as the process lives.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, site: Arc<dyn Site>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, tls.clone(), Arc::clone(&site)));
            }
            // Out of file descriptors, most likely: give the others time to end.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, site: Arc<dyn Site>) {
    let _ = stream.set_nodelay(true);
    // A second descriptor of the same socket: whoever closes last decides how it ends.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    let reset = Arc::new(Notify::new());
    let served = async {
        match tls {
            None => http(stream, "http", site, Arc::clone(&reset)).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    http(stream, "https", site, Arc::clone(&reset)).await;
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = reset.notified() => {
            // Closing with a linger time of zero sends RST.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn http<S>(stream: S, scheme: &'static str, site: Arc<dyn Site>, reset: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (site, reset) = (Arc::clone(&site), Arc::clone(&reset));
        async move { respond(request, scheme, &*site, reset).await }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .max_header_list_size(MAX_HEADER_BYTES.try_into().unwrap_or(u32::MAX));
    // Clients that go away are everyday business here.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    scheme: &'static str,
    site: &dyn Site,
    reset: Arc<Notify>,
) -> Result<Response<ScriptedBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (method, uri, headers) = (head.method, head.uri, head.headers);
    let outcome = site.answer(&Received {
        scheme,
        method,
        uri,
        headers,
        body,
    });
    if !outcome.delay.is_zero() {
        tokio::time::sleep(outcome.delay).await;
    }
    match outcome.action {
        Action::Send(reply) => Ok(response(reply, reset)),
        Action::Hang => never(std::future::pending().await),
        Action::Reset => {
            reset.notify_one();
            never(std::future::pending().await)
        }
    }
}

fn never<T>(impossible: Infallible) -> T {
    match impossible {}
}

fn response(reply: Reply, reset: Arc<Notify>) -> Response<ScriptedBody> {
    let mut headers = reply.headers;
    let body = if reply.cut {
        // The length of the whole body is promised, half of it comes.
        if let Content::Whole(bytes) = &reply.content {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        ScriptedBody::half(reply.content, reset)
    } else {
        ScriptedBody::whole(reply.content)
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = headers;
    response
}
