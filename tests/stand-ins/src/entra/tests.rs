use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use serde_json::Value;

use super::*;
use crate::message::Action;
use crate::message::testing::{document, get, post, reply, request};
use crate::tokens::{CLIENT, TENANT};

const BASE: &str = "http://127.0.0.1:9101";

fn metadata_path() -> String {
    format!("/{TENANT}/v2.0/.well-known/openid-configuration")
}

fn keys_path() -> String {
    format!("/{TENANT}/discovery/v2.0/keys")
}

fn payload(token: &Value) -> Value {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn behave(entra: &Entra, behaviour: Value) {
    let answer = reply(entra.answer(&post("/control/behaviour", &behaviour)));
    assert_eq!(answer.status, 200, "{behaviour}");
}

fn ask_token(entra: &Entra, path: &str, form: &str) -> Reply {
    let target = format!("/{TENANT}/{path}");
    reply(entra.answer(&request(Method::POST, &target, form)))
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.bytes()).unwrap()
}

#[test]
fn metadata_v2_leads_back_to_the_caller() {
    let found = document(Entra::default().answer(&get(&metadata_path())));
    assert_eq!(found["issuer"], format!("{BASE}/{TENANT}/v2.0"));
    assert_eq!(
        found["jwks_uri"],
        format!("{BASE}/{TENANT}/discovery/v2.0/keys")
    );
    assert_eq!(
        found["token_endpoint"],
        format!("{BASE}/{TENANT}/oauth2/v2.0/token")
    );
    let authorize = format!("{BASE}/{TENANT}/oauth2/v2.0/authorize");
    assert_eq!(found["authorization_endpoint"], authorize);
}

#[test]
fn metadata_v1_has_the_old_issuer() {
    let path = format!("/{TENANT}/.well-known/openid-configuration");
    let found = document(Entra::default().answer(&get(&path)));
    assert_eq!(
        found["issuer"],
        format!("https://sts.windows.net/{TENANT}/")
    );
    assert_eq!(found["jwks_uri"], format!("{BASE}/{TENANT}/discovery/keys"));
}

#[test]
fn a_public_url_is_the_authority_and_nothing_else() {
    let entra = Entra::new(Some("https://login.example/"));
    let found = document(entra.answer(&get(&metadata_path())));
    assert_eq!(
        found["issuer"],
        format!("https://login.example/{TENANT}/v2.0")
    );
    assert_eq!(
        found["jwks_uri"],
        format!("{BASE}/{TENANT}/discovery/v2.0/keys")
    );
    let keys = document(entra.answer(&get(&keys_path())));
    assert_eq!(
        keys["keys"][0]["issuer"],
        "https://login.example/{tenantid}/v2.0"
    );
    let minted = document(entra.answer(&post("/control/mint", &json!({ "version": 2 }))));
    let issuer = format!("https://login.example/{TENANT}/v2.0");
    assert_eq!(payload(&minted["access_token"])["iss"], issuer);
}

#[test]
fn many_tokens_are_minted_at_once() {
    let entra = Entra::default();
    let minted = |wanted| document(entra.answer(&post("/control/mint", &wanted)));
    let apps = |minted: Value| -> BTreeSet<String> {
        let tokens = minted["access_tokens"].as_array().unwrap();
        let app = |token| payload(token)["appid"].as_str().unwrap().to_owned();
        tokens.iter().map(app).collect()
    };
    let tokens = minted(json!({ "count": 3 }));
    let all = tokens["access_tokens"].as_array().unwrap();
    let differ: BTreeSet<_> = all.iter().map(|token| token.as_str()).collect();
    assert_eq!(differ.len(), 3);
    assert_eq!(apps(tokens).len(), 1);
    assert_eq!(
        apps(minted(json!({ "count": 3, "new_clients": true }))).len(),
        3
    );
}

#[test]
fn tenants_are_guids_or_placeholders() {
    let entra = Entra::default();
    let common = document(entra.answer(&get("/common/v2.0/.well-known/openid-configuration")));
    assert_eq!(common["issuer"], format!("{BASE}/{{tenantid}}/v2.0"));
    let unknown = reply(entra.answer(&get("/nobody/v2.0/.well-known/openid-configuration")));
    assert_eq!(unknown.status, 400);
    assert_eq!(body(&unknown)["error"], "invalid_tenant");
}

