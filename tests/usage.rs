//! Usage readers against recorded answers, every cut of them, hostile input, and sizes that show
//! what memory they take.
//!
//! The recorded answers are not part of the repository: see `tests/vectors.rs`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests compute on known files"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Random, figure};
use serde_json::Value;
use tollgate::usage::{
    BodyError, EventFilter, EventStreamReader, JsonUsageReader, MAX_HELD, Member, ModelReader,
    Usage,
};

/// Counts what the current thread has allocated.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "the interface of allocators")]
// SAFETY: everything is passed to the system's allocator; the cells allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get() + layout.size();
        NOW.set(now);
        MOST.set(MOST.get().max(now));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Memory may be freed by another thread than took it.
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were allocated at once while something ran.
fn memory_of(run: impl FnOnce()) -> usize {
    let before = NOW.get();
    MOST.set(before);
    run();
    MOST.get() - before
}

struct Answer {
    id: String,
    body: Vec<u8>,
    events: bool,
    usage: Option<Usage>,
    done: bool,
}

/// By a parser that has nothing to do with the readers.
fn expected(usage: &Value) -> Option<Usage> {
    let usage = usage.as_object()?;
    let either = |names: [&str; 2]| names.iter().find_map(|name| usage.get(*name)?.as_u64());
    let detail = |names: [&str; 2], detail: &str| {
        names
            .iter()
            .find_map(|name| usage.get(*name)?.get(detail)?.as_u64())
    };
    Some(Usage {
        prompt: either(["prompt_tokens", "input_tokens"]),
        completion: either(["completion_tokens", "output_tokens"]),
        total: usage.get("total_tokens").and_then(Value::as_u64),
        cached: detail(
            ["prompt_tokens_details", "input_tokens_details"],
            "cached_tokens",
        ),
        reasoning: detail(
            ["completion_tokens_details", "output_tokens_details"],
            "reasoning_tokens",
        ),
        tools: None,
        malformed: false,
    })
}

/// The usage that one JSON text carries, by that parser.
fn carried(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    [&value["usage"], &value["response"]["usage"]]
        .into_iter()
        .find(|usage| !usage.is_null())
        .cloned()
}

fn answers() -> Option<Vec<Answer>> {
    let folder = std::env::var("VECTORS").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let folder = folder.join("openai_responses");
    if !folder.is_dir() {
        common::not_checked(&format!(
            "no recorded answers in {}; set VECTORS to the vectors' folder",
            folder.display()
        ));
        return None;
    }
    let mut answers = Vec::new();
    for path in files(&folder, "json") {
        let document: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        answers.extend(document["entries"].as_array().unwrap().iter().map(|entry| {
            let events = match entry["kind"].as_str().unwrap() {
                "sse" => true,
                "json" => false,
                other => panic!("unknown kind {other}"),
            };
            Answer {
                id: entry["id"].as_str().unwrap().to_owned(),
                body: entry["body"].as_str().unwrap().as_bytes().to_vec(),
                events,
                usage: expected(&entry["usage"]),
                done: entry["done"] == true,
            }
        }));
    }
    assert_eq!(answers.len(), 82);
    answers.extend(raw_answers(&folder.join("raw")));
    assert_eq!(answers.len(), 90);
    Some(answers)
}

/// Bodies as they are, and lists of chunks, a line each.
fn raw_answers(folder: &Path) -> Vec<Answer> {
    let answer = |path: &PathBuf, body: String, events, usage: Option<Value>| Answer {
        id: path.file_name().unwrap().to_string_lossy().into_owned(),
        done: body.contains("\ndata: [DONE]"),
        body: body.into_bytes(),
        events,
        usage: usage.as_ref().and_then(expected),
    };
    let bodies = files(folder, "json").into_iter().map(|path| {
        let body = fs::read_to_string(&path).unwrap();
        let usage = carried(&body);
        answer(&path, body, false, usage)
    });
    let streams = files(folder, "txt").into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let data = |line: &str| line.strip_prefix("data: ").unwrap_or(line).to_owned();
        let usage = text
            .lines()
            .filter_map(|line| carried(&data(line)))
            .next_back();
        let body = if text.contains("data: ") {
            text
        } else {
            text.lines()
                .map(|line| format!("data: {line}\n\n"))
                .collect()
        };
        answer(&path, body, true, usage)
    });
    bodies.chain(streams).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// Everything that a reader says in the end.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    usage: Option<Usage>,
    error: bool,
    /// `[DONE]`, or the end of the object.
    ended: bool,
}

