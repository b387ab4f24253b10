//! `tollgate import apim`.

use serde_json::{Value, json};
use tollgate::policy::Policy;

use crate::common::{APP, AUDIENCE, OTHER_APP, TENANT};
use crate::run::{Ran, file, in_repository, tollgate, with_input};

const JWT: &str =
    r#"context.Request.Headers.GetValueOrDefault("Authorization","").Split(' ').Last().AsJwt()"#;

fn sample(name: &str) -> Ran {
    let values = in_repository("tests/cli/samples/named-values.json");
    let path = in_repository(&format!("tests/cli/samples/{name}.xml"));
    tollgate(&[
        "import",
        "apim",
        &path,
        "--named-values",
        &values,
        "--strict",
    ])
}

/// A policy for one tenant, with more after it.
fn inbound(more: &str) -> String {
    format!(
        r#"<policies>
<inbound>
<base />
<validate-azure-ad-token tenant-id="{TENANT}" output-token-variable-name="jwt">
<audiences><audience>{AUDIENCE}</audience></audiences>
</validate-azure-ad-token>
<set-variable name="app" value="@({JWT}.Claims.GetValueOrDefault("appid", ""))" />
{more}
</inbound>
<backend><base /></backend>
<outbound><base /></outbound>
<on-error><base /></on-error>
</policies>
"#
    )
}

