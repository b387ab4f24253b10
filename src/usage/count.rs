//! Token counts of one call.

use crate::json::{self, Object, Value};

/// Most tokens that one call can have used: a response that says more is wrong, and one wrong count must not lock
/// a caller out for a month.
pub(crate) const MAX_TOKENS: u64 = 1 << 40;

/// What an answer says it used.
///
/// Chat, completions and embeddings speak of prompt and completion tokens; responses, images and audio
/// of input and output tokens. What is not said is `None`, which differs from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt or input.
    pub prompt: Option<u64>,
    /// Tokens of the completion or output.
    pub completion: Option<u64>,
    /// All tokens, as the answer adds them up.
    pub total: Option<u64>,
    /// Tokens of the prompt that came from a cache.
    pub cached: Option<u64>,
    /// Tokens of the completion that were spent on reasoning.
    pub reasoning: Option<u64>,
    /// Tokens of the models behind tools, such as pictures, which no other count here includes.
    pub tools: Option<u64>,
    /// Something that should have been a count was not one, and was left out.
    pub malformed: bool,
}

impl Usage {
    /// Reads the text of a `usage` member that is not `null`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        match json::parse(text) {
            Ok(Value::Object(object)) => Self::read(&object),
            _ => Self::unreadable(),
        }
    }

    /// A usage that is there and cannot be read.
    #[must_use]
    pub(super) fn unreadable() -> Self {
        Self {
            malformed: true,
            ..Self::default()
        }
    }

    /// Reads the text of a `tool_usage` member: an object with the usage of each tool.
    #[must_use]
    pub(super) fn parse_tools(text: &[u8]) -> Self {
        let Ok(Value::Object(tools)) = json::parse(text) else {
            return Self::unreadable();
        };
        let mut all = Self::default();
        for (_, tool) in tools.iter() {
            // Others are counted by requests.
            if let Value::Object(tool) = tool {
                let tool = Self::read(tool);
                all.malformed |= tool.malformed;
                all.tools = sum(all.tools, tool.tokens());
            }
        }
        if all.tools > Some(MAX_TOKENS) {
            return Self::unreadable();
        }
        all
    }

    /// What cannot be a count makes all of it no usage: nobody knows what else in it is wrong.
    fn read(object: &Object<'_>) -> Self {
        let mut reader = Reader { malformed: false };
        let [prompt, input, completion, output, total] = [
            "prompt_tokens",
            "input_tokens",
            "completion_tokens",
            "output_tokens",
            "total_tokens",
        ]
        .map(|name| reader.count(object, name));
        let (prompt, completion) = (prompt.or(input), completion.or(output));
        if reader.malformed || sum(prompt, completion) > Some(MAX_TOKENS) {
            return Self::unreadable();
        }
        let prompt_details = [
            reader.detail(object, "prompt_tokens_details", "cached_tokens"),
            reader.detail(object, "input_tokens_details", "cached_tokens"),
        ];
        let completion_details = [
            reader.detail(object, "completion_tokens_details", "reasoning_tokens"),
            reader.detail(object, "output_tokens_details", "reasoning_tokens"),
        ];
        Self {
            prompt,
            completion,
            total,
            cached: prompt_details.into_iter().flatten().next(),
            reasoning: completion_details.into_iter().flatten().next(),
            tools: None,
            malformed: reader.malformed,
        }
    }

    /// The tokens to charge: the total, or what it would be, and those of tools; `None` when the answer does not
    /// report what its model used, as for audio that is counted in seconds.
    #[must_use]
    pub fn tokens(&self) -> Option<u64> {
        let model = self.model()?;
        Some(model.saturating_add(self.tools.unwrap_or_default()))
    }

    fn model(&self) -> Option<u64> {
        self.total.or_else(|| sum(self.prompt, self.completion))
    }

    /// This usage and that of another part of the same answer.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let total = match (self.total, other.total) {
            (None, None) => None,
            // Of one that names none, the sum.
            _ => sum(self.model(), other.model()),
        };
        Self {
            prompt: sum(self.prompt, other.prompt),
            completion: sum(self.completion, other.completion),
            total,
            cached: sum(self.cached, other.cached),
            reasoning: sum(self.reasoning, other.reasoning),
            tools: sum(self.tools, other.tools),
            malformed: self.malformed || other.malformed,
        }
    }

    /// This usage and a later one of the same answer: the later counts replace these, unless it
    /// has none.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        let last = if later.tokens().is_some() || self.tokens().is_none() {
            later
        } else {
            self
        };
        Self {
            tools: later.tools.or(self.tools),
            malformed: self.malformed || later.malformed,
            ..last
        }
    }
}

/// Both, as far as they are known.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

struct Reader {
    malformed: bool,
}

impl Reader {
    fn count(&mut self, object: &Object<'_>, name: &str) -> Option<u64> {
        let count = match object.get(name)? {
            Value::Null => return None,
            Value::Number(number) => number.as_u64().filter(|count| *count <= MAX_TOKENS),
            _ => None,
        };
        self.malformed |= count.is_none();
        count
    }

