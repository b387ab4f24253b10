//! `tollgate check` of the configuration around a policy: what leaves a gateway open, and what logs keys.

use serde_json::Value;

use crate::run::{file, in_repository, tollgate};

const ENVOY: &str = include_str!("samples/envoy-listener.yaml");
const ISTIO: &str = include_str!("samples/istio.yaml");
const ENVOY_GATEWAY: &str = include_str!("samples/envoy-gateway.yaml");

const EXACT: &str =
    "filter_state: { key: wasm.tollgate.passed, string_match: { exact: \"true\" } }";

/// A change of a sample, the place of the finding by the text there, and what is said.
struct Case<'a> {
    from: &'a str,
    to: &'a str,
    at: &'a str,
    said: &'a str,
}

fn case<'a>(from: &'a str, to: &'a str, at: &'a str, said: &'a str) -> Case<'a> {
    Case { from, to, at, said }
}

/// What is found in a text: severity, line, column, problem, remedy.
fn found(name: &str, text: &str) -> (i32, Vec<Value>) {
    let ran = tollgate(&["check", "--format", "json", &file(name, text)]);
    let list: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
    (ran.code, list.as_array().unwrap().clone())
}

/// Each case is found once, at its place, with a remedy.
fn each_is(severity: &str, name: &str, sample: &str, cases: &[Case<'_>]) {
    let (code, before) = found(name, sample);
    assert_eq!(code, 0, "{before:?}");
    for case in cases {
        assert!(sample.contains(case.from), "{}", case.from);
        let text = sample.replacen(case.from, case.to, 1);
        let (code, list) = found(name, &text);
        let told = format!("{} -> {}: {list:#?}", case.from, case.to);
        assert_eq!(code, i32::from(severity == "error"), "{told}");
        let mut said = list
            .iter()
            .filter(|finding| finding["problem"].as_str().unwrap().contains(case.said));
        let finding = said
            .next()
            .unwrap_or_else(|| panic!("{} in {told}", case.said));
        assert_eq!(
            (said.count(), &finding["severity"]),
            (0, &severity.into()),
            "{told}"
        );
        assert!(!finding["remedy"].as_str().unwrap().is_empty(), "{told}");
        let place = text
            .find(case.at)
            .unwrap_or_else(|| panic!("{} in {text}", case.at));
        let line = text[..place].matches('\n').count() + 1;
        assert_eq!(finding["line"], line, "{told}");
    }
}

fn interlock_of_envoy() -> String {
    let start = ENVOY.find("                  - name: interlock").unwrap();
    let end = ENVOY
        .find("                  - name: envoy.filters.http.router")
        .unwrap();
    ENVOY[start..end].to_owned()
}

/// Faults of the filter itself, wherever it stands.
const OF_THE_FILTER: [(&str, &str, &str, &str); 14] = [
    (
        "action: ALLOW",
        "action: DENY",
        "action: DENY",
        "only ALLOW holds back",
    ),
    (
        "action: ALLOW",
        "action: LOG",
        "action: LOG",
        "only ALLOW holds back",
    ),
    (
        "action: ALLOW",
        "action: 1",
        "action: 1",
        "only ALLOW holds back",
    ),
    (
        "rules:\n",
        "shadow_rules:\n",
        "name: interlock\n",
        "RBAC without rules lets every request pass",
    ),
    (
        "wasm.tollgate.passed",
        "wasm.tollgate.outcome",
        "wasm.tollgate.outcome",
        "\"wasm.tollgate.outcome\" is not what",
    ),
    (
        "wasm.tollgate.passed",
        "tollgate.passed",
        "tollgate.passed",
        "\"tollgate.passed\" is not what",
    ),
    (
        "exact: \"true\"",
        "exact: allowed",
        "exact: allowed",
        "not the value",
    ),
    (
        "exact: \"true\"",
        "exact: true",
        "exact: true",
        "is no text: Envoy refuses it",
    ),
    (
        "exact: \"true\"",
        "prefix: \"\"",
        "prefix",
        "matches more than the value",
    ),
    (
        "exact: \"true\"",
        "safe_regex: { regex: .* }",
        "safe_regex",
        "matches more than the value",
    ),
    (
        ", string_match: { exact: \"true\" }",
        "",
        "wasm.tollgate.passed",
        "names no value",
    ),
    (
        EXACT,
        "any: true",
        "any: true } ]",
        "lets pass what the module has not let pass",
    ),
    (
        EXACT,
        "not_id: { any: true }",
        "not_id",
        "lets pass what the module has not let pass",
    ),
    (
        "principals: [",
        "principals: [{ any: true }, ",
        "{ any: true }, ",
        "lets pass what the module has not let pass",
    ),
];

fn of_the_filter() -> Vec<Case<'static>> {
    let cases = OF_THE_FILTER.into_iter();
    let cases = cases.map(|(from, to, at, said)| case(from, to, at, said));
    cases.filter(|case| case.at != "any: true } ]").collect()
}