fn import(xml: &str) -> (Value, String) {
    let ran = with_input(&["import", "apim", "-"], xml);
    assert_eq!(ran.code, 0, "{xml}\n{}", ran.err);
    let policy: Value = serde_json::from_str(&ran.out).unwrap();
    Policy::parse(ran.out.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"));
    (policy, ran.err)
}

/// What is said at a line, as `severity: problem`.
fn said(err: &str, line: usize) -> Vec<&str> {
    let place = format!("standard input:{line}:");
    let lines: Vec<&str> = err.lines().collect();
    let pairs = lines.windows(2);
    pairs
        .filter(|pair| pair[1].contains(&place))
        .map(|pair| pair[0])
        .collect()
}

#[test]
fn the_usual_samples_are_taken_over_as_they_are() {
    let ran = sample("tenant-and-audience");
    let policy: Value = serde_json::from_str(&ran.well()).unwrap();
    let expected = json!({
        "issuers": [{ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra", "clock_skew": "0s" }],
        "responses": { "format": "apim", "unauthenticated": { "status": 403, "message": "Forbidden" } },
    });
    assert_eq!(policy, expected);
    let ran = sample("limits-per-application");
    assert!(ran.err.ends_with("taken over, as it is\n"), "{}", ran.err);
    let policy: Value = serde_json::from_str(&ran.well()).unwrap();
    let mut with_limits = expected;
    let limit = |calls: u64| json!([{ "calls": calls, "per": "60s", "count": [200] }]);
    with_limits["apps"] = json!([
        { "app_id": APP, "limits": limit(1) },
        { "app_id": OTHER_APP, "limits": limit(10) },
    ]);
    assert_eq!(policy, with_limits);
}

#[test]
fn the_policy_reads_as_the_documentation_does_and_passes_check() {
    let out = sample("limits-per-application").well();
    let place = |what: &str| out.find(what).unwrap_or_else(|| panic!("{what}: {out}"));
    assert!(place("\"issuers\"") < place("\"apps\"") && place("\"apps\"") < place("\"responses\""));
    assert!(place("\"calls\"") < place("\"per\""));
    let path = file("imported.json", &out);
    tollgate(&["check", &path]).ended(0);
}

#[test]
fn issuers_are_those_of_the_metadata_and_those_that_are_listed() {
    let v1 = format!("https://sts.windows.net/{TENANT}/");
    let v2 = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let config = |path: &str| {
        format!(
            "<openid-config url=\"https://login.microsoftonline.com/{path}/.well-known/openid-configuration\" />"
        )
    };
    let listed = |issuers: &[&str]| {
        let issuers: String = issuers
            .iter()
            .map(|iss| format!("<issuer>{iss}</issuer>"))
            .collect();
        format!("<issuers>{issuers}</issuers>")
    };
    let base = json!({ "tenant_id": TENANT, "audiences": [AUDIENCE], "cluster": "entra", "clock_skew": "0s" });
    let with = |more: Value| {
        let mut issuer = base.clone();
        issuer
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        issuer
    };
    let only_v1 = with(json!({ "issuers": [v1], "openid_config":
        format!("https://login.microsoftonline.com/{TENANT}/.well-known/openid-configuration") }));
    let (tenant_v1, tenant_v2) = (config(TENANT), config(&format!("{TENANT}/v2.0")));
    for (inner, expected) in [
        (tenant_v2.clone(), json!([with(json!({ "issuers": [v2] }))])),
        (tenant_v1.clone(), json!([only_v1])),
        (format!("{tenant_v2}{}", listed(&[&v1])), json!([base])),
        (format!("{tenant_v1}{}", listed(&[&v1, &v2])), json!([base])),
        (
            format!("{}{}", config("common/v2.0"), listed(&[&v1, &v2])),
            json!([base]),
        ),
        (
            "<openid-config url=\"https://idp.example/t/.well-known/openid-configuration\" />"
                .to_owned(),
            json!([{ "issuers": ["https://idp.example/t"], "openid_config": "https://idp.example/t/.well-known/openid-configuration",
                "audiences": [AUDIENCE], "cluster": "idp_example", "clock_skew": "0s" }]),
        ),
    ] {
        let xml = format!(
            "<policies><inbound><validate-jwt header-name=\"Authorization\">{inner}<audiences><audience>{AUDIENCE}</audience></audiences></validate-jwt></inbound></policies>"
        );
        let (policy, err) = import(&xml);
        assert_eq!(policy["issuers"], expected, "{inner}\n{err}");
    }
    let xml = format!(
        "<policies><inbound><validate-jwt header-name=\"Authorization\">{}</validate-jwt></inbound></policies>",
        config("common")
    );
    let err = with_input(&["import", "apim", "-"], &xml).ended(2);
    assert!(err.contains("\"common\" names no single tenant"), "{err}");
}

#[test]
fn what_stands_in_validate_jwt_is_taken_over() {
    let xml = format!(
        r#"<policies><inbound>
<validate-jwt header-name="Authorization" clock-skew="90" require-scheme="Bearer">
<openid-config url="https://login.microsoftonline.us/{TENANT}/v2.0/.well-known/openid-configuration" />
<required-claims>
<claim name="aud" match="any"><value>a</value><value>b</value></claim>
<claim name="roles" match="any"><value>Call</value></claim>
<claim name="scp" separator=","><value>x</value><value>y</value></claim>
<claim name="department" match="any" separator=""><value>Finance</value></claim>
<claim name="sid" />
</required-claims>
</validate-jwt></inbound></policies>"#
    );
    let (policy, _) = import(&xml);
    let expected = json!({
        "tenant_id": TENANT, "authority": "https://login.microsoftonline.us", "audiences": ["a", "b"],
        "issuers": [format!("https://login.microsoftonline.us/{TENANT}/v2.0")],
        "cluster": "entra", "clock_skew": "90s",
        "required_claims": [
            { "name": "roles", "values": ["Call"], "match": "any", "separator": "\n" },
            { "name": "scp", "values": ["x", "y"], "separator": "," },
            // Whole: "Not Finance" is another.
            { "name": "department", "values": ["Finance"], "match": "any", "separator": "\n" },
            { "name": "sid" },
        ],
    });
    assert_eq!(policy["issuers"], json!([expected]));
    assert_eq!(policy["responses"], json!({ "format": "apim" }));
}

#[test]
fn client_applications_close_the_list() {
    let xml = inbound("").replace("<audiences>", &format!("<client-application-ids><application-id>{}</application-id></client-application-ids><audiences>", APP.to_uppercase()));
    let (policy, _) = import(&xml);
    assert_eq!(policy["apps"], json!([{ "app_id": APP }]));
    assert_eq!(policy["default_app"], json!({ "access": "deny" }));
    assert_eq!(policy["responses"]["forbidden"]["status"], 401);
    assert_eq!(policy["issuers"][0].get("clock_skew"), None);
}

#[test]
fn branches_on_the_application_become_applications() {
    let limit = |calls: u64| {
        format!(
            r#"<rate-limit-by-key calls="{calls}" renewal-period="10" counter-key="@((string)context.Variables["app"])" />"#
        )
    };
    let deny = r#"<return-response><set-status code="403" reason="No" /><set-body>{"statusCode":403,"message":"Not you"}</set-body></return-response>"#;
    let is = |app: &str| format!(r#"@((string)context.Variables["app"] == "{app}")"#);
    let more = format!(
        r#"<choose>
<when condition="{}">{}</when>
<when condition="{}">{}</when>
<otherwise>{deny}</otherwise>
</choose>
{}"#,
        is(APP),
        limit(1),
        is(OTHER_APP),
        limit(2),
        limit(100)
    );
    let (policy, err) = import(&inbound(&more));
    let limits =
        |calls: u64| json!([{ "calls": calls, "per": "10s" }, { "calls": 100, "per": "10s" }]);
    assert_eq!(
        policy["apps"],
        json!([{ "app_id": APP, "limits": limits(1) }, { "app_id": OTHER_APP, "limits": limits(2) }])
    );
    assert_eq!(policy["default_app"], json!({ "access": "deny" }));
    assert_eq!(
        policy["responses"]["forbidden"],
        json!({ "status": 403, "message": "Not you" })
    );
    assert!(err.ends_with("taken over, as it is\n"), "{err}");

    // All others of one list are `default_app`, and those of the other choose.
    let more = format!(
        r#"<choose><when condition="@((string)context.Variables["app"] != "{APP}")">{}</when></choose>
<choose><when condition="{}">{}</when></choose>"#,
        limit(5),
        is(OTHER_APP),
        limit(6)
    );
    let (policy, _) = import(&inbound(&more));
    let one = |calls: u64| json!({ "calls": calls, "per": "10s" });
    assert_eq!(
        policy["apps"],
        json!([{ "app_id": APP }, { "app_id": OTHER_APP, "limits": [one(5), one(6)] }])
    );
    assert_eq!(policy["default_app"], json!({ "limits": [one(5)] }));
}

#[test]
fn limits_of_every_kind() {
    let key = r#"counter-key="@((string)context.Variables["app"])""#;
    for (element, expected) in [
        (
            format!(r#"<rate-limit-by-key calls="7" renewal-period="300" {key} />"#),
            json!([{ "calls": 7, "per": "300s" }]),
        ),
        (
            format!(
                r#"<rate-limit-by-key calls="7" renewal-period="60" {key} increment-condition="@(context.Response.StatusCode >= 200 && context.Response.StatusCode < 300)" />"#
            ),
            json!([{ "calls": 7, "per": "60s", "count": "success" }]),
        ),
        (
            format!(
                r#"<rate-limit-by-key calls="7" renewal-period="60" {key} increment-condition="@(context.Response.StatusCode == 200 || context.Response.StatusCode == 429)" />"#
            ),
            json!([{ "calls": 7, "per": "60s", "count": [200, 429] }]),
        ),
        (
            format!(r#"<quota-by-key calls="9" renewal-period="3600" {key} />"#),
            json!([{ "calls": 9, "per": "hour" }]),
        ),
        (
            format!(r#"<quota-by-key calls="9" renewal-period="604800" {key} />"#),
            json!([{ "calls": 9, "per": "week" }]),
        ),
        (
            format!(
                r#"<llm-token-limit tokens-per-minute="500" estimate-prompt-tokens="true" {key} />"#
            ),
            json!([{ "tokens": 500, "per": "60s", "reserve": true }]),
        ),
        (
            format!(
                r#"<azure-openai-token-limit tokens-per-minute="500" token-quota="9000" token-quota-period="Monthly" estimate-prompt-tokens="false" {key} />"#
            ),
            json!([{ "tokens": 500, "per": "60s" }, { "tokens": 9000, "per": "month" }]),
        ),
    ] {
        let (policy, err) = import(&inbound(&element));
        assert_eq!(policy["default_app"]["limits"], expected, "{element}");
        assert!(err.ends_with("taken over, as it is\n"), "{element}: {err}");
        let is_quota = element.contains("quota");
        assert_eq!(
            policy["responses"].get("quota").is_some(),
            is_quota,
            "{element}"
        );
    }
}

#[test]
fn keys_headers_and_backends() {
    let more = r#"<choose><when condition="@(context.Request.Headers.ContainsKey("x-team-key"))">
<return-response><set-status code="401" /><set-body>No keys</set-body></return-response></when></choose>
<set-header name="X-App" exists-action="override"><value>@((string)context.Variables["app"])</value></set-header>
<set-header name="X-Object" exists-action="override"><value>@(((Jwt)context.Variables["jwt"]).Claims["oid"].First())</value></set-header>
<set-header name="Authorization" exists-action="delete" />
<set-header name="api-key" exists-action="delete" />
<set-backend-service base-url="https://example.openai.azure.com/openai" />"#;
    let envoy = file("pieces.yaml", "");
    let ran = with_input(
        &["import", "apim", "-", "--strict", "--envoy", &envoy],
        &inbound(more),
    );
    let policy: Value = serde_json::from_str(&ran.well()).unwrap();
    assert_eq!(
        policy["api_keys"],
        json!({ "action": "strip", "headers": ["api-key", "ocp-apim-subscription-key", "x-api-key", "x-team-key"] })
    );
    assert_eq!(
        policy["responses"]["api_key"],
        json!({ "status": 401, "message": "No keys" })
    );
    assert_eq!(
        policy["forward"],
        json!({ "authorization": false, "headers": { "x-app": "app_id", "x-object": "object_id" } })
    );
    let pieces = std::fs::read_to_string(envoy).unwrap();
    for wanted in [
        "- name: entra",
        "- name: azure_openai",
        "sni: example.openai.azure.com",
        "exact: login.microsoftonline.com",
        "host_rewrite_literal: example.openai.azure.com",
    ] {
        assert!(pieces.contains(wanted), "{wanted}\n{pieces}");
    }
}

#[test]
fn what_has_no_counterpart_is_reported_with_its_line() {
    let app = r#"counter-key="@((string)context.Variables["app"])""#;
    for (element, severity, problem) in [
        (
            r#"<ip-filter action="allow" />"#,
            "error",
            "ip-filter: has no counterpart",
        ),
        (
            r#"<cors><allowed-origins /></cors>"#,
            "error",
            "cors: has no counterpart",
        ),
        (
            r#"<authentication-managed-identity resource="x" />"#,
            "error",
            "the caller's own token goes on",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" counter-key="@(context.Request.IpAddress)" />"#,
            "error",
            "counted by something else",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" />"#,
            "error",
            "counter-key is missing",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" counter-key="@(a ? b : c)" />"#,
            "error",
            "counter-key is not understood",
        ),
        (
            r#"<choose><when condition="@((string)context.Variables["app"] != "aaaaaaaa-0000-0000-0000-000000000001")"><validate-jwt /></when></choose>"#,
            "error",
            "validated under no condition",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" counter-key="@("tpm-" + ((Jwt)context.Variables["jwt"]).Claims["oid"].First())" />"#,
            "warning",
            "was counted by user or subscription",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" counter-key="@((string)context.Variables["app"] + context.Api.Id)" />"#,
            "warning",
            "was counted by application and more",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" counter-key="@(context.Subscription.Id)" />"#,
            "warning",
            "was counted by user or subscription",
        ),
        (
            r#"<rate-limit-by-key calls="1" renewal-period="60" counter-key="all" />"#,
            "warning",
            "was counted for all together",
        ),
        (
            r#"<rate-limit calls="1" renewal-period="60" />"#,
            "warning",
            "was counted by subscription",
        ),
        (
            &format!(
                r#"<rate-limit-by-key calls="1" renewal-period="60" {app} increment-count="2" />"#
            ),
            "error",
            "a call counts once",
        ),
        (
            &format!(
                r#"<rate-limit-by-key calls="1" renewal-period="60" {app} remaining-calls-header-name="x" />"#
            ),
            "error",
            "remaining-calls-header-name: has no counterpart",
        ),
        (
            &format!(
                r#"<rate-limit-by-key calls="1" renewal-period="60" {app} remaining-calls-variable-name="x" />"#
            ),
            "note",
            "variables are not kept",
        ),
        (
            &format!(
                r#"<rate-limit-by-key calls="1" renewal-period="60" {app} increment-condition="@(context.Response.Headers.Count > 1)" />"#
            ),
            "warning",
            "every call counts",
        ),
        (
            &format!(r#"<rate-limit-by-key calls="many" renewal-period="60" {app} />"#),
            "error",
            "calls=\"many\" is no whole number",
        ),
        (
            &format!(r#"<quota-by-key calls="1" bandwidth="40" renewal-period="3600" {app} />"#),
            "error",
            "bytes are not counted",
        ),
        (
            &format!(r#"<quota-by-key calls="1" renewal-period="7200" {app} />"#),
            "warning",
            "the period slides",
        ),
        (
            &format!(r#"<quota-by-key calls="1" renewal-period="0" {app} />"#),
            "error",
            "a quota of 0 seconds",
        ),
        (
            &format!(
                r#"<llm-token-limit token-quota="1" token-quota-period="Yearly" estimate-prompt-tokens="false" {app} />"#
            ),
            "error",
            "\"Yearly\"",
        ),
        (
            r#"<choose><when condition="@(context.Operation.Id == "x")"><base /></when></choose>"#,
            "error",
            "its condition has no counterpart",
        ),
        (
            r#"<choose><when condition="@((string)context.Variables["app"] == "x")"></when></choose>"#,
            "error",
            "\"x\" is not the id of an application",
        ),
        (
            r#"<check-header name="api-key"><value>secret</value></check-header>"#,
            "warning",
            "they need a token",
        ),
        (
            r#"<check-header name="x-y"><value>z</value></check-header>"#,
            "error",
            "has no counterpart",
        ),
        (
            r#"<set-header name="x-y"><value>z</value></set-header>"#,
            "error",
            "has no counterpart",
        ),
        (
            r#"<set-backend-service backend-id="pool" />"#,
            "error",
            "no address of a host",
        ),
        (
            r#"<return-response><set-status code="200" /></return-response>"#,
            "error",
            "has no counterpart",
        ),
        (
            r#"<set-variable name="x" value="@(Guid.NewGuid())" />"#,
            "note",
            "kept where nothing uses it",
        ),
        (r#"<llm-emit-token-metric />"#, "note", "tollgate_tokens"),
    ] {
        let xml = inbound(&format!("\n{element}"));
        let (_, err) = import(&xml);
        let told = said(&err, 9);
        let found = told
            .iter()
            .any(|line| line.starts_with(&format!("{severity}: ")) && line.contains(problem));
        assert!(found, "{element}\n{told:?}\n{err}");
        let strict = with_input(&["import", "apim", "-", "--strict"], &xml);
        let expected = i32::from(severity != "note");
        assert_eq!(strict.code, expected, "{element}\n{}", strict.err);
        assert_eq!(strict.out.is_empty(), expected == 1, "{element}");
    }
    let outbound = inbound("").replace(
        "<outbound><base /></outbound>",
        "<outbound>\n<base />\n<set-header name=\"x\" />\n</outbound>",
    );
    assert_eq!(
        said(&import(&outbound).1, 13),
        ["error: set-header: has no counterpart"]
    );
}

#[test]
fn no_policy_comes_of_what_lets_everybody_in_or_is_not_known() {
    for (xml, problem) in [
        (
            "<policies><inbound><base /></inbound></policies>",
            "no policy says whose tokens are good",
        ),
        (
            &*inbound(&format!(
                "<validate-azure-ad-token tenant-id=\"{TENANT}\" />"
            )),
            "a token is validated once here",
        ),
        ("<policies><inbound>", "not valid XML"),
        ("", "not valid XML"),
        ("<html />", "no policy"),
        (
            &*inbound("").replace(TENANT, "{{tenant}}"),
            "the named value \"tenant\" is not given",
        ),
        (
            &*inbound(
                r#"<rate-limit-by-key calls="0" renewal-period="60" counter-key="@((string)context.Variables["app"])" />"#,
            ),
            "a limit of 0",
        ),
        (
            &*inbound("").replace(TENANT, "contoso.com"),
            "not the id of one tenant",
        ),
    ] {
        let ran = with_input(&["import", "apim", "-"], xml);
        assert!(ran.err.contains(problem), "{xml}\n{}", ran.err);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{xml}");
    }
    let broken = "<policies>\n  <inbound>\n    <a b=\"@(x[\"y\"])\"></c>\n";
    let err = with_input(&["import", "apim", "-"], broken).ended(2);
    assert!(err.contains("standard input:3:"), "{err}");
}

#[test]
fn named_values_come_as_an_object_or_from_azure() {
    let xml = inbound("").replace(TENANT, "{{ tenant }}");
    let xml = file("named.xml", &xml);
    let list = json!([{ "displayName": "tenant", "name": "1", "value": TENANT, "secret": false }, { "name": "secret", "value": null }]);
    let resources =
        json!([{ "name": "tenant", "properties": { "displayName": "tenant", "value": TENANT } }]);
    for (index, values) in [json!({ "tenant": TENANT }), list, resources]
        .iter()
        .enumerate()
    {
        let values = file(&format!("values-{index}.json"), &values.to_string());
        let out = tollgate(&["import", "apim", &xml, "--named-values", &values]).well();
        assert!(out.contains(TENANT));
    }
    for (index, bad) in ["7", "{", "{\"a\":[]}"].iter().enumerate() {
        let values = file(&format!("bad-values-{index}.json"), bad);
        tollgate(&["import", "apim", &xml, "--named-values", &values]).ended(2);
    }
}

#[test]
fn the_policy_goes_where_it_is_wanted() {
    let xml = file("out.xml", &inbound(""));
    let path = file("out.json", "");
    let ran = tollgate(&["import", "apim", &xml, "--output", &path]);
    assert_eq!(ran.well(), "");
    Policy::parse(std::fs::read_to_string(path).unwrap().as_bytes()).unwrap();
    tollgate(&["import", "apim", &xml, "--output", "/no/such/folder/x"]).ended(2);
}
