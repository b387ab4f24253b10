use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::message::testing::{document, get, post, reply, request};
use crate::message::{Action, Content};

const CHAT: &str = "/openai/deployments/chat/chat/completions?api-version=2024-10-21";

fn ask(target: &str, body: Value) -> Reply {
    reply(OpenAi::default().answer(&post(target, &body)))
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.bytes()).unwrap()
}

fn hello() -> Value {
    json!({ "messages": [{ "role": "user", "content": "Hello there" }] })
}

/// The data of each event; the last one of a chat is not JSON.
fn events(reply: &Reply) -> Vec<String> {
    let Content::Pieces(pieces) = &reply.content else {
        panic!("not streamed");
    };
    let data = |piece: &bytes::Bytes| {
        let text = String::from_utf8(piece.to_vec()).unwrap();
        let event = text.strip_suffix("\n\n").unwrap().to_owned();
        event
            .lines()
            .last()
            .unwrap()
            .strip_prefix("data: ")
            .unwrap()
            .to_owned()
    };
    pieces.iter().map(data).collect()
}

fn with_header(name: &'static str, value: &'static str) -> Received {
    let mut received = post(CHAT, &hello());
    received
        .headers
        .insert(name, HeaderValue::from_static(value));
    received
}

#[test]
fn chat_reports_usage() {
    for target in [CHAT, "/openai/v1/chat/completions"] {
        let answer = ask(target, hello());
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-stand-in"], "azure-openai");
        let answer = body(&answer);
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let usage = &answer["usage"];
        let [prompt, completion, total] = ["prompt_tokens", "completion_tokens", "total_tokens"]
            .map(|name| usage[name].as_u64().unwrap());
        assert!(prompt > 0 && completion > 0);
        assert_eq!(total, prompt + completion);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    }
}

#[test]
fn usage_follows_the_request() {
    let tokens = |request: Value| {
        let usage = body(&ask(CHAT, request))["usage"].clone();
        [
            usage["prompt_tokens"].as_u64().unwrap(),
            usage["completion_tokens"].as_u64().unwrap(),
        ]
    };
    let [short, _] = tokens(hello());
    let long =
        json!({ "messages": [{ "role": "user", "content": "x".repeat(4000) }], "max_tokens": 3 });
    let [prompt, completion] = tokens(long);
    assert!(prompt >= 1000 && prompt > short);
    assert_eq!(completion, 3);
}

#[test]
fn v1_answers_with_the_model_asked_for() {
    let answer = ask(
        "/openai/v1/chat/completions",
        json!({ "model": "my-model", "messages": [] }),
    );
    assert_eq!(body(&answer)["model"], "my-model");
}

#[test]
fn a_streamed_chat_has_usage_only_if_asked() {
    let mut request = hello();
    request["stream"] = true.into();
    let answer = ask(CHAT, request.clone());
    assert_eq!(
        answer.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let plain = events(&answer);
    assert_eq!(plain.last().unwrap(), "[DONE]");
    assert!(plain.iter().all(|event| !event.contains("usage")));
    let first: Value = serde_json::from_str(&plain[0]).unwrap();
    assert_eq!(first["choices"], json!([]));
    assert!(first["prompt_filter_results"].is_array());

    request["stream_options"] = json!({ "include_usage": true });
    let counted = events(&ask(CHAT, request.clone()));
    assert_eq!(counted.len(), plain.len() + 1);
    let chunks: Vec<Value> = counted[..counted.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let (last, others) = chunks.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );
    assert_eq!(last["choices"], json!([]));

    request["stream"] = false.into();
    let whole = body(&ask(CHAT, request));
    assert_eq!(last["usage"], whole["usage"]);
    let spoken: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], spoken);
}

#[test]
fn completions_whole_and_streamed() {
    let target = "/openai/deployments/d/completions?api-version=2024-10-21";
    let whole = body(&ask(target, json!({ "prompt": "Once" })));
    assert_eq!(whole["object"], "text_completion");
    let request =
        json!({ "prompt": "Once", "stream": true, "stream_options": { "include_usage": true } });
    let streamed = events(&ask(target, request));
    assert_eq!(streamed.last().unwrap(), "[DONE]");
    let last: Value = serde_json::from_str(&streamed[streamed.len() - 2]).unwrap();
    assert_eq!(last["usage"], whole["usage"]);
}

#[test]
fn embeddings_as_numbers_and_as_base64() {
    let target = "/openai/deployments/e/embeddings?api-version=2024-10-21";
    let answer = body(&ask(
        target,
        json!({ "input": ["one", "two"], "dimensions": 8 }),
    ));
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["data"][1]["index"], 1);
    assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        answer["usage"]["total_tokens"]
    );
    let request = json!({ "model": "m", "input": "one", "encoding_format": "base64" });
    let answer = body(&ask("/openai/v1/embeddings", request));
    // 1536 numbers of four bytes.
    assert_eq!(answer["data"][0]["embedding"].as_str().unwrap().len(), 8192);
}

