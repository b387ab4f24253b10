//! Heads and bodies of requests: what has two readings is never taken for the better of them.

use std::rc::Rc;

use serde_json::{Value, json};
use tollgate::body::RequestBody;
use tollgate::credential::Credential;
use tollgate::gateway::Verdict;
use tollgate::operations::{
    Action, Method, ModelPlace, Operation, Surfaces, Unread, is_deployment, rows,
};
use tollgate::policy::Policy;
use tollgate::request::{HeaderMap, RequestHead, protocols_without_keys};
use tollgate::roles::BUILT_IN;
use tollgate::usage::{BodyReader as _, Passed};

use super::{Members, Target, agreeable, bench, cuts, outcome, trusting};
use crate::common::{APP, SIGNER, v1_claims};

thread_local! {
    static DENYING: Rc<Policy> = trusting(&json!({}));
    static NARROW: Rc<Policy> = trusting(&json!({ "apps": [{
        "app_id": APP, "roles": [BUILT_IN[0].name], "deployments": ["gpt-4o", "text-*"],
    }]}));
    static TOKEN: String = SIGNER.token(&v1_claims());
}

// Heads

const KEYS: [&str; 3] = ["api-key", "ocp-apim-subscription-key", "x-api-key"];
const PARAMETERS: [&str; 2] = ["api-key", "subscription-key"];
const TOKENS: [&str; 1] = ["access-token"];

pub(super) const HEAD: Target = Target {
    name: "head",
    seeds: || {
        let path = ":path: /openai/models?api-version=1";
        [
            format!("{path}\nauthorization: Bearer TOKEN"),
            format!("{path}\nauthorization: Bearer TOKEN\nAuthorization: Bearer TOKEN"),
            format!("{path}\nauthorization: Bearer TOKEN\napi_key: x"),
            format!("{path}&API%2dkey=1\nauthorization: Bearer TOKEN"),
            format!("{path};subscription-key=1\nauthorization: Bearer TOKEN"),
            format!("{path}&Access%5ftoken=TOKEN\nauthorization: Bearer TOKEN"),
            format!("{path}\nsec-websocket-protocol: a, OpenAI-Insecure-Api-Key.k\nmy-api-key: x"),
            format!("{path}\nauthorization: Basic TOKEN"),
            format!("{path}\nauthorization: Bearer TOKEN\napi-key: TOKEN"),
            format!("{path}&api-key=+\nauthorization: Bearer TOKEN\nx-api-key: "),
            format!("{path}\nauthorization: Bearer TOKEN, Bearer other"),
            "authorization: Basic TOKEN\nocp-apim-subscription-key: ".to_owned(),
        ]
        .map(String::into_bytes)
        .into()
    },
    check: head,
    outcomes: &[
        "allowed",
        "AuthenticationTypeDisabled",
        "TokenNotPresent",
        "JwtInvalid",
    ],
    words: &[
        "\n",
        ": ",
        "api-key",
        "API_KEY",
        "api%2dkey",
        "%61",
        "%",
        "?",
        "&",
        ";",
        "=",
        "authorization",
        "Bearer TOKEN",
        "TOKEN",
        "Bearer ",
        ",",
        ":path: ",
        "sec-websocket-protocol: ",
        "openai-insecure-api-key.",
        "subscription-key",
        "access_token",
        "x-original-url: ",
        "+",
        "\0",
    ],
};