#[derive(Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time")]
enum Reader {
    Json(JsonUsageReader),
    Events(EventStreamReader),
}

impl Reader {
    fn new(events: bool) -> Self {
        if events {
            Self::Events(EventStreamReader::new())
        } else {
            Self::Json(JsonUsageReader::new())
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(reader) => reader.push(bytes),
            Self::Events(reader) => reader.push(bytes),
        }
    }

    fn said(&self) -> Said {
        match self {
            Self::Json(reader) => Said {
                usage: reader.usage(),
                error: reader.is_error(),
                ended: reader.is_complete(),
            },
            Self::Events(reader) => Said {
                usage: reader.usage(),
                error: reader.is_error(),
                ended: reader.is_done(),
            },
        }
    }

    fn read(events: bool, parts: &[&[u8]]) -> Said {
        let mut reader = Self::new(events);
        for part in parts {
            reader.push(part);
        }
        reader.said()
    }
}

/// The filter's output for an input in parts.
fn filtered(parts: &[&[u8]]) -> Vec<u8> {
    let mut filter = EventFilter::new();
    let mut output = Vec::new();
    for part in parts {
        let instead = filter.push(part);
        output.extend_from_slice(instead.unwrap_or(part));
    }
    output.extend(filter.finish());
    output
}

#[test]
fn every_recorded_answer_gives_its_usage() {
    let Some(answers) = answers() else { return };
    let (mut with_usage, mut streams) = (0, 0);
    for answer in &answers {
        let whole = Reader::read(answer.events, &[&answer.body]);
        assert_eq!(whole.usage, answer.usage, "{}", answer.id);
        if answer.events {
            assert_eq!(whole.ended, answer.done, "{}", answer.id);
        } else {
            assert!(whole.ended, "{}", answer.id);
        }
        with_usage += u32::from(answer.usage.is_some());
        streams += u32::from(answer.events);
    }
    assert_eq!((with_usage, streams), (WITH_USAGE, 26));
    let said = format!("{0} of {0}, {streams} of them streams", answers.len());
    figure("R19", "recorded answers whose usage is read", &said, true);
}

/// Of the recorded answers: 51 of the 82 with a description, and all but two raw ones.
const WITH_USAGE: u32 = 57;

/// Cuts each answer at every byte. What follows the cut is read until the reader stands exactly as
/// the one that was not cut there; from then on both are the same.
#[test]
fn every_cut_of_every_recorded_answer_gives_the_same() {
    const STEP: usize = 256;
    let Some(answers) = answers() else { return };
    let (mut cuts, mut bytes) = (0, 0);
    for answer in &answers {
        let mut reader = Reader::new(answer.events);
        for step in answer.body.chunks(STEP) {
            let before = reader.clone();
            reader.push(step);
            for at in 0..step.len() {
                let (first, second) = step.split_at(at);
                let mut parts = before.clone();
                parts.push(first);
                parts.push(second);
                assert!(parts == reader, "{} at {}", answer.id, at);
                cuts += 1;
            }
        }
        let whole = Reader::read(answer.events, &[&answer.body]);
        assert_eq!(reader.said(), whole, "{}", answer.id);
        bytes += answer.body.len();
    }
    assert_eq!(cuts, bytes);
    let said = format!("{cuts} cuts, one at every byte, 0 other readings");
    figure("R19", "cuts of recorded answers", &said, cuts >= 500_000);
}

/// The same in two pieces, without that short cut.
#[test]
fn every_recorded_answer_in_two_pieces() {
    let Some(answers) = answers() else { return };
    for answer in answers.iter().filter(|answer| answer.body.len() < 4096) {
        let whole = Reader::read(answer.events, &[&answer.body]);
        for at in 0..=answer.body.len() {
            let (first, second) = answer.body.split_at(at);
            let said = Reader::read(answer.events, &[first, second]);
            assert_eq!(said, whole, "{} cut at {at}", answer.id);
        }
    }
}