#[test]
fn g1_g4_envoy_without_the_interlock_is_open() {
    let interlock = interlock_of_envoy();
    each_is(
        "error",
        "no-interlock.yaml",
        ENVOY,
        &[
            case(
                &interlock,
                "",
                "name: tollgate\n                    typed_config",
                "no interlock",
            ),
            case(
                EXACT,
                "remote_ip: { address_prefix: 10.0.0.0, prefix_len: 8 }",
                "remote_ip",
                "lets pass what",
            ),
        ],
    );
    each_is(
        "warning",
        "no-action.yaml",
        ENVOY,
        &[case(
            "                        action: ALLOW\n",
            "",
            "name: interlock",
            "the action is not written",
        )],
    );
    // Another RBAC filter is none.
    let other = ENVOY.replace("name: interlock", "name: addresses").replace(
        EXACT,
        "remote_ip: { address_prefix: 10.0.0.0, prefix_len: 8 }",
    );
    let (code, list) = found("other-rbac.yaml", &other);
    assert_eq!(code, 1);
    assert!(
        list[0]["problem"]
            .as_str()
            .unwrap()
            .starts_with("no interlock"),
        "{list:?}"
    );
}

#[test]
fn g4_what_lets_more_pass_than_the_module_has_is_no_interlock() {
    each_is("error", "faults.yaml", ENVOY, &of_the_filter());
    each_is(
        "error",
        "any.yaml",
        ENVOY,
        &[case(
            EXACT,
            "any: true",
            "principals",
            "lets pass what the module has not let pass",
        )],
    );
    let second = "probes: { permissions: [{ any: true }], principals: [{ header: { name: x, present_match: true } }] }";
    let second = format!("{second}\n                          passed:\n");
    each_is(
        "error",
        "second.yaml",
        ENVOY,
        &[case(
            "passed:\n",
            &second,
            "probes",
            "lets pass what the module has not let pass",
        )],
    );
    // Envoy ignores rules next to a matcher.
    let rules = "rules:\n                        action: ALLOW\n";
    let matcher = format!("matcher: {{ on_no_match: {{}} }}\n                      {rules}");
    let place = "{ on_no_match";
    each_is(
        "error",
        "matcher.yaml",
        ENVOY,
        &[case(rules, &matcher, place, "a matcher decides here")],
    );
    // Narrower than needed is not open.
    for same in [
        "and_ids: { ids: [{ header: { name: x, present_match: true } }, { filter_state: { key: wasm.tollgate.passed, string_match: { exact: \"true\" } } }] }",
        "or_ids: { ids: [{ filter_state: { key: wasm.tollgate.passed, string_match: { exact: \"true\" } } }] }",
        "filterState: { key: wasm.tollgate.passed, stringMatch: { exact: \"true\" } }",
    ] {
        assert_eq!(
            found("same.yaml", &ENVOY.replace(EXACT, same)),
            (0, vec![]),
            "{same}"
        );
    }
    assert_eq!(
        found("zero.yaml", &ENVOY.replace("action: ALLOW", "action: 0")).0,
        0
    );
    assert_eq!(
        found(
            "default.yaml",
            &ENVOY.replace("                        action: ALLOW\n", "")
        )
        .0,
        0
    );
}

#[test]
fn g4_the_interlock_is_between_the_module_and_the_router() {
    let interlock = interlock_of_envoy();
    let without = ENVOY.replace(&interlock, "");
    let router = "                route_config:";
    let module = "                  - name: tollgate";
    for (anchor, said) in [(module, "before the module"), (router, "after the router")] {
        let moved = without.replacen(anchor, &format!("{interlock}{anchor}"), 1);
        let (code, list) = found("moved.yaml", &moved);
        assert_eq!((code, list.len()), (1, 1), "{list:?}");
        assert!(
            list[0]["problem"].as_str().unwrap().contains(said),
            "{list:?}"
        );
        let place = moved.find("name: interlock").unwrap();
        assert_eq!(list[0]["line"], moved[..place].matches('\n').count() + 1);
        // Though another is where it should be.
        let both = ENVOY.replacen(anchor, &format!("{interlock}{anchor}"), 1);
        assert_eq!(found("both.yaml", &both).0, 1, "{said}");
    }
}

