//! `tollgate probe`, against servers that respond as a test says.
#![allow(
    clippy::disallowed_methods,
    reason = "what takes long is timed by the clock"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{Ran, command, file, tollgate};
use crate::server::{Piece, Server};

/// A token of the right form that has to appear nowhere.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LWNsYWltcw.c2VjcmV0LXNpZ25hdHVyZQ";

/// A response with a header `x-tollgate-code` for each code.
fn response(status: &str, codes: &[&str], body: &str) -> Vec<u8> {
    let codes: String = codes
        .iter()
        .map(|code| format!("x-tollgate-code: {code}\r\n"))
        .collect();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{codes}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// What the module responds, with the default policy.
fn module(head: &str) -> Vec<u8> {
    if head.contains("tollgate-probe-no-key-") {
        response("403 Forbidden", &["AuthenticationTypeDisabled"], "")
    } else if head.contains(&format!("authorization: Bearer {TOKEN}\r\n")) {
        response("200 OK", &[], "{}")
    } else if head.contains("authorization: Bearer ey") {
        response("401 Unauthorized", &["TokenIssuerNotAllowed"], "")
    } else {
        response("401 Unauthorized", &["TokenNotPresent"], "")
    }
}

fn deciding() -> Server {
    Server::start(|head| vec![Piece::Bytes(module(head))])
}

/// A body as Azure's.
fn azure(code: &str) -> String {
    format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"m\"}}}}")
}

/// Envoy's own response in Azure's form.
fn of_envoy(status: &str, code: &str) -> Vec<u8> {
    response(status, &[code], &azure(code))
}

fn probe(server: &Server, more: &[&str]) -> Ran {
    tollgate(&[&["probe", &server.url()], more].concat())
}