#[test]
fn recorded_answers_byte_by_byte_and_at_random() {
    let Some(answers) = answers() else { return };
    let mut random = Random(0x7011_6a7e);
    for answer in &answers {
        let whole = Reader::read(answer.events, &[&answer.body]);
        let single: Vec<_> = answer.body.chunks(1).collect();
        assert_eq!(Reader::read(answer.events, &single), whole, "{}", answer.id);
        for _ in 0..64 {
            let parts = random.cut(&answer.body);
            let said = Reader::read(answer.events, &parts);
            assert_eq!(said, whole, "{} in {} parts", answer.id, parts.len());
        }
    }
}

/// What the filter should leave of a stream, by splitting it and parsing each event.
fn without_extra_events(stream: &str) -> String {
    stream
        .split_inclusive("\n\n")
        .filter(|event| {
            let data = event.trim_end().strip_prefix("data: ").unwrap_or_default();
            let value: Value = serde_json::from_str(data).unwrap_or_default();
            value["choices"] != serde_json::json!([]) || value["usage"].is_null()
        })
        .collect()
}

#[test]
fn the_filter_leaves_all_else_of_recorded_streams() {
    let Some(answers) = answers() else { return };
    let mut random = Random(0xf117e2);
    let mut changed = 0;
    for answer in answers.iter().filter(|answer| answer.events) {
        let stream = std::str::from_utf8(&answer.body).unwrap();
        let extra = "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"total_tokens\":7}}\n\n";
        let injected = match stream.rfind("data: [DONE]") {
            Some(at) => [&stream[..at], extra, &stream[at..]].concat(),
            None => [stream, extra].concat(),
        };
        for stream in [stream, &injected] {
            let expected = without_extra_events(stream);
            changed += u32::from(expected != stream);
            let stream = stream.as_bytes();
            let single: Vec<_> = stream.chunks(1).collect();
            assert!(filtered(&[stream]) == expected.as_bytes(), "{}", answer.id);
            assert!(filtered(&single) == expected.as_bytes(), "{}", answer.id);
            for _ in 0..64 {
                let parts = random.cut(stream);
                assert!(filtered(&parts) == expected.as_bytes(), "{}", answer.id);
            }
        }
    }
    // Three of the 26 came with the extra event.
    assert_eq!(changed, 26 + 3);
}

#[test]
fn the_filter_at_every_cut() {
    let Some(answers) = answers() else { return };
    for answer in answers.iter().filter(|answer| answer.events) {
        // The end of a stream holds all that matters, at every cut.
        let from = answer.body.len().saturating_sub(2048);
        let stream = &answer.body[from..];
        let whole = filtered(&[stream]);
        for at in 0..=stream.len() {
            let (first, second) = stream.split_at(at);
            assert!(
                filtered(&[first, second]) == whole,
                "{} cut at {at}",
                answer.id
            );
        }
    }
}

/// Pieces of text that mean something to one reader or another.
const WORDS: [&[u8]; 44] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b" ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3",
    b"\xa9",
    b"\0",
    b"data: ",
    b"data:",
    b"event: error\n",
    b": ping\n",
    b"[DONE]",
    b"null",
    b"true",
    b"-1.5e3",
    b"7",
    b"\\u0075",
    b"\"usage\":",
    b"\"usage\":{\"total_tokens\":3}",
    b"\"choices\":[]",
    b"\"choices\":[{",
    b"\"response\":{",
    b"\"model\":\"m\"",
    b"\"stream_options\":{",
    b"\"include_usage\":true",
    b"\"n\":1",
    b"\"max_tokens\":",
    b"data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n",
    b"{\"error\":{}}",
    b"\"file_data\":\"",
    b"\"url\":\"data:image/png;base64,QUJD\"",
    b";base64,",
    b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg==",
];

