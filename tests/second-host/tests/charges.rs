//! What a call is charged: the limit, the metrics, the filter state and the request log say the same.

use serde_json::{Value, json};
use tollgate_second_host::{Process, Stream, Told, Vm};

use crate::common::{good, limited};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const EVENT: &str = "data: {\"choices\":[{\"delta\":{}}]}\n\n";

/// What the request's body is estimated at, and what is held for its answer.
const PROMPT: u64 = 5;
const BODY: &[u8] = br#"{"max_tokens":1000}"#;
const HELD: u64 = PROMPT + 1_000;

/// A limit that is reached only by what is charged.
const LIMIT: u64 = 1_000_000;

struct Bench {
    process: Process,
    vm: Vm,
    token: String,
}

impl Bench {
    fn new(limit: &Value) -> Self {
        let process = Process::new();
        let vm = Vm::start(&process, &limited(limit.clone()));
        let token = good(&process);
        Self { process, vm, token }
    }

    fn call(&mut self) -> Stream {
        let stream = self.vm.request().bearer(&self.token).open();
        self.vm.send_body(stream, BODY, true);
        assert!(self.vm.answer(stream).is_forwarded());
        stream
    }

    fn metric(&self, kind: &str) -> u64 {
        let metrics = self.process.metrics();
        let of_kind = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("tollgate_tokens") && name.ends_with(kind));
        of_kind.map(|(_, count)| *count).sum()
    }

    /// What the limit counts, as the refusal of a call that is larger than it says.
    fn charged(&mut self) -> u64 {
        let stream = self.vm.request().bearer(&self.token).open();
        let most = format!(r#"{{"max_tokens":{}}}"#, LIMIT);
        self.vm.send_body(stream, most.as_bytes(), true);
        let answer = self.vm.answer(stream);
        assert_eq!(answer.status(), 413);
        let left = answer.headers().get("x-ratelimit-remaining-tokens");
        let _ = self.vm.finish(stream);
        LIMIT - left.unwrap().parse::<u64>().unwrap()
    }

    /// All that is said of a call that ended: the limit's count, and what was reported and estimated.
    fn check(&mut self, told: &Told, total: Option<u64>, estimated: Option<u64>, what: &str) {
        self.vm.tick();
        assert_eq!(*told.field("total_tokens"), json!(total), "{what}");
        assert_eq!(*told.field("estimated_tokens"), json!(estimated), "{what}");
        for (name, count) in [("total_tokens", total), ("estimated_tokens", estimated)] {
            let state = told.state(name).map(|text| text.parse::<u64>().unwrap());
            assert_eq!(state.unwrap_or(0), count.unwrap_or(0), "{name}: {what}");
        }
        let metrics = (self.metric("kind.total"), self.metric("kind.estimated"));
        assert_eq!(
            metrics,
            (total.unwrap_or(0), estimated.unwrap_or(0)),
            "{what}"
        );
        assert_eq!(self.charged(), metrics.0 + metrics.1, "{what}");
    }
}

/// How a call ends, and what is then charged without and with `reserve`.
struct Case {
    name: &'static str,
    end: fn(&mut Vm, Stream),
    total: Option<u64>,
    estimated: Option<u64>,
    reserved: Option<u64>,
}

fn begin(vm: &mut Vm, stream: Stream, content_type: &str) {
    assert!(vm.respond_head(
        stream,
        &[(":status", "200"), ("content-type", content_type)],
        false
    ));
}