#[test]
fn both_key_addresses_serve_the_placeholder_issuer() {
    let entra = Entra::default();
    for path in [keys_path(), format!("/{TENANT}/discovery/keys")] {
        let set = document(entra.answer(&get(&path)));
        let keys = set["keys"].as_array().unwrap();
        assert!(keys.len() >= 2);
        for key in keys {
            assert_eq!(key["issuer"], format!("{BASE}/{{tenantid}}/v2.0"));
        }
    }
}

#[test]
fn a_scope_gives_a_version_1_token() {
    let form = format!(
        "grant_type=client_credentials&client_id={CLIENT}&client_secret=stand-in-secret\
         &scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"
    );
    let answer = ask_token(&Entra::default(), "oauth2/v2.0/token", &form);
    assert_eq!(answer.status, 200);
    let answer = body(&answer);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3599);
    let claims = payload(&answer["access_token"]);
    assert_eq!(claims["aud"], "https://cognitiveservices.azure.com");
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!(claims["appid"], CLIENT);
    assert_eq!(claims["tid"], TENANT);
}

#[test]
fn the_slash_before_default_is_kept_as_entra_does() {
    let form = format!(
        "grant_type=client_credentials&client_id={CLIENT}&client_secret=stand-in-secret\
         &scope=https://cognitiveservices.azure.com//.default"
    );
    let answer = body(&ask_token(&Entra::default(), "oauth2/v2.0/token", &form));
    assert_eq!(
        payload(&answer["access_token"])["aud"],
        "https://cognitiveservices.azure.com/"
    );
}

#[test]
fn the_older_endpoint_takes_a_resource_and_writes_text() {
    let form = format!(
        "grant_type=client_credentials&client_id={CLIENT}&client_secret=stand-in-secret\
         &resource=https://cognitiveservices.azure.com"
    );
    let answer = body(&ask_token(&Entra::default(), "oauth2/token", &form));
    assert_eq!(answer["expires_in"], "3599");
    assert_eq!(answer["resource"], "https://cognitiveservices.azure.com");
    assert_eq!(payload(&answer["access_token"])["ver"], "1.0");
}

#[test]
fn version_2_on_request_or_for_a_guid() {
    let entra = Entra::default();
    let start =
        format!("grant_type=client_credentials&client_id={CLIENT}&client_secret=stand-in-secret");
    let resource = "7d312290-28c8-473c-a0ed-8e53749b6d6d";
    let asked = [
        (
            "oauth2/v2.0/token",
            format!("{start}&scope=https://a.example/.default&version=2"),
        ),
        (
            "oauth2/v2.0/token?version=2",
            format!("{start}&scope=https://a.example/.default"),
        ),
        (
            "oauth2/v2.0/token",
            format!("{start}&scope={resource}/.default"),
        ),
    ];
    for ((path, form), audience) in
        asked
            .iter()
            .zip(["https://a.example", "https://a.example", resource])
    {
        let claims = payload(&body(&ask_token(&entra, path, form))["access_token"]);
        assert_eq!(claims["ver"], "2.0", "{path} {form}");
        assert_eq!(claims["aud"], audience);
        assert_eq!(claims["azp"], CLIENT);
        assert_eq!(claims["iss"], format!("{BASE}/{TENANT}/v2.0"));
    }
}

#[test]
fn the_token_endpoint_refuses_as_entra_does() {
    let id = format!("client_id={CLIENT}");
    let secret = "client_secret=stand-in-secret";
    let grant = "grant_type=client_credentials";
    let scope = "scope=https://a.example/.default";
    let cases = [
        (
            format!("{grant}&{id}&client_secret=wrong&{scope}"),
            401,
            "invalid_client",
            7000215,
        ),
        (
            format!("{grant}&{id}&{scope}"),
            401,
            "invalid_client",
            7000218,
        ),
        (
            format!("{grant}&{secret}&{scope}"),
            400,
            "invalid_request",
            900144,
        ),
        (
            format!("{grant}&{id}&{secret}"),
            400,
            "invalid_request",
            900144,
        ),
        (
            format!("{grant}&client_id=me&{secret}&{scope}"),
            400,
            "unauthorized_client",
            700016,
        ),
        (
            format!("grant_type=password&{id}&{scope}"),
            400,
            "unsupported_grant_type",
            70003,
        ),
    ];
    let entra = Entra::default();
    for (form, status, error, code) in cases {
        let answer = ask_token(&entra, "oauth2/v2.0/token", &form);
        assert_eq!(answer.status, status, "{form}");
        let answer = body(&answer);
        assert_eq!(answer["error"], error, "{form}");
        assert_eq!(answer["error_codes"], json!([code]), "{form}");
        let description = answer["error_description"].as_str().unwrap();
        assert!(
            description.starts_with(&format!("AADSTS{code}: ")),
            "{description}"
        );
        assert!(answer.get("access_token").is_none());
    }
}