/// Lines are headers. `TOKEN` stands for a good one.
fn head(input: &[u8]) -> String {
    let text = input.escape_ascii().to_string().replace("\\n", "\n");
    let text = TOKEN.with(|token| text.replace("TOKEN", token));
    let pairs: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .collect();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let headers = HeaderMap::from_pairs(pairs.iter().copied());
    assert!(headers.iter().eq(pairs.iter().copied()));
    // Whatever a host hands over as headers is read to its end and no further.
    assert!(HeaderMap::from_host(input.to_vec()).iter().count() <= input.len());

    let spelled = |name: &[u8]| {
        String::from_utf8_lossy(name)
            .to_lowercase()
            .replace('_', "-")
    };
    let named = |wanted: &str| -> Vec<&[u8]> {
        let mut of_name = Vec::new();
        of_name.extend(
            pairs
                .iter()
                .filter(|(name, _)| spelled(name) == wanted)
                .map(|(_, value)| *value),
        );
        of_name
    };
    let path = pairs
        .iter()
        .rfind(|(name, _)| *name == b":path")
        .map_or(&b""[..], |(_, path)| *path);
    let credentials = named("authorization");
    let bearer = match Credential::read(&credentials) {
        Credential::Bearer { token, .. } => Some(token),
        _ => None,
    };
    let is_key = |name: &&str| {
        let values = named(name);
        let values: Vec<_> = values
            .iter()
            .filter(|value| !value.trim_ascii().is_empty())
            .collect();
        // A lone copy of the token is none.
        let is_copy = |token: &[u8]| values == [&token] && is_compact(token);
        !values.is_empty() && !bearer.is_some_and(is_copy)
    };
    let key = KEYS.iter().any(is_key)
        || holds_key(path)
        || named("sec-websocket-protocol")
            .iter()
            .any(|list| holds_protocol(list));

    let policy = DENYING.with(Rc::clone);
    let head = RequestHead::read(&headers, &policy);
    assert_eq!(head.key_in_query, holds_key(path));
    let emptied = head.path_without_empty(&policy.api_keys.query);
    assert!(head.key_in_query || !holds(&emptied, &PARAMETERS));
    // Where keys are taken out rather than refused, none is left.
    let stripped = head.path_without(&policy.api_keys.query);
    assert!(!holds(&stripped, &PARAMETERS) && !holds(&stripped, &TOKENS));
    assert_eq!(head.token_in_query, holds(path, &TOKENS));
    if let Some(protocols) = &head.key_protocols {
        assert!(!holds_protocol(&protocols_without_keys(protocols)));
    }
    let verdict = bench(&policy, agreeable()).decide_bytes(&pairs);
    let outcome = outcome(&verdict);
    // Without a method or a path there is no request to decide on, whatever else it carries.
    let given = |wanted: &[u8], default: &'static [u8]| {
        let found = pairs.iter().rfind(|(name, _)| *name == wanted);
        found.map_or(default, |(_, value)| *value)
    };
    let (method, target) = (given(b":method", b"POST"), given(b":path", b"/"));
    let has_path = !target.is_empty() && !target.starts_with(b"?");
    let is_request = !method.is_empty() && (has_path || method == b"CONNECT");
    assert_eq!(outcome == "InternalError", !is_request, "{text}");
    assert_eq!(
        outcome == "AuthenticationTypeDisabled",
        key && is_request,
        "{text}"
    );
    if outcome == "allowed" {
        let credential = Credential::read(&named("authorization"));
        let Credential::Bearer { token, .. } = credential else {
            panic!("{credential:?}");
        };
        // The host calls every signature good: what was signed is all that is certain.
        let signed = |token: &[u8]| {
            token
                .rsplitn(2, |byte| *byte == b'.')
                .last()
                .unwrap()
                .to_vec()
        };
        TOKEN.with(|good| assert_eq!(signed(token), signed(good.as_bytes())));
    }
    outcome
}

/// Whether a query has a parameter for a key with something in it, up to the next `&`.
fn holds_key(path: &[u8]) -> bool {
    let Some(at) = path.iter().position(|byte| *byte == b'?') else {
        return false;
    };
    path[at + 1..].split(|byte| *byte == b'&').any(|part| {
        let starts = (0..part.len()).filter(|at| *at == 0 || b";?".contains(&part[at - 1]));
        starts.into_iter().any(|start| {
            let pair = &part[start..];
            let end = pair.iter().position(|byte| b"=;?".contains(byte));
            let end = end.unwrap_or(pair.len());
            let value =
                String::from_utf8_lossy(pair.get(end + 1..).unwrap_or_default()).replace('+', " ");
            let is_empty = decoded(value.as_bytes()).iter().all(|byte| *byte <= b' ');
            !is_empty
                && PARAMETERS
                    .iter()
                    .any(|known| is_read_as(&pair[..end], known))
        })
    })
}

/// Whether a token has three parts of base64url.
fn is_compact(token: &[u8]) -> bool {
    let parts: Vec<_> = token.split(|byte| *byte == b'.').collect();
    let is_part = |part: &&[u8]| {
        let mut bytes = part.iter();
        !part.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
    };
    parts.len() == 3 && parts.iter().all(is_part)
}

