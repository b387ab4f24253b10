//! `docs/policy.schema.json`, for editors. Its structure stands here, its descriptions and defaults in
//! `docs/configuration.md`; the tests hold all three to the parser. `make schema` writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

use super::{bad, good_issuer};
use crate::jwt::Algorithm;
use crate::policy::Policy;

const ID: &str = "https://github.com/tollgate-proxy/tollgate/blob/main/docs/policy.schema.json";

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

/// A string of this form, in the dialect that all validators share.
fn form(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn filled_list(items: &Value, most: usize) -> Value {
    json!({ "type": "array", "items": items, "minItems": 1, "maxItems": most })
}

fn choice(choices: &[&str]) -> Value {
    json!({ "enum": choices })
}

fn whole_number(least: u64, most: u64) -> Value {
    // Envoy writes large integers of a structure as text.
    json!({ "type": ["integer", "string"], "minimum": least, "maximum": most, "pattern": "^[0-9]+$" })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{}", plain(name)) })
}

/// A heading as the name of a definition, which stands in addresses: `apps.limits`.
fn plain(heading: &str) -> String {
    heading.replace("[]", "").replace('*', "any")
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({
        "type": "object", "required": required, "properties": properties,
        "additionalProperties": false,
    })
}

/// The schema without words: definitions by the headings of `docs/configuration.md`.
fn definitions() -> Vec<(&'static str, Value)> {
    let text = json!({ "type": "string", "minLength": 1, "pattern": r"^\S(.*\S)?$" });
    let guid =
        form("^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$");
    let label = json!({ "type": "string", "maxLength": 64, "pattern": "^[!-~]+( [!-~]+)*$" });
    let url = form("^[hH][tT][tT][pP][sS]?://[^/?#]");
    let duration = form("^[0-9]+(ms|s|m|h)$");
    let header = form("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$");
    let deployments = filled_list(
        &form(r"^([A-Za-z0-9._-]{1,64}|[A-Za-z0-9._-]{0,63}\*)$"),
        1000,
    );
    let public_path = json!({
        "type": "string",
        "pattern": r#"^/[!"$&'()+,./0-9:<=>@A-Z\[\]^_`a-z{|}~-]*[*]?$"#,
        "not": { "anyOf": [{ "const": "/*" }, { "pattern": r"//|\.\.|/\.(/|[*]|$)" }] },
    });
    let response = reference("responses.*");
    let app = json!({
        "app_id": guid, "name": label, "access": choice(&["allow", "deny"]),
        "roles": filled_list(&json!({ "type": "string", "minLength": 1 }), 100),
        "deployments": deployments,
        "limits": { "type": "array", "items": reference("apps[].limits[]"), "maxItems": 16 },
        "caps": reference("apps[].caps"),
    });
    let mut default_app = app.clone();
    default_app.as_object_mut().unwrap().remove("app_id");
    let mut defined = vec![
        (
            "The policy",
            object(
                &["issuers"],
                &json!({
                    "issuers": filled_list(&reference("issuers[]"), 100),
                    "api_keys": reference("api_keys"),
                    "apps": { "type": "array", "items": reference("apps[]"), "maxItems": 100_000 },
                    "default_app": reference("default_app"),
                    "roles": reference("roles"),
                    "public_paths": list(&public_path),
                    "cors_preflight": choice(&["check", "pass"]),
                    "forward": reference("forward"),
                    "responses": reference("responses"),
                    "mode": choice(&["enforce", "report"]),
                    "usage": reference("usage"),
                    "log": reference("log"),
                    "max_undecided": whole_number(1, 10_000),
                }),
            ),
        ),
        (
            "issuers[]",
            object(
                &["audiences"],
                &json!({
                    "name": label, "tenant_id": guid,
                    "authority": form("^[hH][tT][tT][pP][sS]?://[^/?#]+/?$"),
                    "issuers": { "type": "array", "minItems": 1, "items": {
                        "type": "string", "pattern": r"^[^\s{}]([^{}]*[^\s{}])?$"
                    } },
                    "openid_config": url, "jwks_uri": url,
                    "jwks": { "anyOf": [
                        { "type": "string", "minLength": 1 },
                        { "type": "object", "required": ["keys"], "properties": {
                            "keys": { "type": "array", "minItems": 1, "items": { "type": "object" } }
                        } },
                    ] },
                    "cluster": text,
                    "audiences": { "type": "array", "minItems": 1, "items": {
                        "type": "string", "pattern": r"^([^\s/]|\S(.*\S))$"
                    } },
                    "required_claims": list(&reference("issuers[].required_claims[]")),
                    "algorithms": { "type": "array", "minItems": 1, "items": {
                        "enum": Algorithm::ALL.map(Algorithm::name)
                    } },
                    "app_claim": text, "clock_skew": duration,
                    "refresh": reference("issuers[].refresh"),
                }),
            ),
        ),
        (
            "issuers[].required_claims[]",
            object(
                &["name"],
                &json!({
                    "name": text, "values": list(&text), "match": choice(&["all", "any"]),
                    "separator": { "type": "string", "minLength": 1 },
                }),
            ),
        ),
        (
            "issuers[].refresh",
            object(
                &[],
                &json!({
                    "every": duration, "at_most_every": duration,
                    "keep_stale_for": duration, "timeout": duration,
                }),
            ),
        ),
        (
            "api_keys",
            object(
                &[],
                &json!({
                    "action": choice(&["deny", "strip"]),
                    "headers": list(&json!({
                        "allOf": [header, { "not": form("^[Aa][Uu][Tt][Hh][Oo][Rr][Ii][Zz][Aa][Tt][Ii][Oo][Nn]$") }]
                    })),
                    "query": list(&form("^[A-Za-z0-9._~-]+$")),
                }),
            ),
        ),
        ("apps[]", object(&["app_id"], &app)),
        ("default_app", object(&[], &default_app)),
        (
            "apps[].limits[]",
            object(
                &["per"],
                &json!({
                    "calls": whole_number(1, 1_000_000_000_000_000),
                    "tokens": whole_number(1, 1_000_000_000_000_000),
                    "reserve": { "type": "boolean" },
                    "per": { "anyOf": [choice(&["hour", "day", "week", "month"]), duration] },
                    "count": { "anyOf": [
                        choice(&["all", "success"]),
                        { "type": "array", "minItems": 1, "items": whole_number(100, 599) },
                    ] },
                    "operations": filled_list(&text, 5000),
                    "deployments": deployments,
                }),
            ),
        ),
        (
            "apps[].caps",
            object(
                &[],
                &json!({ "content_filter_override": { "type": "boolean" } }),
            ),
        ),
        (
            "roles.*",
            object(
                &["data_actions"],
                &json!({
                    "data_actions": { "type": "array", "items": text, "maxItems": 5000 },
                    "not_data_actions": { "type": "array", "items": text, "maxItems": 5000 },
                }),
            ),
        ),
        (
            "forward",
            object(
                &[],
                &json!({
                    "authorization": { "type": "boolean" },
                    "headers": { "type": "object", "propertyNames": header, "additionalProperties": {
                        "anyOf": [
                            choice(&["app_id", "app_name", "tenant_id", "object_id", "roles"]),
                            form(r"^claim\.(.*\S)$"),
                        ]
                    } },
                }),
            ),
        ),
        (
            "responses",
            object(
                &[],
                &json!({
                    "format": choice(&["openai", "apim"]),
                    "unauthenticated": response, "api_key": response, "forbidden": response,
                    "limited": response, "quota": response, "unavailable": response,
                }),
            ),
        ),
        (
            "responses.*",
            object(
                &[],
                &json!({
                    "status": whole_number(400, 599),
                    "message": {
                        "type": "string", "maxLength": 500,
                        "pattern": r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$"
                    },
                }),
            ),
        ),
        (
            "usage",
            object(
                &[],
                &json!({
                    "read": { "type": "boolean" }, "stream_options": choice(&["keep", "inject"]),
                    "image_tokens": whole_number(1, 1_000_000),
                }),
            ),
        ),
        (
            "log",
            object(
                &[],
                &json!({
                    "requests": { "type": "boolean" },
                    "filter_state": list(&choice(&[
                        "outcome", "code", "app_id", "app_name", "tenant_id", "object_id", "action",
                        "deployment", "prompt_tokens", "completion_tokens", "total_tokens",
                        "estimated_tokens",
                    ])),
                }),
            ),
        ),
    ];
    between_members(&mut defined);
    defined.extend(roles(&guid));
    defined
}

/// What the parser asks of several members together.
fn between_members(defined: &mut [(&'static str, Value)]) {
    let require = |keys: &[&str]| json!({ "required": keys });
    let forbid = |keys: &[&str]| json!({ "not": { "required": keys } });
    let rules: [(&str, Value); 2] = [
        (
            "issuers[]",
            json!([
                { "anyOf": [require(&["tenant_id"]), require(&["issuers"])] },
                { "anyOf": [
                    require(&["tenant_id"]), require(&["openid_config"]),
                    require(&["jwks_uri"]), require(&["jwks"]),
                ] },
                { "anyOf": [require(&["jwks"]), require(&["cluster"])] },
                { "anyOf": [require(&["tenant_id"]), forbid(&["authority"])] },
                forbid(&["openid_config", "jwks_uri"]),
                forbid(&["openid_config", "jwks"]),
                forbid(&["jwks_uri", "jwks"]),
            ]),
        ),
        (
            "apps[].limits[]",
            json!([
                { "oneOf": [require(&["calls"]), require(&["tokens"])] },
                { "anyOf": [
                    require(&["tokens"]), { "properties": { "reserve": { "const": false } } },
                ] },
            ]),
        ),
    ];
    for (name, all_of) in rules {
        let (_, found) = defined
            .iter_mut()
            .find(|(known, _)| *known == name)
            .unwrap();
        found["allOf"] = all_of;
    }
    let (_, usage) = defined
        .iter_mut()
        .find(|(known, _)| *known == "usage")
        .unwrap();
    usage["not"] = json!({
        "required": ["read", "stream_options"],
        "properties": { "read": { "const": false }, "stream_options": { "const": "inject" } },
    });
}

/// `roles`: by name, or in the forms that Azure has for them.
fn roles(guid: &Value) -> Vec<(&'static str, Value)> {
    let name = json!({ "type": "string", "pattern": r"^\S(.*\S)?$", "not": guid });
    let anything = json!(true);
    let described = |keys: &[&str], own: Value| {
        let mut properties = own;
        for key in keys {
            properties[*key] = anything.clone();
        }
        properties
    };
    let more = [
        "assignableScopes",
        "createdBy",
        "createdOn",
        "description",
        "type",
        "updatedBy",
        "updatedOn",
    ];
    let actions = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
    let permissions = list(&object(
        &[],
        &json!({
            "actions": anything, "notActions": anything, "dataActions": actions,
            "notDataActions": actions, "condition": { "type": "null" }, "conditionVersion": anything,
        }),
    ));
    let role = json!({ "roleName": name, "permissions": permissions });
    let mut azure = described(&more, role.clone());
    for (key, value) in [("name", guid), ("id", &anything), ("roleType", &anything)] {
        azure[key] = value.clone();
    }
    let mut properties = described(&more, role);
    properties["isServiceRole"] = anything.clone();
    let needed = ["roleName", "permissions"];
    let resource = json!({
        "id": anything, "name": guid, "type": anything,
        "properties": object(&needed, &properties),
    });
    let in_azures_form =
        json!({ "anyOf": [object(&needed, &azure), object(&["properties"], &resource)] });
    let of_azure = |key: &str| json!({ "required": [key] });
    let by_name = json!({
        "type": "object", "maxProperties": 5000, "propertyNames": name,
        "additionalProperties": reference("roles.*"),
    });
    let marks = [
        of_azure("roleName"),
        of_azure("permissions"),
        of_azure("properties"),
    ];
    vec![
        ("azure", in_azures_form),
        (
            "roles",
            json!({
                "if": { "anyOf": [{ "type": "array" }, { "type": "object", "anyOf": marks }] },
                "then": { "anyOf": [
                    { "type": "array", "maxItems": 5000, "items": reference("azure") }, reference("azure"),
                ] },
                "else": by_name,
            }),
        ),
    ]
}

/// A row of a table in `docs/configuration.md`.
struct Row {
    key: String,
    default: String,
    meaning: String,
}

/// The tables of `docs/configuration.md` by the heading above them.
fn tables() -> BTreeMap<String, Vec<Row>> {
    let text = fs::read_to_string(document("configuration.md")).unwrap();
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches(['#', ' ']).replace('`', "");
        } else if let Some(row) = line.strip_prefix("| `") {
            let [key, default, meaning] = row
                .trim_end_matches(" |")
                .splitn(3, " | ")
                .collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            let row = Row {
                key: key.trim_end_matches('`').to_owned(),
                default: default.to_owned(),
                meaning: meaning.to_owned(),
            };
            for name in heading.split(" and ") {
                let row = Row {
                    key: row.key.clone(),
                    default: row.default.clone(),
                    meaning: row.meaning.clone(),
                };
                if !(name == "default_app" && row.key == "app_id") {
                    tables.entry(name.to_owned()).or_default().push(row);
                }
            }
        }
    }
    tables
}

impl Row {
    /// The default, where it is a value.
    fn value(&self) -> Option<Value> {
        let code = self.default.strip_prefix('`')?.strip_suffix('`')?;
        serde_json::from_str(code).ok()
    }
}

/// The schema as it is committed.
fn schema() -> Value {
    let tables = tables();
    let mut defined = Map::new();
    for (name, mut definition) in definitions() {
        for row in tables.get(name).into_iter().flatten() {
            let property = &mut definition["properties"][&row.key];
            assert!(
                property.is_object(),
                "{name}: {} is not in the schema",
                row.key
            );
            if let Some(reference) = property.get("$ref") {
                // Draft 7 looks at nothing beside a reference.
                *property = json!({ "allOf": [{ "$ref": reference }] });
            }
            property["description"] = json!(row.meaning.replace('`', ""));
            if let Some(default) = row.value() {
                property["default"] = default;
            }
        }
        defined.insert(plain(name), definition);
    }
    let mut schema = defined.remove("The policy").unwrap();
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["$id"] = json!(ID);
    schema["title"] = json!("Policy of Tollgate");
    schema["definitions"] = Value::Object(defined);
    schema
}

/// The committed schema, compiled.
static COMMITTED: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let text = fs::read_to_string(document("policy.schema.json")).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler
        .add_resource(ID, serde_json::from_str(&text).unwrap())
        .unwrap();
    let index = compiler.compile(ID, &mut schemas).unwrap();
    (schemas, index)
});

