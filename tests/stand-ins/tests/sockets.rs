//! The stand-ins over real sockets: both versions of HTTP, TLS, and broken connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tollgate_stand_ins::start::{Options, Running, start};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const LONG: Duration = Duration::from_secs(20);

async fn started() -> (Running, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        entra_http: any,
        entra_https: any,
        openai: any,
        openai_https: Some(any),
        tls_dir: directory.path().to_owned(),
        public_url: None,
        exit_with_stdin: false,
    };
    (start(&options).await.unwrap(), directory)
}

/// All that comes back on a connection of its own, and how it ended.
async fn raw(at: SocketAddr, request: &str) -> (String, Result<(), ErrorKind>) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        match timeout(LONG, stream.read(&mut buffer)).await.unwrap() {
            Ok(0) => break Ok(()),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) => break Err(error.kind()),
        }
    };
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: stand-in.test\r\nconnection: close\r\n{headers}\r\n")
}

fn post(path: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: stand-in.test\r\nconnection: close\r\n\
         content-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn behave(running: &Running, behaviour: Value) {
    let (answer, _) = raw(
        running.entra_http,
        &post("/control/behaviour", "", &behaviour),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn keys_path() -> String {
    format!("/{TENANT}/discovery/v2.0/keys")
}

#[tokio::test]
async fn plain_http_answers_under_the_callers_name() {
    let (running, _directory) = started().await;
    let path = format!("/{TENANT}/v2.0/.well-known/openid-configuration");
    let (answer, end) = raw(running.entra_http, &get(&path, "")).await;
    assert_eq!(end, Ok(()));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        body["jwks_uri"],
        format!("http://stand-in.test/{TENANT}/discovery/v2.0/keys")
    );
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (running, _directory) = started().await;
    behave(&running, json!({ "target": "keys", "mode": "reset" })).await;
    let (answer, end) = raw(running.entra_http, &get(&keys_path(), "")).await;
    assert_eq!(
        (answer.as_str(), end),
        ("", Err(ErrorKind::ConnectionReset))
    );

    let chat = post(
        "/openai/v1/chat/completions",
        "x-stand-in-reset: before-headers\r\n",
        &json!({}),
    );
    let (answer, end) = raw(running.openai, &chat).await;
    assert_eq!(
        (answer.as_str(), end),
        ("", Err(ErrorKind::ConnectionReset))
    );
}

#[tokio::test]
async fn a_reset_in_the_body_leaves_half_of_it() {
    let (running, _directory) = started().await;
    behave(
        &running,
        json!({ "target": "keys", "mode": "reset-mid-body" }),
    )
    .await;
    let (answer, end) = raw(running.entra_http, &get(&keys_path(), "")).await;
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let promised = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    assert_eq!(promised.parse::<usize>().unwrap() / 2, body.len());
    assert!(body.starts_with("{\"keys\":[{"), "{body}");
}

#[tokio::test]
async fn a_reset_in_a_stream_leaves_some_events() {
    let (running, _directory) = started().await;
    let request = json!({ "messages": [], "stream": true });
    let headers = "x-stand-in-reset: mid-body\r\n";
    let (answer, end) = raw(
        running.openai,
        &post("/openai/v1/chat/completions", headers, &request),
    )
    .await;
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(
        answer.contains("\r\ndata: {") && !answer.contains("[DONE]"),
        "{answer}"
    );
}

#[tokio::test]
async fn hanging_never_answers() {
    let (running, _directory) = started().await;
    behave(&running, json!({ "target": "keys", "mode": "hang" })).await;
    let request = get(&keys_path(), "");
    let waiting = raw(running.entra_http, &request);
    assert!(timeout(Duration::from_millis(300), waiting).await.is_err());
    // Others are served meanwhile.
    let (answer, _) = raw(running.entra_http, &get("/control/stats", "")).await;
    assert!(answer.contains("\"keys\":1"), "{answer}");
}

#[tokio::test]
async fn a_delay_delays() {
    let (running, _directory) = started().await;
    let before = Instant::now();
    let request = get("/openai/models", "x-stand-in-delay-ms: 200\r\n");
    let (answer, _) = raw(running.openai, &request).await;
    assert!(before.elapsed() >= Duration::from_millis(200));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn events_come_in_chunks_of_their_own() {
    let (running, _directory) = started().await;
    let request = json!({ "messages": [], "stream": true });
    let (answer, end) = raw(
        running.openai,
        &post("/openai/v1/chat/completions", "", &request),
    )
    .await;
    assert_eq!(end, Ok(()));
    assert!(
        answer.contains("transfer-encoding: chunked\r\n"),
        "{answer}"
    );
    // An event is the whole of its chunk: it follows the chunk's length and ends with the chunk.
    let chunks = answer.matches("\n\n\r\n").count();
    assert_eq!(chunks, answer.matches("data: ").count());
    assert!(chunks > 5 && answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn large_headers_and_bodies_arrive() {
    let (running, _directory) = started().await;
    let token = format!("authorization: Bearer {}\r\n", "x".repeat(100_000));
    let text = "y".repeat(2_000_000);
    let (answer, _) = raw(running.openai, &post("/openai/echo", &token, &json!(text))).await;
    let echo: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(echo["body"].as_str().unwrap().len(), 2_000_002);
    let headers = echo["headers"].as_array().unwrap();
    let sent = headers
        .iter()
        .find(|pair| pair[0] == "authorization")
        .unwrap();
    assert_eq!(sent[1].as_str().unwrap().len(), 100_007);
}

async fn secure(
    running: &Running,
    at: SocketAddr,
    name: &'static str,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&running.ca_pem).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(at).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(name).unwrap(), stream)
        .await
}

#[tokio::test]
async fn the_certificate_is_good_for_its_names_only() {
    let (running, _directory) = started().await;
    for name in [
        "localhost",
        "127.0.0.1",
        "login.microsoftonline.com",
        "x.openai.azure.com",
    ] {
        let connected = secure(&running, running.entra_https, name, b"http/1.1").await;
        assert!(connected.is_ok(), "{name}: {connected:?}");
    }
    assert!(
        secure(&running, running.entra_https, "evil.example", b"http/1.1")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn http2_over_tls() {
    let (running, _directory) = started().await;
    let openai = running.openai_https.unwrap();
    for (at, target, expected) in [
        (
            running.entra_https,
            format!("https://localhost/{TENANT}/v2.0/.well-known/openid-configuration"),
            "issuer",
        ),
        (
            openai,
            "https://localhost/openai/v1/models".to_owned(),
            "data",
        ),
    ] {
        let stream = secure(&running, at, "localhost", b"h2").await.unwrap();
        let io = TokioIo::new(stream);
        let executor = TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get(&target).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body.get(expected).is_some(), "{body}");
        if let Some(issuer) = body.get("issuer") {
            assert_eq!(*issuer, format!("https://localhost/{TENANT}/v2.0"));
        }
    }
}

#[tokio::test]
async fn http1_over_tls() {
    let (running, _directory) = started().await;
    let mut stream = secure(&running, running.entra_https, "localhost", b"http/1.1")
        .await
        .unwrap();
    stream
        .write_all(get(&keys_path(), "").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(
        answer.contains("https://stand-in.test/{tenantid}/v2.0"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let (running, directory) = started().await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options {
        entra_http: running.entra_http,
        entra_https: any,
        openai: any,
        openai_https: None,
        tls_dir: directory.path().to_owned(),
        public_url: None,
        exit_with_stdin: false,
    };
    let error = start(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(
        error.to_string().contains(&running.entra_http.to_string()),
        "{error}"
    );
}