/// Whether a query has a parameter of one of these names.
fn holds(path: &[u8], names: &[&str]) -> bool {
    let Some(at) = path.iter().position(|byte| *byte == b'?') else {
        return false;
    };
    let mut pairs = path[at + 1..].split(|byte| matches!(byte, b'&' | b';' | b'?'));
    pairs.any(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap();
        names.iter().any(|known| is_read_as(name, known))
    })
}

/// Whether a lenient reader takes a name for a key's, as docs/configuration.md says.
fn is_read_as(name: &[u8], key: &str) -> bool {
    let is_space = |byte: &u8| *byte <= b' ';
    let name = decoded(name);
    let spaced: Vec<u8> = name
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let start = spaced
        .iter()
        .position(|byte| !is_space(byte) && *byte != b'?')
        .unwrap_or(spaced.len());
    let Some((written, rest)) = spaced[start..].split_at_checked(key.len()) else {
        return false;
    };
    let dashed: Vec<u8> = written
        .iter()
        .map(|byte| match byte {
            b'_' | b'.' | b' ' => b'-',
            byte => byte.to_ascii_lowercase(),
        })
        .collect();
    let ends = rest
        .first()
        .is_none_or(|byte| is_space(byte) || *byte == b'[');
    dashed == key.as_bytes() && ends
}

/// A name without its escapes. What is no escape stands as it is.
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < name.len() {
        let digits = name
            .get(at + 1..at + 3)
            .and_then(|digits| str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()) {
            Some(byte) if name[at] == b'%' => {
                bytes.push(byte);
                at += 3;
            }
            _ => {
                bytes.push(name[at]);
                at += 1;
            }
        }
    }
    bytes
}

fn holds_protocol(list: &[u8]) -> bool {
    let list = String::from_utf8_lossy(list).to_lowercase();
    list.split([',', ';', ' ', '\t', '"'])
        .any(|protocol| protocol.starts_with("openai-insecure-api-key."))
}

// Paths

pub(super) const PATH: Target = Target {
    name: "path",
    seeds: || {
        let mut seeds: Vec<String> = rows()
            .map(|row| {
                let surface = if row.surfaces == Surfaces::V1 {
                    "v1/"
                } else {
                    ""
                };
                let path = row
                    .path
                    .replace("{id}", "x-1")
                    .replace("{deployment}", "gpt-4o");
                format!(
                    "{} /openai/{surface}{path}",
                    format!("{:?}", row.method).to_uppercase()
                )
            })
            .collect();
        seeds.extend(
            [
                "GET /openai/realtime?api-version=1&deployment=gpt-4o",
                "GET /openai/v1/realtime?model=o1",
                "GET /openai/v1/realtime?model=gpt-4o&%6dodel=o1",
                "POST /OpenAI/Deployments/TEXT-1/Embeddings",
                "POST /openai/deployments/o1/chat/completions",
                "POST /openai/deployments/gpt-4o/../o1/chat/completions",
                "POST /openai/deployments/gpt%2d4o/chat/completions",
                "POST /openai/deployments/gpt-4o/chat/completions/",
                "GET /openai/models//",
                "GET /status",
            ]
            .map(str::to_owned),
        );
        seeds.into_iter().map(String::into_bytes).collect()
    },
    check: path,
    outcomes: &[
        "allowed",
        "read",
        "Ambiguous",
        "Unknown",
        "PermissionDenied",
        "DeploymentNotAllowed",
    ],
    words: &[
        "/",
        "//",
        "/./",
        "/../",
        ".",
        "..",
        "%2e",
        "%2f",
        "%",
        ";",
        "\\",
        "?",
        "&",
        "#",
        " ",
        "GET ",
        "POST ",
        "DELETE ",
        "/openai/",
        "v1/",
        "deployments/",
        "gpt-4o",
        "o1",
        "text-",
        "chat/completions",
        "realtime",
        "?deployment=",
        "model=",
        "files",
        "{id}",
        "*",
        ":",
        "\u{e9}",
    ],
};

type Asked<'a> = Result<(Action, Option<&'a str>, ModelPlace), Unread>;