/// The result of a run with `--json`.
fn as_json(server: &Server, more: &[&str], code: i32) -> Value {
    let ran = probe(server, &[&["--json"], more].concat());
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// The verdicts of all calls, when they are the same.
fn verdict(result: &Value) -> String {
    let calls = result["calls"].as_array().unwrap();
    assert!(
        calls
            .iter()
            .all(|call| call["verdict"] == calls[0]["verdict"]),
        "{result:#}"
    );
    calls[0]["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn a_module_that_denies_everything_is_deciding() {
    let server = deciding();
    let ran = probe(&server, &[]);
    assert_eq!(ran.err, "");
    let out = ran.well();
    let heads = server.heads();
    assert!((30..=40).contains(&heads.len()), "{}", heads.len());
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        lines.len(),
        heads.len() + 2,
        "a line for each call, and one for all"
    );
    for line in &lines[..heads.len()] {
        assert!(line.starts_with("deciding    40"), "{line}");
    }
    assert_eq!(
        lines[heads.len() + 1],
        format!("{}: deciding, nothing open", server.url())
    );
}

#[test]
fn paths_go_out_to_the_letter_and_every_request_is_a_get_without_a_body() {
    let server = deciding();
    probe(&server, &[]).well();
    let heads = server.heads();
    let address = server.address;
    for line in [
        "GET /openai/v1/models HTTP/1.1",
        "GET /openai/models?api-version=2024-10-21 HTTP/1.1",
        "GET /OPENAI/v1/models HTTP/1.1",
        "GET //openai/v1/models HTTP/1.1",
        "GET /%6fpenai/v1/models HTTP/1.1",
        "GET /openai%2Fv1%2Fmodels HTTP/1.1",
        "GET /openai/v1/models/ HTTP/1.1",
        "GET /status/../openai/v1/models HTTP/1.1",
        "GET /status/%2e%2e/openai/v1/models HTTP/1.1",
        &format!("GET http://{address}/openai/v1/models HTTP/1.1"),
    ] {
        let is_it = |head: &&String| head.starts_with(&format!("{line}\r\n"));
        assert!(heads.iter().any(|head| is_it(&head)), "{line}: {heads:?}");
    }
    for head in &heads {
        assert!(head.starts_with("GET "), "{head}");
        assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
        assert!(!head.contains("content-length: 1"), "{head}");
    }
    for place in [
        "\r\napi-key: tollgate-probe-no-key-",
        "\r\nocp-apim-subscription-key: tollgate-probe-no-key-",
        "\r\nx-api-key: tollgate-probe-no-key-",
        "?api-key=tollgate-probe-no-key-",
        "?subscription-key=tollgate-probe-no-key-",
        "\r\nsec-websocket-protocol: realtime, openai-insecure-api-key.tollgate-probe-no-key-",
    ] {
        let with_key = heads.iter().filter(|head| head.contains(place));
        let (beside, alone): (Vec<_>, Vec<_>) =
            with_key.partition(|head| head.contains("authorization: Bearer "));
        assert_eq!((alone.len(), beside.len()), (1, 1), "{place}");
    }
    let prefixed = format!("{}/azure/", server.url());
    tollgate(&["probe", &prefixed]).well();
    let heads = server.heads();
    assert!(
        heads
            .iter()
            .any(|head| head.starts_with("GET /azure//openai/v1/models "))
    );
}

#[test]
fn what_the_shipped_files_deny_is_guarded() {
    for server in [
        Server::saying(of_envoy("403 Forbidden", "GatewayNotGuarded")),
        Server::saying(of_envoy("404 Not Found", "RouteNotFound")),
        Server::saying(of_envoy("400 Bad Request", "RequestNotAccepted")),
    ] {
        let result = as_json(&server, &[], 1);
        assert_eq!(
            (verdict(&result).as_str(), &result["state"]),
            ("guarded", &"guarded".into())
        );
        assert_eq!(result["exit_code"], 1);
        let said = probe(&server, &[]).ended(1);
        assert!(said.contains("guarded, not deciding"), "{said}");
    }
    // Some calls end at Envoy, the others at the module.
    let server = Server::start(|head| {
        vec![Piece::Bytes(match head.contains("%2F") {
            true => of_envoy("400 Bad Request", "RequestNotAccepted"),
            false => module(head),
        })]
    });
    let out = probe(&server, &[]).well();
    let line = out
        .lines()
        .find(|line| line.starts_with("guarded "))
        .unwrap();
    assert!(
        line.contains("400  RequestNotAccepted") && line.contains("escaped slash"),
        "{line}"
    );
}

/// Each is taken for what it is: something that responds where the module should have.
#[test]
fn what_something_else_responds_is_open() {
    let elsewhere = deciding();
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url()
    );
    let cases: [(&str, Vec<u8>, &str); 17] = [
        (
            "passed",
            response("200 OK", &[], "{}"),
            "\"mode\": \"report\"",
        ),
        (
            "a code on success",
            response("200 OK", &["TokenNotPresent"], "{}"),
            "passed: no module",
        ),
        (
            "another filter",
            response("401 Unauthorized", &[], "Jwt is missing"),
            "not of the module",
        ),
        (
            "another policy",
            response("403 Forbidden", &[], "RBAC: access denied"),
            "not of the module",
        ),
        (
            "Azure's own",
            response("401 Unauthorized", &[], &azure("PermissionDenied")),
            "not of the module",
        ),
        (
            "a code in the body alone",
            response("401 Unauthorized", &[], &azure("TokenNotPresent")),
            "not of the module",
        ),
        (
            "not found",
            response("404 Not Found", &[], &azure("404")),
            "something else",
        ),
        (
            "server error",
            response("500 Internal Server Error", &[], ""),
            "something else",
        ),
        ("redirect", redirect.into_bytes(), "not followed"),
        (
            "upgrade",
            response("101 Switching Protocols", &[], ""),
            "something else",
        ),
        (
            "constant code",
            response("401 Unauthorized", &["TokenNotPresent"], ""),
            "does not respond with this code here",
        ),
        (
            "a code of those who are let in",
            response("403 Forbidden", &["PermissionDenied"], ""),
            "does not respond with this code here",
        ),
        (
            "unknown code",
            response("401 Unauthorized", &["Nothing\u{9b}2J"], ""),
            "unknown code",
        ),
        (
            "repeated code",
            response(
                "401 Unauthorized",
                &["TokenNotPresent", "TokenNotPresent"],
                "",
            ),
            "several codes",
        ),
        (
            "no backend",
            of_envoy("503 Service Unavailable", "BackendUnavailable"),
            "passed to the backend",
        ),
        (
            "slow backend",
            of_envoy("504 Gateway Timeout", "BackendTimeout"),
            "passed to the backend",
        ),
        (
            "HTTP/1.0",
            b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec(),
            "passed: no module",
        ),
    ];
    for (name, bytes, words) in cases {
        let ran = probe(&Server::saying(bytes), &[]);
        assert_eq!(ran.code, 1, "{name}: {}{}", ran.out, ran.err);
        let open = ran.out.lines().find(|line| line.starts_with("open "));
        assert!(open.unwrap().contains(words), "{name}: {}", ran.out);
        assert!(ran.out.contains(": open: "), "{name}");
        assert!(!ran.out.contains('\u{9b}'), "{name}");
    }
    assert_eq!(elsewhere.heads().len(), 0, "the redirect was followed");
}

