//! `tollgate explain`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::common::{
    APP, AUDIENCE, NOON, OTHER, PATH, SIGNER, TENANT, policy, v1_claims, v2_claims, with,
};
use crate::run::{Ran, command, file, tollgate, with_input};

const AT: &str = "2026-03-01T12:00:00Z";

/// Explains a request with a token, as an object.
fn explain(name: &str, policy: &Value, token: &str, more: &[&str]) -> (i32, Value) {
    let policy = file(&format!("explain-{name}.json"), &policy.to_string());
    let mut arguments = vec!["explain", &policy, "--at", AT, "--format", "json"];
    if !token.is_empty() {
        arguments.extend(["--token-file", "-"]);
    }
    if !more.contains(&"--path") {
        arguments.extend(["--path", PATH]);
    }
    arguments.extend(more);
    let ran = with_input(&arguments, token);
    let out = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    (ran.code, out)
}

/// The step at which it ended, and its outcome.
fn last(explained: &Value) -> (&str, &str) {
    let steps = explained["steps"].as_array().unwrap();
    let reached = steps.iter().rfind(|step| step["outcome"] != "not reached");
    let step = reached.unwrap();
    (
        step["step"].as_str().unwrap(),
        step["outcome"].as_str().unwrap(),
    )
}

fn found<'a>(explained: &'a Value, name: &str) -> &'a str {
    let mut steps = explained["steps"].as_array().unwrap().iter();
    let step = steps.find(|step| step["step"] == name).unwrap();
    step["found"].as_str().unwrap()
}

