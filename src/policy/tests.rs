//! Policies as operators write them, good and bad.

mod bad;
mod schema;

use std::fmt::Write as _;

use super::{
    Access, AnswerFormat, ApiKeyAction, ApiKeys, App, AppClaim, Caps, ClaimMatch, CorsPreflight,
    Count, Deployments, FetchStart, FilterStateField, Forward, HeaderSource, Issuer, KeyFetch,
    KeySource, Limit, Log, Measure, Mode, Pattern, Period, Policy, Refresh, RequiredClaim,
    Response, Responses, Scope, StreamOptions, Tenant, UsageReading, Window,
};
use crate::guid::Guid;
use crate::jwt::Algorithm;
use crate::keys::KeySet;
use crate::operations::Action;
use crate::roles::Permissions;
use crate::url::Url;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const TENANT_MEMBER: &str = r#""tenant_id": "11111111-2222-3333-4444-555555555555""#;
const AUDIENCES: &str = r#""audiences": ["https://cognitiveservices.azure.com"]"#;
const CLUSTER: &str = r#""cluster": "entra""#;
const APP_ID: &str = r#""app_id": "aaaaaaaa-0000-0000-0000-000000000001""#;

/// The RSA key of RFC 7517 appendix A.1.
const KEYS: &str = concat!(
    r#"{"keys": [{"kty": "RSA", "kid": "2011-04-29", "e": "AQAB", "n": ""#,
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJEC",
    "PebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Qvz",
    "qY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZ",
    r#"u0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]}"#
);

/// An object of these members, and of the defaults that they do not replace.
fn object(defaults: &[&str], members: &str) -> String {
    let mut all: Vec<&str> = defaults
        .iter()
        .filter(|default| !members.contains(default.split_once(':').unwrap().0))
        .copied()
        .collect();
    if !members.is_empty() {
        all.push(members);
    }
    format!("{{{}}}", all.join(", "))
}

fn good_issuer() -> String {
    object(&[TENANT_MEMBER, AUDIENCES, CLUSTER], "")
}