#[test]
fn g4_no_route_switches_the_interlock_off() {
    let route = "route: { cluster: azure_openai } }";
    let rbac = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    let config = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let with = |config: &str| {
        format!(
            "route: {{ cluster: azure_openai }}, typed_per_filter_config: {{ interlock: {{ {config} }} }} }}"
        )
    };
    let (off, disabled) = (with(rbac), with(&format!("{config}, disabled: true")));
    let other = with(&format!(
        "{rbac}, rbac: {{ rules: {{ action: DENY, policies: {{ a: {{ permissions: [{{ any: true }}], principals: [{{ {EXACT} }}] }} }} }} }}"
    ));
    each_is(
        "error",
        "routes.yaml",
        ENVOY,
        &[
            case(route, &off, "typed_per_filter_config", "switched off here"),
            case(
                route,
                &disabled,
                "typed_per_filter_config",
                "switched off here",
            ),
            case(
                route,
                &other,
                "typed_per_filter_config",
                "only ALLOW holds back",
            ),
            case(
                "- name: interlock\n",
                "- name: interlock\n                    disabled: true\n",
                "disabled",
                "switched off",
            ),
        ],
    );
}

#[test]
fn g4_nothing_fails_open() {
    let said = "requests pass unchecked when the module fails";
    each_is(
        "error",
        "fail-open.yaml",
        ENVOY,
        &[
            case("FAIL_RELOAD", "FAIL_OPEN", "FAIL_OPEN", said),
            case(
                "failure_policy: FAIL_RELOAD",
                "failure_policy: 3",
                "failure_policy",
                said,
            ),
            case(
                "failure_policy: FAIL_RELOAD",
                "failurePolicy: FAIL_OPEN",
                "failurePolicy",
                said,
            ),
            case(
                "failure_policy: FAIL_RELOAD",
                "fail_open: true",
                "fail_open",
                said,
            ),
        ],
    );
    each_is(
        "error",
        "strategy.yaml",
        ISTIO,
        &[case("FAIL_RELOAD", "FAIL_OPEN", "FAIL_OPEN", said)],
    );
    let patch = "  jsonPatches:\n";
    let open = format!(
        "{patch}    - type: type.googleapis.com/envoy.config.listener.v3.Listener\n      name: openai/openai/https\n      operation: {{ op: replace, jsonPath: \"..config.failure_policy\", value: FAIL_OPEN }}\n"
    );
    each_is(
        "error",
        "gateway-open.yaml",
        ENVOY_GATEWAY,
        &[
            case("failOpen: false", "failOpen: true", "failOpen: true", said),
            case(patch, &open, "FAIL_OPEN", said),
        ],
    );
}

#[test]
fn g5_no_access_log_holds_keys() {
    let keys = "API keys are logged";
    let (paths, tokens) = ("the query is logged too", "tokens are logged");
    let format = "%PATH(NQ)%";
    let mut cases = Vec::new();
    for (operator, said) in [
        ("%REQ(:PATH)%", paths),
        ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", paths),
        ("%REQ(:path):100%", paths),
        ("%PATH%", paths),
        ("%PATH(WQ)%", paths),
        ("%PATH(WQ:ORIG)%", paths),
        ("%REQ(X-Original-URL)%", paths),
        ("%QUERY_PARAMS(ORIG)%", paths),
        ("%CEL(request.path)%", paths),
        ("%REQ(API-KEY)%", keys),
        ("%REQ(x-api-key)%", keys),
        ("%REQUEST_HEADER(Ocp-Apim-Subscription-Key):4%", keys),
        // What the policy itself names.
        ("%REQ(X-Team-Key)%", keys),
        ("%QUERY_PARAM(subscription-key)%", keys),
        ("a %REQ(X-ID?API-KEY)% b", keys),
        ("%REQ_WITHOUT_QUERY(api-key)%", keys),
        ("%REQ(AUTHORIZATION)%", tokens),
        ("%REQ(SEC-WEBSOCKET-PROTOCOL)%", tokens),
        ("%CEL(request.headers['authorization'])%", tokens),
    ] {
        cases.push(case(format, operator, "log_format", said));
    }
    let format = "log_format: { json_format: { path: \"%PATH(NQ)%\" } }\n";
    let text =
        "log_format: { text_format_source: { inline_string: \"%START_TIME% %REQ(:PATH)%\" } }\n";
    cases.push(case(format, text, "log_format", paths));
    cases.push(case(format, "\n", "name: stdout", "the default format"));
    each_is("warning", "access-log.yaml", ENVOY, &cases);
    for harmless in [
        "%PATH(NQ:ORIG)%",
        "%REQ(X-REQUEST-ID)%",
        "%REQ_WITHOUT_QUERY(:PATH)%",
        "%START_TIME(%Y-%m-%d)%",
        "%RESPONSE_CODE%",
        "100 %",
    ] {
        let text = ENVOY.replace("%PATH(NQ)%", harmless);
        assert_eq!(found("harmless.yaml", &text), (0, vec![]), "{harmless}");
    }
}