#[test]
fn one_place_that_is_open_is_enough() {
    let server = Server::start(|head| {
        vec![Piece::Bytes(match head.contains("?subscription-key=") {
            true => response("200 OK", &[], "{}"),
            false => module(head),
        })]
    });
    let result = as_json(&server, &[], 1);
    assert_eq!(result["state"], "open");
    let calls = result["calls"].as_array().unwrap();
    let open: Vec<_> = calls
        .iter()
        .filter(|call| call["verdict"] == "open")
        .collect();
    assert_eq!(open.len(), 2, "{result:#}");
    for call in open {
        assert!(
            call["call"]
                .as_str()
                .unwrap()
                .contains("query subscription-key"),
            "{call}"
        );
        assert_eq!(
            (&call["status"], &call["protocol"]),
            (&200.into(), &"HTTP/1.1".into())
        );
    }
    assert_eq!(result["summary"], "open: 2 calls are not denied");
}

#[test]
fn a_module_that_strips_keys_is_deciding() {
    let server = Server::start(|head| {
        let head = head.replace("tollgate-probe-no-key-", "");
        vec![Piece::Bytes(module(&head))]
    });
    assert_eq!(verdict(&as_json(&server, &[], 0)), "deciding");
}

#[test]
fn interim_responses_are_passed_over() {
    let server = Server::start(|head| {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-tollgate-code: TokenNotPresent\r\n\r\n";
        vec![Piece::Bytes(interim.to_vec()), Piece::Bytes(module(head))]
    });
    assert_eq!(verdict(&as_json(&server, &[], 0)), "deciding");
    let server = Server::start(|_| {
        let interim = b"HTTP/1.1 103 Early Hints\r\nx-tollgate-code: TokenNotPresent\r\n\r\n";
        vec![
            Piece::Bytes(interim.to_vec()),
            Piece::Bytes(response("200 OK", &[], "")),
        ]
    });
    assert_eq!(verdict(&as_json(&server, &[], 1)), "open");
}