/// Method, space, path and query.
fn path(input: &[u8]) -> String {
    let mut halves = input.splitn(2, |byte| *byte == b' ');
    let (method, target) = (halves.next().unwrap(), halves.next().unwrap_or_default());
    let mut halves = target.splitn(2, |byte| *byte == b'?');
    let (path, query) = (halves.next().unwrap(), halves.next());
    let read = Operation::read(method, path, query);
    let read: Asked<'_> = read.map(|found| (found.action, found.deployment, found.model));
    let expected = plainly(method, path, query.unwrap_or_default());
    assert_eq!(read, expected);

    let token = TOKEN.with(|token| format!("Bearer {token}"));
    let headers = [
        (&b":method"[..], method),
        (b":path", target),
        (b"authorization", token.as_bytes()),
    ];
    let headers = HeaderMap::from_pairs(headers);
    let mut bench = NARROW.with(|policy| bench(policy, agreeable()));
    let now = tollgate::time::Time::from_millis(bench.now);
    let patience = tollgate::gateway::Patience::Wait;
    let verdict = bench
        .gateway
        .decide(&headers, &|| now, &*bench.store, patience);
    let is_granted = |asked: Asked<'_>| BUILT_IN[0].permissions().grant(asked.unwrap().0);
    match verdict {
        Verdict::Allow(_) => {
            assert!(is_granted(expected));
            let (_, deployment, place) = expected.unwrap();
            let is_listed = |name: &str| {
                let name = name.to_ascii_lowercase();
                name == "gpt-4o" || name.starts_with("text-")
            };
            match deployment {
                Some(name) => assert!(is_listed(name), "{name}"),
                None => assert!(
                    matches!(place, ModelPlace::Nowhere | ModelPlace::Earlier),
                    "{place:?}"
                ),
            }
            "allowed".to_owned()
        }
        Verdict::Read(_) => {
            assert!(is_granted(expected) && expected.unwrap().2 == ModelPlace::Body);
            "read".to_owned()
        }
        Verdict::Refuse(refuse) => match expected {
            Err(unread) => format!("{unread:?}"),
            Ok(_) => format!("{:?}", refuse.refusal.code()),
        },
        Verdict::Wait { .. } => panic!("nothing to wait for"),
    }
}

/// The operation, read off the table the long way.
fn plainly<'a>(method: &[u8], path: &'a [u8], query: &'a [u8]) -> Asked<'a> {
    let path = str::from_utf8(path).map_err(|_| Unread::Ambiguous)?;
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._~!$&'()*+,=:@/".contains(char);
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<_> = trimmed.split('/').skip(1).collect();
    let has_two_readings = |segment: &&str| segment.is_empty() || segment.ends_with('.');
    if !trimmed.starts_with('/')
        || !path.chars().all(is_plain)
        || segments.iter().any(has_two_readings)
    {
        return Err(Unread::Ambiguous);
    }
    let is = |segment: &&str, wanted: &str| segment.eq_ignore_ascii_case(wanted);
    let (surface, rest) = match segments.as_slice() {
        [first, second, rest @ ..]
            if is(first, "openai") && is(second, "v1") && !rest.is_empty() =>
        {
            (Surfaces::V1, rest)
        }
        [first, rest @ ..] if is(first, "openai") && !rest.is_empty() => (Surfaces::Dated, rest),
        _ => return Err(Unread::Unknown),
    };
    let name = |method: Method| format!("{method:?}").to_uppercase();
    for row in rows() {
        let template: Vec<_> = row.path.split('/').collect();
        let exists = row.surfaces == Surfaces::Both || row.surfaces == surface;
        if name(row.method).as_bytes() != method || !exists || template.len() != rest.len() {
            continue;
        }
        let fits = template
            .iter()
            .zip(rest)
            .all(|(wanted, segment)| match *wanted {
                "{id}" => true,
                "{deployment}" => is_deployment(segment),
                fixed => is(segment, fixed),
            });
        if !fits {
            continue;
        }
        let at = template.iter().position(|wanted| *wanted == "{deployment}");
        let deployment = match row.model {
            ModelPlace::Query => named_by(query, surface)?,
            _ => at.map(|at| rest[at]),
        };
        return Ok((row.action, deployment, row.model));
    }
    Err(Unread::Unknown)
}