    /// What no charge depends on is left out where it is wrong.
    fn detail(&mut self, object: &Object<'_>, name: &str, detail: &str) -> Option<u64> {
        match object.get(name)? {
            Value::Null => None,
            Value::Object(details) => self.count(details, detail),
            _ => {
                self.malformed = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_vocabularies() {
        let chat = Usage::parse(
            br#"{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,
                "prompt_tokens_details":{"cached_tokens":3,"audio_tokens":0},
                "completion_tokens_details":{"reasoning_tokens":4}}"#,
        );
        let responses = Usage::parse(
            br#"{"input_tokens":9,"output_tokens":12,"total_tokens":21,
                "input_tokens_details":{"cached_tokens":3},
                "output_tokens_details":{"reasoning_tokens":4}}"#,
        );
        let expected = Usage {
            prompt: Some(9),
            completion: Some(12),
            total: Some(21),
            cached: Some(3),
            reasoning: Some(4),
            tools: None,
            malformed: false,
        };
        assert_eq!(chat, expected);
        assert_eq!(responses, expected);
    }

    #[test]
    fn says_nothing_where_the_answer_says_nothing() {
        let embeddings = Usage::parse(br#"{"prompt_tokens":8,"total_tokens":8}"#);
        assert_eq!(embeddings.completion, None);
        assert_eq!(embeddings.tokens(), Some(8));

        let seconds = Usage::parse(br#"{"type":"duration","seconds":3}"#);
        assert_eq!(seconds, Usage::default());
        assert_eq!(seconds.tokens(), None);

        let nulls = Usage::parse(br#"{"prompt_tokens":null,"prompt_tokens_details":null}"#);
        assert_eq!(nulls, Usage::default());
    }

    #[test]
    fn l4_what_is_no_count_makes_it_no_usage() {
        for wrong in [
            "\"7\"",
            "7.5",
            "-7",
            "1e30",
            "7.0",
            "true",
            "[7]",
            "{}",
            "1099511627777",
            "18446744073709551615",
            "18446744073709551616",
        ] {
            for name in ["prompt_tokens", "output_tokens", "total_tokens"] {
                let text = format!("{{\"input_tokens\":5,\"{name}\":{wrong}}}");
                assert_eq!(Usage::parse(text.as_bytes()), Usage::unreadable(), "{text}");
                let tool = format!("{{\"image_gen\":{text},\"other\":{{\"total_tokens\":3}}}}");
                let tools = Usage::parse_tools(tool.as_bytes());
                assert_eq!((tools.tools, tools.malformed), (Some(3), true), "{tool}");
            }
        }
        for text in ["", "7", "[]", "{", r#"{"total_tokens":1,"total_tokens":2}"#] {
            assert_eq!(Usage::parse(text.as_bytes()), Usage::unreadable(), "{text}");
        }
    }

    #[test]
    fn l4_nor_do_counts_add_up_to_more_than_there_can_be() {
        let most = MAX_TOKENS;
        let whole = |prompt: u64, completion: u64| {
            let text = format!("{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion}}}");
            Usage::parse(text.as_bytes()).tokens()
        };
        assert_eq!(whole(most - 1, 1), Some(most));
        assert_eq!(whole(most, 1), None);
        let tools = |first: u64, second: u64| {
            let text = format!(
                "{{\"a\":{{\"total_tokens\":{first}}},\"b\":{{\"total_tokens\":{second}}}}}"
            );
            Usage::parse_tools(text.as_bytes()).tools
        };
        assert_eq!(tools(most - 1, 1), Some(most));
        assert_eq!(tools(most, 1), None);
    }

    #[test]
    fn details_that_are_wrong_are_left_out() {
        for wrong in ["7", r#"{"cached_tokens":-1}"#, r#"{"cached_tokens":2e9}"#] {
            let text = format!("{{\"total_tokens\":5,\"prompt_tokens_details\":{wrong}}}");
            let usage = Usage::parse(text.as_bytes());
            assert!(usage.malformed, "{wrong}");
            assert_eq!((usage.tokens(), usage.cached), (Some(5), None), "{wrong}");
        }
    }

    #[test]
    fn adds_up_without_wrapping() {
        let usage = Usage {
            prompt: Some(u64::MAX),
            completion: Some(1),
            tools: Some(u64::MAX),
            ..Usage::default()
        };
        assert_eq!(usage.tokens(), Some(u64::MAX));
        assert_eq!(usage.and(usage).tokens(), Some(u64::MAX));
    }

    #[test]
    fn parts_of_an_answer_add_up() {
        let counts = |prompt, completion, total| Usage {
            prompt,
            completion,
            total,
            ..Usage::default()
        };
        let (one, two) = (
            counts(Some(1), Some(2), None),
            counts(Some(3), None, Some(9)),
        );
        assert_eq!(one.and(two), counts(Some(4), Some(2), Some(12)));
        assert_eq!(one.and(one), counts(Some(2), Some(4), None));
        assert_eq!(one.and(Usage::default()), one);
        assert!(one.and(Usage::unreadable()).malformed);
    }

    #[test]
    fn o3_tools_alone_are_no_usage_of_the_model() {
        let tools = Usage::parse_tools(br#"{"image_gen":{"input_tokens":3,"output_tokens":4}}"#);
        assert_eq!((tools.tools, tools.tokens()), (Some(7), None));
        let model = Usage::parse(br#"{"total_tokens":5}"#);
        assert_eq!(model.followed_by(tools).tokens(), Some(12));
        assert_eq!(tools.followed_by(model).tokens(), Some(12));
        let later = Usage {
            tools: Some(8),
            ..Usage::default()
        };
        assert_eq!(
            model.followed_by(tools).followed_by(later).tokens(),
            Some(13)
        );
    }

    #[test]
    fn the_last_counts_stand() {
        let tokens = |total| Usage {
            total: Some(total),
            ..Usage::default()
        };
        assert_eq!(tokens(1).followed_by(tokens(2)), tokens(2));
        assert_eq!(tokens(1).followed_by(Usage::default()), tokens(1));
        let after_wrong = tokens(1).followed_by(Usage::unreadable());
        assert_eq!(after_wrong.total, Some(1));
        assert!(after_wrong.malformed);
    }
}