/// What is read of a body; nothing of one that is refused. Why it is may depend on the cut.
fn read_body(parts: &[&[u8]]) -> Option<(Option<String>, Vec<Option<u64>>)> {
    let (reader, result) = body(parts);
    result.ok()?;
    let at = reader.stream_options_at();
    let facts = vec![
        reader.stream().map(u64::from),
        reader.include_usage().map(u64::from),
        reader.count(Member::MaxTokens),
        reader.count(Member::N),
        Some(reader.prompts()),
        reader.closed_at(),
        at.as_ref().map(|at| at.start),
        at.map(|at| at.end),
        Some(reader.scanned()),
        Some(reader.attachments().bytes),
        Some(reader.attachments().count),
    ];
    Some((reader.model().map(str::to_owned), facts))
}

fn body(parts: &[&[u8]]) -> (ModelReader, Result<(), BodyError>) {
    let mut reader = ModelReader::new();
    let result = parts
        .iter()
        .try_for_each(|part| reader.push(part))
        .and_then(|()| reader.finish());
    (reader, result)
}

#[test]
fn any_cut_of_garbage_gives_the_same() {
    let mut random = Random(0x6a7b_a6e5);
    let mut found = 0;
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..random.below(24) {
            text.extend_from_slice(WORDS[random.below(WORDS.len())]);
        }
        let single: Vec<_> = text.chunks(1).collect();
        let parts = random.cut(&text);
        let shown = || String::from_utf8_lossy(&text).into_owned();
        for events in [false, true] {
            let whole = Reader::read(events, &[&text]);
            found += u32::from(whole.usage.is_some());
            assert_eq!(Reader::read(events, &single), whole, "{:?}", shown());
            assert_eq!(Reader::read(events, &parts), whole, "{:?}", shown());
        }
        let whole = filtered(&[&text]);
        assert!(filtered(&single) == whole, "{:?}", shown());
        assert!(filtered(&parts) == whole, "{:?}", shown());
        let whole = read_body(&[&text]);
        assert_eq!(read_body(&single), whole, "{:?}", shown());
        assert_eq!(read_body(&parts), whole, "{:?}", shown());
    }
    assert!(
        found > 1000,
        "the words should make sense at times: {found}"
    );
}

#[test]
fn any_cut_of_a_body_gives_the_same() {
    let text = REQUEST.as_bytes();
    let whole = read_body(&[text]).unwrap();
    assert_eq!(whole.0.as_deref(), Some("gpt-4o"));
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let parts = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(read_body(&parts).as_ref(), Some(&whole), "{first} {second}");
        }
    }
}

/// A byte changed, left out, doubled, or a word put in.
fn mutate(text: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(text.len());
    match random.below(4) {
        0 => text[at] = random.next() as u8,
        1 => drop(text.remove(at)),
        2 => text.insert(at, text[at]),
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            text.splice(at..at, word.iter().copied());
        }
    }
}

const REQUEST: &str = r#"{"messages":[{"role":"user","content":"a \"b\" \n é"},[1,-2.5e-7,0,true]],
 "model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"max_tokens":100,"n":1,
 "tools":[{"type":"function","function":{"parameters":{"a":{},"b":[null,false]}}}]}"#;

/// Whether this is one JSON text, by another parser. A mark of the byte order may come first (RFC 8259, section 8.1).
fn is_json(text: &[u8]) -> bool {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    std::str::from_utf8(text).is_ok()
        && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

#[test]
fn bodies_are_json_to_the_letter() {
    let mut random = Random(0xb0d1e5);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..60_000 {
        let mut text = REQUEST.as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            mutate(&mut text, &mut random);
        }
        let result = body(&[&text]).1;
        let shown = || String::from_utf8_lossy(&text).into_owned();
        match result {
            Ok(()) => {
                assert!(is_json(&text), "{}", shown());
                taken += 1;
            }
            Err(BodyError::NotJson | BodyError::Truncated | BodyError::Encoding) => {
                assert!(!is_json(&text), "{}", shown());
                refused += 1;
            }
            // It may or may not be JSON after that.
            Err(_) => {}
        }
    }
    assert!(taken > 5000 && refused > 5000, "{taken} {refused}");
}