fn named_by(query: &[u8], surface: Surfaces) -> Result<Option<&str>, Unread> {
    let query = str::from_utf8(query).map_err(|_| Unread::Ambiguous)?;
    if query.contains(|char: char| !char.is_ascii_graphic() || char == ';' || char == '#') {
        return Err(Unread::Ambiguous);
    }
    let is_named =
        |pair: &&str, wanted| is_read_as(pair.split('=').next().unwrap().as_bytes(), wanted);
    let naming: Vec<_> = query
        .split('&')
        .filter(|pair| is_named(pair, "deployment") || is_named(pair, "model"))
        .collect();
    let wanted = if surface == Surfaces::V1 {
        "model="
    } else {
        "deployment="
    };
    match naming.as_slice() {
        [] => Ok(None),
        [one] => one
            .strip_prefix(wanted)
            .filter(|name| is_deployment(name))
            .map(Some)
            .ok_or(Unread::Ambiguous),
        _ => Err(Unread::Ambiguous),
    }
}

// Bodies

pub(super) const BODY: Target = Target {
    name: "body",
    seeds: || {
        let seeds = [
            r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true}"#,
            r#"{"stream":true,"stream_options":{"include_usage":false,"x":[1]},"model":"o1","n":2}"#,
            r#"{"stream":true,"stream_options":null,"max_tokens":7,"best_of":3}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":false,"max_completion_tokens":1.0,"max_output_tokens":null}"#,
            r#"{"mo\u0064el":"\ud83d\ude00","data_sources":[{}],"stream":true}"#,
            r#"{"data_sources":[],"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"prompt":["a",[1],2],"n":2,"max_tokens":7}"#,
            r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,QUJD\/w=="}},{"text":"data:,x"}]}]}"#,
            r#"{"model":"a","model":"b"}"#,
            r#"{"Model":"a"}"#,
            r#"{"model":7}"#,
            r#"[{"model":"a"}]"#,
            r#"{"a":[[[{"b":{}}]]]} "#,
            "\u{feff}{\"model\":\"a\",\"stream\":true}",
            "",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).into()
    },
    check: body,
    outcomes: &[
        "asks for usage",
        "as it is",
        "no model",
        "refused",
        "Truncated",
    ],
    words: &[
        "\"model\":",
        "\"stream\":",
        "\"stream_options\":",
        "\"include_usage\":",
        "\"max_tokens\":",
        "\"n\":",
        "true",
        "false",
        "null",
        "\"Model\":",
        "\"mode\\u006c\":",
        "\"file_data\":\"",
        "data:a/b;base64,",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "\\",
        "\\ud800",
        "1e400",
        "1e-400",
        "00",
        "\u{feff}",
        " ",
        "\u{c}",
        "\u{e9}",
        "18446744073709551616",
    ],
};

/// What a body's reader said in the end, and what it let pass.
#[derive(Debug, PartialEq)]
struct Read {
    passed: Vec<u8>,
    /// `Err`: which fault is told may depend on the cut.
    model: Result<Option<String>, ()>,
    is_complete: bool,
    asks: bool,
    bounds: [u64; 2],
}

impl Read {
    fn of(parts: &[&[u8]], inject: bool) -> Self {
        let headers = HeaderMap::from_pairs([(&b"content-type"[..], &b"application/json"[..])]);
        let mut body = RequestBody::new(&headers, inject);
        let mut passed = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            match body.push(part, index + 1 == parts.len()) {
                Passed::Unchanged => passed.extend_from_slice(part),
                Passed::Replaced(instead) => passed.extend_from_slice(instead),
            }
        }
        Self {
            passed,
            model: body
                .model()
                .map(|model| model.map(str::to_owned))
                .map_err(|_| ()),
            is_complete: body.is_complete(),
            asks: body.usage_was_injected(),
            bounds: [Some(Action::ChatCompletions), Some(Action::Embeddings)]
                .map(|action| body.bound(action)),
        }
    }
}

