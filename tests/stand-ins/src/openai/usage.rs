//! What a call uses: made up, but the same for the same request, and as Azure reports it.

use serde_json::{Value, json};

/// What the stand-in always says.
const ANSWER: &str = "This is the stand-in for Azure OpenAI, and it always gives this answer.";
/// The usual guess at how long a token is.
const CHARACTERS_PER_TOKEN: usize = 4;

/// What a call takes in and gives out.
pub(super) struct Generated {
    pub(super) tokens: Vec<&'static str>,
    pub(super) prompt_tokens: usize,
    /// Whether the caller's bound ended it.
    pub(super) cut_short: bool,
}

impl Generated {
    pub(super) fn from(body: &Value) -> Self {
        let words: Vec<&str> = ANSWER.split_inclusive(' ').collect();
        let bound = ["max_completion_tokens", "max_tokens", "max_output_tokens"]
            .iter()
            .find_map(|name| body.get(name)?.as_u64())
            .and_then(|bound| usize::try_from(bound).ok())
            .unwrap_or(usize::MAX);
        let cut_short = bound < words.len();
        let tokens = words.into_iter().take(bound).collect();
        Self {
            tokens,
            prompt_tokens: prompt_tokens(body),
            cut_short,
        }
    }

    pub(super) fn text(&self) -> String {
        self.tokens.concat()
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        if self.cut_short { "length" } else { "stop" }
    }

    /// As chat and completions report it.
    pub(super) fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_tokens, self.tokens.len());
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": { "audio_tokens": 0, "cached_tokens": 0 },
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
    }

    /// As responses and images report it.
    pub(super) fn input_output_usage(&self) -> Value {
        let (input, output) = (self.prompt_tokens, self.tokens.len());
        json!({
            "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": input + output,
        })
    }
}

/// From the length of all texts that a model would read; at least one.
pub(super) fn prompt_tokens(body: &Value) -> usize {
    let read = ["messages", "prompt", "input", "instructions"];
    let length: usize = read
        .iter()
        .filter_map(|name| body.get(name))
        .map(text_length)
        .sum();
    length.div_ceil(CHARACTERS_PER_TOKEN).max(1)
}

fn text_length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.iter().map(text_length).sum(),
        Value::Object(members) => members.values().map(text_length).sum(),
        _ => 0,
    }
}