/// Nothing that a server does takes longer than the time-outs, or is taken for a response that it is not.
#[test]
fn what_is_slow_or_broken_is_not_answered() {
    const LONG: Duration = Duration::from_secs(60);
    type Script = fn() -> Vec<Piece>;
    let cases: [(&str, Script, &str); 9] = [
        (
            "silent",
            || vec![Piece::Wait(LONG)],
            "timed out waiting for a response",
        ),
        (
            "half a head",
            || vec![Piece::Bytes(b"HTTP/1.1 401 ".to_vec()), Piece::Wait(LONG)],
            "timed out",
        ),
        (
            "interim forever",
            || vec![Piece::Endless(b"HTTP/1.1 100 Continue\r\n\r\n")],
            "timed out",
        ),
        ("closed", Vec::new, "closed without a response"),
        (
            "half a head, closed",
            || vec![Piece::Bytes(b"HTTP/1.1 401 ".to_vec())],
            "closed without",
        ),
        (
            "garbage",
            || vec![Piece::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec())],
            "no HTTP response",
        ),
        (
            "HTTP/0.9",
            || vec![Piece::Bytes(b"<html>hello</html>\r\n\r\n".to_vec())],
            "no HTTP response",
        ),
        (
            "a head that never ends",
            || {
                vec![
                    Piece::Bytes(b"HTTP/1.1 200 OK\r\na: ".to_vec()),
                    Piece::Endless(b"aaaaaaaaaaaaaaaa"),
                ]
            },
            "no HTTP response",
        ),
        (
            "headers without end",
            || {
                vec![
                    Piece::Bytes(b"HTTP/1.1 200 OK\r\n".to_vec()),
                    Piece::Endless(b"a: b\r\n"),
                ]
            },
            "no HTTP response",
        ),
    ];
    let check = |(name, script, words): (&str, Script, &str)| {
        let server = Server::start(move |_| script());
        let start = Instant::now();
        let ran = probe(&server, &["--timeout", "1s"]);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(40), "{name}: {took:?}");
        assert_eq!(ran.code, 2, "{name}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(words), "{name}: {}", ran.out);
        assert!(ran.out.contains("nothing answered"), "{name}: {}", ran.out);
    };
    // Most of their time is waiting.
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || check(case));
        }
    });
}

/// The head says who responds; a body that goes on and on, or never comes, is not waited for.
#[test]
fn no_body_is_read() {
    type Script = fn() -> Vec<Piece>;
    let head = || {
        Piece::Bytes(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 1000000000\r\n\r\n".to_vec())
    };
    let endless: Script = || {
        vec![Piece::Endless(
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        )]
    };
    let never: Script = || vec![Piece::Wait(Duration::from_secs(60))];
    let broken: Script = || vec![Piece::Bytes(b"{\"error\":".to_vec())];
    for (name, script) in [("endless", endless), ("never", never), ("broken", broken)] {
        let server = Server::start(move |_| {
            let mut pieces = script();
            pieces.insert(0, head());
            pieces
        });
        let start = Instant::now();
        assert_eq!(
            verdict(&as_json(&server, &["--timeout", "60s"], 1)),
            "open",
            "{name}"
        );
        assert!(start.elapsed() < Duration::from_secs(20), "{name}");
    }
}

/// Envoy resets some requests that it does not accept; who does not respond in time may have let it pass.
#[test]
fn a_call_without_a_response_leaves_no_verdict_but_where_it_was_closed() {
    let closing = Server::start(|head| match head.contains("\\v1") {
        true => Vec::new(),
        false => vec![Piece::Bytes(module(head))],
    });
    let out = probe(&closing, &[]).well();
    assert!(out.contains("\nunanswered "), "{out}");
    let silent = Server::start(|head| match head.contains("\\v1") {
        true => vec![Piece::Wait(Duration::from_secs(60))],
        false => vec![Piece::Bytes(module(head))],
    });
    let out = probe(&silent, &["--timeout", "1s"]).ended(2);
    assert!(
        out.contains("1 call is without a response: timed out"),
        "{out}"
    );
}

/// One that responds before it reads, as a server of plain HTTP does to TLS.
fn hasty() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let bytes = response("400 Bad Request", &[], "");
            let _ = stream.unwrap().write_all(&bytes);
        }
    });
    address
}