fn top(members: &str) -> String {
    format!(r#"{{"issuers": [{}], {members}}}"#, good_issuer())
}

fn issuer(members: &str) -> String {
    let issuer = object(&[TENANT_MEMBER, AUDIENCES, CLUSTER], members);
    format!(r#"{{"issuers": [{issuer}]}}"#)
}

fn second_issuer(members: &str) -> String {
    let second = object(&[TENANT_MEMBER, AUDIENCES, CLUSTER], members);
    format!(r#"{{"issuers": [{}, {second}]}}"#, good_issuer())
}

/// An issuer whose members say where it and its keys are; `KEYS` is a good key set.
fn source(members: &str) -> String {
    let issuer = object(&[AUDIENCES], &members.replace("KEYS", KEYS));
    format!(r#"{{"issuers": [{issuer}]}}"#)
}

fn app(members: &str) -> String {
    top(&format!(r#""apps": [{}]"#, object(&[APP_ID], members)))
}

fn limit(members: &str) -> String {
    app(&format!(r#""limits": [{{{members}}}]"#))
}

#[track_caller]
fn parse(policy: &str) -> Policy {
    match Policy::parse(policy.as_bytes()) {
        Ok(parsed) => {
            assert_eq!(schema::fault(policy), None, "{policy}");
            parsed
        }
        Err(errors) => panic!("{policy}\n{errors}"),
    }
}

fn errors(policy: &str) -> String {
    Policy::parse(policy.as_bytes()).unwrap_err().to_string()
}

#[track_caller]
fn one_issuer(policy: &str) -> Issuer {
    let mut issuers = parse(policy).issuers;
    assert_eq!(issuers.len(), 1);
    issuers.remove(0)
}

#[track_caller]
fn fetch(policy: &str) -> KeyFetch {
    match one_issuer(policy).keys {
        KeySource::Fetched(fetch) => fetch,
        KeySource::Inline(keys) => panic!("{keys:?}"),
    }
}

#[track_caller]
fn one_limit(members: &str) -> Limit {
    let mut apps = parse(&limit(members)).apps;
    apps.listed.remove(0).limits.remove(0)
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn bad_policies_are_told_in_full() {
    let mut wrong = String::new();
    for (complete, members, expected) in bad::BAD {
        let policy = complete(members);
        let told = Policy::parse(policy.as_bytes()).map_or_else(
            |errors| errors.to_string(),
            |_| "nothing is wrong".to_owned(),
        );
        let expected = expected.join("\n");
        if told != expected {
            write!(wrong, "{members}\ntold:\n{told}\nexpected:\n{expected}\n\n").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_smallest_policy() {
    let policy = parse(
        r#"{
          "issuers": [{
            "tenant_id": "11111111-2222-3333-4444-555555555555",
            "audiences": ["https://cognitiveservices.azure.com"],
            "cluster": "entra"
          }],
          "responses": { "unauthenticated": { "status": 403, "message": "Forbidden" } }
        }"#,
    );
    let forbidden = Response {
        status: 403,
        message: Some("Forbidden".to_owned()),
    };
    assert_eq!(policy.responses.unauthenticated, forbidden);
    let [issuer] = &policy.issuers[..] else {
        panic!("{:?}", policy.issuers)
    };
    assert_eq!(issuer.name, TENANT);
    let tenant = Tenant {
        id: Guid::parse(TENANT).unwrap(),
        authority: "https://login.microsoftonline.com".to_owned(),
    };
    assert_eq!(issuer.tenant, Some(tenant));
    assert_eq!(
        issuer.issuers,
        [
            "https://sts.windows.net/11111111-2222-3333-4444-555555555555/",
            "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
        ]
    );
    assert_eq!(issuer.audiences, ["https://cognitiveservices.azure.com"]);
}

#[test]
fn a_limit_for_each_application() {
    let policy = parse(&top(r#""apps": [
          { "app_id": "aaaaaaaa-0000-0000-0000-000000000001", "limits": [{ "calls": 1,  "per": "60s", "count": [200] }] },
          { "app_id": "AAAAAAAA-0000-0000-0000-000000000002", "limits": [{ "calls": 10, "per": "60s", "count": [200] }] }
        ]"#));
    for (id, calls) in [
        ("aaaaaaaa-0000-0000-0000-000000000001", 1),
        ("aaaaaaaa-0000-0000-0000-000000000002", 10),
    ] {
        let id = Guid::parse(id).unwrap();
        let expected = App {
            id: Some(id),
            name: Some(id.to_string()),
            access: Access::Allow,
            roles: None,
            deployments: None,
            limits: vec![Limit {
                measure: Measure::Calls,
                amount: calls,
                window: Window::Sliding { millis: 60_000 },
                count: Count::Statuses(vec![200]),
                scope: Scope::default(),
            }],
            caps: Caps::default(),
        };
        assert_eq!(policy.apps.find(id), &expected);
    }
    let other = Guid::parse("aaaaaaaa-0000-0000-0000-000000000003").unwrap();
    assert_eq!(policy.apps.find(other).id, None);
}

#[test]
fn defaults_of_an_issuer() {
    let issuer = one_issuer(&issuer(""));
    let KeySource::Fetched(fetch) = issuer.keys else {
        panic!("{:?}", issuer.keys)
    };
    let address = concat!(
        "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555",
        "/v2.0/.well-known/openid-configuration"
    );
    assert_eq!(
        fetch.start,
        FetchStart::Metadata(Url::parse(address).unwrap())
    );
    assert_eq!(fetch.cluster, "entra");
    assert_eq!(
        fetch.refresh,
        Refresh {
            every: 3_600_000,
            at_most_every: 300_000,
            keep_stale_for: 86_400_000,
            timeout: 5_000,
        }
    );
    assert_eq!(issuer.required_claims, []);
    assert_eq!(issuer.algorithms, [Algorithm::Rs256]);
    assert_eq!(issuer.app_claim, AppClaim::ByVersion);
    assert_eq!(issuer.clock_skew, 60);
}

#[test]
fn defaults_of_the_other_keys() {
    let policy = parse(&issuer(""));
    let api_keys = ApiKeys {
        action: ApiKeyAction::Deny,
        headers: texts(&["api-key", "ocp-apim-subscription-key", "x-api-key"]),
        query: texts(&["api-key", "subscription-key"]),
    };
    assert_eq!(policy.api_keys, api_keys);
    assert_eq!(policy.apps.listed, []);
    let default_app = App {
        id: None,
        name: None,
        access: Access::Allow,
        roles: None,
        deployments: None,
        limits: Vec::new(),
        caps: Caps::default(),
    };
    assert_eq!(policy.apps.default_app, default_app);
    assert_eq!(policy.public_paths, []);
    assert_eq!(policy.cors_preflight, CorsPreflight::Check);
    let forward = Forward {
        authorization: true,
        headers: Vec::new(),
    };
    assert_eq!(policy.forward, forward);
    assert_eq!(policy.mode, Mode::Enforce);
    assert_eq!(policy.max_undecided, 256);
    let usage = UsageReading {
        image_tokens: 1_500,
        read: true,
        stream_options: StreamOptions::Keep,
    };
    assert_eq!(policy.usage, usage);
    let log = Log {
        requests: true,
        filter_state: vec![
            FilterStateField::Outcome,
            FilterStateField::Code,
            FilterStateField::AppId,
            FilterStateField::AppName,
            FilterStateField::TenantId,
            FilterStateField::ObjectId,
            FilterStateField::Action,
            FilterStateField::Deployment,
            FilterStateField::PromptTokens,
            FilterStateField::CompletionTokens,
            FilterStateField::TotalTokens,
            FilterStateField::EstimatedTokens,
        ],
    };
    assert_eq!(policy.log, log);
}

#[test]
fn defaults_of_the_answers() {
    let response = |status| Response {
        status,
        message: None,
    };
    let expected = Responses {
        format: AnswerFormat::OpenAi,
        unauthenticated: response(401),
        api_key: response(403),
        forbidden: response(403),
        limited: response(429),
        quota: response(429),
        unavailable: response(503),
    };
    for members in [
        r#""responses": {}"#,
        r#""responses": {"quota": {}, "forbidden": {}, "api_key": {}, "limited": {}}"#,
        r#""mode": "enforce""#,
    ] {
        assert_eq!(parse(&top(members)).responses, expected, "{members}");
    }
}

#[test]
fn answers_can_be_set() {
    let policy = parse(&top(
        r#""responses": {"format": "apim", "quota": {"status": 403}, "limited": {"message": "Slow down"}}"#,
    ));
    assert_eq!(policy.responses.format, AnswerFormat::Apim);
    assert_eq!(policy.responses.quota.status, 403);
    assert_eq!(policy.responses.quota.message, None);
    assert_eq!(policy.responses.limited.status, 429);
    assert_eq!(
        policy.responses.limited.message.as_deref(),
        Some("Slow down")
    );
}

#[test]
fn national_clouds() {
    for (authority, v1, v2, metadata) in [
        (
            "https://login.microsoftonline.us/",
            "https://sts.windows.net/11111111-2222-3333-4444-555555555555/",
            "https://login.microsoftonline.us/11111111-2222-3333-4444-555555555555/v2.0",
            "https://login.microsoftonline.us/11111111-2222-3333-4444-555555555555/v2.0/.well-known/openid-configuration",
        ),
        (
            "https://Login.Partner.microsoftonline.cn",
            "https://sts.chinacloudapi.cn/11111111-2222-3333-4444-555555555555/",
            "https://login.partner.microsoftonline.cn/11111111-2222-3333-4444-555555555555/v2.0",
            "https://login.partner.microsoftonline.cn/11111111-2222-3333-4444-555555555555/v2.0/.well-known/openid-configuration",
        ),
        (
            "http://127.0.0.1:9101",
            "https://sts.windows.net/11111111-2222-3333-4444-555555555555/",
            "http://127.0.0.1:9101/11111111-2222-3333-4444-555555555555/v2.0",
            "http://127.0.0.1:9101/11111111-2222-3333-4444-555555555555/v2.0/.well-known/openid-configuration",
        ),
    ] {
        let policy = issuer(&format!(r#""authority": "{authority}""#));
        assert_eq!(one_issuer(&policy).issuers, [v1, v2]);
        let start = FetchStart::Metadata(Url::parse(metadata).unwrap());
        assert_eq!(fetch(&policy).start, start);
    }
}

#[test]
fn what_is_written_overrides_the_tenant() {
    let own = one_issuer(&issuer(
        r#""issuers": ["https://a/"], "openid_config": "https://a/metadata""#,
    ));
    assert_eq!(own.issuers, ["https://a/"]);
    assert_eq!(own.name, TENANT);
    assert!(own.tenant.is_some());
    let metadata = Url::parse("https://a/metadata").unwrap();
    let policy = issuer(r#""openid_config": "https://a/metadata""#);
    assert_eq!(fetch(&policy).start, FetchStart::Metadata(metadata));
    let keys = Url::parse("https://a/keys").unwrap();
    let policy = issuer(r#""jwks_uri": "https://a/keys""#);
    assert_eq!(fetch(&policy).start, FetchStart::Keys(keys));
}

#[test]
fn a_tenant_is_written_in_lower_case() {
    let policy = r#"{"issuers": [{
        "tenant_id": "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE", "audiences": ["a"], "cluster": "c"
    }]}"#;
    let issuer = one_issuer(policy);
    assert_eq!(issuer.name, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
    assert_eq!(
        issuer.issuers[0],
        "https://sts.windows.net/aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee/"
    );
}

#[test]
fn issuers_other_than_entra() {
    let issuer = one_issuer(&source(
        r#""issuers": ["https://a/", "https://b/"], "jwks_uri": "https://a/keys", "cluster": "idp",
        "app_claim": "client_id", "algorithms": ["ES256", "PS512", "ES256"], "clock_skew": "0s",
        "name": "Own provider", "required_claims": [
            {"name": "scope", "values": ["read", "write"], "match": "any", "separator": ","},
            {"name": "roles"}]"#,
    ));
    assert_eq!(issuer.name, "Own provider");
    assert_eq!(issuer.tenant, None);
    assert_eq!(issuer.issuers, ["https://a/", "https://b/"]);
    assert_eq!(issuer.app_claim, AppClaim::Named("client_id".to_owned()));
    assert_eq!(issuer.algorithms, [Algorithm::Es256, Algorithm::Ps512]);
    assert_eq!(issuer.clock_skew, 0);
    let scope = RequiredClaim {
        name: "scope".to_owned(),
        values: texts(&["read", "write"]),
        matching: ClaimMatch::Any,
        separator: Some(",".to_owned()),
    };
    let roles = RequiredClaim {
        name: "roles".to_owned(),
        values: Vec::new(),
        matching: ClaimMatch::All,
        separator: None,
    };
    assert_eq!(issuer.required_claims, [scope, roles]);
}

#[test]
fn c8_only_scopes_are_split_without_being_told() {
    for (claim, separator) in [
        (r#"{"name": "scp", "values": ["a"]}"#, Some(" ")),
        (r#"{"name": "scope", "values": ["a"]}"#, Some(" ")),
        (r#"{"name": "scp", "separator": ","}"#, Some(",")),
        (r#"{"name": "SCP", "values": ["a"]}"#, None),
        (r#"{"name": "scopes", "values": ["a"]}"#, None),
        (r#"{"name": "department", "values": ["a"]}"#, None),
        (r#"{"name": "department", "separator": " "}"#, Some(" ")),
    ] {
        let issuer = one_issuer(&source(&format!(
            r#""issuers": ["https://a/"], "jwks_uri": "https://a/keys", "cluster": "idp",
            "required_claims": [{claim}]"#
        )));
        let found = issuer.required_claims[0].separator.as_deref();
        assert_eq!(found, separator, "{claim}");
    }
}

#[test]
fn o7_integers_are_taken_as_text_too() {
    let policy = |limit: &str, status: &str| {
        let more = format!(
            r#""default_app": {{"limits": [{limit}]}}, "responses": {{"limited": {{"status": {status}}}}}"#
        );
        let text = top(&more);
        [
            text.clone().into_bytes(),
            super::structure::tests::encode(&text),
        ]
    };
    for written in ["2147483648", r#""2147483648""#, r#""0002147483648""#] {
        let limit = format!(r#"{{"tokens": {written}, "per": "60s", "count": ["200"]}}"#);
        for bytes in policy(&limit, r#""503""#) {
            let policy = Policy::parse(&bytes).unwrap();
            assert_eq!(policy.apps.default_app.limits[0].amount, 2_147_483_648);
            assert_eq!(
                policy.apps.default_app.limits[0].count,
                Count::Statuses(vec![200])
            );
            assert_eq!(policy.responses.limited.status, 503);
        }
    }
    for (written, problem) in [
        (r#""0""#, "\"0\" is out of range"),
        (
            r#""99999999999999999999999""#,
            "\"99999999999999999999999\" is out of range",
        ),
        (
            r#""""#,
            "expected a number from 1 to 1000000000000000, found a string",
        ),
        (r#""1e3""#, "expected a number from"),
        (r#""-1""#, "expected a number from"),
        (r#""1.0""#, "expected a number from"),
        (r#"" 1""#, "expected a number from"),
        (r#""ten""#, "expected a number from"),
    ] {
        let limit = format!(r#"{{"calls": {written}, "per": "60s"}}"#);
        for bytes in policy(&limit, "429") {
            let errors = Policy::parse(&bytes).unwrap_err().to_string();
            let start = format!("default_app.limits[0].calls: {problem}");
            assert!(errors.starts_with(&start), "{errors}");
        }
    }
}

#[test]
fn what_would_fetch_keys_may_stand_beside_keys() {
    let policy = parse(&source(
        r#""issuers": ["https://a/"], "jwks": KEYS, "cluster": "entra", "refresh": {"every": "1h"}"#,
    ));
    assert!(matches!(policy.issuers[0].keys, KeySource::Inline(_)));
}

#[test]
fn an_issuer_is_named_by_its_first_value() {
    let policy = source(r#""issuers": ["https://a/", "https://b/"], "jwks": KEYS"#);
    assert_eq!(one_issuer(&policy).name, "https://a/");
}

#[test]
fn keys_are_fetched_by_the_issuers_cluster() {
    assert_eq!(one_issuer(&issuer("")).cluster(), "entra");
    let inline = source(r#""issuers": ["https://other.example/"], "jwks": KEYS"#);
    assert_eq!(one_issuer(&inline).cluster(), "");
}

#[test]
fn inline_keys_as_object_and_as_text() {
    let object = source(r#""issuers": ["https://a/"], "jwks": KEYS"#);
    let text = object.replace(KEYS, &format!("{KEYS:?}"));
    assert_ne!(object, text);
    for policy in [object, text] {
        let KeySource::Inline(keys) = one_issuer(&policy).keys else {
            panic!("{policy}")
        };
        assert!(keys.find("2011-04-29").is_some());
    }
}

#[test]
fn inline_keys_that_cannot_be_used_are_told_with_the_reason() {
    for keys in [
        r#"{"keys": []}"#,
        r#"{}"#,
        r#"{"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}]}"#,
    ] {
        let reason = KeySet::parse(keys.as_bytes()).unwrap_err();
        let expected = format!(
            "issuers[0].jwks: {reason}; write a JWK Set such as \
             {{\"keys\": [{{\"kty\": \"RSA\", \"kid\": \"...\", \"n\": \"...\", \"e\": \"AQAB\"}}]}}"
        );
        for jwks in [keys.to_owned(), format!("{keys:?}")] {
            let policy = source(&format!(r#""issuers": ["https://a/"], "jwks": {jwks}"#));
            assert_eq!(errors(&policy), expected, "{jwks}");
        }
    }
}

#[test]
fn audiences_are_equal_but_for_one_slash() {
    let issuer = one_issuer(&issuer(
        r#""audiences": ["https://a/", "https://a", "api://b//", "https://A"]"#,
    ));
    assert_eq!(issuer.audiences, ["https://a", "api://b/", "https://A"]);
}

#[test]
fn refresh_times() {
    let refresh = |members: &str| fetch(&issuer(&format!(r#""refresh": {{{members}}}"#))).refresh;
    let all = refresh(
        r#""every": "2h", "at_most_every": "90s", "keep_stale_for": "0s", "timeout": "100ms""#,
    );
    let expected = Refresh {
        every: 7_200_000,
        at_most_every: 90_000,
        keep_stale_for: 0,
        timeout: 100,
    };
    assert_eq!(all, expected);
    assert_eq!(refresh(r#""every": "1s""#).at_most_every, 1_000);
    assert_eq!(refresh(r#""every": "5m""#).at_most_every, 300_000);
    assert_eq!(refresh(r#""every": "24h""#).at_most_every, 300_000);
    assert_eq!(refresh(r#""at_most_every": "1h""#).at_most_every, 3_600_000);
    let longest = refresh(r#""every": "8784h", "keep_stale_for": "8784h""#);
    let year = 366 * 86_400_000;
    assert_eq!((longest.every, longest.keep_stale_for), (year, year));
}

#[test]
fn limits_of_every_kind() {
    for (per, window) in [
        ("1s", Window::Sliding { millis: 1_000 }),
        ("1000ms", Window::Sliding { millis: 1_000 }),
        (
            "744h",
            Window::Sliding {
                millis: 2_678_400_000,
            },
        ),
        ("hour", Window::Calendar(Period::Hour)),
        ("day", Window::Calendar(Period::Day)),
        ("week", Window::Calendar(Period::Week)),
        ("month", Window::Calendar(Period::Month)),
    ] {
        let expected = Limit {
            measure: Measure::Calls,
            amount: 1,
            window,
            count: Count::All,
            scope: Scope::default(),
        };
        assert_eq!(
            one_limit(&format!(r#""calls": 1, "per": "{per}""#)),
            expected
        );
    }
    for (count, expected) in [
        (r#""all""#, Count::All),
        (r#""success""#, Count::Success),
        (
            "[500, 200, 200, 100, 599]",
            Count::Statuses(vec![100, 200, 500, 599]),
        ),
    ] {
        let limit = one_limit(&format!(r#""calls": 1, "per": "60s", "count": {count}"#));
        assert_eq!(limit.count, expected);
    }
}

#[test]
fn a_limit_on_tokens_counts_answers_that_use_some() {
    let of_tokens = |count: &str| {
        let policy = limit(&format!(r#""tokens": 1, "per": "60s", "count": {count}"#));
        Policy::parse(policy.as_bytes())
            .err()
            .map(|errors| errors.to_string())
    };
    for count in ["[200]", "[500, 206]", "\"success\""] {
        assert_eq!(of_tokens(count), None, "{count}");
    }
    for count in ["[500]", "[199, 300]"] {
        let told = of_tokens(count).unwrap_or_default();
        assert!(
            told.contains("limits[0].count: answers with these statuses use no tokens"),
            "{told}"
        );
    }
    assert_eq!(
        one_limit(r#""calls": 1, "per": "60s", "count": [500]"#).count,
        Count::Statuses(vec![500])
    );
}

#[test]
fn limits_on_tokens_and_for_some_requests() {
    let limit = one_limit(r#""tokens": 1000, "per": "60s", "reserve": true"#);
    assert_eq!(limit.measure, Measure::Tokens { reserve: true });
    assert_eq!(limit.amount, 1000);
    let limit = one_limit(r#""tokens": 5, "per": "day""#);
    assert_eq!(limit.measure, Measure::Tokens { reserve: false });
    let limit = one_limit(
        r#""calls": 1, "per": "60s", "deployments": ["gpt-*"],
           "operations": ["deployments/CHAT/completions/action",
                          "Microsoft.CognitiveServices/accounts/OpenAI/files/*"]"#,
    );
    let operations = limit.scope.operations.unwrap();
    for (action, named) in [
        (Action::ChatCompletions, true),
        (Action::FilesRead, true),
        (Action::Completions, false),
    ] {
        assert_eq!(operations.grant(action), named, "{action}");
    }
    assert!(limit.scope.deployments.unwrap().include("GPT-4o"));
}

#[test]
fn usage_is_read_and_asked_for_as_told() {
    let usage = |text| parse(&top(text)).usage;
    let inject = usage(r#""usage": { "stream_options": "inject" }"#);
    assert_eq!(inject.stream_options, StreamOptions::Inject);
    assert!(inject.read);
    assert!(!usage(r#""usage": { "read": false }"#).read);
}

#[test]
fn l13_pictures_have_their_tokens() {
    let tokens = |text| parse(&top(text)).usage.image_tokens;
    for (text, expected) in [
        (r#""usage": {}"#, 1_500),
        (r#""usage": { "image_tokens": 1 }"#, 1),
        (r#""usage": { "image_tokens": 85.0 }"#, 85),
        (r#""usage": { "image_tokens": 1000000 }"#, 1_000_000),
    ] {
        assert_eq!(tokens(text), expected, "{text}");
    }
}

#[test]
fn whole_numbers_may_be_written_as_doubles() {
    for (written, calls) in [
        ("1", 1),
        ("60.0", 60),
        ("1e3", 1_000),
        ("1e+15", 1_000_000_000_000_000),
        ("1000000000000000", 1_000_000_000_000_000),
    ] {
        let limit = one_limit(&format!(r#""calls": {written}, "per": "60s""#));
        assert_eq!(limit.amount, calls, "{written}");
    }
}

#[test]
fn the_default_application() {
    let policy = parse(&top(
        r#""default_app": {"name": "others", "access": "deny", "limits": [{"calls": 5, "per": "day"}]}"#,
    ));
    let expected = App {
        id: None,
        name: Some("others".to_owned()),
        access: Access::Deny,
        roles: None,
        deployments: None,
        limits: vec![Limit {
            measure: Measure::Calls,
            amount: 5,
            window: Window::Calendar(Period::Day),
            count: Count::All,
            scope: Scope::default(),
        }],
        caps: Caps::default(),
    };
    assert_eq!(policy.apps.default_app, expected);
}

#[test]
fn names_of_64_characters_and_16_limits_are_accepted() {
    let name = "n".repeat(64);
    let limits = [r#"{"calls": 1, "per": "60s"}"#; 16].join(",");
    let policy = parse(&app(&format!(r#""name": "{name}", "limits": [{limits}]"#)));
    assert_eq!(policy.apps.listed[0].name.as_deref(), Some(name.as_str()));
    assert_eq!(policy.apps.listed[0].limits.len(), 16);
}

#[test]
fn api_keys_are_named_in_one_way() {
    let policy = parse(&top(
        r#""api_keys": {"action": "strip", "headers": ["X_Key", "x-key", "Api-Key"], "query": ["Key", "KEY"]}"#,
    ));
    let expected = ApiKeys {
        action: ApiKeyAction::Strip,
        headers: texts(&["x-key", "api-key"]),
        query: texts(&["key"]),
    };
    assert_eq!(policy.api_keys, expected);
}

#[test]
fn forwarded_headers() {
    let policy = parse(&top(
        r#""forward": {"authorization": false, "headers": {"X-App-Id": "app_id", "x-name": "app_name",
        "x-tenant": "tenant_id", "x-object": "object_id", "x-roles": "roles", "x_upn": "claim.upn"}}"#,
    ));
    let expected = [
        ("x-app-id", HeaderSource::AppId),
        ("x-name", HeaderSource::AppName),
        ("x-tenant", HeaderSource::TenantId),
        ("x-object", HeaderSource::ObjectId),
        ("x-roles", HeaderSource::Roles),
        ("x_upn", HeaderSource::Claim("upn".to_owned())),
    ];
    assert!(!policy.forward.authorization);
    assert_eq!(
        policy.forward.headers,
        expected.map(|(name, source)| (name.to_owned(), source))
    );
}

#[test]
fn no_header_that_carries_the_request_can_be_set() {
    for name in [
        "authorization",
        "Connection",
        "content-length",
        "content_length",
        "host",
        "keep-alive",
        "proxy-authorization",
        "TE",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        let policy = top(&format!(
            r#""forward": {{"headers": {{"{name}": "app_id"}}}}"#
        ));
        assert_eq!(
            errors(&policy),
            format!(
                "forward.headers.{name}: \"{name}\" belongs to the request itself; \
                 write a header of your own, such as \"x-app-id\""
            )
        );
    }
}

#[test]
fn the_remaining_keys() {
    let policy = parse(&top(
        r#""public_paths": ["/", "/status", "/health/*", "/ready*", "/.well-known/a"],
        "cors_preflight": "pass", "mode": "report", "max_undecided": 10000,
        "log": {"requests": false, "filter_state": ["app_id", "code", "app_id"]}"#,
    ));
    assert_eq!(
        policy.public_paths,
        [
            Pattern::Exact("/".to_owned()),
            Pattern::Exact("/status".to_owned()),
            Pattern::Prefix("/health/".to_owned()),
            Pattern::Prefix("/ready".to_owned()),
            Pattern::Exact("/.well-known/a".to_owned()),
        ]
    );
    assert_eq!(policy.cors_preflight, CorsPreflight::Pass);
    assert_eq!(policy.mode, Mode::Report);
    assert_eq!(policy.max_undecided, 10_000);
    assert!(!policy.log.requests);
    let fields = [FilterStateField::AppId, FilterStateField::Code];
    assert_eq!(policy.log.filter_state, fields);
    assert_eq!(
        parse(&top(r#""log": {"filter_state": []}"#))
            .log
            .filter_state,
        []
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let policy = r#"{
        "issuers": [
            {"tenant_id": "contoso", "audience": ["a"], "clock_skew": 60, "algorithms": ["HS256"]},
            {"issuers": ["https://a/"], "jwks_uri": "keys", "audiences": [], "refresh": {"every": "0s"}}
        ],
        "apps": [
            {"app_id": "1", "name": ""},
            {"app_id": "aaaaaaaa-0000-0000-0000-000000000001", "roles": ["reader"]},
            {"app_id": "aaaaaaaa-0000-0000-0000-000000000002", "limits": [{"calls": 0, "per": 60}]}
        ],
        "default_app": {"app_id": "x", "access": "no"},
        "api_keys": {"action": "log"},
        "forward": {"headers": {"host": "appid"}},
        "responses": {"limited": {"status": 42}},
        "mode": "dry-run",
        "extra": null
    }"#;
    let told: Vec<String> = Policy::parse(policy.as_bytes())
        .unwrap_err()
        .iter()
        .map(|error| error.path.clone())
        .collect();
    assert_eq!(
        told,
        [
            "extra",
            "issuers[0].audience",
            "issuers[0].tenant_id",
            "issuers[0].cluster",
            "issuers[0].audiences",
            "issuers[0].algorithms[0]",
            "issuers[0].clock_skew",
            "issuers[1].jwks_uri",
            "issuers[1].cluster",
            "issuers[1].refresh.every",
            "issuers[1].audiences",
            "api_keys.action",
            "apps[0].app_id",
            "apps[0].name",
            "apps[1].roles[0]",
            "apps[2].limits[0].calls",
            "apps[2].limits[0].per",
            "default_app.app_id",
            "default_app.access",
            "forward.headers.host",
            "forward.headers.host",
            "responses.limited.status",
            "mode",
        ]
    );
}

#[test]
fn at_most_50_errors_are_told() {
    let apps = vec!["1"; 60].join(",");
    let told = errors(&top(&format!(r#""apps": [{apps}]"#)));
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 51);
    assert!(
        lines[49].starts_with("apps[49]: expected an object"),
        "{}",
        lines[49]
    );
    assert_eq!(lines[50], "and 10 more");
}

#[test]
fn long_values_are_cut_and_control_characters_escaped() {
    let cut = format!("\"{}...{}\"", "x".repeat(60), "x".repeat(20));
    let long = "x".repeat(10_000);
    assert_eq!(
        errors(&top(&format!(r#""mode": "{long}""#))),
        format!("mode: {cut} is not one of the choices; write \"enforce\" or \"report\"")
    );
    let unknown = errors(&top(&format!(r#""{long}": 1"#)));
    assert!(
        unknown.starts_with(&format!("[{cut}]: unknown key;")),
        "{unknown}"
    );
    assert_eq!(
        errors(&top(r#""mode": "a\r\n\u001b[31mmode: b\u202e""#)),
        r#"mode: "a\r\n\u{1b}[31mmode: b\u{202e}" is not one of the choices; write "enforce" or "report""#
    );
    assert_eq!(
        errors(&top(&format!(
            r#""responses": {{"quota": {{"message": "{}"}}}}"#,
            "m".repeat(501)
        ))),
        "responses.quota.message: is 501 characters long; write at most 500"
    );
    assert_eq!(
        errors(&issuer(&format!(r#""cluster": "{long}""#))),
        "issuers[0].cluster: is 10000 bytes long; write at most 2048 bytes"
    );
    let longest = "c".repeat(2_048);
    assert_eq!(
        one_issuer(&issuer(&format!(r#""cluster": "{longest}""#))).cluster(),
        longest
    );
}

#[test]
fn the_number_of_issuers_and_applications_is_bounded() {
    let issuers = |count: usize| {
        let issuers: Vec<String> = (0..count)
            .map(|number| {
                format!(r#"{{"issuers": ["https://{number}/"], {AUDIENCES}, "jwks": {KEYS}}}"#)
            })
            .collect();
        format!(r#"{{"issuers": [{}]}}"#, issuers.join(","))
    };
    assert_eq!(parse(&issuers(100)).issuers.len(), 100);
    assert_eq!(
        errors(&issuers(101)),
        "issuers: has 101 entries; write at most 100"
    );
    let apps = |count| {
        let apps = vec!["{}"; count].join(",");
        errors(&top(&format!(r#""apps": [{apps}]"#)))
    };
    assert_eq!(
        apps(100_001),
        "apps: has 100001 entries; write at most 100000"
    );
    assert!(apps(100_000).starts_with("apps[0]"));
}

/// What one application may do whose roles these are, in a policy with these definitions.
#[track_caller]
fn permissions(definitions: &str, roles: &str) -> Permissions {
    let app = object(&[APP_ID], &format!(r#""roles": {roles}"#));
    let policy = parse(&top(&format!(r#""roles": {definitions}, "apps": [{app}]"#)));
    policy.apps.listed[0].roles.unwrap()
}

/// A definition as the command line prints it.
const OWN_ROLE: &str = r#"{
    "assignableScopes": ["/subscriptions/11111111-2222-3333-4444-555555555555"],
    "createdBy": null, "createdOn": "2026-01-01T00:00:00.000000+00:00",
    "description": "Chat, and files but for deleting", "id": "/providers/x",
    "name": "cccccccc-0000-0000-0000-000000000001",
    "permissions": [{
        "actions": ["*"], "notActions": [], "condition": null, "conditionVersion": null,
        "dataActions": [
            "microsoft.cognitiveservices/accounts/openai/DEPLOYMENTS/chat/completions/action",
            "Microsoft.CognitiveServices/accounts/OpenAI/files/*",
            "Microsoft.CognitiveServices/accounts/SpeechServices/*"
        ],
        "notDataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/delete"]
    }],
    "roleName": "Own role", "roleType": "CustomRole",
    "type": "Microsoft.Authorization/roleDefinitions", "updatedBy": null, "updatedOn": null
}"#;

/// The same as Azure Resource Manager answers it.
const OWN_RESOURCE: &str = r#"{
    "id": "/providers/x", "name": "cccccccc-0000-0000-0000-000000000001",
    "type": "Microsoft.Authorization/roleDefinitions",
    "properties": {
        "roleName": "Own role", "type": "CustomRole", "description": "", "isServiceRole": false,
        "assignableScopes": ["/"], "createdOn": "", "updatedOn": "", "createdBy": "", "updatedBy": "",
        "permissions": [{
            "actions": [], "notActions": [],
            "dataActions": [
                "Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action",
                "Microsoft.CognitiveServices/accounts/OpenAI/files/*"
            ],
            "notDataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/delete"]
        }]
    }
}"#;

/// The same in short.
const OWN_SHORT: &str = r#"{"Own role": {
    "data_actions": [
        "Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action",
        "Microsoft.CognitiveServices/accounts/OpenAI/files/*"
    ],
    "not_data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/files/delete"]
}}"#;

#[test]
fn roles_in_every_form() {
    let granted = [
        Action::ChatCompletions,
        Action::FilesRead,
        Action::FilesWrite,
    ];
    let list = format!("[{OWN_ROLE}]");
    let resources = format!("[{OWN_RESOURCE}]");
    for definitions in [OWN_ROLE, &list, OWN_RESOURCE, &resources, OWN_SHORT] {
        for name in [
            r#"["Own role"]"#,
            r#"["OWN ROLE"]"#,
            r#"["Own role", "own role"]"#,
        ] {
            let permissions = permissions(definitions, name);
            for action in Action::ALL {
                let expected = granted.contains(action);
                assert_eq!(
                    permissions.grant(*action),
                    expected,
                    "{action}\n{definitions}"
                );
            }
        }
    }
    let id = r#"["CCCCCCCC-0000-0000-0000-000000000001"]"#;
    assert!(permissions(OWN_ROLE, id).grant(Action::FilesWrite));
    assert!(permissions(OWN_RESOURCE, id).grant(Action::FilesWrite));
}

#[test]
fn the_number_of_roles_and_actions_is_bounded() {
    let action = r#""Microsoft.CognitiveServices/accounts/OpenAI/*""#;
    let roles = |count: usize| {
        let role = |number| format!(r#""r{number}": {{"data_actions": [{action}]}}"#);
        let roles: Vec<String> = (0..count).map(role).collect();
        top(&format!(r#""roles": {{{}}}"#, roles.join(",")))
    };
    let actions = |count: usize| {
        let actions = vec![action; count].join(",");
        top(&format!(
            r#""roles": {{"r": {{"data_actions": [{actions}]}}}}"#
        ))
    };
    parse(&roles(5_000));
    parse(&actions(5_000));
    for count in [5_001, 5_002] {
        let told = format!("has {count} entries; write at most 5000");
        assert_eq!(errors(&roles(count)), format!("roles: {told}"));
        assert_eq!(
            errors(&actions(count)),
            format!("roles.r.data_actions: {told}")
        );
    }
}

/// Each member that only those have says that an object is a role of Azure's.
#[test]
fn an_object_with_a_member_of_azures_is_a_role_of_azures() {
    for (member, missing) in [
        (r#""roleName": "x""#, "permissions"),
        (r#""permissions": []"#, "roleName"),
        (r#""properties": {}"#, "properties.roleName"),
    ] {
        let errors = errors(&top(&format!(r#""roles": {{{member}}}"#)));
        assert!(
            errors.contains(&format!("roles.{missing}: is missing")),
            "{errors}"
        );
    }
}

#[test]
fn built_in_roles_by_name_and_by_id() {
    let user = permissions("{}", r#"["Cognitive Services OpenAI User"]"#);
    assert!(user.grant(Action::ChatCompletions));
    assert!(!user.grant(Action::FilesWrite));
    for same in [
        r#"["cognitive services openai user"]"#,
        r#"["5e0bd9bd-7b93-4f28-af87-19fc36ad61bd"]"#,
        r#"["5E0BD9BD-7B93-4F28-AF87-19FC36AD61BD", "Cognitive Services OpenAI User"]"#,
    ] {
        assert_eq!(permissions("{}", same), user, "{same}");
    }
    let contributor = permissions("[]", r#"["a001fd3d-188f-4b5d-821b-7da978bf7442"]"#);
    assert!(contributor.grant(Action::FilesWrite));
    assert_eq!(
        permissions("{}", r#"["Cognitive Services User"]"#),
        permissions("{}", r#"["a97b65f3-24c7-4388-baec-2e87135dc908"]"#)
    );
}

/// `az role definition list` writes the built-in roles too, as they are at that moment.
#[test]
fn a_built_in_role_may_stand_among_azures() {
    let built_in = |name: &str, id: &str| {
        format!(
            r#"[{{"roleName": "{name}", "name": "{id}", "roleType": "BuiltInRole", "permissions": [
                {{"dataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/files/write"]}}]}}]"#
        )
    };
    let id = "5E0BD9BD-7b93-4f28-af87-19fc36ad61bd";
    let listed = built_in("Cognitive Services OpenAI user", id);
    for name in [
        r#"["Cognitive Services OpenAI User"]"#,
        &format!(r#"["{id}"]"#),
    ] {
        let user = permissions(&listed, name);
        assert!(user.grant(Action::FilesWrite) && !user.grant(Action::ChatCompletions));
    }
    // It is not one by its name alone, or by its id, and stands there once.
    let other = "5e0bd9bd-7b93-4f28-af87-19fc36ad61be";
    let role = listed.trim_matches(['[', ']']);
    for (roles, said) in [
        (
            built_in("Cognitive Services OpenAI User", other),
            "the name",
        ),
        (built_in("OpenAI User", id), "the id"),
        (format!("[{role},{role}]"), "is taken by roles[0]"),
    ] {
        let errors = errors(&top(&format!(r#""roles": {roles}"#)));
        assert!(errors.contains(said), "{errors}");
    }
}

#[test]
fn an_application_has_the_union_of_its_roles() {
    // The own role withholds deleting; another role may still grant it.
    let own = permissions(OWN_ROLE, r#"["Own role"]"#);
    let both = permissions(
        OWN_ROLE,
        r#"["Own role", "Cognitive Services OpenAI Contributor"]"#,
    );
    assert!(!own.grant(Action::FilesDelete) && both.grant(Action::FilesDelete));
    let user = permissions(OWN_ROLE, r#"["Cognitive Services OpenAI User"]"#);
    let with_user = permissions(
        OWN_ROLE,
        r#"["Cognitive Services OpenAI User", "Own role"]"#,
    );
    assert_eq!(with_user, own.union(user));
}

#[test]
fn several_permissions_withhold_together() {
    let definition = r#"{"roleName": "Split", "permissions": [
        {"dataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/files/*"]},
        {"notDataActions": ["Microsoft.CognitiveServices/accounts/OpenAI/files/write"]}
    ]}"#;
    let split = permissions(definition, r#"["Split"]"#);
    assert!(split.grant(Action::FilesRead) && !split.grant(Action::FilesWrite));
}

#[test]
fn a_role_that_grants_nothing_allows_nothing() {
    let nothing = r#"{"Nothing": {"data_actions": []}}"#;
    assert_eq!(
        permissions(nothing, r#"["Nothing"]"#),
        Permissions::default()
    );
    let reader = r#"[{"roleName": "Reader", "permissions": [{"actions": ["*/read"]}]}]"#;
    assert_eq!(permissions(reader, r#"["Reader"]"#), Permissions::default());
}

#[test]
fn deployments_by_name_and_by_prefix() {
    let policy = parse(&app(r#""deployments": ["gpt-4o", "Text-*", "a"]"#));
    let deployments = policy.apps.listed[0].deployments.as_ref().unwrap();
    let expected = [
        Pattern::Exact("gpt-4o".to_owned()),
        Pattern::Prefix("Text-".to_owned()),
        Pattern::Exact("a".to_owned()),
    ];
    assert_eq!(deployments, &Deployments(expected.to_vec()));
    for name in ["gpt-4o", "GPT-4O", "text-", "TEXT-embedding", "a"] {
        assert!(deployments.include(name), "{name}");
    }
    for name in ["", "gpt-4", "gpt-4o-mini", "text", "tex", "ab", "*"] {
        assert!(!deployments.include(name), "{name}");
    }
    let every = parse(&app(r#""deployments": ["*"]"#));
    let deployments = every.apps.listed[0].deployments.as_ref().unwrap();
    assert!(deployments.include("gpt-4o") && deployments.include("a"));
    let policy = parse(&top(
        r#""default_app": {"deployments": ["x"], "roles": ["Cognitive Services User"]}"#,
    ));
    let default_app = policy.apps.default_app;
    assert!(default_app.deployments.unwrap().include("X"));
    assert!(default_app.roles.unwrap().grant(Action::FilesWrite));
}

#[test]
fn c6_caps_of_listed_and_other_applications() {
    let caps = |text: &str| parse(&app(text)).apps.listed[0].caps;
    let override_it = Caps {
        content_filter_override: true,
    };
    for text in [
        r#""access": "allow""#,
        r#""caps": {}"#,
        r#""caps": {"content_filter_override": false}"#,
    ] {
        assert_eq!(caps(text), Caps::default(), "{text}");
    }
    let text = r#""caps": {"content_filter_override": true}"#;
    assert_eq!(caps(text), override_it);
    let default_app = parse(&top(&format!(r#""default_app": {{{text}}}"#)))
        .apps
        .default_app;
    assert_eq!(default_app.caps, override_it);
}

/// A policy of this many applications, each named and limited.
fn with_apps(count: usize) -> String {
    let apps: Vec<String> = (0..count)
        .map(|number| {
            format!(
                r#"{{"app_id": "aaaaaaaa-0000-0000-0000-{number:012}", "name": "app {number}",
                "roles": ["Cognitive Services OpenAI User"], "deployments": ["gpt-*"],
                "limits": [{{"calls": 100, "per": "60s", "count": "success"}}]}}"#
            )
        })
        .collect();
    top(&format!(r#""apps": [{}]"#, apps.join(",")))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the parser itself")]
fn ten_thousand_applications_are_read_in_linear_time() {
    let (small, large) = (with_apps(1_000), with_apps(10_000));
    // The best of ten, so that a busy machine does not count.
    let time = |policy: &str, count: usize| {
        let once = || {
            let start = std::time::Instant::now();
            let parsed = Policy::parse(policy.as_bytes()).unwrap();
            assert_eq!(parsed.apps.listed.len(), count);
            start.elapsed()
        };
        (0..10).map(|_| once()).min().unwrap()
    };
    let (short, long) = (time(&small, 1_000), time(&large, 10_000));
    assert!(long.as_secs() < 2, "{long:?}");
    // Linear is a factor of 10, quadratic one of 100.
    assert!(long < short * 30, "{short:?} {long:?}");
}

#[test]
fn every_app_is_found_by_its_id() {
    let apps = parse(&with_apps(100)).apps;
    for (index, app) in apps.listed.iter().enumerate() {
        let id = app.id.unwrap();
        assert_eq!(apps.by_id.get(&id), Some(&index));
        assert_eq!(apps.find(id), app);
    }
    assert_eq!(apps.by_id.len(), 100);
}

#[test]
fn no_cut_of_a_good_policy_is_accepted_or_stops_the_parser() {
    let policy = limit(r#""calls": 1, "per": "60s", "count": [200]"#);
    for end in 0..policy.len() {
        assert!(!errors(&policy[..end]).is_empty(), "{end}");
    }
}

/// Replaces each string of a good policy by every other kind of JSON value.
#[test]
fn values_of_another_kind_are_refused_everywhere() {
    let policy = source(
        r#""issuers": ["https://a/"], "jwks_uri": "https://a/k", "cluster": "c", "clock_skew": "1s",
        "algorithms": ["RS256"], "app_claim": "azp", "refresh": {"every": "1h", "timeout": "1s"},
        "required_claims": [{"name": "n", "values": ["v"], "match": "any", "separator": ","}]"#,
    );
    assert_eq!(parse(&policy).issuers.len(), 1);
    let mut tried = 0;
    for (start, _) in policy.match_indices(": \"") {
        let rest = &policy[start + 3..];
        let end = start + 3 + rest.find('"').unwrap() + 1;
        for other in ["null", "true", "7", "[]", "{}", "-1", "1.5"] {
            let changed = format!("{}: {other}{}", &policy[..start], &policy[end..]);
            let told = errors(&changed);
            let is_type = told.contains("expected ") || told.contains("has no unit");
            assert!(is_type, "{changed}\n{told}");
            tried += 1;
        }
    }
    assert_eq!(tried, 9 * 7);
}

#[test]
fn a_structure_reads_as_text_does() {
    use super::structure::tests::encode;
    let text = r#"{
        "issuers": [{ "tenant_id": "11111111-2222-3333-4444-555555555555",
            "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra" }],
        "apps": [{ "app_id": "aaaaaaaa-0000-0000-0000-000000000001",
            "limits": [{ "calls": 10, "per": "60s", "count": [200] }] }]
    }"#;
    let of_text = Policy::parse(text.as_bytes()).unwrap();
    let of_structure = Policy::parse(&encode(text)).unwrap();
    assert_eq!(format!("{of_structure:?}"), format!("{of_text:?}"));
    let errors = Policy::parse(&encode(r#"{"issuers":[]}"#)).unwrap_err();
    assert!(errors.to_string().starts_with("issuers: "), "{errors}");
}