#[test]
fn g5_envoy_gateway_logs_whole_paths_unless_told_otherwise() {
    let proxy = ENVOY_GATEWAY.split("---\n").next().unwrap();
    let reference = "  infrastructure: { parametersRef: { group: gateway.envoyproxy.io, kind: EnvoyProxy, name: openai } }\n";
    let settings = "      settings:\n        - format: { type: JSON, json: { path: \"%PATH(NQ)%\" } }\n          sinks: [{ type: File, file: { path: /dev/stdout } }]\n";
    each_is(
        "warning",
        "gateway-log.yaml",
        ENVOY_GATEWAY,
        &[
            case(
                "%PATH(NQ)%",
                "%REQ(:PATH)%",
                "%REQ(:PATH)%",
                "the query is logged too",
            ),
            case(
                "format: { type: JSON, json: { path: \"%PATH(NQ)%\" } }\n          sinks",
                "sinks",
                "- sinks",
                "the default format",
            ),
            case(settings, "      {}\n", "{}", "the default format"),
            case(
                "  telemetry:",
                "  other:",
                "gatewayClassName",
                "the default format",
            ),
            case(
                "File, file: { path: /dev/stdout }",
                "ALS, als: {}",
                "ALS",
                "sends whole paths",
            ),
        ],
    );
    let without = ENVOY_GATEWAY.replace(proxy, "").replace(reference, "");
    let (code, list) = found("no-proxy.yaml", &without);
    assert_eq!((code, list.len()), (0, 1), "{list:?}");
    assert!(
        list[0]["problem"]
            .as_str()
            .unwrap()
            .starts_with("Envoy Gateway's access log")
    );
    let strict = tollgate(&["check", "--strict", &file("no-proxy.yaml", &without)]).ended(1);
    assert!(strict.contains("gatewayClassName"), "{strict}");
    let (code, list) = found("no-proxy.yaml", &ENVOY_GATEWAY.replace(proxy, ""));
    assert_eq!((code, list.len()), (0, 1), "{list:?}");
    let problem = list[0]["problem"].as_str().unwrap();
    assert!(problem.starts_with("the EnvoyProxy \"openai\" is not in these files"));
    let disabled = ENVOY_GATEWAY.replace(settings, "      disable: true\n");
    assert_eq!(found("disabled.yaml", &disabled), (0, vec![]));
}

#[test]
fn g5_istio_logs_what_its_formats_say() {
    let telemetry = |name: &str| {
        format!(
            "---\nkind: Telemetry\nspec: {{ accessLogging: [{{ providers: [{{ name: {name} }}] }}] }}\n"
        )
    };
    let mesh = |config: &str| {
        format!("---\nkind: IstioOperator\nspec: {{ meshConfig: {{ {config} }} }}\n")
    };
    let provider = |format: &str| {
        mesh(&format!(
            "extensionProviders: [{{ name: x, envoyFileAccessLog: {{ path: /dev/stdout{format} }} }}]"
        ))
    };
    for (more, expected) in [
        (telemetry("tollgate"), 0),
        (telemetry("envoy"), 1),
        (mesh("accessLogFile: /dev/stdout"), 1),
        (mesh("accessLogFile: \"\""), 0),
        (
            mesh("accessLogFile: /dev/stdout, accessLogFormat: \"%PATH(NQ)%\""),
            0,
        ),
        (mesh("accessLogFormat: \"%REQ(AUTHORIZATION)%\""), 1),
        (provider(""), 1),
        (
            provider(", logFormat: { labels: { path: \"%PATH(NQ)%\" } }"),
            0,
        ),
        (
            provider(", logFormat: { text: \"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\" }"),
            1,
        ),
    ] {
        let (code, list) = found("istio-log.yaml", &format!("{ISTIO}{more}"));
        assert_eq!((code, list.len()), (0, expected), "{more}: {list:?}");
    }
}