#[test]
fn nothing_that_listens_is_one_line_and_exit_code_2() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (url, words) in [
        (
            format!("http://{free}"),
            "no connection: connection refused",
        ),
        (
            "http://no-such-host.invalid".to_owned(),
            "the host's name is not found",
        ),
        (
            format!("https://{}", hasty()),
            "TLS: the gateway does not speak TLS on this port",
        ),
    ] {
        let ran = tollgate(&["probe", &url]);
        let lines = ran.out.lines().count();
        let said = ran.ended(2);
        assert!(said.contains(words), "{url}: {said}");
        assert_eq!(lines, 3, "{said}");
    }
}

#[test]
fn proxies_in_the_environment_are_not_used() {
    let (server, proxy) = (deciding(), Server::saying(response("200 OK", &[], "")));
    let mut command = command(&["probe", &server.url()]);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(name, proxy.url());
    }
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    assert_eq!(proxy.heads().len(), 0);
}

#[test]
fn a_good_token_has_to_pass_and_is_never_shown() {
    let server = deciding();
    for content in [
        TOKEN.to_owned(),
        format!("Bearer {TOKEN}\n"),
        format!("  bearer  {TOKEN}\r\n"),
    ] {
        let path = file("probe-token", &content);
        let ran = probe(&server, &["--token-file", &path]);
        assert!(!ran.out.contains("c2VjcmV0") && !ran.err.contains("c2VjcmV0"));
        let out = ran.well();
        let passed = out
            .lines()
            .filter(|line| line.starts_with("passed      200  -"))
            .count();
        assert_eq!(passed, 2, "{out}");
    }
    assert!(server.heads().len() <= 3 * 40);

    // The module or Envoy denies it: the gateway does not do its work.
    let path = file("probe-token", TOKEN);
    for (status, code, header) in [
        ("401 Unauthorized", "TokenExpired", true),
        ("429 Too Many Requests", "RateLimitExceeded", true),
        ("403 Forbidden", "GatewayNotGuarded", false),
        ("404 Not Found", "RouteNotFound", false),
    ] {
        let server = Server::start(move |head| {
            vec![Piece::Bytes(match (head.contains(TOKEN), header) {
                (true, true) => response(status, &[code], ""),
                (true, false) => of_envoy(status, code),
                (false, _) => module(head),
            })]
        });
        let ran = probe(&server, &["--token-file", &path, "--json"]);
        assert!(!ran.out.contains("c2VjcmV0") && !ran.err.contains("c2VjcmV0"));
        let result: Value = serde_json::from_str(&ran.ended(1)).unwrap();
        let calls = result["calls"].as_array().unwrap();
        let denied: Vec<_> = calls
            .iter()
            .filter(|call| call["must_pass"] == true)
            .collect();
        assert_eq!(denied.len(), 2);
        assert!(
            denied.iter().all(|call| call["verdict"] == "denied"),
            "{result:#}"
        );
        assert_eq!(
            (&result["state"], &result["exit_code"]),
            (&"deciding".into(), &1.into())
        );
    }

    // What the backend responds is its own business.
    let server = Server::start(|head| {
        vec![Piece::Bytes(match head.contains(TOKEN) {
            true => response(
                "401 Unauthorized",
                &[],
                "{\"error\":{\"code\":\"PermissionDenied\"}}",
            ),
            false => module(head),
        })]
    });
    let out = probe(&server, &["--token-file", &path]).ended(0);
    assert!(out.contains("the response is the backend's"), "{out}");
}

#[test]
fn a_token_file_is_bounded_and_holds_one_token() {
    let server = deciding();
    for (content, words) in [
        ("", "no token in it"),
        ("Bearer ", "no token in it"),
        ("secret-one secret-two", "no token in it"),
        ("secret\u{e9}", "no token in it"),
        (&"secret".repeat(10_000), "larger than a token"),
    ] {
        let said = probe(
            &server,
            &["--token-file", &file("probe-bad-token", content)],
        )
        .ended(2);
        assert!(said.contains(words) && !said.contains("secret"), "{said}");
    }
    assert!(
        probe(&server, &["--token-file", "/no/such"])
            .ended(2)
            .contains("/no/such: No such file")
    );
    assert!(
        probe(&server, &["--token-file", "-"])
            .ended(2)
            .contains("standard input")
    );
    assert_eq!(server.heads().len(), 0);
}