/// What the schema has against a policy.
pub(super) fn fault(policy: &str) -> Option<String> {
    let value: Value = serde_json::from_str(policy).unwrap();
    let (schemas, index) = &*COMMITTED;
    schemas
        .validate(&value, *index)
        .err()
        .map(|error| format!("{error:#}"))
}

#[test]
fn the_committed_schema_is_this_one() {
    let text = format!("{:#}\n", schema());
    let path = document("policy.schema.json");
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == text,
        "run `make schema`"
    );
}

/// What only the parser can tell: how policies relate to themselves and to the table of operations, and how
/// long a duration is.
const BEYOND_A_SCHEMA: [&str; 15] = [
    "is already that of",
    "is taken by",
    "is that of a built-in role",
    "is listed already at",
    "is not a role;",
    "names no action of Azure OpenAI",
    "stands for many tenants",
    "is too short",
    "is too long",
    "is longer than every",
    "is not a whole number of seconds",
    "limits on tokens need usage",
    "is the same header as",
    "belongs to the request itself",
    "has a control character",
];

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let mut refused = 0;
    for (complete, members, errors) in bad::BAD {
        let policy = complete(members);
        if serde_json::from_str::<Value>(&policy).is_err() || policy.trim().is_empty() {
            continue;
        }
        let beyond = |error: &&str| BEYOND_A_SCHEMA.iter().any(|words| error.contains(words));
        let known = !errors.iter().all(beyond);
        if known {
            assert!(fault(&policy).is_some(), "{policy}\n{errors:?}");
            refused += 1;
        }
    }
    assert!(refused > 90, "{refused}");
}

