//! Streamed answers: server-sent events, each sent on its own.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::answers::{
    Head, content_filter, finished_response, message_id, output_item, prompt_filter,
    started_response,
};
use super::usage::Generated;
use crate::message::{Content, Reply};

const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

fn stream(events: Vec<Bytes>) -> Reply {
    Reply::new(
        StatusCode::OK,
        "text/event-stream; charset=utf-8",
        Content::Pieces(events),
    )
    .with("cache-control", "no-cache")
    .with("x-accel-buffering", "no")
}

fn data(event: &Value) -> Bytes {
    Bytes::from(format!("data: {event}\n\n"))
}

/// Chunks with the usage chunk last, if it is wanted; then all others say `usage: null`.
fn chunks(mut chunks: Vec<Value>, usage: Option<Value>) -> Reply {
    if let Some(last) = usage {
        for chunk in &mut chunks {
            chunk["usage"] = Value::Null;
        }
        chunks.push(last);
    }
    let mut events: Vec<Bytes> = chunks.iter().map(data).collect();
    events.push(DONE);
    stream(events)
}

pub(super) fn chat(head: &Head, made: &Generated, with_usage: bool) -> Reply {
    let chunk = |choices: Value| {
        json!({
            "id": head.id, "object": "chat.completion.chunk", "created": head.created,
            "model": head.model, "system_fingerprint": "fp_standin000", "choices": choices,
        })
    };
    let choice = |delta: Value, finish: Option<&str>, filter: Value| {
        chunk(json!([{
            "index": 0, "delta": delta, "finish_reason": finish, "logprobs": null,
            "content_filter_results": filter,
        }]))
    };
    // Azure's first chunk is about the prompt and has no choices.
    let mut all = vec![json!({
        "id": "", "object": "", "created": 0, "model": "", "choices": [],
        "prompt_filter_results": prompt_filter(),
    })];
    let opening = json!({ "role": "assistant", "content": "", "refusal": null });
    all.push(choice(opening, None, json!({})));
    let words = made.tokens.iter();
    all.extend(words.map(|word| choice(json!({ "content": word }), None, content_filter())));
    all.push(choice(json!({}), Some(made.finish_reason()), json!({})));
    chunks(
        all,
        with_usage.then(|| with_member(chunk(json!([])), made.usage())),
    )
}

pub(super) fn completion(head: &Head, made: &Generated, with_usage: bool) -> Reply {
    let chunk = |choices: Value| {
        json!({
            "id": head.id, "object": "text_completion", "created": head.created,
            "model": head.model, "choices": choices,
        })
    };
    let choice = |text: &str, finish: Option<&str>| {
        chunk(json!([{ "index": 0, "text": text, "finish_reason": finish, "logprobs": null }]))
    };
    let mut all: Vec<Value> = made.tokens.iter().map(|word| choice(word, None)).collect();
    all.push(choice("", Some(made.finish_reason())));
    chunks(
        all,
        with_usage.then(|| with_member(chunk(json!([])), made.usage())),
    )
}

fn with_member(mut chunk: Value, usage: Value) -> Value {
    chunk["usage"] = usage;
    chunk
}

pub(super) fn response(head: &Head, made: &Generated) -> Reply {
    let started = started_response(head);
    let finished = finished_response(head, made);
    let (item, text) = (message_id(head), made.text());
    let mut open_item = output_item(head, "");
    open_item["status"] = "in_progress".into();
    open_item["content"] = json!([]);
    let part = |text: &str| json!({ "type": "output_text", "annotations": [], "text": text });
    let at = |mut event: Value| {
        event["item_id"] = item.clone().into();
        event["output_index"] = 0.into();
        event["content_index"] = 0.into();
        event
    };

    let mut all = vec![
        ("response.created", json!({ "response": started })),
        ("response.in_progress", json!({ "response": started })),
        (
            "response.output_item.added",
            json!({ "output_index": 0, "item": open_item }),
        ),
        (
            "response.content_part.added",
            at(json!({ "part": part("") })),
        ),
    ];
    all.extend(made.tokens.iter().map(|word| {
        (
            "response.output_text.delta",
            at(json!({ "delta": word, "logprobs": [] })),
        )
    }));
    let last = if made.cut_short {
        "response.incomplete"
    } else {
        "response.completed"
    };
    all.extend([
        (
            "response.output_text.done",
            at(json!({ "text": text, "logprobs": [] })),
        ),
        (
            "response.content_part.done",
            at(json!({ "part": part(&text) })),
        ),
        (
            "response.output_item.done",
            json!({ "output_index": 0, "item": output_item(head, &text) }),
        ),
        (last, json!({ "response": finished })),
    ]);
    stream(
        all.into_iter()
            .enumerate()
            .map(|(number, (kind, event))| named(kind, number, event))
            .collect(),
    )
}

fn named(kind: &str, number: usize, mut event: Value) -> Bytes {
    event["type"] = kind.into();
    event["sequence_number"] = number.into();
    Bytes::from(format!("event: {kind}\ndata: {event}\n\n"))
}