#[test]
fn every_refusal_falls_at_its_step_with_the_gateways_answer() {
    let claims = v1_claims;
    let base = json!({});
    let token = |changes: Value| SIGNER.token(&with(claims(), &changes));
    let good = token(json!({}));
    let now = NOON / 1000;
    let header = |header: Value| SIGNER.sign(&header, &claims().to_string());
    let denied = json!({ "default_app": { "access": "deny" } });
    let role =
        json!({ "default_app": { "roles": ["R"] }, "roles": { "R": { "data_actions": [] } } });
    let deployment = json!({ "default_app": { "deployments": ["gpt-4"] } });
    let reserved =
        json!({ "default_app": { "limits": [{ "tokens": 1, "per": "60s", "reserve": true }] } });
    for (index, (policy_more, token, more, step, status, code)) in [
        (
            &base,
            good.as_str(),
            &["--header", "api-key"][..],
            "API key",
            403,
            "AuthenticationTypeDisabled",
        ),
        (&base, "", &[], "credential", 401, "TokenNotPresent"),
        (&base, "a.b", &[], "token", 401, "JwtInvalid"),
        (
            &base,
            &token(json!({ "iss": "https://evil/" })),
            &[],
            "issuer",
            401,
            "TokenIssuerNotAllowed",
        ),
        (
            &base,
            &header(json!({ "alg": "ES256", "kid": "key-1" })),
            &[],
            "algorithm",
            401,
            "JwtInvalid",
        ),
        (
            &base,
            &header(json!({ "alg": "RS256", "kid": "key-1", "typ": "x" })),
            &[],
            "algorithm",
            401,
            "JwtInvalid",
        ),
        (
            &base,
            &OTHER.token(&claims()),
            &[],
            "key",
            401,
            "TokenSignatureKeyNotFound",
        ),
        (
            &base,
            &good[..good.len() - 8].to_owned().add("AAAAAAAA"),
            &[],
            "signature",
            401,
            "TokenSignatureInvalid",
        ),
        (
            &base,
            &token(json!({ "exp": null })),
            &[],
            "claims",
            401,
            "TokenClaimNotFound",
        ),
        (
            &base,
            &token(json!({ "ver": null })),
            &[],
            "tenant",
            401,
            "TokenClaimNotFound",
        ),
        (
            &base,
            &token(json!({ "appid": null })),
            &[],
            "application",
            401,
            "TokenClaimNotFound",
        ),
        (
            &base,
            &token(json!({ "exp": now - 3600 })),
            &[],
            "time",
            401,
            "TokenExpired",
        ),
        (
            &base,
            &token(json!({ "nbf": now + 3600 })),
            &[],
            "time",
            401,
            "TokenNotYetValid",
        ),
        (
            &base,
            &token(json!({ "aud": "x" })),
            &[],
            "audience",
            401,
            "TokenAudienceNotAllowed",
        ),
        (
            &base,
            &token(json!({ "tid": null })),
            &[],
            "tenant",
            401,
            "TokenClaimNotFound",
        ),
        (&denied, &good, &[], "application", 403, "AppNotAllowed"),
        (&role, &good, &[], "operation", 403, "PermissionDenied"),
        (
            &role,
            &good,
            &["--path", "/openai/%6dodels"],
            "operation",
            403,
            "PermissionDenied",
        ),
        (
            &deployment,
            &good,
            &[],
            "deployment",
            403,
            "DeploymentNotAllowed",
        ),
        (
            &deployment,
            &good,
            &["--path", "/openai/v1/responses"],
            "deployment",
            403,
            "DeploymentNotAllowed",
        ),
        (
            &base,
            &good,
            &["--header", "x-policy-id: no-filter"],
            "caps",
            403,
            "ParameterNotAllowed",
        ),
        (&reserved, &good, &[], "limits", 413, "CallExceedsLimit"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("refused-{index}");
        let (exit, explained) = explain(&name, &policy(policy_more), token, more);
        assert_eq!(
            (exit, last(&explained)),
            (1, (step, "refused")),
            "{code}: {explained:#}"
        );
        assert_eq!(explained["answer"]["status"], status, "{code}");
        let body: Value =
            serde_json::from_str(explained["answer"]["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["error"]["code"], code, "{explained:#}");
        assert_eq!(explained["allowed"], false);
        let steps = explained["steps"].as_array().unwrap();
        let before = steps.iter().take_while(|one| one["step"] != step);
        assert!(
            before.into_iter().all(|one| one["outcome"] == "passed"),
            "{explained:#}"
        );
    }
}

trait Add {
    fn add(self, end: &str) -> String;
}

impl Add for String {
    fn add(mut self, end: &str) -> String {
        self.push_str(end);
        self
    }
}

#[test]
fn an_allowed_request_passes_every_step() {
    let more = json!({
        "apps": [{ "app_id": APP, "name": "batch", "deployments": ["gpt-*"],
            "limits": [{ "calls": 10, "per": "60s", "count": [200] }, { "tokens": 5, "per": "month" }] }],
        "forward": { "headers": { "x-app": "app_name" } },
    });
    for claims in [v1_claims(), v2_claims()] {
        let (exit, explained) = explain("allowed", &policy(&more), &SIGNER.token(&claims), &[]);
        assert_eq!(
            (exit, last(&explained)),
            (0, ("limits", "passed")),
            "{explained:#}"
        );
        assert_eq!(explained["allowed"], true);
        assert_eq!(explained["answer"], Value::Null);
        assert_eq!(
            found(&explained, "limits"),
            "10 calls per 60 s, counting [200], 5 tokens per calendar month; counted from nothing"
        );
        assert_eq!(
            found(&explained, "application"),
            format!("{APP} is apps[0] \"batch\", which may call")
        );
        assert!(
            found(&explained, "time").contains("exp 2026-03-01T13:00:00Z, in 60 min"),
            "{explained:#}"
        );
        assert!(found(&explained, "operation").ends_with("without roles everything is allowed"));
        assert_eq!(
            found(&explained, "caps"),
            "x-policy-id is absent; content_filter_override: not allowed"
        );
        let notes = explained["notes"].to_string();
        assert!(notes.contains("the backend sees x-app: batch"), "{notes}");
    }
}

#[test]
fn the_body_names_the_model() {
    let more = json!({ "default_app": { "deployments": ["gpt-4o"] } });
    let token = SIGNER.token(&v1_claims());
    for (model, code) in [("gpt-4o", 0), ("gpt-4", 1)] {
        let body = file(
            &format!("{model}.json"),
            &json!({ "model": model }).to_string(),
        );
        let arguments = ["--path", "/openai/v1/responses", "--body", &body];
        let (exit, explained) = explain("body", &policy(&more), &token, &arguments);
        assert_eq!(exit, code, "{explained:#}");
        assert!(found(&explained, "deployment").contains(&format!("the body names \"{model}\"")));
    }
    let (_, explained) = explain(
        "body",
        &policy(&json!({})),
        &token,
        &["--path", "/openai/v1/responses"],
    );
    assert!(
        explained["notes"]
            .to_string()
            .contains("give it with --body"),
        "{explained:#}"
    );
}

#[test]
fn public_paths_and_report_mode_are_told() {
    let more = json!({ "public_paths": ["/status"] });
    let (exit, explained) = explain(
        "public",
        &policy(&more),
        "",
        &["--path", "/status", "--method", "GET"],
    );
    assert_eq!((exit, last(&explained)), (0, ("public path", "passed")));
    let (exit, explained) = explain("report", &policy(&json!({ "mode": "report" })), "", &[]);
    assert_eq!(
        (exit, last(&explained)),
        (0, ("credential", "would refuse"))
    );
    let strip = json!({ "api_keys": { "action": "strip" } });
    let token = SIGNER.token(&v1_claims());
    let (exit, explained) = explain(
        "strip",
        &policy(&strip),
        &token,
        &["--header", "Api-Key: x"],
    );
    assert_eq!(
        (exit, found(&explained, "API key")),
        (0, "in header api-key, removed")
    );
    assert!(
        explained["notes"]
            .to_string()
            .contains("does not see api-key: the policy has API keys removed")
    );
}

#[test]
fn headers_that_do_not_go_on_are_told_with_the_reason() {
    let more = json!({
        "api_keys": { "action": "strip" },
        "forward": { "authorization": false, "headers": { "x-app": "app_name" } },
        "usage": { "stream_options": "inject" },
    });
    let sent = [
        "accept-encoding: gzip",
        "content-length: 2",
        "X_App: other",
        "x-http-method: GET",
        "sec-websocket-protocol: openai-insecure-api-key.x",
    ];
    let mut arguments = vec![];
    for header in sent {
        arguments.extend(["--header", header]);
    }
    let token = SIGNER.token(&v1_claims());
    let (exit, explained) = explain("unseen", &policy(&more), &token, &arguments);
    assert_eq!(exit, 0, "{explained:#}");
    let notes = explained["notes"].to_string();
    for told in [
        "accept-encoding: the answer is read for its usage, and must not be compressed",
        "content-length: usage is asked for in streams, so the body may grow",
        "x_app: only the gateway may set it",
        "x-http-method: it could replace the path or the method that was looked at",
        "authorization: the policy keeps the token from the backend",
        "sec-websocket-protocol: it holds nothing but API keys",
    ] {
        let told = format!("the backend does not see {told}");
        assert!(notes.contains(&told), "{told}: {notes}");
    }
}

#[test]
fn for_people_it_ends_with_the_answer() {
    let path = file("explain-people.json", &policy(&json!({})).to_string());
    let arguments = [
        "explain",
        &path,
        "--at",
        AT,
        "--path",
        "/openai/models",
        "--method",
        "GET",
    ];
    let ran = tollgate(&arguments);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let expected = r#"  1  API key          passed       none in headers api-key, ocp-apim-subscription-key, x-api-key, query api-key, subscription-key, WebSocket subprotocols
  2  public path      passed       /openai/models is none of 0 public paths
  3  credential       refused      no bearer token; no authorization header
  4  token            not reached
"#;
    assert!(ran.out.starts_with(expected), "{}", ran.out);
    let answer = r#"
The answer:

HTTP/1.1 401
content-type: application/json
x-tollgate-code: TokenNotPresent
www-authenticate: Bearer realm="tollgate"

{"error":{"code":"TokenNotPresent","message":"Access token is missing. Send a Microsoft Entra ID token in the Authorization header.","type":"invalid_request_error","param":null}}
"#;
    assert!(ran.out.ends_with(answer), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'));
    let coloured = tollgate(&[&arguments[..], &["--color", "always"]].concat());
    assert!(coloured.out.contains("\u{1b}["));
}

#[test]
fn tokens_come_from_files_the_environment_and_standard_input_and_never_from_arguments() {
    let path = file("explain-sources.json", &policy(&json!({})).to_string());
    let token = SIGNER.token(&v1_claims());
    let arguments = ["explain", &path, "--at", AT, "--path", PATH];
    let with_file = file("token", &format!("Bearer {token}\n"));
    let from_file = tollgate(&[&arguments[..], &["--token-file", &with_file]].concat());
    assert!(from_file.well().contains("Allowed"));
    let from_input = with_input(&[&arguments[..], &["--token-file", "-"]].concat(), &token);
    let out = from_input.well();
    assert!(out.contains("Allowed"));
    assert!(!out.contains(&token), "a token is shown");
    let mut run = command(&[&arguments[..], &["--token-env", "A_TOKEN"]].concat());
    assert!(
        run.env("A_TOKEN", &token)
            .output()
            .unwrap()
            .status
            .success()
    );
    let missing = tollgate(&[&arguments[..], &["--token-env", "NO_SUCH_TOKEN"]].concat());
    assert!(
        missing
            .ended(2)
            .contains("the environment has no NO_SUCH_TOKEN")
    );
    let header = format!("Authorization: Bearer {token}");
    let refused = tollgate(&[&arguments[..], &["--header", &header]].concat()).ended(2);
    assert!(refused.contains("a token in an argument") && !refused.contains(&token));
    let empty = file("empty-token", "\n");
    let ran = tollgate(&[&arguments[..], &["--token-file", &empty]].concat());
    assert!(ran.ended(2).contains("no token in it"));
    let twice = tollgate(&[&arguments[..], &["--token-file", "-", "--body", "-"]].concat());
    assert!(twice.ended(2).contains("named twice"));
}

#[test]
fn it_decides_at_any_time() {
    let path = file("explain-times.json", &policy(&json!({})).to_string());
    let token = file("times-token", &SIGNER.token(&v1_claims()));
    let at = |at: &str| {
        tollgate(&[
            "explain",
            &path,
            "--path",
            PATH,
            "--token-file",
            &token,
            "--at",
            at,
        ])
    };
    for good in ["issued", "1772366400", "2026-03-01T12:59:59Z"] {
        assert_eq!(at(good).code, 0, "{good}");
    }
    let expired = at("2026-03-01T13:01:00Z").ended(1);
    assert!(
        expired.contains("the token has expired") && expired.contains("--at issued"),
        "{expired}"
    );
    assert_eq!(at("now").code, 1);
    for bad in [
        "soon",
        "2026-13-01T00:00:00Z",
        "2026-03-01",
        "2026-03-01T12:00:00",
        "-1",
    ] {
        let said = tollgate(&["explain", &path, "--path", PATH, &format!("--at={bad}")]);
        assert!(said.ended(2).contains("not a time"), "{bad}");
    }
}

fn fetched(authority: &str) -> Value {
    json!({ "issuers": [{
        "tenant_id": TENANT, "authority": authority, "audiences": [AUDIENCE], "cluster": "entra",
    }]})
}

fn claims_of(authority: &str) -> Value {
    with(
        v2_claims(),
        &json!({ "iss": format!("{authority}/{TENANT}/v2.0") }),
    )
}

#[test]
fn without_keys_it_is_not_decided() {
    let path = file(
        "explain-keys.json",
        &fetched("https://login.microsoftonline.com").to_string(),
    );
    let token = file("keys-token", &SIGNER.token(&v1_claims()));
    let arguments = [
        "explain",
        &path,
        "--at",
        AT,
        "--path",
        PATH,
        "--token-file",
        &token,
    ];
    let said = tollgate(&arguments).ended(2);
    assert!(
        said.contains("key              undecided") && said.contains("--keys FILE"),
        "{said}"
    );
    let mut report = fetched("https://login.microsoftonline.com");
    report["mode"] = "report".into();
    let report = file("explain-report.json", &report.to_string());
    let said = tollgate(&[&["explain", &report], &arguments[2..]].concat()).ended(2);
    assert!(
        said.contains("undecided") && !said.contains("Allowed"),
        "{said}"
    );
    let keys = file("keys.json", &json!({ "keys": [SIGNER.jwk()] }).to_string());
    tollgate(&[&arguments[..], &["--keys", &keys]].concat()).well();
    let said = tollgate(&[&arguments[..], &["--keys", &path]].concat()).ended(2);
    assert!(
        said.contains("not a JSON object with an array \"keys\""),
        "{said}"
    );
}

/// Serves metadata and keys until the test ends; answers its address.
fn provider(keys: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({
        "issuer": format!("{url}/{TENANT}/v2.0"), "jwks_uri": format!("{url}/keys"),
    });
    let (metadata, keys) = (metadata.to_string(), keys.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut line)
                .unwrap();
            let body = if line.contains("/keys") {
                &keys
            } else {
                &metadata
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream
                .write_all(format!("{head}{body}").as_bytes())
                .unwrap();
        }
    });
    url
}

#[test]
fn keys_are_fetched_as_the_module_fetches_them() {
    let fetch = |authority: &str| -> Ran {
        let path = file("explain-fetch.json", &fetched(authority).to_string());
        let token = SIGNER.token(&claims_of(authority));
        let arguments = [
            "explain",
            &path,
            "--at",
            AT,
            "--path",
            PATH,
            "--token-file",
            "-",
            "--fetch",
        ];
        with_input(&arguments, &token)
    };
    let out = fetch(&provider(&json!({ "keys": [SIGNER.jwk()] }).to_string())).well();
    assert!(out.contains("fetched 1 keys"), "{out}");
    let out = fetch(&provider(&json!({ "keys": [OTHER.jwk()] }).to_string())).ended(1);
    assert!(out.contains("TokenSignatureKeyNotFound"), "{out}");
    let said = fetch(&provider("<html>")).ended(2);
    assert!(said.contains("the key set is refused"), "{said}");
    let said = fetch("http://127.0.0.1:9").ended(2);
    assert!(
        said.contains("the keys of") && said.contains("http://127.0.0.1:9/"),
        "{said}"
    );
}

#[test]
fn a_bad_policy_is_shown_as_check_shows_it() {
    let path = file("explain-bad.json", "{\"issuers\": 7}");
    let said = tollgate(&["explain", &path, "--path", PATH]).ended(2);
    assert!(
        said.contains("explain-bad.json:1:13") && said.contains("not a good policy"),
        "{said}"
    );
}

#[test]
fn a_line_of_the_log_is_explained() {
    let line = json!({
        "time": "2026-03-01T12:00:00.000Z", "outcome": "forbidden", "code": "PermissionDenied",
        "app_id": APP, "app_name": "batch", "method": "POST", "path": "/openai/models", "status": 403,
        "action": "Microsoft.CognitiveServices/accounts/OpenAI/models/read", "deployment": null,
    });
    let log =
        format!("noise\n[2026-03-01 12:00:00.000][12][info][wasm] [x] wasm log tollgate: {line}\n");
    let said = with_input(&["explain", "--log", "-"], &log).well();
    assert!(
        said.starts_with("2026-03-01T12:00:00.000Z: POST /openai/models\n"),
        "{said}"
    );
    assert!(
        said.contains("forbidden: PermissionDenied. The operation is not permitted."),
        "{said}"
    );
    assert!(
        said.contains("The operator: `tollgate operations --role NAME`"),
        "{said}"
    );
    let said = with_input(&["explain", "--log", "-", "--format", "json"], &log).well();
    let value: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(value["code"], "PermissionDenied");
    assert!(
        value["advice"]["caller"]
            .as_str()
            .unwrap()
            .starts_with("Ask the operator")
    );
    let allowed =
        json!({ "time": "2026-03-01T12:00:00Z", "outcome": "allowed", "code": null, "path": "\u{1b}[2J" }).to_string();
    let said = with_input(&["explain", "--log", "-"], &allowed).well();
    assert!(
        said.contains("allowed: it went on to the backend") && !said.contains('\u{1b}'),
        "{said}"
    );
    let report =
        json!({ "time": "2026-03-01T12:00:00Z", "outcome": "would_limited", "code": "RateLimitExceeded" }).to_string();
    assert!(
        with_input(&["explain", "--log", "-"], &report)
            .well()
            .contains("report mode")
    );
    let docker = json!({ "log": format!("{report}\n"), "stream": "stderr" }).to_string();
    let istio = format!("2026-03-01T12:00:00Z\tinfo\tenvoy wasm\t{report}\tthread=30");
    for wrapped in [docker, istio] {
        let said = with_input(&["explain", "--log", "-"], &wrapped).well();
        assert!(said.contains("would_limited"), "{said}");
    }
    for bad in ["", "x", "{\"time\":1", "{}"] {
        let said = with_input(&["explain", "--log", "-"], bad).ended(2);
        assert!(said.contains("no line of the request log"), "{bad}: {said}");
    }
}