#[test]
fn bodies_of_the_json_test_suite() {
    let folder = std::env::var("VECTORS").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let folder = folder.join("jsontestsuite");
    if !folder.is_dir() {
        common::not_checked(&format!("no JSON test suite in {}", folder.display()));
        return;
    }
    let mut checked = 0;
    for path in files(&folder.join("test_parsing"), "json") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read(&path).unwrap();
        let member = [b"{\"a\":", text.as_slice(), b"}"].concat();
        let result = body(&[&member]).1;
        if name.starts_with("y_") {
            assert_eq!(result, Ok(()), "{name}");
        } else if name.starts_with("n_") {
            // Inside of a member, this is an object with two more.
            let becomes_json = is_json(&member);
            assert_eq!(result.is_ok(), becomes_json, "{name}: {result:?}");
        }
        let single: Vec<_> = member.chunks(1).collect();
        assert_eq!(body(&single).1.is_ok(), result.is_ok(), "{name}");
        // The readers of answers take anything.
        for events in [false, true] {
            let whole = Reader::read(events, &[&text]);
            let single: Vec<_> = text.chunks(1).collect();
            assert_eq!(Reader::read(events, &single), whole, "{name}");
        }
        checked += 1;
    }
    assert_eq!(checked, 318);
}

#[test]
fn usage_is_what_another_parser_finds() {
    let Some(answers) = answers() else { return };
    let mut random = Random(0x0b5e_55ed);
    let mut agreed = 0;
    for answer in answers.iter().filter(|answer| !answer.events) {
        for _ in 0..100 {
            let mut text = answer.body.clone();
            mutate(&mut text, &mut random);
            let Ok(value) = serde_json::from_slice::<Value>(&text) else {
                continue;
            };
            let said = Reader::read(false, &[&text]);
            let theirs = expected(&value["usage"]);
            if said.usage.is_some_and(|usage| usage.malformed) {
                continue;
            }
            // Repeats of `usage` are the one thing they may differ in, and there are none.
            assert_eq!(said.usage, theirs, "{}", String::from_utf8_lossy(&text));
            agreed += 1;
        }
    }
    assert!(agreed > 1000, "{agreed}");
}

/// Far more than any reader keeps, and far less than what is read.
const MEMORY: usize = 64 * 1024;
const HUGE: usize = 100_000_000;
/// The same for fillers of which every byte matters.
const LARGE: usize = HUGE / 10;

fn amount(filler: &str) -> usize {
    if filler.contains([',', '\n']) {
        LARGE
    } else {
        HUGE
    }
}

#[track_caller]
fn reads_in_bounded_memory(what: &str, head: &str, filler: &str, tail: &str, events: bool) {
    let piece = filler.repeat(16_384 / filler.len());
    let mut reader = Reader::new(events);
    let memory = memory_of(|| {
        reader.push(head.as_bytes());
        for _ in 0..amount(filler) / piece.len() {
            reader.push(piece.as_bytes());
        }
        reader.push(tail.as_bytes());
    });
    assert_eq!(reader.said().usage.unwrap().total, Some(3), "{what}");
    assert!(memory <= MEMORY, "{what}: {memory} bytes");
}

#[test]
fn huge_json_in_bounded_memory() {
    let tail = |close: &str| format!("{close},\"usage\":{{\"total_tokens\":3}}}}");
    let check = |what: &str, head: &str, filler: &str, close: &str| {
        reads_in_bounded_memory(what, head, filler, &tail(close), false);
    };
    check("a string", "{\"b64_json\":\"", "iVBORw0KGgo\\n", "\"");
    check("numbers", "{\"data\":[0", ",-0.0123456789", "]");
}

#[test]
fn huge_depth_in_bounded_memory() {
    let (open, shut) = ("[".repeat(16_384), "}".repeat(16_384));
    let mut reader = JsonUsageReader::new();
    let memory = memory_of(|| {
        reader.push(b"{\"a\":");
        for piece in [&open, &shut] {
            for _ in 0..LARGE / piece.len() {
                reader.push(piece.as_bytes());
            }
        }
        reader.push(b",\"usage\":{\"total_tokens\":3}}");
    });
    assert_eq!(reader.usage().unwrap().total, Some(3));
    assert!(memory <= MEMORY, "{memory} bytes");
}