#[test]
fn g4_istio_without_the_interlock_is_open() {
    let documents: Vec<_> = ISTIO.split("---\n").collect();
    let (code, list) = found("plugin.yaml", documents[1]);
    assert_eq!((code, list.len()), (1, 1), "{list:?}");
    assert!(
        list[0]["problem"]
            .as_str()
            .unwrap()
            .starts_with("no interlock"),
        "{list:?}"
    );
    assert_eq!(list[0]["line"], 3);
    // It may be in another file.
    let (plugin, filter) = (
        file("plugin.yaml", documents[1]),
        file("filter.yaml", documents[0]),
    );
    tollgate(&["check", &plugin, &filter]).ended(0);
    let said = tollgate(&["check", &filter]).ended(0);
    assert!(said.ends_with("filter.yaml, gateway: good\n"), "{said}");
    each_is("error", "istio-faults.yaml", ISTIO, &of_the_filter());
}

#[test]
fn g4_istio_puts_the_interlock_before_the_router() {
    let sub_filter = "subFilter: { name: envoy.filters.http.router }";
    each_is(
        "error",
        "istio-place.yaml",
        ISTIO,
        &[
            case(
                "INSERT_BEFORE",
                "INSERT_AFTER",
                "operation",
                "after the router",
            ),
            case("INSERT_BEFORE", "ADD", "operation", "after the router"),
            case(
                "INSERT_BEFORE",
                "INSERT_FIRST",
                "operation",
                "before the module",
            ),
            case("INSERT_BEFORE", "MERGE", "operation", "nowhere"),
            case(
                sub_filter,
                "name2: x",
                "operation",
                "put first, before the module",
            ),
            case(
                sub_filter,
                "subFilter: { name: envoy.filters.http.cors }",
                "subFilter",
                "depends on other resources",
            ),
            case(
                "HTTP_FILTER",
                "NETWORK_FILTER",
                "NETWORK_FILTER",
                "is an HTTP filter",
            ),
            case(
                "context: GATEWAY",
                "context: SIDECAR_INBOUND",
                "SIDECAR_INBOUND",
                "not a gateway's listeners",
            ),
            case(
                "workloadSelector: { labels: { istio: openai } }",
                "workloadSelector: { labels: { istio: ingressgateway } }",
                "workloadSelector",
                "without the label istio: ingressgateway",
            ),
            case(
                "{ name: interlock, namespace: openai }",
                "{ name: interlock, namespace: other }",
                "namespace: other",
                "for the pods of its namespace alone",
            ),
        ],
    );
    // Of two, the one for another gateway is not this one's.
    let filter = ISTIO.split("---\n").next().unwrap();
    let other = filter.replace("istio: openai", "istio: other");
    assert_eq!(
        found("two.yaml", &format!("{other}---\n{ISTIO}")),
        (0, vec![])
    );
    for same in [
        ISTIO.replace("  workloadSelector: { labels: { istio: openai } }\n", ""),
        ISTIO.replace(
            "{ name: interlock, namespace: openai }",
            "{ name: interlock, namespace: istio-system }",
        ),
        ISTIO.replace("        context: GATEWAY\n", ""),
    ] {
        assert_eq!(found("istio-same.yaml", &same), (0, vec![]), "{same}");
    }
}

#[test]
fn g4_istio_gets_the_interlock_before_the_module() {
    let mut documents: Vec<_> = ISTIO.split("---\n").collect();
    documents.reverse();
    let reversed = documents.join("---\n");
    let (code, list) = found("reversed.yaml", &reversed);
    assert_eq!((code, list.len()), (0, 1), "{list:?}");
    assert_eq!(list[0]["severity"], "warning");
    assert!(
        list[0]["problem"]
            .as_str()
            .unwrap()
            .contains("comes after the WasmPlugin"),
        "{list:?}"
    );
}