fn body(input: &[u8]) -> String {
    let (whole, asking) = (Read::of(&[input], false), Read::of(&[input], true));
    let input_without_mark = input.strip_prefix("\u{feff}".as_bytes()).unwrap_or(input);
    let has_null = input.windows(4).any(|word| word == b"null");
    // The backend refuses both together, whatever they say; which comes first decides whether usage is asked for.
    let has_both = serde_json::from_slice::<Value>(input_without_mark).is_ok_and(|body| {
        let has = |member| body.get(member).is_some();
        has("stream_options") && has("data_sources")
    });
    for parts in cuts(input) {
        let read = Read::of(&parts, false);
        assert_eq!((&read.model, read.bounds), (&whole.model, whole.bounds));
        assert!(read.is_complete && !read.asks);
        // What follows an object is blank, if the object went on before.
        let blank = read.passed.iter().zip(input);
        let blank = blank.skip_while(|(passed, came)| passed == came);
        assert_eq!(read.passed.len(), input.len());
        assert!(whole.model.is_err() || read.passed == input);
        assert!(blank.clone().all(|(passed, _)| b" \n\r\t".contains(passed)));
        let cut = Read::of(&parts, true);
        // Bytes that went on before the fault came may ask already; and `"stream_options": null` went on as it was,
        // if it could not be seen yet that a stream is asked for.
        let is_same = cut.bounds == asking.bounds && cut.is_complete == asking.is_complete;
        assert!(whole.model.is_err() || (is_same && cut.model == asking.model));
        if whole.model.is_ok() && !has_null && !has_both {
            assert_eq!(cut, asking);
        }
    }
    assert_eq!(whole.passed, input);
    assert!(!whole.asks && whole.is_complete && asking.model == whole.model);
    let Ok(model) = &whole.model else {
        assert_eq!(whole.bounds[0], u64::MAX);
        let is_json = serde_json::from_slice::<Value>(input).is_ok();
        return if is_json || input.ends_with(b"}") {
            "refused"
        } else {
            "Truncated"
        }
        .to_owned();
    };
    check_body(input, model.as_deref(), &whole, &asking);
    match model {
        _ if asking.asks => "asks for usage",
        Some(_) => "as it is",
        None => "no model",
    }
    .to_owned()
}

/// A body that was taken: another parser reads the same in it, but for a byte order mark.
fn check_body(input: &[u8], model: Option<&str>, whole: &Read, asking: &Read) {
    let marked = |text| <[u8]>::strip_prefix(text, "\u{feff}".as_bytes()).unwrap_or(text);
    let input = marked(input);
    let members = match serde_json::from_slice::<Members>(input) {
        Ok(members) => members,
        // That parser has bounds of its own, and RFC 8259 lets half a pair of escapes stand.
        Err(error) => {
            let error = error.to_string();
            let own = [
                "number out of range",
                "recursion limit",
                "lone ",
                "unexpected end of hex",
            ];
            assert!(own.iter().any(|own| error.starts_with(own)), "{error}");
            return;
        }
    };
    let given = |name| members.get(name).filter(|value| !value.is_null());
    assert_eq!(given("model").map(|model| model.as_str().unwrap()), model);
    let numbers = ["max_tokens", "max_completion_tokens"].map(given);
    let most = numbers
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .max()
        .unwrap_or(0);
    let answers = given("n").and_then(Value::as_u64).unwrap_or(1).max(1);
    assert!(
        whole.bounds[0] >= most.saturating_mul(answers),
        "{:?}",
        whole.bounds
    );
    if !asking.asks {
        assert_eq!(marked(&asking.passed), input);
        return;
    }
    // Nothing is changed but what asks.
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    let (mut before, mut after) = (read(input), read(marked(&asking.passed)));
    assert_eq!(after["stream_options"]["include_usage"], true);
    // Of options that say a thing twice only the question stays, in one case.
    let is_odd =
        |name: &String| name.eq_ignore_ascii_case("include_usage") && name != "include_usage";
    let options = before["stream_options"].as_object();
    if tollgate::json::parse(input).is_err()
        || options.is_some_and(|options| options.keys().any(is_odd))
        || may_be_rounded(&before["stream_options"])
    {
        return;
    }
    assert_ne!(before["stream_options"]["include_usage"], true);
    for body in [&mut before, &mut after] {
        let options = body["stream_options"].as_object_mut();
        let is_empty = options.is_none_or(|options| {
            options.remove("include_usage");
            options.is_empty()
        });
        if is_empty {
            body.as_object_mut().unwrap().remove("stream_options");
        }
    }
    assert_eq!(before, after);
}

/// Whether a number in it is none of the integers: written anew, it may differ in its last digit.
fn may_be_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(may_be_rounded),
        Value::Object(members) => members.values().any(may_be_rounded),
        _ => false,
    }
}
