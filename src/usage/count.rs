//! Token counts of one call.

use crate::json::{self, Object, Value};

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
        let prompt_details = [
            reader.detail(object, "prompt_tokens_details", "cached_tokens"),
            reader.detail(object, "input_tokens_details", "cached_tokens"),
        ];
        let completion_details = [
            reader.detail(object, "completion_tokens_details", "reasoning_tokens"),
            reader.detail(object, "output_tokens_details", "reasoning_tokens"),
        ];
        Self {
            prompt: prompt.or(input),
            completion: completion.or(output),
            total,
            cached: prompt_details.into_iter().flatten().next(),
            reasoning: completion_details.into_iter().flatten().next(),
            malformed: reader.malformed,
        }
    }

    /// The tokens to charge: the total, or what it would be; `None` when nothing is said, as for
    /// audio that is counted in seconds.
    #[must_use]
    pub fn tokens(&self) -> Option<u64> {
        match (self.total, self.prompt, self.completion) {
            (Some(total), ..) => Some(total),
            (None, None, None) => None,
            (None, prompt, completion) => Some(
                prompt
                    .unwrap_or_default()
                    .saturating_add(completion.unwrap_or_default()),
            ),
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
            malformed: self.malformed || later.malformed,
            ..last
        }
    }
}

struct Reader {
    malformed: bool,
}

impl Reader {
    fn count(&mut self, object: &Object<'_>, name: &str) -> Option<u64> {
        let count = match object.get(name)? {
            Value::Null => return None,
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        self.malformed |= count.is_none();
        count
    }

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
    fn leaves_out_what_is_no_count() {
        for wrong in [
            "\"7\"",
            "7.5",
            "-7",
            "1e30",
            "7.0",
            "true",
            "[7]",
            "{}",
            "18446744073709551616",
        ] {
            let text = format!("{{\"prompt_tokens\":{wrong},\"completion_tokens\":5}}");
            let usage = Usage::parse(text.as_bytes());
            assert!(usage.malformed, "{wrong}");
            assert_eq!(usage.prompt, None, "{wrong}");
            assert_eq!(usage.completion, Some(5), "{wrong}");
        }
        let detail = Usage::parse(br#"{"total_tokens":5,"prompt_tokens_details":7}"#);
        assert!(detail.malformed);
        assert_eq!(detail.tokens(), Some(5));
        for text in ["", "7", "[]", "{", r#"{"total_tokens":1,"total_tokens":2}"#] {
            assert_eq!(Usage::parse(text.as_bytes()), Usage::unreadable(), "{text}");
        }
    }

    #[test]
    fn adds_up_without_wrapping() {
        let usage = Usage {
            prompt: Some(u64::MAX),
            completion: Some(1),
            ..Usage::default()
        };
        assert_eq!(usage.tokens(), Some(u64::MAX));
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