#[test]
fn g1_another_extension_policy_takes_the_modules_place() {
    let other = |target: &str, more: &str| {
        format!(
            "{ENVOY_GATEWAY}---\nkind: EnvoyExtensionPolicy\nmetadata: {{ name: other, namespace: openai }}\nspec:\n  {target}\n{more}"
        )
    };
    let refs = |kind: &str, name: &str| format!("targetRefs: [{{ kind: {kind}, name: {name} }}]");
    let route = refs("HTTPRoute", "azure-openai");
    let elsewhere = "---\nkind: HTTPRoute\nmetadata: { name: elsewhere, namespace: openai }\nspec: { parentRefs: [{ name: other }] }\n";
    let selector = |team: &str| {
        format!("targetSelectors: [{{ kind: HTTPRoute, matchLabels: {{ team: {team} }} }}]")
    };
    let merged = "  mergeType: StrategicMerge\n";
    for (text, expected) in [
        (
            other(&route, ""),
            Some("replaces the policy \"tollgate\" here"),
        ),
        (other(&route, "  lua: []\n"), Some("replaces the policy")),
        (
            other("targetRef: { kind: HTTPRoute, name: azure-openai }", ""),
            Some("replaces the policy"),
        ),
        (
            other(&refs("GRPCRoute", "not-in-these-files"), ""),
            Some("replaces the policy"),
        ),
        (
            other(&refs("Gateway", "openai"), ""),
            Some("replaces the policy"),
        ),
        (
            other(
                "targetRefs: [{ kind: Gateway, name: openai, sectionName: https }]",
                "",
            ),
            Some("replaces the policy"),
        ),
        (other(&selector("openai"), ""), Some("replaces the policy")),
        (other(&selector("another"), ""), None),
        (other(&refs("Gateway", "other"), ""), None),
        (other(&refs("HTTPRoute", "elsewhere"), elsewhere), None),
        (other(&route, merged), None),
        (other(&route, &format!("{merged}  extProc: []\n")), None),
        (
            other(
                &route,
                &format!("{merged}  wasm: [{{ name: other, config: {{}} }}]\n"),
            ),
            Some("a merged list replaces"),
        ),
        (
            other(&route, "  mergeType: JSONMerge\n  wasm: []\n"),
            Some("a merged list replaces"),
        ),
    ] {
        let (code, list) = found("other-policy.yaml", &text);
        let told = format!("{text}\n{list:?}");
        assert_eq!(
            (code, list.len()),
            (
                i32::from(expected.is_some()),
                usize::from(expected.is_some())
            ),
            "{told}"
        );
        if let Some(said) = expected {
            assert!(
                list[0]["problem"].as_str().unwrap().contains(said),
                "{told}"
            );
            assert!(list[0]["line"].as_u64().unwrap() > 60, "{told}");
        }
    }
    // Also from another file, with a plugin of its own.
    let own = "  wasm: [{ name: other, config: { x: 1 } }]\n";
    let first = file("first.yaml", ENVOY_GATEWAY);
    for more in ["", own] {
        let second = other(&route, more).replacen(ENVOY_GATEWAY, "", 1);
        let second = file("second.yaml", &second);
        let said = tollgate(&["check", &first, &second]).ended(1);
        assert!(
            said.contains("second.yaml:5:") && said.contains("replaces the policy"),
            "{said}"
        );
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
    }
}

#[test]
fn g2_g4_envoy_gateway_without_the_interlock_is_open() {
    let documents: Vec<_> = ENVOY_GATEWAY.split("---\n").collect();
    let without = ENVOY_GATEWAY.replace(documents[2], "kind: Other\n");
    let (code, list) = found("no-patch.yaml", &without);
    assert_eq!((code, list.len()), (1, 1), "{list:?}");
    assert!(
        list[0]["problem"]
            .as_str()
            .unwrap()
            .starts_with("no interlock"),
        "{list:?}"
    );
    each_is(
        "error",
        "patch-faults.yaml",
        ENVOY_GATEWAY,
        &of_the_filter(),
    );
    let path = "jsonPath: \"..http_filters[?(@.name=='envoy.filters.http.router')]\"";
    each_is(
        "error",
        "patch-place.yaml",
        ENVOY_GATEWAY,
        &[
            case(
                path,
                "path: /filter_chains/0/filters/0/typed_config/http_filters/-",
                "path: /filter",
                "after the router",
            ),
            case(
                path,
                "path: /filter_chains/0/filters/0/typed_config/http_filters/0",
                "path: /filter",
                "before the module",
            ),
            case(
                path,
                "path: /filter_chains/0/filters/0/typed_config/http_filters/3",
                "path: /filter",
                "counts filters",
            ),
            case(
                "envoy.filters.http.router",
                "envoy.filters.http.cors",
                "jsonPath",
                "before the router",
            ),
            case(
                "op: add",
                "op: replace",
                "op: replace",
                "takes the place of another filter",
            ),
            case(
                "listener.v3.Listener",
                "route.v3.RouteConfiguration",
                "route.v3",
                "the filters are the listener's",
            ),
            case(
                "name: openai/openai/https",
                "name: openai/openai/http",
                "name: openai/openai/http\n",
                "no listener has this name",
            ),
            case(
                "- { name: https, protocol: HTTPS, port: 443 }",
                "- { name: https, protocol: HTTPS, port: 443 }\n    - { name: http, protocol: HTTP, port: 80 }",
                "{ name: interlock,",
                "the listener of port 80 has no interlock",
            ),
            case(
                "kind: Gateway, name: openai }\n  type",
                "kind: Gateway, name: other }\n  type",
                "name: other",
                "not the whole Gateway",
            ),
            case(
                "{ name: interlock, namespace: openai }",
                "{ name: interlock, namespace: other }",
                "targetRef:",
                "not the whole Gateway",
            ),
        ],
    );
    // Routes that come first are open until it is there.
    let late = format!(
        "{}---\n{}",
        ENVOY_GATEWAY.replace(documents[2], "kind: Other\n"),
        documents[2]
    );
    let (code, list) = found("late.yaml", &late);
    assert_eq!((code, list.len()), (0, 1), "{list:?}");
    let problem = list[0]["problem"].as_str().unwrap();
    assert!(
        problem.starts_with("the interlock comes after a route"),
        "{list:?}"
    );
    // One for another Gateway is not this one's; for one that nobody knows, it is a slip.
    let another = documents[2].replace("kind: Gateway, name: openai", "kind: Gateway, name: other");
    let gateway = "kind: Gateway\nmetadata: { name: other, namespace: openai }\n";
    let two = format!("{another}---\n{ENVOY_GATEWAY}");
    assert_eq!(found("slip.yaml", &two).0, 1);
    assert_eq!(
        found("two.yaml", &format!("{two}---\n{gateway}")),
        (0, vec![])
    );
    // Listeners of one port are one of Envoy's, and HTTP/3 has its own.
    let listener = "    - { name: https, protocol: HTTPS, port: 443 }\n";
    let two = ENVOY_GATEWAY.replace(
        listener,
        &format!(
            "{listener}    - {{ name: more, protocol: HTTPS, port: 443, hostname: a.example }}\n"
        ),
    );
    assert_eq!(found("one-port.yaml", &two), (0, vec![]));
    let http3 = "---\nkind: ClientTrafficPolicy\nmetadata: { namespace: openai }\nspec: { targetRefs: [{ kind: Gateway, name: openai }], http3: {} }\n";
    let (code, list) = found("http3.yaml", &format!("{ENVOY_GATEWAY}{http3}"));
    assert_eq!((code, list.len()), (1, 1), "{list:?}");
    assert!(
        list[0]["problem"]
            .as_str()
            .unwrap()
            .contains("HTTP/3 listener of port 443"),
        "{list:?}"
    );
    let named_by_port = ENVOY_GATEWAY.replace("name: openai/openai/https", "name: tcp-443");
    assert_eq!(found("by-port.yaml", &named_by_port), (0, vec![]));
}