#[test]
fn wait_repeats_until_the_module_decides() {
    let heads = AtomicUsize::new(0);
    let server = Server::start(move |head| {
        // Two rounds are open.
        let is_open = heads.fetch_add(1, Ordering::SeqCst) < 60;
        vec![Piece::Bytes(if is_open {
            response("200 OK", &[], "")
        } else {
            module(head)
        })]
    });
    let ran = probe(&server, &["--wait", "30s"]);
    assert!(ran.err.starts_with("waiting: open: "), "{}", ran.err);
    let out = ran.well();
    assert!(
        !out.contains("open  "),
        "the last round is shown alone: {out}"
    );

    let start = Instant::now();
    let server = Server::saying(of_envoy("403 Forbidden", "GatewayNotGuarded"));
    probe(&server, &["--wait", "3s"]).ended(1);
    let free = "http://127.0.0.1:1";
    let said = tollgate(&["probe", free, "--wait", "3s"]).ended(2);
    assert!(said.contains("waiting: nothing answered"), "{said}");
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    let silent = Server::start(|_| vec![Piece::Wait(Duration::from_secs(60))]);
    let start = Instant::now();
    probe(&silent, &["--wait", "2s", "--timeout", "1s"]).ended(2);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

/// Who renews tokens replaces the file.
#[test]
fn the_token_file_is_read_in_each_round() {
    let path = file("probe-renewed-token", "an.old.token");
    let renewed = path.clone();
    let server = Server::start(move |head| {
        if head.contains("Bearer an.old.token") {
            std::fs::write(&renewed, TOKEN).unwrap();
            return vec![Piece::Bytes(response(
                "401 Unauthorized",
                &["TokenExpired"],
                "",
            ))];
        }
        vec![Piece::Bytes(module(head))]
    });
    let ran = probe(&server, &["--wait", "30s", "--token-file", &path]);
    assert!(
        ran.err.contains("waiting: deciding, but the token"),
        "{}",
        ran.err
    );
    ran.well();
}

#[test]
fn arguments_are_checked() {
    for (arguments, words) in [
        (&["probe"][..], "<URL>"),
        (&["probe", "gateway"], "such as https://"),
        (
            &["probe", "https://user:secret@gateway"],
            "credentials in the address",
        ),
        (
            &["probe", "http://127.0.0.1:1", "--wait", "2"],
            "such as 30s",
        ),
        (
            &["probe", "http://127.0.0.1:1", "--every", "30s"],
            "--listen",
        ),
        (
            &["probe", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"],
            "--every",
        ),
        (
            &[
                "probe",
                "http://127.0.0.1:1",
                "--every",
                "1s",
                "--listen",
                "127.0.0.1:0",
                "--wait",
                "1s",
            ],
            "--wait",
        ),
        (
            &[
                "probe",
                "http://127.0.0.1:1",
                "--every",
                "1s",
                "--listen",
                "127.0.0.1:0",
                "--token-file",
                "t",
            ],
            "--token-file",
        ),
        (
            &["probe", "https://127.0.0.1:1", "--ca-file", "/no/such"],
            "/no/such: No such file",
        ),
    ] {
        let said = tollgate(arguments).ended(2);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let empty = file(
        "probe-ca.pem",
        "-----BEGIN NOTHING-----\n-----END NOTHING-----\n",
    );
    let said = tollgate(&["probe", "https://127.0.0.1:1", "--ca-file", &empty]).ended(2);
    assert!(said.contains("no certificate in it"), "{said}");
}

/// A `tollgate probe --every`, with what it writes.
struct Watching {
    child: Child,
    address: String,
    out: BufReader<std::process::ChildStdout>,
}

impl Watching {
    fn start(url: &str, more: &[&str]) -> Self {
        let arguments = ["probe", url, "--every", "1s", "--listen", "127.0.0.1:0"];
        let mut child = command(&[&arguments, more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        err.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("metrics: http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            address,
            out,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    fn metrics(&self) -> String {
        let response = self.send("GET /metrics HTTP/1.1\r\nhost: probe\r\n\r\n");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4"),
            "{head}"
        );
        body.to_owned()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_watches_with_one_request_and_serves_metrics() {
    let is_open = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&is_open);
    let server = Server::start(move |head| {
        let is_open = open.load(Ordering::SeqCst);
        vec![Piece::Bytes(if is_open {
            response("200 OK", &[], "")
        } else {
            module(head)
        })]
    });
    let mut watching = Watching::start(&server.url(), &[]);
    assert_eq!(
        watching.line(),
        format!("{}: deciding: 401, TokenNotPresent", server.url())
    );
    let metrics = watching.metrics();
    for line in [
        "# TYPE tollgate_probe_state gauge",
        "tollgate_probe_state{state=\"deciding\"} 1",
        "tollgate_probe_state{state=\"guarded\"} 0",
        "tollgate_probe_state{state=\"open\"} 0",
        "tollgate_probe_state{state=\"unanswered\"} 0",
        "# TYPE tollgate_probe_requests_total counter",
        "tollgate_probe_requests_total{state=\"open\"} 0",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line}: {metrics}");
    }
    let value = |metrics: &str, name: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let success = value(&metrics, "tollgate_probe_last_success_timestamp_seconds");
    assert!(success > 1_600_000_000.0, "{success}");

    is_open.store(true, Ordering::SeqCst);
    let line = watching.line();
    assert!(
        line.starts_with(&format!("{}: open: 200, passed", server.url())),
        "{line}"
    );
    let metrics = watching.metrics();
    assert!(
        metrics.contains("tollgate_probe_state{state=\"open\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("tollgate_probe_state{state=\"deciding\"} 0\n"),
        "{metrics}"
    );
    let heads = server.heads();
    assert!(heads.len() <= 10, "one request at a time: {}", heads.len());
    assert!(
        heads
            .iter()
            .all(|head| !head.contains("authorization") && !head.contains("no-key"))
    );

    // A container is ended by this signal.
    let pid = watching.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_listener_withstands_its_callers() {
    let watching = Watching::start("http://127.0.0.1:1", &["--json"]);
    assert!(
        watching
            .send("GET / HTTP/1.1\r\n\r\n")
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        watching
            .send("POST /metrics HTTP/1.1\r\n\r\n")
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(watching.send("\r\n\r\n").starts_with("HTTP/1.1 405 "));
    // No more than 16 idle callers are kept, and these not for long.
    let idle: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(&watching.address).unwrap())
        .collect();
    let last = idle.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    assert_eq!((&mut &*last).read(&mut [0; 1]).unwrap(), 0);
    std::thread::sleep(Duration::from_secs(6));
    let metrics = watching.metrics();
    assert!(
        metrics.contains("tollgate_probe_state{state=\"unanswered\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("tollgate_probe_last_success_timestamp_seconds 0.000\n"),
        "{metrics}"
    );
    // Too much of a request.
    let mut stream = TcpStream::connect(&watching.address).unwrap();
    let _ = stream.write_all(&[b'a'; 100_000]);
    assert!(!matches!(stream.read(&mut [0; 1]), Ok(1)));

    let taken = [
        "probe",
        "http://127.0.0.1:1",
        "--every",
        "1s",
        "--listen",
        &watching.address,
    ];
    let said = tollgate(&taken).ended(2);
    assert!(
        said.contains(&format!(
            "--listen {}: Address already in use",
            watching.address
        )),
        "{said}"
    );
}
