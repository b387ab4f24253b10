//! What the backend receives.

use serde_json::json;
use tollgate_second_host::{APP_ONE, Process, TENANT, Token, Vm, keys};

use crate::common::{good, inline, with};

#[test]
fn nothing_changes_by_default() {
    let process = Process::new();
    let mut vm = Vm::start(&process, &inline());
    let token = good(&process);
    let answer = vm
        .request()
        .bearer(&token)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-app-id", "mine")
        .send();
    let headers = answer.headers();
    assert_eq!(headers.all("authorization"), [format!("Bearer {token}")]);
    assert_eq!(headers.all("cookie"), ["a=1", "b=2"]);
    assert_eq!(headers.all("x-app-id"), ["mine"]);
    assert_eq!(headers.get(":method").as_deref(), Some("POST"));
    assert_eq!(
        headers.get(":path").as_deref(),
        Some("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"),
    );
}

#[test]
fn names_written_with_underscores_are_removed_in_every_spelling() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({
            "forward": { "headers": { "x_app_id": "app_id" } },
            "api_keys": { "action": "deny", "headers": ["my_key"], "query": ["your_key"] },
            "public_paths": ["/status"],
        }),
    );
    let mut vm = Vm::start(&process, &policy);
    let token = good(&process);
    for path in ["/status", "/openai/models"] {
        let request = vm.request().path(path).bearer(&token);
        let forged = ["x-app-id", "x_app_id", "X_App-Id"]
            .into_iter()
            .fold(request, |request, name| request.header(name, "forged"));
        let answer = forged.send();
        let headers = answer.headers();
        assert!(!headers.contains("x-app-id") && !headers.contains("X_App-Id"));
        let ours = if path == "/status" {
            &[][..]
        } else {
            &[APP_ONE]
        };
        assert_eq!(headers.all("x_app_id"), ours, "{path}");
    }
    for name in ["my-key", "my_key", "My_Key"] {
        let answer = vm.request().bearer(&token).header(name, "k").send();
        assert_eq!(answer.code(), "AuthenticationTypeDisabled", "{name}");
    }
    for query in ["your-key=k", "your_key=k", "YOUR%5fkey=k"] {
        let path = format!("/openai/models?{query}");
        let answer = vm.request().path(path).bearer(&token).send();
        assert_eq!(answer.code(), "AuthenticationTypeDisabled", "{query}");
    }
}

#[test]
fn identity_headers_are_the_tokens_and_never_the_callers() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({
            "apps": [{ "app_id": APP_ONE, "name": "batch" }],
            "forward": { "authorization": false, "headers": {
                "x-app-id": "app_id",
                "x-app-name": "app_name",
                "x-tenant-id": "tenant_id",
                "x-object-id": "object_id",
                "x-roles": "roles",
                "x-department": "claim.department",
            } },
            "public_paths": ["/status"],
        }),
    );
    let mut vm = Vm::start(&process, &policy);
    let names = [
        "x-app-id",
        "x-app-name",
        "x-tenant-id",
        "x-object-id",
        "x-roles",
        "x-department",
    ];
    let forge = |mut request: tollgate_second_host::Request<'_>| {
        for name in names {
            request = request
                .header(name, "forged")
                .header(name, "twice")
                .header(name.to_uppercase(), "forged");
        }
        request.send()
    };
    let token = Token::v1(&process).claim("roles", json!(["a", "b"]));
    let token = token.claim("department", "R&D").sign(keys::rsa(0));
    let answer = forge(vm.request().bearer(&token));
    let headers = answer.headers();
    assert!(!headers.contains("authorization"));
    assert_eq!(headers.all("x-app-id"), [APP_ONE]);
    assert_eq!(headers.all("x-app-name"), ["batch"]);
    assert_eq!(headers.all("x-tenant-id"), [TENANT]);
    assert_eq!(
        headers.all("x-object-id"),
        ["dddddddd-0000-0000-0000-000000000001"]
    );
    let [roles] = &headers.all("x-roles")[..] else {
        panic!("{headers:?}")
    };
    assert!(
        roles.contains('a') && roles.contains('b') && !roles.contains("forged"),
        "{roles}"
    );
    assert_eq!(headers.all("x-department"), ["R&D"]);

    // Claims that are not there leave no header, and a public path has no caller.
    let answer = forge(vm.request().bearer(&good(&process)));
    assert!(!answer.headers().contains("x-roles") && !answer.headers().contains("x-department"));
    let answer = forge(vm.request().method("GET").path("/status"));
    for name in names {
        assert!(
            !answer.headers().contains(name),
            "{name} of a public request"
        );
    }
}

#[test]
fn a_claim_cannot_break_out_of_its_header() {
    let process = Process::new();
    let policy = with(
        inline(),
        json!({ "forward": { "headers": { "x-department": "claim.department" } } }),
    );
    let mut vm = Vm::start(&process, &policy);
    for value in ["a\r\nx-admin: 1", "a\nb", "a\0b", "\u{fc}ber", "\u{1f600}"] {
        let token = Token::v1(&process)
            .claim("department", value)
            .sign(keys::rsa(0));
        let answer = vm
            .request()
            .bearer(&token)
            .header("x-department", "forged")
            .send();
        if !answer.is_forwarded() {
            continue;
        }
        for sent in answer.headers().all("x-department") {
            assert!(
                !sent.contains(['\r', '\n', '\0']),
                "{value:?} went on as {sent:?}"
            );
            assert_ne!(sent, "forged");
        }
    }
}