#[test]
fn rotation_by_control_request() {
    let entra = Entra::default();
    let count = |entra: &Entra| {
        let set = document(entra.answer(&get(&keys_path())));
        set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|key| key["kty"] == "RSA")
            .count()
    };
    assert_eq!(count(&entra), 2);
    assert_eq!(
        reply(entra.answer(&post("/control/rotate", &json!({ "keep_old": true })))).status,
        200
    );
    assert_eq!(count(&entra), 3);
    assert_eq!(
        reply(entra.answer(&post("/control/rotate", &json!({ "keep_old": false })))).status,
        200
    );
    assert_eq!(count(&entra), 1);
}

#[test]
fn behaviours_of_metadata_and_keys_are_apart_and_stay() {
    let entra = Entra::default();
    behave(
        &entra,
        json!({ "target": "keys", "mode": "status", "status": 503 }),
    );
    for _ in 0..2 {
        assert_eq!(reply(entra.answer(&get(&keys_path()))).status, 503);
        assert_eq!(reply(entra.answer(&get(&metadata_path()))).status, 200);
    }
    behave(&entra, json!({ "target": "all", "mode": "status" }));
    assert_eq!(reply(entra.answer(&get(&keys_path()))).status, 500);
    assert_eq!(reply(entra.answer(&get(&metadata_path()))).status, 500);
    behave(&entra, json!({ "target": "all", "mode": "ok" }));
    assert_eq!(reply(entra.answer(&get(&keys_path()))).status, 200);
}

#[test]
fn silent_behaviours() {
    let entra = Entra::default();
    behave(&entra, json!({ "target": "keys", "mode": "hang" }));
    assert!(matches!(
        entra.answer(&get(&keys_path())).action,
        Action::Hang
    ));
    behave(&entra, json!({ "target": "keys", "mode": "reset" }));
    assert!(matches!(
        entra.answer(&get(&keys_path())).action,
        Action::Reset
    ));
    behave(
        &entra,
        json!({ "target": "keys", "mode": "reset-mid-body" }),
    );
    assert!(reply(entra.answer(&get(&keys_path()))).cut);
    behave(
        &entra,
        json!({ "target": "keys", "mode": "delay", "delay_ms": 250 }),
    );
    let delayed = entra.answer(&get(&keys_path()));
    assert_eq!(delayed.delay, Duration::from_millis(250));
    assert!(document(delayed)["keys"].is_array());
}

#[test]
fn spoilt_key_sets() {
    let entra = Entra::default();
    let spoilt = |mode: &str| {
        behave(&entra, json!({ "target": "keys", "mode": mode }));
        let reply = reply(entra.answer(&get(&keys_path())));
        (
            reply.headers["content-type"].to_str().unwrap().to_owned(),
            reply.bytes(),
        )
    };
    let is_json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).is_ok();

    let (kind, page) = spoilt("html");
    assert!(kind.starts_with("text/html") && page.starts_with(b"<!DOCTYPE html>"));
    let (_, truncated) = spoilt("truncated");
    assert!(truncated.starts_with(b"{") && !is_json(&truncated));
    let (_, garbage) = spoilt("garbage");
    assert!(!garbage.is_empty() && !is_json(&garbage));
    let (_, brackets) = spoilt("brackets");
    assert!(brackets.len() == 100_000 && brackets.iter().all(|byte| *byte == b'['));
    let (_, huge) = spoilt("huge");
    assert!(huge.len() >= 3 * 1024 * 1024 && is_json(&huge));
    let (_, empty) = spoilt("empty-set");
    assert_eq!(
        serde_json::from_slice::<Value>(&empty).unwrap(),
        json!({ "keys": [] })
    );
    let (_, other) = spoilt("other-issuer");
    let other: Value = serde_json::from_slice(&other).unwrap();
    let issuer = other["keys"][0]["issuer"].as_str().unwrap();
    assert!(
        !issuer.contains(TENANT) && !issuer.contains("{tenantid}"),
        "{issuer}"
    );
}