#[test]
fn g2_g4_a_security_policy_can_be_the_interlock() {
    let documents: Vec<_> = ENVOY_GATEWAY.split("---\n").collect();
    let policy = r#"kind: SecurityPolicy
metadata: { name: interlock, namespace: openai }
spec:
  targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: openai }]
  authorization:
    defaultAction: Deny
    rules:
      - name: passed
        action: Allow
        cel: "filter_state['wasm.tollgate.passed'] == b'true'"
"#;
    let sample = ENVOY_GATEWAY.replace(documents[2], policy);
    each_is(
        "error",
        "security-policy.yaml",
        &sample,
        &[
            case(
                "defaultAction: Deny",
                "defaultAction: Allow",
                "defaultAction",
                "what no rule allows passes",
            ),
            case(
                "== b'true'",
                "== 'true'",
                "cel:",
                "compares bytes with a text",
            ),
            case(
                "wasm.tollgate.passed",
                "wasm.tollgate.outcome",
                "cel:",
                "does not look at what the module sets",
            ),
            case(
                "== b'true'\"",
                "== b'true' || request.method == 'OPTIONS'\"",
                "cel:",
                "may let pass",
            ),
            case(
                "filter_state['wasm.tollgate.passed'] == b'true'",
                "!('wasm.tollgate.passed' in filter_state)",
                "cel:",
                "may let pass",
            ),
            case(
                "    rules:\n",
                "    rules:\n      - { name: inside, action: Allow, principal: { clientCIDRs: [10.0.0.0/8] } }\n",
                "name: inside",
                "allows what the module has not let pass",
            ),
            case(
                "kind: Gateway, name: openai }]\n  authorization",
                "kind: HTTPRoute, name: azure-openai }]\n  authorization",
                "kind: HTTPRoute, name: azure-openai }",
                "not the whole Gateway",
            ),
        ],
    );
    for same in [
        "'wasm.tollgate.passed' in filter_state",
        "string(filter_state['wasm.tollgate.passed']) == 'true'",
        "filter_state['wasm.tollgate.passed'] in [b'true']",
        "b'true' == filter_state['wasm.tollgate.passed'] && request.method == 'POST'",
    ] {
        let text = sample.replace("filter_state['wasm.tollgate.passed'] == b'true'", same);
        let (code, list) = found("cel.yaml", &text);
        assert_eq!((code, list.len()), (0, 1), "{same}: {list:?}");
        let problem = list[0]["problem"].as_str().unwrap();
        assert!(
            problem.starts_with("the only interlock is a SecurityPolicy"),
            "{list:?}"
        );
    }
    let denies = sample.replace("    rules:\n", "    rules:\n      - { name: bad, action: Deny, principal: { clientCIDRs: [10.0.0.0/8] } }\n");
    assert_eq!(found("denies.yaml", &denies).0, 0);
    // On a route another takes its place; beside an interlock in the listener that does not matter.
    let on_route = "---\nkind: SecurityPolicy\nmetadata: { name: cors, namespace: openai }\nspec: { targetRefs: [{ kind: HTTPRoute, name: azure-openai }], cors: {} }\n";
    let (code, list) = found("on-route.yaml", &format!("{sample}{on_route}"));
    let replaced = |finding: &&Value| {
        let problem = finding["problem"].as_str().unwrap();
        problem.contains("replaces the SecurityPolicy")
    };
    assert_eq!(
        (code, list.iter().filter(replaced).count()),
        (1, 1),
        "{list:?}"
    );
    let merged = on_route.replace("cors: {}", "mergeType: StrategicMerge, cors: {}");
    assert_eq!(found("merged.yaml", &format!("{sample}{merged}")).0, 0);
    assert_eq!(
        found(
            "patched.yaml",
            &format!("{ENVOY_GATEWAY}---\n{policy}{on_route}")
        )
        .0,
        0
    );
}