#[test]
fn responses_whole_and_streamed() {
    for target in [
        "/openai/v1/responses",
        "/openai/responses?api-version=2025-03-01-preview",
    ] {
        let whole = body(&ask(target, json!({ "model": "m", "input": "Hello" })));
        assert_eq!(whole["object"], "response");
        assert_eq!(whole["status"], "completed");
        let answer = ask(
            target,
            json!({ "model": "m", "input": "Hello", "stream": true }),
        );
        let streamed: Vec<Value> = events(&answer)
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        for (number, event) in streamed.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        let (last, others) = streamed.split_last().unwrap();
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["usage"], whole["usage"]);
        assert!(
            others
                .iter()
                .all(|event| event["response"]["usage"].is_null())
        );
        let text = String::from_utf8(answer.bytes().to_vec()).unwrap();
        assert!(
            text.starts_with("event: response.created\ndata: {"),
            "{text}"
        );
        assert!(!text.contains("[DONE]"));
    }
}

#[test]
fn a_response_that_is_cut_short_says_so() {
    let request = json!({ "input": "Hello", "max_output_tokens": 2, "stream": true });
    let last: Value = serde_json::from_str(
        events(&ask("/openai/v1/responses", request))
            .last()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["usage"]["output_tokens"], 2);
}

#[test]
fn lists_and_files() {
    let openai = OpenAi::default();
    for target in [
        "/openai/models",
        "/openai/v1/models",
        "/openai/files",
        "/openai/v1/files",
    ] {
        let found = document(openai.answer(&get(target)));
        assert_eq!(found["object"], "list", "{target}");
        assert!(!found["data"].as_array().unwrap().is_empty(), "{target}");
    }
    let upload =
        "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"my.jsonl\"\r\n\r\n{}";
    let made = reply(openai.answer(&request(Method::POST, "/openai/files", upload)));
    assert_eq!(made.status, 201);
    assert_eq!(body(&made)["filename"], "my.jsonl");
}

#[test]
fn other_paths_are_not_found() {
    let openai = OpenAi::default();
    let wrong = [
        get("/"),
        get("/openai/nothing"),
        get(CHAT),
        post("/openai/chat/completions", &json!({})),
        post("/openai/deployments/d/responses", &json!({})),
    ];
    for request in wrong {
        let answer = reply(openai.answer(&request));
        assert_eq!(answer.status, 404, "{request:?}");
        let error = json!({ "error": { "code": "404", "message": "Resource not found" } });
        assert_eq!(body(&answer), error);
    }
    assert_eq!(
        document(openai.answer(&get("/status"))),
        json!({ "status": "ok" })
    );
    let unreadable = reply(openai.answer(&request(Method::POST, CHAT, "{")));
    assert_eq!(unreadable.status, 400);
}

#[test]
fn switches_by_header() {
    let openai = OpenAi::default();
    let failed = reply(openai.answer(&with_header("x-stand-in-status", "500")));
    assert_eq!(failed.status, 500);
    assert_eq!(body(&failed)["error"]["code"], "500");
    assert_eq!(failed.headers["x-stand-in"], "azure-openai");
    let limited = reply(openai.answer(&with_header("x-stand-in-status", "429")));
    assert_eq!(limited.headers["retry-after"], "1");
    let accepted = reply(openai.answer(&with_header("x-stand-in-status", "202")));
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(body(&accepted)["object"], "chat.completion");

    let delayed = openai.answer(&with_header("x-stand-in-delay-ms", "200"));
    assert_eq!(delayed.delay, Duration::from_millis(200));
    let reset = openai.answer(&with_header("x-stand-in-reset", "before-headers"));
    assert!(matches!(reset.action, Action::Reset));
    assert!(reply(openai.answer(&with_header("x-stand-in-reset", "mid-body"))).cut);
    assert_eq!(
        reply(openai.answer(&with_header("x-stand-in-reset", "sometime"))).status,
        400
    );
}

#[test]
fn echo_tells_what_arrived() {
    let mut received = request(Method::PUT, "/openai/echo?a=1&a=2", "text");
    received
        .headers
        .append("x-twice", HeaderValue::from_static("one"));
    received
        .headers
        .append("x-twice", HeaderValue::from_bytes(b"tw\xff").unwrap());
    let echo = document(OpenAi::default().answer(&received));
    assert_eq!(echo["method"], "PUT");
    assert_eq!(echo["path"], "/openai/echo?a=1&a=2");
    assert_eq!(echo["body"], "text");
    let headers = echo["headers"].as_array().unwrap();
    let twice: Vec<&Value> = headers.iter().filter(|pair| pair[0] == "x-twice").collect();
    assert_eq!(
        twice,
        [
            &json!(["x-twice", "one"]),
            &json!(["x-twice", "tw\u{fffd}"])
        ]
    );
}

#[test]
fn requests_are_counted_and_the_latest_kept() {
    let openai = OpenAi::default();
    let count = |openai: &OpenAi| document(openai.answer(&get("/control/count")))["count"].clone();
    for number in 0..1003 {
        openai.answer(&get(&format!("/openai/models?number={number}")));
    }
    assert_eq!(count(&openai), 1003);
    let kept = document(openai.answer(&get("/control/requests")));
    let kept = kept.as_array().unwrap();
    assert_eq!(kept.len(), 1000);
    assert_eq!(kept[0]["path"], "/openai/models?number=3");
    assert_eq!(kept[999]["path"], "/openai/models?number=1002");
    openai.answer(&with_header("x-stand-in-reset", "before-headers"));
    assert_eq!(count(&openai), 1004);

    assert_eq!(
        reply(openai.answer(&post("/control/reset", &json!({})))).status,
        200
    );
    assert_eq!(count(&openai), 0);
    assert_eq!(
        document(openai.answer(&get("/control/requests"))),
        json!([])
    );
}