#[test]
fn spoilt_metadata() {
    let entra = Entra::default();
    let spoilt = |mode: &str| {
        behave(&entra, json!({ "target": "metadata", "mode": mode }));
        document(entra.answer(&get(&metadata_path())))
    };
    let issuer = spoilt("other-issuer")["issuer"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        issuer.starts_with(BASE) && !issuer.contains(TENANT),
        "{issuer}"
    );
    let elsewhere = spoilt("other-host");
    let keys = elsewhere["jwks_uri"].as_str().unwrap();
    assert!(
        keys.starts_with("https://keys.other-host.example/"),
        "{keys}"
    );
    assert_eq!(elsewhere["issuer"], format!("{BASE}/{TENANT}/v2.0"));
    assert_eq!(spoilt("empty-set"), json!({}));
}

#[test]
fn a_redirect_leads_to_the_document() {
    let entra = Entra::default();
    behave(&entra, json!({ "target": "keys", "mode": "redirect" }));
    let redirect = reply(entra.answer(&get(&keys_path())));
    assert_eq!(redirect.status, 302);
    let location = redirect.headers["location"].to_str().unwrap();
    let followed = document(entra.answer(&get(location.strip_prefix(BASE).unwrap())));
    assert!(followed["keys"].is_array());
}

#[test]
fn flapping_fails_every_other_time() {
    let entra = Entra::default();
    behave(
        &entra,
        json!({ "target": "keys", "mode": "flap", "status": 502 }),
    );
    let statuses: Vec<u16> = (0..4)
        .map(|_| reply(entra.answer(&get(&keys_path()))).status.as_u16())
        .collect();
    assert_eq!(statuses, [502, 200, 502, 200]);
}

#[test]
fn a_literal_body_is_served() {
    let entra = Entra::default();
    let behaviour = json!({ "target": "keys", "mode": "ok", "body": "{\"keys\":7}" });
    behave(&entra, behaviour);
    assert_eq!(
        &reply(entra.answer(&get(&keys_path()))).bytes()[..],
        b"{\"keys\":7}"
    );
}

#[test]
fn stats_count_and_reset_clears() {
    let entra = Entra::default();
    let stats = |entra: &Entra| document(entra.answer(&get("/control/stats")));
    assert_eq!(
        stats(&entra),
        json!({ "metadata": 0, "keys": 0, "token": 0 })
    );
    entra.answer(&get(&metadata_path()));
    behave(&entra, json!({ "target": "keys", "mode": "hang" }));
    entra.answer(&get(&keys_path()));
    entra.answer(&get(&keys_path()));
    ask_token(&entra, "oauth2/v2.0/token", "");
    assert_eq!(
        stats(&entra),
        json!({ "metadata": 1, "keys": 2, "token": 1 })
    );
    assert_eq!(
        reply(entra.answer(&post("/control/reset", &json!({})))).status,
        200
    );
    assert_eq!(
        stats(&entra),
        json!({ "metadata": 0, "keys": 0, "token": 0 })
    );
    assert_eq!(reply(entra.answer(&get(&keys_path()))).status, 200);
}

#[test]
fn mistakes_are_refused() {
    let entra = Entra::default();
    let wrong = [
        post(
            "/control/behaviour",
            &json!({ "target": "keys", "mode": "no-such-mode" }),
        ),
        post("/control/behaviour", &json!({ "mode": "ok" })),
        post("/control/mint", &json!({ "algorithm": "RS256" })),
        post("/control/mint", &json!({ "count": 10_001 })),
        post("/control/rotate", &json!({ "keep": true })),
    ];
    for request in wrong {
        assert_eq!(reply(entra.answer(&request)).status, 400, "{request:?}");
    }
    assert_eq!(reply(entra.answer(&get("/control/mint"))).status, 404);
    assert_eq!(reply(entra.answer(&get("/"))).status, 404);
}