const CASES: [Case; 14] = [
    Case {
        name: "usage is reported",
        end: |vm, stream| {
            let usage = br#"{"usage":{"prompt_tokens":1,"total_tokens":25}}"#;
            vm.respond_with(stream, 200, &[("content-type", JSON)], usage);
        },
        total: Some(25),
        estimated: None,
        reserved: None,
    },
    Case {
        name: "l1 JSON ends without usage",
        end: |vm, stream| {
            let text = [b'x'; 4_000];
            vm.respond_with(stream, 200, &[("content-type", JSON)], &text);
        },
        total: None,
        estimated: Some(PROMPT + 1_000),
        reserved: Some(HELD),
    },
    Case {
        name: "l1 JSON is left",
        end: |vm, stream| {
            begin(vm, stream, JSON);
            for _ in 0..100 {
                vm.respond_body(stream, &[b'x'; 400], false);
            }
        },
        total: None,
        estimated: Some(PROMPT + 10_000),
        reserved: Some(PROMPT + 10_000),
    },
    Case {
        name: "l2 a stream is longer than what is held",
        end: |vm, stream| {
            begin(vm, stream, EVENTS);
            vm.respond_body(stream, EVENT.repeat(3_000).as_bytes(), false);
            vm.respond_body(stream, b"data: [DONE]\n\n", true);
        },
        total: None,
        estimated: Some(PROMPT + 3_000),
        reserved: Some(PROMPT + 3_000),
    },
    Case {
        name: "o6 a stream is cut off",
        end: |vm, stream| {
            begin(vm, stream, EVENTS);
            for _ in 0..7 {
                vm.respond_body(stream, EVENT.as_bytes(), false);
            }
        },
        total: None,
        estimated: Some(PROMPT + 7),
        reserved: Some(HELD),
    },
    Case {
        name: "l3 the gateway gave up",
        end: |vm, stream| {
            vm.property(stream, "response.code_details", b"stream_idle_timeout");
            vm.respond_with(
                stream,
                504,
                &[("content-type", "text/plain")],
                b"stream timeout",
            );
        },
        total: None,
        estimated: Some(PROMPT),
        reserved: Some(HELD),
    },
    Case {
        name: "l3 the backend gave up",
        end: |vm, stream| {
            vm.property(stream, "response.code_details", b"via_upstream");
            vm.respond_with(stream, 504, &[("content-type", JSON)], b"{}");
        },
        total: None,
        estimated: None,
        reserved: None,
    },
    Case {
        name: "l3 a host without response code details",
        end: |vm, stream| vm.respond_with(stream, 504, &[("content-type", JSON)], b"{}"),
        total: None,
        estimated: None,
        reserved: None,
    },
    Case {
        name: "l4 a count that cannot be",
        end: |vm, stream| {
            let usage = br#"{"usage":{"total_tokens":18446744073709551615}}"#;
            vm.respond_with(stream, 200, &[("content-type", JSON)], usage);
        },
        total: None,
        estimated: Some(PROMPT + 12),
        reserved: Some(HELD),
    },
    Case {
        name: "l5 usage comes early",
        end: |vm, stream| {
            begin(vm, stream, EVENTS);
            vm.respond_body(
                stream,
                b"data: {\"usage\":{\"total_tokens\":25}}\n\n",
                false,
            );
            for _ in 0..10 {
                vm.respond_body(stream, EVENT.repeat(1_000).as_bytes(), false);
            }
        },
        total: Some(25),
        estimated: Some(10_000),
        reserved: Some(10_000),
    },
    Case {
        name: "o3 tools report their own",
        end: |vm, stream| {
            let usage = br#"{"usage":{"total_tokens":2030},"tool_usage":{"image_gen":{"total_tokens":7324}}}"#;
            vm.respond_with(stream, 200, &[("content-type", JSON)], usage);
        },
        total: Some(9_354),
        estimated: None,
        reserved: None,
    },
    Case {
        name: "j11 the caller leaves before the response",
        end: |_, _| {},
        total: None,
        estimated: Some(PROMPT),
        reserved: Some(HELD),
    },
    Case {
        name: "h2 a response without status",
        end: |vm, stream| {
            assert!(vm.respond_head(stream, &[("content-type", JSON)], false));
            vm.respond_body(stream, &[b'x'; 400], true);
        },
        total: None,
        estimated: Some(PROMPT + 100),
        reserved: Some(HELD),
    },
    Case {
        name: "the backend refuses",
        end: |vm, stream| {
            let usage = br#"{"usage":{"total_tokens":25}}"#;
            vm.respond_with(stream, 400, &[("content-type", JSON)], usage);
        },
        total: None,
        estimated: None,
        reserved: None,
    },
];

