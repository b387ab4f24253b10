//! Bad policies, each with everything that is told about it.

use super::{app, issuer, limit, second_issuer, source, top};

/// Completes a policy that is right but for the given members.
type Complete = fn(&str) -> String;

/// How the policy is completed, what is wrong in it, and the errors.
pub(super) const BAD: &[(Complete, &str, &[&str])] = &[
    // The whole.
    (
        str::to_owned,
        "",
        &[
            r#"$: the configuration is empty; a policy is required, at least {"issuers": [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]}"#,
        ],
    ),
    (
        str::to_owned,
        " \t ",
        &[
            r#"$: the configuration is empty; a policy is required, at least {"issuers": [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]}"#,
        ],
    ),
    (
        str::to_owned,
        "{",
        &[
            "$: not valid JSON: EOF while parsing an object at line 1 column 1; a policy is one JSON object",
        ],
    ),
    (
        str::to_owned,
        r#"{"mode":"report","mode":"enforce"}"#,
        &[
            r#"$: not valid JSON: repeated member "mode" at line 1 column 23; a policy is one JSON object"#,
        ],
    ),
    (
        str::to_owned,
        "[]",
        &[
            r#"$: expected an object such as {"issuers": [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]}, found an array"#,
        ],
    ),
    (
        str::to_owned,
        r#""policy""#,
        &[
            r#"$: expected an object such as {"issuers": [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]}, found a string"#,
        ],
    ),
    (
        str::to_owned,
        "{}",
        &[
            r#"issuers: is missing; a policy is required, at least {"issuers": [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]}"#,
        ],
    ),
    (
        str::to_owned,
        "['a']",
        &["$: not valid JSON: expected value at line 1 column 2; a policy is one JSON object"],
    ),
    (
        str::to_owned,
        r#"{"issuers": {}}"#,
        &[
            r#"issuers: expected an array such as [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}], found an object"#,
        ],
    ),
    (
        str::to_owned,
        r#"{"issuers": []}"#,
        &[
            r#"issuers: is empty; for example [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}]"#,
        ],
    ),
    (
        str::to_owned,
        r#"{"issuers": ["as above"]}"#,
        &[
            r#"issuers[0]: expected an object such as {"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}, found a string"#,
        ],
    ),
    (
        str::to_owned,
        r#"{"issuers": null}"#,
        &[
            r#"issuers: expected an array such as [{"tenant_id": "11111111-2222-3333-4444-555555555555", "audiences": ["https://cognitiveservices.azure.com"], "cluster": "entra"}], found null"#,
        ],
    ),
    (
        top,
        r#""rolse": {}"#,
        &[r#"rolse: unknown key; did you mean "roles"?"#],
    ),
    (
        top,
        r#""usage": { "read": 1, "stream_options": "ask", "image_tokens": 0, "inject": true }"#,
        &[
            r#"usage.inject: unknown key; the keys here are read, stream_options, image_tokens"#,
            "usage.read: expected true or false, found a number",
            r#"usage.stream_options: "ask" is not one of the choices; write "keep" or "inject""#,
            "usage.image_tokens: 0 is out of range; write a whole number from 1 to 1000000",
        ],
    ),
    (
        top,
        r#""usage": { "read": false, "stream_options": "inject" }"#,
        &["usage: asks for usage that is not read; leave one of the two out"],
    ),
    (
        top,
        r#""usage": { "read": false },
           "default_app": { "limits": [{ "tokens": 1, "per": "60s" }] }"#,
        &["usage.read: limits on tokens need usage; leave it out, or the limits on tokens"],
    ),
    (
        top,
        r#""default-app": {}"#,
        &[r#"default-app: unknown key; did you mean "default_app"?"#],
    ),
    (
        top,
        r#""colour": 1"#,
        &[
            "colour: unknown key; the keys here are issuers, api_keys, apps, default_app, roles, public_paths, cors_preflight, forward, responses, mode, usage, log, max_undecided",
        ],
    ),
    (
        top,
        r#""ratelimits\n": 1"#,
        &[
            r#"["ratelimits\n"]: unknown key; the keys here are issuers, api_keys, apps, default_app, roles, public_paths, cors_preflight, forward, responses, mode, usage, log, max_undecided"#,
        ],
    ),
    // Issuers.
    (
        issuer,
        r#""audience": []"#,
        &[r#"issuers[0].audience: unknown key; did you mean "audiences"?"#],
    ),
    (
        issuer,
        r#""name": """#,
        &[
            r#"issuers[0].name: "" is not a usable name; write 1 to 64 visible ASCII characters, with single spaces"#,
        ],
    ),
    (
        issuer,
        r#""name": "a  b""#,
        &[
            r#"issuers[0].name: "a  b" is not a usable name; write 1 to 64 visible ASCII characters, with single spaces"#,
        ],
    ),
    (
        issuer,
        r#""name": 7"#,
        &[r#"issuers[0].name: expected a string such as "batch", found a number"#],
    ),
    (
        issuer,
        r#""tenant_id": "contoso.onmicrosoft.com""#,
        &[
            r#"issuers[0].tenant_id: "contoso.onmicrosoft.com" is not a GUID; write the tenant's id, such as "11111111-2222-3333-4444-555555555555""#,
        ],
    ),
    (
        issuer,
        r#""tenant_id": "common""#,
        &[
            r#"issuers[0].tenant_id: "common" stands for many tenants; write one issuer for each tenant, with its GUID"#,
        ],
    ),
    (
        issuer,
        r#""tenant_id": 1"#,
        &[
            r#"issuers[0].tenant_id: expected a string such as "11111111-2222-3333-4444-555555555555", found a number"#,
        ],
    ),
    (
        issuer,
        r#""authority": "https://login.microsoftonline.com/common""#,
        &[
            r#"issuers[0].authority: "https://login.microsoftonline.com/common" is not the URL of a host alone; write scheme and host, such as "https://login.microsoftonline.com""#,
        ],
    ),
    (
        issuer,
        r#""authority": "login.microsoftonline.us""#,
        &[
            r#"issuers[0].authority: "login.microsoftonline.us" is not the URL of a host alone; write scheme and host, such as "https://login.microsoftonline.com""#,
        ],
    ),
    (
        issuer,
        r#""issuers": []"#,
        &[r#"issuers[0].issuers: is empty; for example ["https://login.example.com/"]"#],
    ),
    (
        issuer,
        r#""issuers": "https://a/""#,
        &[
            r#"issuers[0].issuers: expected an array such as ["https://login.example.com/"], found a string"#,
        ],
    ),
    (
        issuer,
        r#""issuers": [""]"#,
        &[
            r#"issuers[0].issuers[0]: is empty; write a string such as "https://login.example.com/""#,
        ],
    ),
    (
        issuer,
        r#""issuers": ["https://login.microsoftonline.com/{tenantid}/v2.0"]"#,
        &[
            r#"issuers[0].issuers[0]: "https://login.microsoftonline.com/{tenantid}/v2.0" has a placeholder, but iss is compared exactly; write the tenant's issuer, or use tenant_id"#,
        ],
    ),
    (
        issuer,
        r#""issuers": ["https://a/", "https://a/"]"#,
        &[
            r#"issuers[0].issuers[1]: the issuer "https://a/" is already that of issuers[0].issuers[0]; write each value of iss once"#,
        ],
    ),
    (
        issuer,
        r#""issuers": [" https://a/"]"#,
        &[r#"issuers[0].issuers[0]: " https://a/" begins or ends with white space; remove it"#],
    ),
    (
        issuer,
        r#""audiences": []"#,
        &[r#"issuers[0].audiences: is empty; for example ["https://cognitiveservices.azure.com"]"#],
    ),
    (
        issuer,
        r#""audiences": ["a", 5, "", "/"]"#,
        &[
            r#"issuers[0].audiences[1]: expected a string such as "https://cognitiveservices.azure.com", found a number"#,
            r#"issuers[0].audiences[2]: is empty; write a string such as "https://cognitiveservices.azure.com""#,
            r#"issuers[0].audiences[3]: "/" is no audience; for example "https://cognitiveservices.azure.com""#,
        ],
    ),
    (
        issuer,
        r#""audiences": "a""#,
        &[
            r#"issuers[0].audiences: expected an array such as ["https://cognitiveservices.azure.com"], found a string"#,
        ],
    ),
    (
        issuer,
        r#""audiences": ["a\u0007"]"#,
        &[r#"issuers[0].audiences[0]: "a\u{7}" has a control character; remove it"#],
    ),
    (
        source,
        r#""cluster": "entra""#,
        &[
            "issuers[0]: names no issuer; add tenant_id (Entra ID) or issuers (exact values of iss)",
            "issuers[0]: has no keys; add openid_config, jwks_uri or jwks (tenant_id brings openid_config)",
        ],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "cluster": "entra""#,
        &[
            "issuers[0]: has no keys; add openid_config, jwks_uri or jwks (tenant_id brings openid_config)",
        ],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "authority": "https://b", "openid_config": "https://a/m", "cluster": "entra""#,
        &["issuers[0].authority: has no effect without tenant_id; add tenant_id, or leave it out"],
    ),
    (
        issuer,
        r#""openid_config": "/metadata""#,
        &[
            r#"issuers[0].openid_config: "/metadata" is not an http or https URL; write an absolute URL, such as "https://login.example.com/.well-known/openid-configuration""#,
        ],
    ),
    (
        issuer,
        r#""jwks_uri": "ftp://a/keys""#,
        &[
            r#"issuers[0].jwks_uri: "ftp://a/keys" is not an http or https URL; write an absolute URL, such as "https://login.example.com/.well-known/openid-configuration""#,
        ],
    ),
    (
        issuer,
        r#""jwks_uri": 1"#,
        &[
            r#"issuers[0].jwks_uri: expected a string such as "https://login.example.com/.well-known/openid-configuration", found a number"#,
        ],
    ),
    (
        issuer,
        r#""openid_config": "https://a/m", "jwks_uri": "https://a/k""#,
        &["issuers[0]: takes its keys from openid_config and jwks_uri; keep one of them"],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "jwks_uri": "https://a/k""#,
        &[
            r#"issuers[0].cluster: is missing; add the gateway's cluster that reaches the host of the keys, such as "entra""#,
        ],
    ),
    (
        issuer,
        r#""cluster": """#,
        &[r#"issuers[0].cluster: is empty; write a string such as "entra""#],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "jwks": KEYS, "cluster": "", "refresh": {"every": 1}"#,
        &[
            r#"issuers[0].cluster: is empty; write a string such as "entra""#,
            r#"issuers[0].refresh.every: the number 1 has no unit; write it in quotes with its unit, such as "1s""#,
        ],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "jwks": []"#,
        &[
            r#"issuers[0].jwks: expected a JWK Set such as {"keys": [{"kty": "RSA", "kid": "...", "n": "...", "e": "AQAB"}]}, found an array"#,
        ],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "jwks": KEYS, "jwks_uri": "https://a/k""#,
        &["issuers[0]: takes its keys from jwks_uri and jwks; keep one of them"],
    ),
    (
        source,
        r#""issuers": ["https://a/"], "jwks": KEYS, "openid_config": "https://a/m", "cluster": "idp""#,
        &["issuers[0]: takes its keys from openid_config and jwks; keep one of them"],
    ),
    (
        issuer,
        r#""required_claims": {}"#,
        &[
            r#"issuers[0].required_claims: expected an array such as [{"name": "roles", "values": ["Caller"]}], found an object"#,
        ],
    ),
    (
        issuer,
        r#""required_claims": [{}]"#,
        &[
            r#"issuers[0].required_claims[0].name: is missing; add the claim's name, such as "roles""#,
        ],
    ),
    (
        issuer,
        r#""required_claims": [{"name": "roles", "value": "x"}]"#,
        &[r#"issuers[0].required_claims[0].value: unknown key; did you mean "values"?"#],
    ),
    (
        issuer,
        r#""required_claims": [{"name": "", "values": "x", "match": "each", "separator": ""}]"#,
        &[
            r#"issuers[0].required_claims[0].name: is empty; write a string such as "roles""#,
            r#"issuers[0].required_claims[0].values: expected an array such as ["Caller"], found a string"#,
            r#"issuers[0].required_claims[0].match: "each" is not one of the choices; write "all" or "any""#,
            r#"issuers[0].required_claims[0].separator: is empty; write at least one character, such as ",""#,
        ],
    ),
    (
        issuer,
        r#""required_claims": [{"name": "roles", "values": [true]}]"#,
        &[
            r#"issuers[0].required_claims[0].values[0]: expected a string such as "Caller", found a boolean"#,
        ],
    ),
    (
        issuer,
        r#""algorithms": []"#,
        &[r#"issuers[0].algorithms: is empty; for example ["RS256"]"#],
    ),
    (
        issuer,
        r#""algorithms": ["none", "None", "HS256", "rs256", "ES512", "EdDSA", 1]"#,
        &[
            r#"issuers[0].algorithms[0]: "none" means unsigned tokens, which are never accepted; leave it out"#,
            r#"issuers[0].algorithms[1]: "None" means unsigned tokens, which are never accepted; leave it out"#,
            r#"issuers[0].algorithms[2]: "HS256" is HMAC, a shared secret, which is never accepted; leave it out"#,
            r#"issuers[0].algorithms[3]: "rs256" is not a supported algorithm; write "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256" or "ES384""#,
            r#"issuers[0].algorithms[4]: "ES512" is not a supported algorithm; write "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256" or "ES384""#,
            r#"issuers[0].algorithms[5]: "EdDSA" is not a supported algorithm; write "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256" or "ES384""#,
            r#"issuers[0].algorithms[6]: expected a string such as "RS256", found a number"#,
        ],
    ),
    (
        issuer,
        r#""app_claim": """#,
        &[r#"issuers[0].app_claim: is empty; write a string such as "client_id""#],
    ),
    (
        second_issuer,
        r#""name": "second""#,
        &[
            r#"issuers[1].tenant_id: the issuer "https://sts.windows.net/11111111-2222-3333-4444-555555555555/" is already that of issuers[0].tenant_id; write each value of iss once"#,
        ],
    ),
    (
        second_issuer,
        "",
        &[
            r#"issuers[1].tenant_id: the issuer "https://sts.windows.net/11111111-2222-3333-4444-555555555555/" is already that of issuers[0].tenant_id; write each value of iss once"#,
        ],
    ),
    (
        second_issuer,
        r#""issuers": ["https://a/"]"#,
        &[
            r#"issuers[1]: the name "11111111-2222-3333-4444-555555555555" is taken by issuers[0]; give each issuer a "name" of its own"#,
        ],
    ),
    (
        second_issuer,
        r#""name": "11111111-2222-3333-4444-555555555555", "issuers": ["https://a/"]"#,
        &[
            r#"issuers[1].name: the name "11111111-2222-3333-4444-555555555555" is taken by issuers[0]; give each issuer a "name" of its own"#,
        ],
    ),
    (
        second_issuer,
        r#""authority": "https://login.microsoftonline.us""#,
        &[
            r#"issuers[1].tenant_id: the issuer "https://sts.windows.net/11111111-2222-3333-4444-555555555555/" is already that of issuers[0].tenant_id; write each value of iss once"#,
        ],
    ),
    (
        issuer,
        r#""clock_skew": 60"#,
        &[
            r#"issuers[0].clock_skew: the number 60 has no unit; write it in quotes with its unit, such as "60s""#,
        ],
    ),
    (
        issuer,
        r#""clock_skew": "60""#,
        &[
            r#"issuers[0].clock_skew: "60" has no unit; write a whole number with unit ms, s, m or h, such as "60s""#,
        ],
    ),
    (
        issuer,
        r#""clock_skew": "11m""#,
        &[r#"issuers[0].clock_skew: "11m" is too long; write a duration from 0s to 600s"#],
    ),
    (
        issuer,
        r#""clock_skew": "1500ms""#,
        &[
            r#"issuers[0].clock_skew: is not a whole number of seconds; write seconds, such as "60s""#,
        ],
    ),
    (
        issuer,
        r#""clock_skew": "a while""#,
        &[
            r#"issuers[0].clock_skew: "a while" is not a duration; write a whole number with unit ms, s, m or h, such as "60s""#,
        ],
    ),
    (
        issuer,
        r#""refresh": "1h""#,
        &[r#"issuers[0].refresh: expected an object such as {"every": "1h"}, found a string"#],
    ),
    (
        issuer,
        r#""refresh": {"evry": "1h"}"#,
        &[r#"issuers[0].refresh.evry: unknown key; did you mean "every"?"#],
    ),
    (
        issuer,
        r#""refresh": {"every": "0s", "at_most_every": "999ms", "keep_stale_for": "9000h", "timeout": "31s"}"#,
        &[
            r#"issuers[0].refresh.every: "0s" is too short; write a duration from 1s to 8784h (366 days)"#,
            r#"issuers[0].refresh.at_most_every: "999ms" is too short; write a duration from 1s to 8784h (366 days)"#,
            r#"issuers[0].refresh.keep_stale_for: "9000h" is too long; write a duration from 0s to 8784h (366 days)"#,
            r#"issuers[0].refresh.timeout: "31s" is too long; write a duration from 100ms to 30s"#,
        ],
    ),
    (
        issuer,
        r#""refresh": {"every": "1h", "at_most_every": "2h"}"#,
        &[
            r#"issuers[0].refresh.at_most_every: is longer than every; write at most the value of every (default "1h")"#,
        ],
    ),
    (
        issuer,
        r#""refresh": {"at_most_every": "61m"}"#,
        &[
            r#"issuers[0].refresh.at_most_every: is longer than every; write at most the value of every (default "1h")"#,
        ],
    ),
    (
        issuer,
        r#""refresh": {"timeout": "99ms"}"#,
        &[r#"issuers[0].refresh.timeout: "99ms" is too short; write a duration from 100ms to 30s"#],
    ),
    // API keys.
    (
        top,
        r#""api_keys": "deny""#,
        &[r#"api_keys: expected an object such as {"action": "strip"}, found a string"#],
    ),
    (
        top,
        r#""api_keys": {"action": "block"}"#,
        &[r#"api_keys.action: "block" is not one of the choices; write "deny" or "strip""#],
    ),
    (
        top,
        r#""api_keys": {"action": true}"#,
        &[r#"api_keys.action: expected "deny" or "strip", found a boolean"#],
    ),
    (
        top,
        r#""api_keys": {"headers": ["Authorization", "api key", ":path", 1]}"#,
        &[
            r#"api_keys.headers[0]: "authorization" carries the token, so every request would be refused; leave it out"#,
            r#"api_keys.headers[1]: "api key" is not a header name; write letters, digits and hyphens, such as "x-app-id""#,
            r#"api_keys.headers[2]: ":path" is a pseudo-header of HTTP/2; write the name of an ordinary header"#,
            r#"api_keys.headers[3]: expected a string such as "api-key", found a number"#,
        ],
    ),
    (
        top,
        r#""api_keys": {"query": ["", "a=b", null]}"#,
        &[
            r#"api_keys.query[0]: "" is not a query parameter's name; write letters, digits and -._~, such as "api-key""#,
            r#"api_keys.query[1]: "a=b" is not a query parameter's name; write letters, digits and -._~, such as "api-key""#,
            r#"api_keys.query[2]: expected a string such as "api-key", found null"#,
        ],
    ),
    (
        top,
        r#""api_keys": {"header": []}"#,
        &[r#"api_keys.header: unknown key; did you mean "headers"?"#],
    ),
    // Applications.
    (
        top,
        r#""apps": {}"#,
        &[
            r#"apps: expected an array such as [{"app_id": "aaaaaaaa-0000-0000-0000-000000000001"}], found an object"#,
        ],
    ),
    (
        top,
        r#""apps": [{}]"#,
        &["apps[0].app_id: is missing; add the application's (client) id"],
    ),
    (
        top,
        r#""apps": ["a"]"#,
        &[
            r#"apps[0]: expected an object such as {"app_id": "aaaaaaaa-0000-0000-0000-000000000001"}, found a string"#,
        ],
    ),
    (
        app,
        r#""app_id": "batch""#,
        &[
            r#"apps[0].app_id: "batch" is not a GUID; write the application's (client) id, such as "aaaaaaaa-0000-0000-0000-000000000001""#,
        ],
    ),
    (
        app,
        r#""app_id": 1"#,
        &[
            r#"apps[0].app_id: expected a string such as "aaaaaaaa-0000-0000-0000-000000000001", found a number"#,
        ],
    ),
    (
        app,
        r#""name": "caf\u00e9""#,
        &[
            r#"apps[0].name: "café" is not a usable name; write 1 to 64 visible ASCII characters, with single spaces"#,
        ],
    ),
    (
        app,
        r#""name": " a""#,
        &[
            r#"apps[0].name: " a" is not a usable name; write 1 to 64 visible ASCII characters, with single spaces"#,
        ],
    ),
    (
        app,
        r#""name": "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn""#,
        &[
            r#"apps[0].name: "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" is not a usable name; write 1 to 64 visible ASCII characters, with single spaces"#,
        ],
    ),
    (
        app,
        r#""access": "denied""#,
        &[r#"apps[0].access: "denied" is not one of the choices; write "allow" or "deny""#],
    ),
    (
        app,
        r#""access": "maybe""#,
        &[r#"apps[0].access: "maybe" is not one of the choices; write "allow" or "deny""#],
    ),
    (
        app,
        r#""limit": []"#,
        &[r#"apps[0].limit: unknown key; did you mean "limits"?"#],
    ),
    (
        top,
        r#""apps": [{"app_id": "aaaaaaaa-0000-0000-0000-00000000000A"}, {"app_id": "AAAAAAAA-0000-0000-0000-00000000000a"}]"#,
        &["apps[1].app_id: is listed already at apps[0].app_id; list each application once"],
    ),
    (
        top,
        r#""apps": [{"app_id": "aaaaaaaa-0000-0000-0000-000000000001", "name": "batch"}, {"app_id": "aaaaaaaa-0000-0000-0000-000000000002", "name": "batch"}]"#,
        &[
            r#"apps[1].name: the name "batch" is taken by apps[0].name; give each application a name of its own"#,
        ],
    ),
    (
        top,
        r#""apps": [{"app_id": "aaaaaaaa-0000-0000-0000-000000000001", "name": "aaaaaaaa-0000-0000-0000-000000000002"}, {"app_id": "aaaaaaaa-0000-0000-0000-000000000002"}]"#,
        &[
            r#"apps[1]: the name "aaaaaaaa-0000-0000-0000-000000000002" is taken by apps[0].name; give each application a name of its own"#,
        ],
    ),
    (
        top,
        r#""apps": [{"app_id": "aaaaaaaa-0000-0000-0000-000000000001", "name": "batch"}], "default_app": {"name": "batch"}"#,
        &[
            r#"default_app.name: the name "batch" is taken by apps[0].name; give each application a name of its own"#,
        ],
    ),
    (
        top,
        r#""default_app": {"app_id": "aaaaaaaa-0000-0000-0000-000000000001"}"#,
        &[
            "default_app.app_id: the default application has no id: it serves every application that is not listed; leave it out, or move the entry to apps",
        ],
    ),
    (
        top,
        r#""default_app": {"roles": [], "deployments": []}"#,
        &[
            r#"default_app.roles: is empty; for example ["Cognitive Services OpenAI User"]"#,
            r#"default_app.deployments: is empty; for example ["gpt-4o", "text-embedding-*"]"#,
        ],
    ),
    (
        top,
        r#""default_app": "deny""#,
        &[r#"default_app: expected an object such as {"access": "deny"}, found a string"#],
    ),
    // Roles of an application.
    (
        app,
        r#""roles": "Cognitive Services OpenAI User""#,
        &[
            r#"apps[0].roles: expected an array such as ["Cognitive Services OpenAI User"], found a string"#,
        ],
    ),
    (
        app,
        r#""roles": ["Cognitive Service OpenAI User", "reader", 1, "", "5e0bd9bd-7b93-4f28-af87-19fc36ad61be"]"#,
        &[
            r#"apps[0].roles[0]: "Cognitive Service OpenAI User" is not a role; did you mean "Cognitive Services OpenAI User"?"#,
            r#"apps[0].roles[1]: "reader" is not a role; write "Cognitive Services OpenAI User", "Cognitive Services OpenAI Contributor" or "Cognitive Services User", or define it under roles"#,
            r#"apps[0].roles[2]: expected a string such as "Cognitive Services OpenAI User", found a number"#,
            r#"apps[0].roles[3]: "" is not a role; write "Cognitive Services OpenAI User", "Cognitive Services OpenAI Contributor" or "Cognitive Services User", or define it under roles"#,
            r#"apps[0].roles[4]: "5e0bd9bd-7b93-4f28-af87-19fc36ad61be" is not a role; write "Cognitive Services OpenAI User", "Cognitive Services OpenAI Contributor" or "Cognitive Services User", or define it under roles"#,
        ],
    ),
    (
        top,
        r#""roles": {"Chat only": {"data_actions": []}}, "default_app": {"roles": ["Chat olny"]}"#,
        &[r#"default_app.roles[0]: "Chat olny" is not a role; did you mean "Chat only"?"#],
    ),
    // A role whose definition is wrong is there all the same, and others that are not are told.
    (
        top,
        r#""roles": {"Chat only": {}, "Chat": 1}, "default_app": {"roles": ["Chat only", "Chat", "Chat olny"]}"#,
        &[
            r#"roles["Chat only"].data_actions: is missing; add the actions to grant"#,
            r#"roles.Chat: expected an object such as {"data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"]}, found a number"#,
            r#"default_app.roles[2]: "Chat olny" is not a role; did you mean "Chat only"?"#,
        ],
    ),
    (
        top,
        r#""roles": [{"roleName": "Chat only", "name": "1", "permissions": []}, {"roleName": "Files"}], "default_app": {"roles": ["Chat only", "Files", "File"]}"#,
        &[
            r#"roles[0].name: "1" is not a GUID; write the role's id there, and its name under roleName"#,
            "roles[1].permissions: is missing; add Azure's permissions",
            r#"default_app.roles[2]: "File" is not a role; did you mean "Files"?"#,
        ],
    ),
    // Definitions of roles.
    (
        top,
        r#""roles": "Reader""#,
        &[
            r#"roles: expected an object such as {"Chat only": {"data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action"]}}, or an array of Azure's roles, found a string"#,
        ],
    ),
    (
        top,
        r#""roles": {"Chat": [], " x": {"data_actions": []}, "a001fd3d-188f-4b5d-821b-7da978bf7442": {"data_actions": []}}"#,
        &[
            r#"roles.Chat: expected an object such as {"data_actions": ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"]}, found an array"#,
            r#"roles[" x"]: " x" is not a usable name for a role; write a name such as "Chat only""#,
            r#"roles.a001fd3d-188f-4b5d-821b-7da978bf7442: "a001fd3d-188f-4b5d-821b-7da978bf7442" is not a usable name for a role; write a name such as "Chat only""#,
        ],
    ),
    (
        top,
        r#""roles": {"Chat": {"data_action": [], "not_data_actions": 1}}"#,
        &[
            r#"roles.Chat.data_action: unknown key; did you mean "data_actions"?"#,
            "roles.Chat.data_actions: is missing; add the actions to grant",
            r#"roles.Chat.not_data_actions: expected an array such as ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"], found a number"#,
        ],
    ),
    (
        top,
        r#""roles": {"Chat": {"data_actions": ["files/read", "Microsoft.CognitiveServices/accounts/OpenAI/file/read", "read", ""], "not_data_actions": ["Microsoft.Storage/*"]}}"#,
        &[
            r#"roles.Chat.data_actions[0]: "files/read" names no action of Azure OpenAI; did you mean "Microsoft.CognitiveServices/accounts/OpenAI/files/read"?"#,
            r#"roles.Chat.data_actions[1]: "Microsoft.CognitiveServices/accounts/OpenAI/file/read" names no action of Azure OpenAI; did you mean "Microsoft.CognitiveServices/accounts/OpenAI/files/read"?"#,
            r#"roles.Chat.data_actions[2]: "read" names no action of Azure OpenAI; for example "Microsoft.CognitiveServices/accounts/OpenAI/*/read""#,
            r#"roles.Chat.data_actions[3]: is empty; write a string such as "Microsoft.CognitiveServices/accounts/OpenAI/""#,
            r#"roles.Chat.not_data_actions[0]: "Microsoft.Storage/*" names no action of Azure OpenAI; for example "Microsoft.CognitiveServices/accounts/OpenAI/*/read""#,
        ],
    ),
    (
        top,
        r#""roles": {"cognitive services user": {"data_actions": []}, "Chat": {"data_actions": []}, "CHAT": {"data_actions": []}}"#,
        &[
            r#"roles["cognitive services user"]: the name "cognitive services user" is that of a built-in role; leave the role out, or give yours another name and id"#,
            r#"roles.CHAT: the name "CHAT" is taken by roles.Chat; define each role once"#,
        ],
    ),
    (
        top,
        r#""roles": {"Chat": {"roleName": "Chat", "permissions": []}}"#,
        &[
            "roles.Chat: is a role in Azure's own form; put Azure's roles in an array, without names of your own",
        ],
    ),
    (
        top,
        r#""roles": [{"roleName": "Chat", "permissions": [{"dataAction": []}]}, {"data_actions": []}, 1]"#,
        &[
            r#"roles[0].permissions[0].dataAction: unknown key; did you mean "dataActions"?"#,
            "roles[1].data_actions: unknown key; the keys here are roleName, name, permissions, assignableScopes, createdBy, createdOn, description, id, roleType, type, updatedBy, updatedOn",
            "roles[1].permissions: is missing; add Azure's permissions",
            "roles[1].roleName: is missing; add the role's name",
            r#"roles[2]: expected an object such as {"roleName": "Chat only", "permissions": [{"dataActions": []}]}, found a number"#,
        ],
    ),
    (
        top,
        r#""roles": [{"roleName": "Chat", "name": "Chat", "permissions": [{"condition": "@Resource", "dataActions": [7], "notDataActions": {}}]}]"#,
        &[
            r#"roles[0].name: "Chat" is not a GUID; write the role's id there, and its name under roleName"#,
            r#"roles[0].permissions[0].dataActions[0]: expected a string such as "Microsoft.CognitiveServices/accounts/OpenAI/", found a number"#,
            r#"roles[0].permissions[0].notDataActions: expected an array such as ["Microsoft.CognitiveServices/accounts/OpenAI/*/read"], found an object"#,
            "roles[0].permissions[0].condition: conditions are not evaluated here; name a role that has none",
        ],
    ),
    (
        top,
        r#""roles": [{"properties": {"roleName": "A", "permissions": []}, "name": "a001fd3d-188f-4b5d-821b-7da978bf7442"}, {"properties": {"roleName": ""}, "permissions": []}]"#,
        &[
            r#"roles[0]: the id "a001fd3d-188f-4b5d-821b-7da978bf7442" is that of a built-in role; leave the role out, or give yours another name and id"#,
            "roles[1].permissions: unknown key; the keys here are id, name, properties, type",
            "roles[1].properties.permissions: is missing; add Azure's permissions",
            r#"roles[1].properties.roleName: "" is not a usable name for a role; write a name such as "Chat only""#,
        ],
    ),
    (
        top,
        r#""roles": [{"roleName": "A", "name": "cccccccc-0000-0000-0000-000000000001", "permissions": []}, {"roleName": "B", "name": "CCCCCCCC-0000-0000-0000-000000000001", "permissions": []}]"#,
        &[
            r#"roles[1]: the id "cccccccc-0000-0000-0000-000000000001" is taken by roles[0]; define each role once"#,
        ],
    ),
    // Deployments.
    (
        app,
        r#""deployments": "gpt-4o""#,
        &[
            r#"apps[0].deployments: expected an array such as ["gpt-4o", "text-embedding-*"], found a string"#,
        ],
    ),
    (
        app,
        r#""deployments": ["gpt-4o", "*", "gpt*4", "a b", "", 4, "**"]"#,
        &[
            r#"apps[0].deployments[2]: "gpt*4" is not the name of a deployment; write up to 64 letters, digits, dots, hyphens and underscores; * stands only at the end"#,
            r#"apps[0].deployments[3]: "a b" is not the name of a deployment; write up to 64 letters, digits, dots, hyphens and underscores; * stands only at the end"#,
            r#"apps[0].deployments[4]: "" is not the name of a deployment; write up to 64 letters, digits, dots, hyphens and underscores; * stands only at the end"#,
            r#"apps[0].deployments[5]: expected a string such as "gpt-4o", found a number"#,
            r#"apps[0].deployments[6]: "**" is not the name of a deployment; write up to 64 letters, digits, dots, hyphens and underscores; * stands only at the end"#,
        ],
    ),
    // Caps.
    (
        app,
        r#""caps": []"#,
        &[
            r#"apps[0].caps: expected an object such as {"content_filter_override": true}, found an array"#,
        ],
    ),
    (
        app,
        r#""caps": {"content_filter_override": "true", "content_filter_overide": true, "tools": []}"#,
        &[
            r#"apps[0].caps.content_filter_overide: unknown key; did you mean "content_filter_override"?"#,
            "apps[0].caps.tools: unknown key; the keys here are content_filter_override",
            "apps[0].caps.content_filter_override: expected true or false, found a string",
        ],
    ),
    (
        top,
        r#""default_app": {"caps": {"n": 1}}"#,
        &["default_app.caps.n: unknown key; the keys here are content_filter_override"],
    ),
    // Limits.
    (
        app,
        r#""limits": {}"#,
        &[
            r#"apps[0].limits: expected an array such as [{"calls": 10, "per": "60s"}], found an object"#,
        ],
    ),
    (
        limit,
        "",
        &[
            r#"apps[0].limits[0]: limits nothing; add "calls" or "tokens", such as "calls": 10"#,
            r#"apps[0].limits[0].per: is missing; add a window, such as "60s" or "day""#,
        ],
    ),
    (
        limit,
        r#""calls": 1"#,
        &[r#"apps[0].limits[0].per: is missing; add a window, such as "60s" or "day""#],
    ),
    (
        limit,
        r#""per": "60s""#,
        &[r#"apps[0].limits[0]: limits nothing; add "calls" or "tokens", such as "calls": 10"#],
    ),
    (
        limit,
        r#""calls": 0, "per": "60s""#,
        &[
            "apps[0].limits[0].calls: 0 is out of range; write a whole number from 1 to 1000000000000000",
        ],
    ),
    (
        limit,
        r#""calls": -1, "per": "60s""#,
        &[
            "apps[0].limits[0].calls: -1 is out of range; write a whole number from 1 to 1000000000000000",
        ],
    ),
    (
        limit,
        r#""calls": 1.5, "per": "60s""#,
        &[
            "apps[0].limits[0].calls: 1.5 is not a whole number; write a whole number from 1 to 1000000000000000",
        ],
    ),
    (
        limit,
        r#""calls": 1e16, "per": "60s""#,
        &[
            "apps[0].limits[0].calls: 1e+16 is out of range; write a whole number from 1 to 1000000000000000",
        ],
    ),
    (
        limit,
        r#""calls": "10s", "per": "60s""#,
        &["apps[0].limits[0].calls: expected a number from 1 to 1000000000000000, found a string"],
    ),
    (
        limit,
        r#""calls": 1, "per": 60"#,
        &[
            r#"apps[0].limits[0].per: the number 60 has no unit; write it in quotes with its unit, such as "60s""#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "60""#,
        &[
            r#"apps[0].limits[0].per: "60" has no unit; write a whole number with unit ms, s, m or h, such as "60s""#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "999ms""#,
        &[
            r#"apps[0].limits[0].per: "999ms" is too short; write a duration from 1s to 744h (31 days)"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "745h""#,
        &[
            r#"apps[0].limits[0].per: "745h" is too long; write a duration from 1s to 744h (31 days)"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "99999999999999999999h""#,
        &[
            r#"apps[0].limits[0].per: "99999999999999999999h" is too long; write a duration from 1s to 744h (31 days)"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "days""#,
        &[r#"apps[0].limits[0].per: "days" is not a window; did you mean "day"?"#],
    ),
    (
        limit,
        r#""calls": 1, "per": "1d""#,
        &[
            r#"apps[0].limits[0].per: "1d" is not a window; write a whole number with unit ms, s, m or h, such as "60s", or hour, day, week or month"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": """#,
        &[
            r#"apps[0].limits[0].per: "" is not a window; write a whole number with unit ms, s, m or h, such as "60s", or hour, day, week or month"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": null"#,
        &[r#"apps[0].limits[0].per: expected a string such as "60s", found null"#],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "count": "ok""#,
        &[r#"apps[0].limits[0].count: "ok" is not one of the choices; write "all" or "success""#],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "count": "succes""#,
        &[
            r#"apps[0].limits[0].count: "succes" is not one of the choices; did you mean "success"?"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "count": 200"#,
        &[
            r#"apps[0].limits[0].count: expected "all", "success" or an array of statuses such as [200], found a number"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "count": []"#,
        &["apps[0].limits[0].count: is empty; for example [200]"],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "count": [99, "ok", 600]"#,
        &[
            "apps[0].limits[0].count[0]: 99 is out of range; write a whole number from 100 to 599",
            "apps[0].limits[0].count[1]: expected a number from 100 to 599, found a string",
            "apps[0].limits[0].count[2]: 600 is out of range; write a whole number from 100 to 599",
        ],
    ),
    (
        limit,
        r#""tokens": 0, "per": "60s", "reserve": "yes""#,
        &[
            "apps[0].limits[0].tokens: 0 is out of range; write a whole number from 1 to 1000000000000000",
            r#"apps[0].limits[0].reserve: expected true or false, found a string"#,
        ],
    ),
    (
        limit,
        r#""tokens": 1, "calls": 1, "per": "60s""#,
        &["apps[0].limits[0]: limits both calls and tokens; write two limits, one with each"],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "reserve": true, "operations": [], "deployments": []"#,
        &[
            "apps[0].limits[0].reserve: only tokens can be reserved; leave it out",
            r#"apps[0].limits[0].operations: is empty; for example ["deployments/chat/completions/action"]"#,
            r#"apps[0].limits[0].deployments: is empty; for example ["gpt-4o", "text-embedding-*"]"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "per": "60s", "operations": ["chat/completions", "*/reed"], "deployments": ["a/b"]"#,
        &[
            r#"apps[0].limits[0].operations[0]: "chat/completions" names no action of Azure OpenAI; did you mean "Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action"?"#,
            r#"apps[0].limits[0].operations[1]: "*/reed" names no action of Azure OpenAI; for example "Microsoft.CognitiveServices/accounts/OpenAI/*/read""#,
            r#"apps[0].limits[0].deployments[0]: "a/b" is not the name of a deployment; write up to 64 letters, digits, dots, hyphens and underscores; * stands only at the end"#,
        ],
    ),
    (
        limit,
        r#""calls": 1, "prr": "60s""#,
        &[
            r#"apps[0].limits[0].prr: unknown key; did you mean "per"?"#,
            r#"apps[0].limits[0].per: is missing; add a window, such as "60s" or "day""#,
        ],
    ),
    (
        app,
        r#""limits": [{"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}, {"calls": 1, "per": "60s"}]"#,
        &["apps[0].limits: has 17 entries; write at most 16"],
    ),
    (
        top,
        r#""default_app": {"limits": [{"calls": 1}]}"#,
        &[r#"default_app.limits[0].per: is missing; add a window, such as "60s" or "day""#],
    ),
    // Paths and preflight.
    (
        top,
        r#""public_paths": "/status""#,
        &[r#"public_paths: expected an array such as ["/status"], found a string"#],
    ),
    (
        top,
        r#""public_paths": ["status", "*", "/*", "/a*b", "/a**", "/a?b=c", "/a#b", "/%61", "/a\\b", "/a;b", "/a b", "/a//b", "/a/../b", "/a/./b", "/\u00e9", "", 1]"#,
        &[
            r#"public_paths[0]: "status" does not begin with /; write an absolute path, such as "/status""#,
            r#"public_paths[1]: "*" does not begin with /; write an absolute path, such as "/status""#,
            r#"public_paths[2]: "/*" would make every path public; write the paths that are public"#,
            r#"public_paths[3]: "/a*b" has * before its end; write * only as the last character"#,
            r#"public_paths[4]: "/a**" has * before its end; write * only as the last character"#,
            r#"public_paths[5]: "/a?b=c" has a query or fragment; write the path alone: queries are not compared"#,
            r#"public_paths[6]: "/a#b" has a query or fragment; write the path alone: queries are not compared"#,
            r#"public_paths[7]: "/%61" has characters that servers read differently; write a path without %, \, ; and spaces"#,
            r#"public_paths[8]: "/a\\b" has characters that servers read differently; write a path without %, \, ; and spaces"#,
            r#"public_paths[9]: "/a;b" has characters that servers read differently; write a path without %, \, ; and spaces"#,
            r#"public_paths[10]: "/a b" has characters that servers read differently; write a path without %, \, ; and spaces"#,
            r#"public_paths[11]: "/a//b" has an empty or dot segment; write the path without //, /./ and .."#,
            r#"public_paths[12]: "/a/../b" has an empty or dot segment; write the path without //, /./ and .."#,
            r#"public_paths[13]: "/a/./b" has an empty or dot segment; write the path without //, /./ and .."#,
            r#"public_paths[14]: "/é" has characters that servers read differently; write a path without %, \, ; and spaces"#,
            r#"public_paths[15]: is empty; write a string such as "/status""#,
            r#"public_paths[16]: expected a string such as "/status", found a number"#,
        ],
    ),
    (
        top,
        r#""cors_preflight": "allow""#,
        &[r#"cors_preflight: "allow" is not one of the choices; write "check" or "pass""#],
    ),
    (
        top,
        r#""cors_preflight": true"#,
        &[r#"cors_preflight: expected "check" or "pass", found a boolean"#],
    ),
    (
        top,
        r#""max_undecided": 0"#,
        &["max_undecided: 0 is out of range; write a whole number from 1 to 10000"],
    ),
    (
        top,
        r#""max_undecided": 10001"#,
        &["max_undecided: 10001 is out of range; write a whole number from 1 to 10000"],
    ),
    (
        top,
        r#""max_undecided": 1.5"#,
        &["max_undecided: 1.5 is not a whole number; write a whole number from 1 to 10000"],
    ),
    (
        top,
        r#""max_undecided": true"#,
        &["max_undecided: expected a number from 1 to 10000, found a boolean"],
    ),
    // Forwarding.
    (
        top,
        r#""forward": false"#,
        &[
            r#"forward: expected an object such as {"authorization": false, "headers": {"x-app-id": "app_id"}}, found a boolean"#,
        ],
    ),
    (
        top,
        r#""forward": {"authorization": "true"}"#,
        &["forward.authorization: expected true or false, found a string"],
    ),
    (
        top,
        r#""forward": {"headers": ["x-app-id"]}"#,
        &[r#"forward.headers: expected an object such as {"x-app-id": "app_id"}, found an array"#],
    ),
    (
        top,
        r#""forward": {"headers": {"Host": "app_id", "transfer_encoding": "app_id", "Authorization": "app_id", ":path": "app_id", "x app": "app_id", "": "app_id"}}"#,
        &[
            r#"forward.headers.Host: "Host" belongs to the request itself; write a header of your own, such as "x-app-id""#,
            r#"forward.headers.transfer_encoding: "transfer_encoding" belongs to the request itself; write a header of your own, such as "x-app-id""#,
            r#"forward.headers.Authorization: "Authorization" belongs to the request itself; write a header of your own, such as "x-app-id""#,
            r#"forward.headers[":path"]: ":path" is a pseudo-header of HTTP/2; write the name of an ordinary header"#,
            r#"forward.headers["x app"]: "x app" is not a header name; write letters, digits and hyphens, such as "x-app-id""#,
            r#"forward.headers[""]: "" is not a header name; write letters, digits and hyphens, such as "x-app-id""#,
        ],
    ),
    (
        top,
        r#""forward": {"headers": {"x-app-id": "app_id", "X_App_Id": "app_name"}}"#,
        &[
            r#"forward.headers.X_App_Id: "X_App_Id" is the same header as "x-app-id"; keep one: letter case does not count, and _ equals -"#,
        ],
    ),
    (
        top,
        r#""forward": {"headers": {"x-a": "appid", "x-b": "claim.", "x-c": "upn", "x-d": 1}}"#,
        &[
            r#"forward.headers.x-a: "appid" is not a source; did you mean "app_id"?"#,
            r#"forward.headers.x-b: "claim." is not a source; write "app_id", "app_name", "tenant_id", "object_id", "roles" or "claim.<name>""#,
            r#"forward.headers.x-c: "upn" is not a source; write "app_id", "app_name", "tenant_id", "object_id", "roles" or "claim.<name>""#,
            r#"forward.headers.x-d: expected a string such as "app_id", found a number"#,
        ],
    ),
    // Answers, mode and log.
    (
        top,
        r#""responses": {"unauthorized": {}}"#,
        &[
            "responses.unauthorized: unknown key; the keys here are format, unauthenticated, api_key, forbidden, limited, quota, unavailable",
        ],
    ),
    (
        top,
        r#""responses": {"format": "xml", "limited": {"status": 200}, "quota": {"status": 600}, "api_key": 403}"#,
        &[
            r#"responses.format: "xml" is not one of the choices; write "openai" or "apim""#,
            r#"responses.api_key: expected an object such as {"status": 403, "message": "Forbidden"}, found a number"#,
            "responses.limited.status: 200 is out of range; write a whole number from 400 to 599",
            "responses.quota.status: 600 is out of range; write a whole number from 400 to 599",
        ],
    ),
    (
        top,
        r#""responses": {"forbidden": {"message": ""}}"#,
        &[r#"responses.forbidden.message: is empty; write a string such as "Forbidden""#],
    ),
    (
        top,
        r#""responses": {"forbidden": {"message": "a\nb"}}"#,
        &[r#"responses.forbidden.message: "a\nb" has a control character; remove it"#],
    ),
    (
        top,
        r#""mode": "enforced""#,
        &[r#"mode: "enforced" is not one of the choices; did you mean "enforce"?"#],
    ),
    (
        top,
        r#""mode": "off""#,
        &[r#"mode: "off" is not one of the choices; write "enforce" or "report""#],
    ),
    (
        top,
        r#""log": true"#,
        &[r#"log: expected an object such as {"requests": true}, found a boolean"#],
    ),
    (
        top,
        r#""log": {"requests": 1}"#,
        &["log.requests: expected true or false, found a number"],
    ),
    (
        top,
        r#""log": {"filter_state": ["appid", "user", "action", "total_tokens", 1]}"#,
        &[
            r#"log.filter_state[0]: "appid" is not a field; did you mean "app_id"?"#,
            r#"log.filter_state[1]: "user" is not a field; write "outcome", "code", "app_id", "app_name", "tenant_id", "object_id", "action", "deployment", "prompt_tokens", "completion_tokens", "total_tokens" or "estimated_tokens""#,
            r#"log.filter_state[4]: expected a string such as "outcome", found a number"#,
        ],
    ),
    (
        top,
        r#""log": {"filterstate": []}"#,
        &[r#"log.filterstate: unknown key; did you mean "filter_state"?"#],
    ),
];