/// The smallest object of each kind, `HERE` for its members, in a policy.
fn place(name: &str) -> String {
    let issuer = good_issuer();
    let in_issuer = |members: &str| issuer.replacen('{', &format!("{{{members}, "), 1);
    let app = |members: &str| {
        format!(r#""apps": [{{"app_id": "aaaaaaaa-0000-0000-0000-000000000001", {members}}}]"#)
    };
    let beside = |members: &str| format!(r#"{{"issuers": [{issuer}], {members}}}"#);
    match name {
        "The policy" => beside("HERE"),
        "issuers[]" => format!(r#"{{"issuers": [{}]}}"#, in_issuer("HERE")),
        "issuers[].required_claims[]" => {
            format!(
                r#"{{"issuers": [{}]}}"#,
                in_issuer(r#""required_claims": [{"name": "a", HERE}]"#)
            )
        }
        "issuers[].refresh" => format!(r#"{{"issuers": [{}]}}"#, in_issuer(r#""refresh": {HERE}"#)),
        "apps[]" => beside(&app("HERE")),
        "apps[].limits[]" => beside(&app(r#""limits": [{"tokens": 1, "per": "60s", HERE}]"#)),
        "apps[].caps" => beside(&app(r#""caps": {HERE}"#)),
        "roles.*" => beside(r#""roles": {"A": {"data_actions": [], HERE}}"#),
        "responses.*" => beside(r#""responses": {"quota": {HERE}}"#),
        member => beside(&format!(r#""{member}": {{HERE}}"#)),
    }
}

#[test]
fn the_schema_has_the_parsers_keys() {
    for (name, table) in tables() {
        let policy = place(&name).replace("HERE", r#""zzzzzzzzzzzzzzzzz": 1"#);
        let errors = Policy::parse(policy.as_bytes()).unwrap_err().to_string();
        let (_, keys) = errors.split_once("the keys here are ").unwrap();
        let documented: Vec<&str> = table.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(documented, keys.split(", ").collect::<Vec<_>>(), "{name}");
        assert!(fault(&policy).is_some(), "{policy}");
    }
}

#[test]
fn every_default_is_what_the_parser_takes() {
    let mut compared = 0;
    for (name, table) in tables() {
        for row in table {
            let Some(default) = row.value() else { continue };
            let written = place(&name).replace("HERE", &format!("{:?}: {default}", row.key));
            let absent = place(&name)
                .replace(", HERE", "")
                .replace("HERE, ", "")
                .replace("HERE", "");
            let [written, absent] = [written, absent].map(|policy| {
                assert_eq!(fault(&policy), None, "{policy}");
                let parsed = Policy::parse(policy.as_bytes());
                format!(
                    "{:?}",
                    parsed.unwrap_or_else(|errors| panic!("{policy}\n{errors}"))
                )
            });
            assert_eq!(written, absent, "{name}.{}", row.key);
            compared += 1;
        }
    }
    assert!(compared > 35, "{compared}");
}

/// Every key that the tables name is in a sample, and the schema takes the samples.
#[test]
fn the_samples_have_every_key() {
    let text = fs::read_to_string(document("configuration.md")).unwrap();
    let blocks = text.split("```json\n").skip(1);
    let samples: Vec<&str> = blocks
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect();
    for sample in &samples {
        assert_eq!(fault(sample), None, "{sample}");
    }
    for (name, table) in tables() {
        for row in table {
            let written = format!("\"{}\":", row.key);
            assert!(
                samples.iter().any(|sample| sample.contains(&written)),
                "{name}: {written}"
            );
        }
    }
}