#[test]
fn g6_merged_backends_rename_the_cluster_of_the_keys() {
    let merge = "  mergeBackends: {}\n  telemetry:";
    each_is(
        "warning",
        "merge.yaml",
        ENVOY_GATEWAY,
        &[case(
            "  telemetry:",
            merge,
            "mergeBackends",
            "renames the cluster of the route openai/entra",
        )],
    );
    let exempt = "---\nkind: BackendTrafficPolicy\nmetadata: { name: entra, namespace: openai }\nspec: { targetRefs: [{ kind: HTTPRoute, name: entra }] }\n";
    let text = format!("{}{exempt}", ENVOY_GATEWAY.replace("  telemetry:", merge));
    let (code, list) = found("exempt.yaml", &text);
    assert_eq!((code, list.len()), (0, 1), "{list:?}");
    assert_eq!(list[0]["severity"], "note");
    tollgate(&["check", "--strict", &file("exempt.yaml", &text)]).ended(0);
}

/// As `kubectl get -o yaml` writes several, and as Envoy's admin page has a listener.
#[test]
fn lists_and_dumps_are_looked_through() {
    let documents: Vec<_> = ISTIO.split("---\n").collect();
    let items = documents.iter().map(|document| {
        let lines: Vec<_> = document
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect();
        format!("  -\n{}", lines.concat())
    });
    let list = format!("kind: List\nitems:\n{}", items.collect::<String>());
    assert_eq!(found("list.yaml", &list), (0, vec![]));
    let open = list.replace("FAIL_RELOAD", "FAIL_OPEN");
    assert_eq!(found("list.yaml", &open).0, 1);

    // The module comes by ECDS; the policy is in another file, or not at hand.
    let dump = r#"{ "configs": [{ "dynamic_listeners": [{ "active_state": { "listener": { "filter_chains": [{ "filters": [{ "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "http_filters": [
            { "name": "openai.tollgate", "config_discovery": { "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"] } },
            { "name": "interlock", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
              "rules": { "action": "ALLOW", "policies": { "passed": { "permissions": [{ "any": true }],
                "principals": [{ "filter_state": { "key": "wasm.tollgate.passed", "string_match": { "exact": "true" } } }] } } } } },
            { "name": "envoy.filters.http.router" }
        ] } }] }] } } }] }] }"#;
    let said = tollgate(&["check", &file("dump.json", dump)]).ended(0);
    assert!(said.ends_with("dump.json, gateway: good\n"), "{said}");
    let open = dump.replace("wasm.tollgate.passed", "wasm.tollgate.code");
    let said = tollgate(&["check", &file("dump.json", &open)]).ended(1);
    assert!(
        said.contains("\"wasm.tollgate.code\" is not what the module sets"),
        "{said}"
    );
}

#[test]
fn shipped_files_leave_nothing_open() {
    for name in ["envoy.yaml", "istio.yaml", "envoy-gateway.yaml"] {
        let ran = tollgate(&["check", &in_repository(&format!("envoy/{name}"))]);
        let said = ran.ended(0);
        assert!(said.contains(": good"), "{said}");
        assert!(!said.contains(", gateway:"), "{said}");
    }
}