#[test]
fn j11_limit_metric_state_and_log_agree_however_a_call_ends() {
    for case in CASES {
        for reserve in [false, true] {
            let limit = json!({ "tokens": LIMIT, "per": "month", "reserve": reserve });
            let mut bench = Bench::new(&limit);
            let stream = bench.call();
            (case.end)(&mut bench.vm, stream);
            let told = bench.vm.finish(stream);
            let estimated = if reserve {
                case.reserved
            } else {
                case.estimated
            };
            // The count stands in the same record, whether the limit reserves or not.
            let reserving = json!({ "tokens": LIMIT, "per": "month", "reserve": true });
            bench.vm.update(&limited(reserving)).unwrap();
            bench.check(&told, case.total, estimated, case.name);
        }
    }
}

/// An estimate stands in filter state before the end, which access loggers may never see.
#[test]
fn o6_the_filter_state_has_the_estimate_while_a_stream_goes_on() {
    let mut bench = Bench::new(&json!({ "tokens": LIMIT, "per": "month" }));
    let stream = bench.call();
    begin(&mut bench.vm, stream, EVENTS);
    let mut set = 0;
    let mut before = 0;
    for events in 1..=5_000_u64 {
        bench.vm.respond_body(stream, EVENT.as_bytes(), false);
        let state = bench.vm.state(stream, "estimated_tokens").unwrap();
        let state: u64 = state.parse().unwrap();
        let exact = PROMPT + events;
        assert!(
            state <= exact && exact - state <= exact / 32 + 1,
            "{state} of {exact}"
        );
        assert!(events > 32 || state == exact, "{state} of {exact}");
        set += u32::from(state != before);
        before = state;
    }
    assert!(set < 250, "{set} host calls");
    bench
        .vm
        .respond_body(stream, b"data: {\"usage\":{\"total_tokens\":7}}\n\n", false);
    let told = bench.vm.finish(stream);
    assert_eq!(told.state("total_tokens").as_deref(), Some("7"));
    assert_eq!(told.state("estimated_tokens").as_deref(), Some("0"));
    assert_eq!(*told.field("estimated_tokens"), Value::Null);
}

/// A call without a status counts, whatever `count` names.
#[test]
fn h2_a_response_without_status_counts() {
    for count in [json!("success"), json!([201]), json!("all")] {
        let limit = json!({ "calls": 1, "per": "month", "count": count });
        let mut bench = Bench::new(&limit);
        let stream = bench.call();
        assert!(
            bench
                .vm
                .respond_head(stream, &[("content-type", JSON)], false)
        );
        bench.vm.respond_body(stream, b"{}", true);
        let told = bench.vm.finish(stream);
        assert_eq!(*told.field("status"), Value::Null);
        let refused = bench.vm.request().bearer(&bench.token).send();
        assert_eq!(refused.status(), 429, "{count}");
    }
}

/// The estimate is logged and counted without any limit, and in report mode.
#[test]
fn o6_what_nothing_limits_is_estimated_all_the_same() {
    for more in [json!({}), json!({ "mode": "report" })] {
        let process = Process::new();
        let policy = crate::common::with(crate::common::inline(), more.clone());
        let mut vm = Vm::start(&process, &policy);
        let stream = vm.request().bearer(&good(&process)).open();
        vm.send_body(stream, BODY, true);
        begin(&mut vm, stream, EVENTS);
        vm.respond_body(stream, EVENT.repeat(3).as_bytes(), false);
        let told = vm.finish(stream);
        assert_eq!(*told.field("estimated_tokens"), json!(PROMPT + 3), "{more}");
    }
}

/// What is charged is charged once, whatever more the host says of a call that ended.
#[test]
fn a_call_that_ended_is_not_charged_again() {
    let mut bench = Bench::new(&json!({ "tokens": LIMIT, "per": "month", "reserve": true }));
    let stream = bench.call();
    begin(&mut bench.vm, stream, EVENTS);
    bench
        .vm
        .respond_body(stream, EVENT.repeat(2_000).as_bytes(), true);
    bench
        .vm
        .respond_body(stream, EVENT.repeat(2_000).as_bytes(), true);
    let told = bench.vm.finish(stream);
    bench.check(&told, None, Some(PROMPT + 2_000), "ended twice");
}