#[test]
fn huge_names_and_scalars_in_bounded_memory() {
    let usage = ",\"usage\":{\"total_tokens\":3}}";
    let check = |what: &str, head: &str, filler: &str, close: &str| {
        reads_in_bounded_memory(what, head, filler, &format!("{close}{usage}"), false);
    };
    check("a name", "{\"", "usage", "\":1");
    check("a number", "{\"a\":1", "0123456789", "");
    check("spaces", "{\"a\":", " \t\r\n", "1");
    // A usage without end is noted, and the next one read.
    check("a usage", "{\"usage\":{\"x\":\"", "usage", "\"}");
}

#[test]
fn huge_events_in_bounded_memory() {
    let end = "\"},\"usage\":{\"total_tokens\":3}}\n\n";
    let event = "data: {\"usage\":{\"total_tokens\":3}}\n\n";
    let check = |what: &str, head: &str, filler: &str, tail: &str| {
        reads_in_bounded_memory(what, head, filler, tail, true);
    };
    check("a line", "data: {\"a\":{\"b\":\"", "iVBORw0KGgo", end);
    check(
        "lines",
        "data: {\"a\":\ndata: [",
        "\"a\",\ndata: ",
        &format!("0]{}", &end[2..]),
    );
    check("a comment", ": ", "comment ", &format!("\n{event}"));
    check("a field name", "x", "data", &format!("\n\n{event}"));
    check("an event name", "event: ", "error", &format!("\n{event}"));
    check(
        "a stream",
        "",
        "data: {\"choices\":[{}],\"usage\":null}\n\n",
        event,
    );
}

#[test]
fn huge_events_through_the_filter_in_bounded_memory() {
    let piece = "iVBORw0KGgo".repeat(1000);
    for start in [
        "data: {\"choices\":[{}],\"a\":\"",
        "data: {\"a\":\"",
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":3},\"a\":\"",
    ] {
        let mut filter = EventFilter::new();
        let (mut passed, mut pushed) = (0, 0);
        let memory = memory_of(|| {
            let mut push = |bytes: &[u8]| {
                pushed += bytes.len();
                passed += filter.push(bytes).map_or(bytes.len(), <[u8]>::len);
                assert!(pushed - passed <= MAX_HELD);
            };
            push(start.as_bytes());
            for _ in 0..HUGE / piece.len() {
                push(piece.as_bytes());
            }
            push(b"\"}\n\n");
        });
        assert_eq!(pushed, passed, "{start}");
        assert!(memory <= MEMORY, "{start}: {memory} bytes");
    }
}

#[test]
fn huge_bodies_in_bounded_memory() {
    let check = |head: &str, filler: &str, tail: &str, expected: Result<(), BodyError>| {
        let piece = filler.repeat(16_384 / filler.len());
        let mut reader = ModelReader::new();
        let mut result = Ok(());
        let memory = memory_of(|| {
            result = reader
                .push(head.as_bytes())
                .and_then(|()| {
                    (0..amount(filler) / piece.len())
                        .try_for_each(|_| reader.push(piece.as_bytes()))
                })
                .and_then(|()| reader.push(tail.as_bytes()))
                .and_then(|()| reader.finish());
        });
        assert_eq!(result, expected, "{head}");
        assert!(memory <= MEMORY, "{head}: {memory} bytes");
        if result.is_ok() {
            assert_eq!(reader.model(), Some("m"), "{head}");
            assert!(reader.scanned() > amount(filler) as u64 - 20_000);
        }
    };
    let tail = ",\"model\":\"m\"}";
    check("{\"a\":\"", "text \\n", &format!("\"{tail}"), Ok(()));
    check("{\"", "model", &format!("\":1{tail}"), Ok(()));
    check("{\"a\":[0", ",7", &format!("]{tail}"), Ok(()));
    check("{\"a\":0", ",\"b\":{}", tail, Ok(()));
    let repeated = "\",\"model\":\"b\"}";
    let error = BodyError::Repeated(Member::Model);
    check("{\"model\":\"m\",\"a\":\"", "text ", repeated, Err(error));
}
