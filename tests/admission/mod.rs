//! Requests whose bodies decide: what their heads take of the limits, and how many may be undecided.

use serde_json::{Value, json};
use tollgate::body::RequestBody;
use tollgate::gateway::{Patience, Pending, Verdict};
use tollgate::limits::{ResponseStatus, Settlement};
use tollgate::refusal::{Code, Refusal};
use tollgate::request::HeaderMap;
use tollgate::time::Time;
use tollgate::usage::BodyReader as _;

use crate::common::{APP, Bench, OTHER_APP, SIGNER, code, policy, v1_claims, with};

const V1: &str = "/openai/v1/chat/completions";
const GPT: &str = r#"{"model":"gpt-4o","max_tokens":5}"#;
const O1: &str = r#"{"model":"o1","max_tokens":5}"#;

/// A request of which the head has come.
struct Head {
    pending: Pending,
    body: Box<RequestBody>,
}

impl Bench {
    /// The head of a request of this application.
    fn head(&mut self, app: &str) -> Result<Head, Box<Verdict>> {
        let token = SIGNER.token(&with(v1_claims(), &json!({ "appid": app })));
        let authorization = format!("Bearer {token}");
        let headers = [
            (":method", "POST"),
            (":path", V1),
            ("authorization", &authorization),
        ];
        let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let now = Time::from_millis(self.now);
        let headers = HeaderMap::from_pairs(headers);
        match self
            .gateway
            .decide(&headers, &|| now, &*self.store, Patience::Wait)
        {
            Verdict::Read(read) => Ok(Head {
                pending: read.pending,
                body: read.body,
            }),
            decided => Err(Box::new(decided)),
        }
    }

    fn body(&mut self, mut head: Head, text: &str) -> Verdict {
        head.body.push(text.as_bytes(), true);
        let now = Time::from_millis(self.now);
        let store = &*self.store;
        self.gateway
            .decide_on_body(head.pending, &head.body, &|| now, store)
    }

    /// The caller leaves, or an error comes with this status.
    fn give_up(&mut self, mut head: Head, status: Option<u16>) {
        let now = Time::from_millis(self.now);
        let settlement = Settlement {
            status: status.map_or(ResponseStatus::Absent, ResponseStatus::Code),
            tokens: 0,
        };
        if let Some(admission) = head.pending.give_up() {
            self.gateway
                .settle(admission, settlement, &|| now, &*self.store);
        }
    }

    /// The code that the next head is refused with.
    fn refused(&mut self, app: &str) -> Option<Code> {
        self.head(app).err().map(|verdict| code(&verdict).unwrap())
    }
}

fn bench(app: &Value, top: &Value) -> Bench {
    let app = with(json!({ "app_id": APP }), app);
    Bench::new(&policy(&with(json!({ "apps": [app] }), top)))
}

const LIMITED: Option<Code> = Some(Code::RateLimitExceeded);

#[test]
fn l9_a_call_takes_its_place_with_its_head() {
    let mut bench = bench(
        &json!({ "limits": [{ "calls": 1, "per": "1h" }] }),
        &json!({}),
    );
    let head = bench.head(APP).unwrap();
    assert_eq!(bench.refused(APP), LIMITED);
    assert_eq!(bench.refused(OTHER_APP), None);
    // Its body takes no second one.
    assert_eq!(code(&bench.body(head, GPT)), None);
    assert_eq!(bench.refused(APP), LIMITED);
}

#[test]
fn l9_a_refused_body_gives_its_place_back() {
    let limits = json!([
        { "calls": 2, "per": "1h" },
        { "tokens": 8, "per": "1h", "reserve": true, "deployments": ["gpt-4o"] },
    ]);
    let app = json!({ "deployments": ["gpt-4o", "o1"], "limits": limits });
    let mut bench = bench(&app, &json!({}));
    for body in [r#"{"model":"o3"}"#, "x", "{}", ""] {
        for _ in 0..3 {
            let head = bench.head(APP).unwrap();
            assert!(code(&bench.body(head, body)).is_some(), "{body}");
        }
    }
    // A limit that the body decides is reached: the others are given back too.
    for _ in 0..3 {
        let head = bench.head(APP).unwrap();
        assert_eq!(code(&bench.body(head, GPT)), Some(Code::CallExceedsLimit));
    }
    for _ in 0..2 {
        let head = bench.head(APP).unwrap();
        assert_eq!(code(&bench.body(head, O1)), None);
    }
    assert_eq!(bench.refused(APP), LIMITED);
}

#[test]
fn l9_what_the_body_decides_is_taken_with_the_body() {
    let limits = json!([{ "calls": 1, "per": "1h", "deployments": ["gpt-4o"] }]);
    let mut bench = bench(&json!({ "limits": limits }), &json!({}));
    let [one, other, third] = [(); 3].map(|()| bench.head(APP).unwrap());
    assert_eq!(code(&bench.body(one, GPT)), None);
    assert_eq!(code(&bench.body(other, GPT)), LIMITED);
    assert_eq!(code(&bench.body(third, O1)), None);
}

