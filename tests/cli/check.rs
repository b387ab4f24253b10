//! `tollgate check`.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::{APP, AUDIENCE, SIGNER, TENANT};
use crate::run::{command, file, in_repository, tollgate, with_input};

const OTHER: &str = "bbbbbbbb-0000-0000-0000-000000000002";

const BAD: &str = r#"{
  "issuers": [{
    "tenant_id": "11111111-2222-3333-4444-555555555555",
    "audience": ["https://cognitiveservices.azure.com"],
    "cluster": "entra"
  }],
  "apps": [{
    "app_id": "aaaaaaaa-0000-0000-0000-000000000001",
    "limits": [{ "calls": 1, "per": 60 }]
  }]
}
"#;

fn good(more: &Value) -> String {
    let mut policy = json!({
        "issuers": [{ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra" }],
        "default_app": { "limits": [{ "calls": 10, "per": "60s" }] },
    });
    for (name, value) in more.as_object().unwrap() {
        policy[name] = value.clone();
    }
    format!("{policy:#}")
}

/// Indented, as a block of YAML.
fn block(text: &str, indent: usize) -> String {
    let lines = text
        .lines()
        .map(|line| format!("{}{line}\n", " ".repeat(indent)));
    lines.collect()
}

#[test]
fn a_good_policy_is_good() {
    let path = file("good.json", &good(&json!({})));
    let ran = tollgate(&["check", &path]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert_eq!(ran.err, format!("{path}: good\n"));
}

#[test]
fn every_error_is_shown_with_its_place_and_its_cure() {
    let path = file("bad.json", BAD);
    let ran = tollgate(&["check", &path]);
    assert_eq!(ran.code, 1);
    let expected = format!(
        r#"error: issuers[0].audiences: is missing
 --> {path}:2:3
  |
2 |   "issuers": [{{
  |               ^
  |
  = help: add the accepted values of aud, such as ["https://cognitiveservices.azure.com"]

error: issuers[0].audience: unknown key
 --> {path}:4:5
  |
4 |     "audience": ["https://cognitiveservices.azure.com"],
  |     ^^^^^^^^^^
  |
  = help: did you mean "audiences"?

error: apps[0].limits[0].per: the number 60 has no unit
 --> {path}:9:37
  |
9 |     "limits": [{{ "calls": 1, "per": 60 }}]
  |                                     ^^
  |
  = help: write it in quotes with its unit, such as "60s"

{path}: 3 errors
"#
    );
    assert_eq!(ran.err, expected.replace(":2:3\n", ":2:15\n"));
}

#[test]
fn json_that_is_none_is_shown_where_it_ends() {
    let path = file("comma.json", "{\n  \"issuers\": [],\n}\n");
    let said = tollgate(&["check", &path]).ended(1);
    assert!(said.contains("not valid JSON: trailing comma"), "{said}");
    assert!(said.contains("comma.json:3:1"), "{said}");
    let path = file(
        "twice.json",
        "{\n  \"mode\": \"report\",\n  \"mode\": \"enforce\"\n}\n",
    );
    let said = tollgate(&["check", &path]).ended(1);
    assert!(said.contains("repeated member \"mode\""), "{said}");
    assert!(said.contains("twice.json:3:"), "{said}");
}

#[test]
fn policies_are_found_in_what_gateways_are_configured_with() {
    let text = block(BAD, 12);
    let structure = block(BAD, 6);
    for (name, content, line) in [
        // Envoy, the policy as text and as a structure.
        (
            "text.yaml",
            format!(
                "http_filters:\n  - name: a\n    typed_config:\n      config:\n        vm_config: {{}}\n        configuration:\n          \"@type\": type.googleapis.com/google.protobuf.StringValue\n          value: |\n{text}"
            ),
            "text.yaml:17:49",
        ),
        (
            "struct.yaml",
            format!(
                "config:\n  vm_config: {{}}\n  configuration:\n    \"@type\": type.googleapis.com/google.protobuf.Struct\n    value:\n{structure}"
            ),
            "struct.yaml:14:43",
        ),
        (
            "istio.yaml",
            format!("kind: Service\n---\nkind: WasmPlugin\nspec:\n  pluginConfig:\n{structure}"),
            "istio.yaml:14:43",
        ),
        (
            "gateway.yaml",
            format!(
                "kind: EnvoyExtensionPolicy\nspec:\n  wasm:\n  - name: x\n    config:\n{structure}"
            ),
            "gateway.yaml:14:43",
        ),
    ] {
        let path = file(name, &content);
        let said = tollgate(&["check", &path]).ended(1);
        assert!(said.contains(line), "{line}\n{content}\n{said}");
        assert!(
            said.contains("apps[0].limits[0].per: the number 60 has no unit"),
            "{said}"
        );
    }
    // In JSON the text is escaped, so it is shown as it reads.
    let config = json!({ "config": { "vm_config": {}, "configuration": {
        "@type": "type.googleapis.com/google.protobuf.StringValue", "value": BAD } } });
    let path = file("text.json", &config.to_string());
    let said = tollgate(&["check", &path]).ended(1);
    let place = "text.json:1 (config.configuration.value):9:37";
    assert!(said.contains(place), "{said}");
}

#[test]
fn text_that_is_no_json_is_shown_in_the_file_that_holds_it() {
    let text = block("{\n  \"issuers\": [],\n\n}", 8);
    let yaml = format!(
        "config:\n  vm_config: {{}}\n  configuration:\n      \"@type\": x/StringValue\n      value: |\n{text}"
    );
    let said = tollgate(&["check", &file("literal.yaml", &yaml)]).ended(1);
    assert!(
        said.contains("literal.yaml:9:9") && said.contains("trailing comma"),
        "{said}"
    );
    // Folded and quoted text is shown as it reads.
    for value in [
        "\"{\\\"mode\\\": 7}\"",
        "'{\"mode\": 7}'",
        ">\n        {\"mode\":\n        7}",
    ] {
        let yaml = format!(
            "config:\n  vm_config: {{}}\n  configuration:\n      \"@type\": x/StringValue\n      value: {value}\n"
        );
        let said = tollgate(&["check", &file("quoted.yaml", &yaml)]).ended(1);
        assert!(
            said.contains("(config.configuration.value):1:10"),
            "{value}\n{said}"
        );
    }
}

/// A generated policy may be one line of megabytes: places are told all the same.
#[test]
fn a_line_of_megabytes_is_shown_in_pieces() {
    let app = |index: usize| {
        let per = if index.is_multiple_of(1_000) {
            json!(60)
        } else {
            json!("60s")
        };
        json!({ "app_id": format!("aaaaaaaa-0000-0000-0000-{index:012}"), "limits": [{ "calls": 1, "per": per }] })
    };
    let apps: Vec<Value> = (0..20_000).map(app).collect();
    let text = good(&json!({ "apps": apps }));
    let text = serde_json::from_str::<Value>(&text).unwrap().to_string();
    let said = tollgate(&["check", &file("one-line.json", &text)]).ended(1);
    assert!(
        said.ends_with("20 errors\n"),
        "{}",
        &said[said.len() - 300..]
    );
    for (at, _) in text.match_indices("\"per\":60}") {
        let column = at + "\"per\":".len() + 1;
        assert!(
            said.contains(&format!("one-line.json:1:{column}\n")),
            "{column}"
        );
    }
    assert!(said.lines().all(|line| line.len() < 400));
}

#[test]
fn a_policy_with_a_slip_in_every_name_is_one() {
    let said = with_input(&["check", "-"], "{\"issuer\": []}").ended(1);
    assert!(
        said.contains("issuer: unknown key") && said.contains("did you mean \"issuers\"?"),
        "{said}"
    );
}

#[test]
fn nothing_is_judged_good_when_nobody_listens() {
    let path = file("nobody.json", BAD);
    let mut child = command(&["check", &path])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_ne!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn every_policy_of_several_is_checked_and_other_plugins_are_left_alone() {
    let config = json!({ "filters": [
        { "vm_config": {}, "configuration": { "@type": "StringValue", "value": good(&json!({})) } },
        { "vm_config": {}, "configuration": { "@type": "StringValue", "value": "{\"other\": 1}" } },
        { "vm_config": {}, "name": "tollgate-b", "configuration": { "@type": "Struct", "value": {} } },
    ]});
    let path = file("several.json", &config.to_string());
    let said = tollgate(&["check", &path]).ended(1);
    assert!(
        said.contains("filters[0].configuration.value: good"),
        "{said}"
    );
    assert!(
        said.contains("filters[2].configuration.value: 1 error"),
        "{said}"
    );
    assert!(!said.contains("filters[1]"), "{said}");
}

#[test]
fn the_shipped_configuration_is_good() {
    let said = tollgate(&["check", &in_repository("envoy/envoy.yaml")]).ended(0);
    assert!(said.contains("keys are fetched without TLS"), "{said}");
    assert!(said.contains("good, with "), "{said}");
}

#[test]
fn placeholders_are_told_with_what_fills_them_in() {
    let command = "envoy/azure.py | tollgate check -";
    let document = std::fs::read_to_string(in_repository("docs/azure.md")).unwrap();
    assert!(document.contains(&format!("$ {command}\n")));
    for (name, errors) in [("envoy/azure.json", 2), ("envoy/azure.yaml", 1)] {
        let said = tollgate(&["check", &in_repository(name)]).ended(1);
        assert_eq!(said.matches("error: ").count(), errors, "{said}");
        assert_eq!(said.matches(command).count(), errors, "{said}");
    }
    let said = with_input(&["check", "-"], BAD).ended(1);
    assert!(!said.contains("placeholder"), "{said}");
}

#[test]
fn what_is_unwise_is_a_warning_and_with_strict_an_error() {
    let issuer = |more: Value| {
        let mut issuer =
            json!({ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra" });
        issuer
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "issuers": [issuer] })
    };
    for (policy, said) in [
        (json!({ "default_app": {} }), "$: nobody has a limit"),
        (
            json!({ "apps": [{ "app_id": APP, "limits": [{ "calls": 1, "per": "1s" }] }], "default_app": {} }),
            "default_app: applications that are not listed have no limits",
        ),
        (
            issuer(json!({ "audiences": ["https://graph.microsoft.com/"] })),
            "issuers[0].audiences[0]: \"https://graph.microsoft.com\" is the audience of Microsoft Graph",
        ),
        (
            issuer(json!({ "audiences": [AUDIENCE, "00000003-0000-0000-C000-000000000000"] })),
            "issuers[0].audiences[1]",
        ),
        (
            issuer(json!({ "clock_skew": "301s" })),
            "issuers[0].clock_skew: 301 s",
        ),
        (
            issuer(
                json!({ "required_claims": [{ "name": "roles", "values": ["Call"] }, { "name": "department", "values": ["Finance"] }] }),
            ),
            "issuers[0].required_claims[1]: a text in \"department\" is compared as a whole",
        ),
        (
            issuer(json!({ "authority": "http://idp" })),
            "keys are fetched without TLS",
        ),
        (
            json!({ "apps": [
                { "app_id": APP, "name": "team.a" },
                { "app_id": OTHER, "name": "team_a" },
            ] }),
            "apps[1].name: \"team_a\" is \"team_a\" in metrics, where the calls of \"team.a\" are counted too",
        ),
        (
            json!({ "apps": [{ "app_id": APP, "name": "none" }] }),
            "apps[0].name: \"none\" is \"none\" in metrics, where requests without an application",
        ),
        (
            json!({ "public_paths": ["/ok", "/open*"] }),
            "public_paths[1]: opens the API",
        ),
        (
            json!({ "public_paths": ["/OpenAI/models"] }),
            "public_paths[0]: opens the API",
        ),
        (
            json!({ "mode": "report" }),
            "mode: \"report\" denies nothing",
        ),
        (
            json!({ "api_keys": { "headers": [] } }),
            "keys in the header \"api-key\"",
        ),
        (
            issuer(json!({ "jwks": { "keys": [SIGNER.jwk()] } })),
            "issuers[0].cluster: has no effect: nothing is fetched with jwks",
        ),
        (
            json!({ "default_app": { "deployments": ["*"], "limits": [{ "calls": 1, "per": "1s" }] } }),
            "default_app.deployments: names every deployment",
        ),
    ] {
        let path = file("unwise.json", &good(&policy));
        let told = tollgate(&["check", &path]).ended(0);
        assert!(
            told.contains(&format!("warning: {said}")) || told.contains(said),
            "{said}\n{told}"
        );
        assert!(told.contains("good, with"), "{told}");
        tollgate(&["check", "--strict", &path]).ended(1);
    }
    for policy in [
        issuer(json!({ "clock_skew": "300s" })),
        issuer(json!({ "required_claims": [
            { "name": "scp", "values": ["chat"] }, { "name": "scope", "values": ["chat"] },
            { "name": "groups", "values": ["a", "b"] }, { "name": "department" },
            { "name": "department", "values": ["Finance"], "separator": "\n" },
        ] })),
        json!({ "public_paths": ["/status", "/opening"] }),
        json!({ "apps": [
            { "app_id": APP, "name": "team-a" },
            { "app_id": OTHER, "name": "team_a" },
        ] }),
        json!({ "apps": [{ "app_id": APP }], "default_app": { "access": "deny" , "limits": [{ "calls": 1, "per": "1s" }] } }),
    ] {
        let path = file("wise.json", &good(&policy));
        let told = tollgate(&["check", "--strict", &path]).ended(0);
        assert!(!told.contains("warning"), "{told}");
    }
}

#[test]
fn the_effective_policy_has_every_default_and_means_the_same() {
    let written = good(&json!({
        "apps": [{ "app_id": APP, "limits": [{ "tokens": 7, "per": "day" }], "roles": ["Chat"] }],
        "roles": { "Chat": { "data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action"] } },
        "responses": { "unauthenticated": { "message": "No" } },
    }));
    let path = file("written.json", &written);
    let effective = tollgate(&["check", "--print-effective", &path]).well();
    let value: Value = serde_json::from_str(&effective).unwrap();
    let issuer = &value["issuers"][0];
    assert_eq!(issuer["clock_skew"], "60s");
    assert_eq!(issuer["refresh"]["keep_stale_for"], "24h");
    assert_eq!(issuer["refresh"]["timeout"], "5s");
    assert_eq!(issuer["algorithms"], json!(["RS256"]));
    let address =
        format!("https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration");
    assert_eq!(issuer["openid_config"], address);
    assert_eq!(
        issuer["issuers"][0],
        format!("https://sts.windows.net/{TENANT}/")
    );
    assert_eq!(
        value["responses"]["unauthenticated"],
        json!({ "status": 401, "message": "No" })
    );
    assert_eq!(value["responses"]["unavailable"]["status"], 503);
    assert_eq!(
        value["apps"][0]["limits"][0],
        json!({ "tokens": 7, "per": "day", "count": "all", "reserve": false })
    );
    for app in [&value["apps"][0], &value["default_app"]] {
        assert_eq!(app["caps"], json!({ "content_filter_override": false }));
    }
    assert_eq!(value["log"]["filter_state"][11], "estimated_tokens");
    assert_eq!(value["mode"], "enforce");
    // Filled in once, nothing is left to fill in, and nothing is refused.
    let path = file("effective.json", &effective);
    assert_eq!(
        tollgate(&["check", "--print-effective", &path]).well(),
        effective
    );
    let effective = tollgate(&[
        "check",
        "--print-effective",
        &in_repository("envoy/envoy.yaml"),
    ])
    .well();
    let path = file("effective-sample.json", &effective);
    assert_eq!(
        tollgate(&["check", "--print-effective", &path]).well(),
        effective
    );
}

#[test]
fn machines_read_places_as_numbers() {
    let ran = with_input(&["check", "--format", "json", "-"], BAD);
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let last = found.as_array().unwrap().last().unwrap();
    let expected = json!({
        "file": "standard input", "line": 9, "column": 37, "severity": "error",
        "problem": "apps[0].limits[0].per: the number 60 has no unit",
        "remedy": "write it in quotes with its unit, such as \"60s\"",
    });
    assert_eq!(*last, expected);
    let ran = with_input(&["check", "--format", "json", "-"], &good(&json!({})));
    assert_eq!((ran.code, ran.out.as_str()), (0, "[]\n"));
}

#[test]
fn what_is_no_policy_is_said() {
    for (name, content, said) in [
        ("empty.json", &b""[..], "empty"),
        ("empty.yaml", b"", "is empty"),
        ("none.yaml", b"static_resources: {}\n", "no policy in it"),
        ("tabs.yaml", b"a: b\n\t- c: d\n", "not valid YAML"),
        ("twice.yaml", b"a: 1\na: 2\n", "repeated member \"a\""),
        (
            "bytes.json",
            b"{\n\xff}",
            "bytes.json:2: not UTF-8, at byte 2",
        ),
    ] {
        let path = file(name, content);
        let ran = tollgate(&["check", &path]);
        assert!(ran.err.contains(said), "{name}: {}", ran.err);
        let expected = if name == "empty.json" { 1 } else { 2 };
        assert_eq!(ran.code, expected, "{name}: {}", ran.err);
    }
    let said = tollgate(&["check", "no/such/file"]).ended(2);
    assert!(
        said.starts_with("error: no/such/file: No such file"),
        "{said}"
    );
    tollgate(&["check"]).ended(2);
}

#[test]
fn hostile_documents_end() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    tollgate(&["check", &file("deep.json", &deep)]).ended(1);
    let said = tollgate(&["check", &file("deep.yaml", &deep)]).ended(2);
    assert!(said.contains("recursion limit"), "{said}");
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let said = tollgate(&["check", &file("deeper.yaml", &deep)]).ended(2);
    assert!(said.contains("nested too deeply"), "{said}");
    let mut laughs = "a0: &a0 [x]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{before}, {before}, {before}]\n");
    }
    let said = tollgate(&["check", &file("laughs.yaml", &laughs)]).ended(2);
    assert!(said.contains("more than"), "{said}");
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    let path = file("colour.json", BAD);
    assert!(!tollgate(&["check", &path]).err.contains('\u{1b}'));
    assert!(
        tollgate(&["check", "--color", "always", &path])
            .err
            .contains("\u{1b}[")
    );
}