#[test]
fn l9_a_reserve_that_is_used_up_is_seen_with_the_head() {
    let limits = json!([{ "tokens": 13, "per": "1h", "reserve": true }]);
    let mut bench = bench(&json!({ "limits": limits }), &json!({}));
    let (first, second) = (bench.head(APP).unwrap(), bench.head(APP).unwrap());
    // 33 bytes are 9 tokens, and 5 may follow: the first does not fit.
    assert_eq!(code(&bench.body(first, GPT)), Some(Code::CallExceedsLimit));
    let small = r#"{"model":"gpt-4o","max_tokens":4}"#;
    assert_eq!(code(&bench.body(second, small)), None);
    assert_eq!(bench.refused(APP), Some(Code::TokenLimitExceeded));
}

#[test]
fn l9_who_leaves_undecided_counts_by_the_rules_of_count() {
    for (count, status, stays) in [
        (json!("all"), None, true),
        (json!("all"), Some(413), true),
        (json!("success"), None, false),
        (json!("success"), Some(413), false),
        (json!([200]), None, false),
        (json!([413]), Some(413), true),
    ] {
        let limits = json!([{ "calls": 1, "per": "1h", "count": count }]);
        let mut bench = bench(&json!({ "limits": limits }), &json!({}));
        let head = bench.head(APP).unwrap();
        bench.give_up(head, status);
        assert_eq!(
            bench.refused(APP),
            LIMITED.filter(|_| stays),
            "{count} {status:?}"
        );
    }
}

#[test]
fn l9_undecided_requests_are_bounded_for_each_application() {
    let mut bench = bench(
        &json!({ "deployments": ["gpt-4o"] }),
        &json!({ "max_undecided": 3 }),
    );
    let mut heads: Vec<Head> = (0..3).map(|_| bench.head(APP).unwrap()).collect();
    let Some(Verdict::Refuse(refuse)) = bench.head(APP).err().map(|verdict| *verdict) else {
        panic!("a fourth is undecided")
    };
    assert_eq!(refuse.refusal, Refusal::Undecided);
    assert_eq!(refuse.refusal.code(), Code::RateLimitExceeded);
    assert_eq!(bench.refused(OTHER_APP), None);
    // Decided, refused, gone, lost: each makes room for one.
    let ways: [fn(&mut Bench, Head); 4] = [
        |bench, head| assert_eq!(code(&bench.body(head, GPT)), None),
        |bench, head| assert!(code(&bench.body(head, O1)).is_some()),
        |bench, head| bench.give_up(head, None),
        |_, head| drop(head),
    ];
    for end in ways {
        end(&mut bench, heads.remove(0));
        heads.push(bench.head(APP).unwrap());
        assert_eq!(bench.refused(APP), LIMITED);
    }
}

#[test]
fn l9_report_mode_denies_nothing() {
    let top = json!({ "max_undecided": 1, "mode": "report" });
    let mut bench = bench(&json!({}), &top);
    let head = bench.head(APP).unwrap();
    let Some(Verdict::Allow(allow)) = bench.head(APP).err().map(|verdict| *verdict) else {
        panic!("it passes")
    };
    assert_eq!(allow.would_refuse, Some(Refusal::Undecided));
    assert_eq!(code(&bench.body(head, GPT)), None);
    assert!(bench.head(APP).is_ok());
}

/// A host that does not say what is asked for: nothing passes, whatever else the request carries.
#[test]
fn h1_without_method_or_path_nothing_passes() {
    let top = json!({
        "public_paths": ["/", "/status*"], "cors_preflight": "pass", "api_keys": { "action": "strip" },
    });
    let token = format!("Bearer {}", SIGNER.token(&v1_claims()));
    let preflight = ("access-control-request-method", "GET");
    for head in [
        vec![(":path", V1)],
        vec![(":path", "/status")],
        vec![(":method", ""), (":path", "/status")],
        vec![(":method", "GET")],
        vec![(":method", "GET"), (":path", "")],
        vec![(":method", "GET"), (":path", "?subscription-key=x")],
        vec![(":method", "OPTIONS"), preflight],
        vec![],
    ] {
        let mut bench = Bench::new(&policy(&top));
        for authorization in [None, Some(("authorization", token.as_str()))] {
            let pairs = head.iter().copied().chain(authorization);
            let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let (now, headers) = (Time::from_millis(bench.now), HeaderMap::from_pairs(pairs));
            let store = &*bench.store;
            let verdict = bench
                .gateway
                .decide(&headers, &|| now, store, Patience::Wait);
            assert_eq!(code(&verdict), Some(Code::InternalError), "{head:?}");
        }
    }
    // A tunnel has no path (RFC 9110 section 9.3.6), and is judged like any other request.
    let mut bench = Bench::new(&policy(&top));
    let connect = [
        (":method", "CONNECT"),
        (":path", ""),
        ("authorization", &*token),
    ];
    assert_eq!(bench.code_of(&connect), None);
}
