//! A request's body on its way to the backend: read until what it asks for is known, and made to
//! ask for usage where its stream would say none.
//!
//! Nothing is held back but the value of `stream_options`, which is small: a decision that waits for
//! the body is made before the bytes that complete it go on. Of what follows a good object nothing but white
//! space does.

use std::ops::Range;

use crate::api_version::ApiVersion;
use crate::json::{self, Object, Value};
use crate::operations::{Action, Operation};
use crate::request::HeaderMap;
use crate::usage::{
    Attachments, BodyError, BodyReader, FormError, FormReader, MediaType, Member, ModelReader,
    Passed, is_white_space,
};

/// Bytes of a body that are taken for one token, as OpenAI's rule of thumb has it for English text.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Tokens that a picture or a file in a prompt is taken to have when the policy does not say.
pub const DEFAULT_IMAGE_TOKENS: u64 = 1_500;

/// Tokens that an answer is taken to have when its request does not bound it.
pub const UNBOUNDED_ANSWER: u64 = 4_096;

/// What bounds the answers to a request: only the members that its operation reads (OpenAI API reference).
struct Bounds {
    /// The tokens of each answer; the largest that is there.
    tokens: &'static [Member],
    /// How many answers there are; the largest that is there.
    answers: &'static [Member],
    /// So many for each text in a list of prompts.
    per_prompt: bool,
    /// Answers have at least so many tokens, whatever the request says.
    at_least: u64,
}

const CHAT: Bounds = Bounds {
    tokens: &[Member::MaxTokens, Member::MaxCompletionTokens],
    answers: &[Member::N],
    per_prompt: false,
    at_least: 0,
};

const COMPLETIONS: Bounds = Bounds {
    tokens: &[Member::MaxTokens],
    answers: &[Member::N, Member::BestOf],
    per_prompt: true,
    at_least: 0,
};

const RESPONSES: Bounds = Bounds {
    tokens: &[Member::MaxOutputTokens],
    answers: &[],
    per_prompt: false,
    at_least: 0,
};

const RUNS: Bounds = Bounds {
    tokens: &[Member::MaxCompletionTokens],
    answers: &[],
    per_prompt: false,
    at_least: 0,
};

/// Which of them an operation reads that nobody here knows is not known either.
const UNKNOWN: Bounds = Bounds {
    tokens: &[
        Member::MaxTokens,
        Member::MaxCompletionTokens,
        Member::MaxOutputTokens,
    ],
    answers: &[Member::N, Member::BestOf],
    per_prompt: true,
    at_least: UNBOUNDED_ANSWER,
};

/// Longest `stream_options` that is held back. Those of the SDKs take 50 bytes.
const MAX_HELD: usize = 1_024;

/// The first API versions with `stream_options` (Azure OpenAI, "API version lifecycle").
const FIRST_PREVIEW: &str = "2024-09-01-preview";
const FIRST_STABLE: &str = "2024-10-21";

const USAGE_OPTION: &str = "include_usage";
const USAGE_MEMBER: &[u8] = br#","stream_options":{"include_usage":true}"#;

/// What is read of one request's body.
#[derive(Debug)]
pub struct RequestBody {
    reader: ModelReader,
    /// Reads it in place of that, where it is a form.
    form: Option<FormReader>,
    /// Why it cannot be read.
    refused: Option<BodyError>,
    /// Whether a text that a model reads is in it.
    is_json: bool,
    /// `content-length`
    length: Option<u64>,
    /// What a picture in it is estimated at.
    image_tokens: u64,
    /// Bytes so far.
    seen: u64,
    /// That was all of it.
    ended: bool,
    /// All that decides was read: the object is closed, and good.
    decided: bool,
    usage: UsageRequest,
    /// The last bytes that were read, when they are held back.
    held: Vec<u8>,
    output: Vec<u8>,
}

/// Whether the body is made to ask for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UsageRequest {
    /// It is left as it is.
    Keep,
    /// It will be, if it asks for a stream and not for usage.
    Wanted,
    /// It was.
    Injected,
}

/// A change to a piece of the body.
struct Edit {
    range: Range<usize>,
    text: Vec<u8>,
}

impl BodyReader for RequestBody {
    fn push(&mut self, bytes: &[u8], end: bool) -> Passed<'_> {
        self.seen = self.seen.saturating_add(size(bytes.len()));
        self.ended |= end;
        if self.decided {
            return self.blank(bytes);
        }
        if self.form.is_some() {
            return self.push_form(bytes, end);
        }
        let late = !self.held.is_empty();
        let start = self.reader.scanned().saturating_sub(size(self.held.len()));
        if self.refused.is_none() {
            let read = self.reader.push(bytes);
            let finished = if end { self.reader.finish() } else { Ok(()) };
            self.refused = read.and(finished).err();
            self.decided = self.refused.is_none() && self.reader.closed_at().is_some();
        }
        // Only for that is anything held back.
        if self.usage != UsageRequest::Wanted {
            return Passed::Unchanged;
        }
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        self.pass(&input, start, late)
    }
}

impl RequestBody {
    /// The body of a request with these headers. `inject`: where it asks for a stream, it is
    /// to ask for usage too.
    #[must_use]
    pub fn new(headers: &HeaderMap, inject: bool) -> Self {
        let refused = media_fault(headers);
        Self {
            reader: ModelReader::new(),
            form: None,
            is_json: refused.is_none(),
            refused,
            length: headers.first("content-length").and_then(|length| {
                let length = str::from_utf8(length).ok()?;
                length.parse().ok()
            }),
            image_tokens: DEFAULT_IMAGE_TOKENS,
            seen: 0,
            ended: false,
            decided: false,
            usage: if inject {
                UsageRequest::Wanted
            } else {
                UsageRequest::Keep
            },
            held: Vec::new(),
            output: Vec::new(),
        }
    }

    /// The same with so many tokens for each picture or file in it.
    #[must_use]
    pub fn with_image_tokens(mut self, tokens: u64) -> Self {
        self.image_tokens = tokens;
        self
    }

    /// The body of a request whose operation takes forms as well.
    #[must_use]
    pub fn with_form(headers: &HeaderMap) -> Self {
        let body = Self::new(headers, false);
        let mut types = headers.iter().filter(|(name, _)| *name == b"content-type");
        match (types.next(), types.next(), body.refused) {
            (Some((_, content_type)), None, Some(BodyError::MediaType)) => {
                match FormReader::new(content_type) {
                    Some(form) => Self {
                        form: Some(form),
                        refused: None,
                        ..body
                    },
                    None => body,
                }
            }
            _ => body,
        }
    }

    /// Reads on in a form. What may be the end of its closing delimiter waits for what follows.
    fn push_form(&mut self, bytes: &[u8], end: bool) -> Passed<'_> {
        let Some(form) = &mut self.form else {
            return Passed::Unchanged;
        };
        if self.refused.is_none() {
            let read = form.push(bytes);
            let finished = if end { form.finish() } else { Ok(()) };
            self.refused = read.and(finished).err();
            self.decided = self.refused.is_none() && form.is_closed();
        }
        let hold = form.held();
        if hold == 0 && self.held.is_empty() {
            return Passed::Unchanged;
        }
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        let (now, later) = input
            .split_at_checked(input.len().saturating_sub(hold))
            .unwrap_or((&input, &[]));
        self.held = later.to_vec();
        self.output = now.to_vec();
        Passed::Replaced(&self.output)
    }

    /// Lets white space follow the object or form, and makes it of everything else: the decision may be made, and a
    /// backend could find another one behind the first.
    fn blank(&mut self, bytes: &[u8]) -> Passed<'_> {
        if bytes.iter().all(|byte| is_white_space(*byte)) {
            return Passed::Unchanged;
        }
        self.refused = Some(match self.form {
            Some(_) => FormError::AfterEnd.into(),
            None => BodyError::NotJson,
        });
        self.output = vec![b' '; bytes.len()];
        Passed::Replaced(&self.output)
    }

    /// Lets `input`, which stands at `start` in the body, pass: changed where usage is asked for, and
    /// held back from an open `stream_options` on. `late`: some of it was held back before.
    fn pass(&mut self, input: &[u8], start: u64, late: bool) -> Passed<'_> {
        let hold = self.held_from(input, start);
        let edit = self.edit(input, start);
        if edit.is_some() {
            self.usage = UsageRequest::Injected;
        }
        let (now, later) = input
            .split_at_checked(hold.unwrap_or(input.len()))
            .unwrap_or((input, &[]));
        self.held = later.to_vec();
        let Some(Edit { range, text }) = edit else {
            if !late && later.is_empty() {
                return Passed::Unchanged;
            }
            self.output = now.to_vec();
            return Passed::Replaced(&self.output);
        };
        let before = now.get(..range.start).unwrap_or_default();
        let after = now.get(range.end..).unwrap_or_default();
        self.output = [before, &text, after].concat();
        Passed::Replaced(&self.output)
    }

    /// From where on the input waits for the end of `stream_options`.
    fn held_from(&self, input: &[u8], start: u64) -> Option<usize> {
        if self.refused.is_some() {
            return None;
        }
        let open_at = self.reader.stream_options_open_at()?;
        let from = usize::try_from(open_at.checked_sub(start)?).ok()?;
        (input.len().saturating_sub(from) <= MAX_HELD).then_some(from)
    }

    /// What is to change in the input, now that so much was read.
    fn edit(&self, input: &[u8], start: u64) -> Option<Edit> {
        let reader = &self.reader;
        if self.refused.is_some()
            || reader.include_usage() == Some(true)
            || reader.has_data_sources()
        {
            return None;
        }
        let place = |at: u64| usize::try_from(at.checked_sub(start)?).ok();
        if let Some(options) = reader.stream_options_at() {
            let range = place(options.start)?..place(options.end)?;
            let text = with_usage(input.get(range.clone())?, reader.stream() == Some(true))?;
            return Some(Edit { range, text });
        }
        if reader.stream() != Some(true) {
            return None;
        }
        let end = place(reader.closed_at()?)?;
        input.get(end..)?;
        Some(Edit {
            range: end..end,
            text: USAGE_MEMBER.to_vec(),
        })
    }

    /// Whether all that decides was read, or never will be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.decided || self.refused.is_some()
    }

    /// Whether nothing more has to be read.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        (self.ended || !self.decided && self.refused.is_some()) && self.held.is_empty()
    }

    /// Whether it was made to ask for usage.
    #[must_use]
    pub fn usage_was_injected(&self) -> bool {
        self.usage == UsageRequest::Injected
    }

    /// `model`, where it can be read in one way only.
    ///
    /// # Errors
    /// The body cannot be read, or not in one way only.
    pub fn model(&self) -> Result<Option<&str>, BodyError> {
        match self.refused {
            Some(error) => Err(error),
            None if self.decided => Ok(match &self.form {
                Some(form) => form.model(),
                None => self.reader.model(),
            }),
            None => Err(BodyError::Truncated),
        }
    }

    /// The tokens of a prompt in a body of so many bytes: of text a token for four of them, of lists of tokens at least
    /// as many as there are, of base64 data a fixed number for each picture or file.
    #[must_use]
    pub fn prompt(&self, bytes: u64) -> u64 {
        // Of what cannot be read nobody knows what in it is what.
        let (found, ids) = match self.refused {
            Some(_) => (Attachments::default(), 0),
            None => (self.reader.attachments(), self.reader.token_ids()),
        };
        let pictures = found.count.saturating_mul(self.image_tokens);
        tokens_in(bytes.saturating_sub(found.bytes))
            .max(ids)
            .saturating_add(pictures)
    }

    /// Whether it is a form.
    #[must_use]
    pub fn is_form(&self) -> bool {
        self.form.is_some()
    }

    /// Whether the tokens that the call may use have a bound at all.
    #[must_use]
    pub fn is_bounded(&self, action: Option<Action>) -> bool {
        self.bound(action) < u64::MAX
    }

    /// Its size in bytes, once it is known.
    fn size(&self) -> Option<u64> {
        let is_whole = self.ended || (self.refused.is_none() && self.decided);
        match self.length {
            Some(length) => Some(length.max(self.seen)),
            None => is_whole.then_some(self.seen),
        }
    }

    /// The most tokens that the call may use, as far as its request says: those of the prompt, by its
    /// size, and those of each answer. `u64::MAX` where a body that asks for text cannot be read in one
    /// way, or where not even its size is known.
    #[must_use]
    pub fn bound(&self, action: Option<Action>) -> u64 {
        let generates = action.is_none_or(Action::generates_text);
        if !self.is_json && !action.is_none_or(Action::reads_text) {
            // Sound and pictures: their size says nothing.
            return 0;
        }
        let read = self.refused.is_none() && self.decided;
        let Some(size) = self.size() else {
            return u64::MAX;
        };
        let answers = match (generates, read) {
            (false, _) => 0,
            (true, false) => return u64::MAX,
            (true, true) => Bounds::of(action).answers(&self.reader),
        };
        self.prompt(size).saturating_add(answers)
    }
}

impl Bounds {
    fn of(action: Option<Action>) -> &'static Self {
        match action {
            Some(Action::ChatCompletions | Action::ExtensionsChatCompletions) => &CHAT,
            Some(Action::Completions | Action::EnginesCompletions | Action::EnginesGenerate) => {
                &COMPLETIONS
            }
            Some(Action::ResponsesWrite) => &RESPONSES,
            Some(Action::RunsWrite) => &RUNS,
            Some(_) | None => &UNKNOWN,
        }
    }

    /// The tokens of all answers. 0 bounds nothing: a backend refuses it, or takes it for absent.
    fn answers(&self, reader: &ModelReader) -> u64 {
        let most = |members: &[Member]| {
            let counts = members.iter().filter_map(|member| reader.count(*member));
            counts.max().filter(|count| *count > 0)
        };
        let prompts = if self.per_prompt { reader.prompts() } else { 1 };
        most(self.tokens)
            .unwrap_or(UNBOUNDED_ANSWER)
            .max(self.at_least)
            .saturating_mul(most(self.answers).unwrap_or(1))
            .saturating_mul(prompts.max(1))
    }
}

/// The tokens that a body of this size is estimated at.
#[must_use]
pub fn tokens_in(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Whether `stream_options` may be added to a request: older API versions refuse it, and the
/// responses API has none.
#[must_use]
pub fn takes_stream_options(operation: &Operation<'_>, api_version: Option<ApiVersion>) -> bool {
    let streams = matches!(
        operation.action,
        Action::ChatCompletions | Action::Completions
    );
    let recent =
        || api_version.is_some_and(|version| version.is_since(FIRST_STABLE, FIRST_PREVIEW));
    streams && (!operation.is_dated || recent())
}

/// `stream_options` that ask for usage too. `null` only becomes an object where it is known that a
/// stream is asked for; of what has members twice, which readers take as they like, nothing else stays.
fn with_usage(options: &[u8], is_stream: bool) -> Option<Vec<u8>> {
    let members = match json::parse(options) {
        Ok(Value::Null) if is_stream => Object::default(),
        Ok(Value::Object(members)) => members,
        Err(_) => Object::default(),
        Ok(_) => return None,
    };
    let others = members.iter();
    let others = others.filter(|(name, _)| !name.eq_ignore_ascii_case(USAGE_OPTION));
    let mut members: Vec<_> = others
        .map(|(name, value)| (name.into(), value.clone()))
        .collect();
    members.push((USAGE_OPTION.into(), Value::Bool(true)));
    let text = Value::Object(Object::from_members(members)?).to_json();
    Some(text.into_bytes())
}

/// Why the headers say that the body is something else than JSON in UTF-8, sent as it is. A body without a type is
/// taken for JSON, as the backend takes it.
fn media_fault(headers: &HeaderMap) -> Option<BodyError> {
    let faults = headers.iter().filter_map(|(name, value)| match name {
        b"content-type" if !is_utf8(value) => Some(BodyError::Encoding),
        b"content-type" if !is_json(value) => Some(BodyError::MediaType),
        b"content-encoding" if !is_identity(value) => Some(BodyError::Encoding),
        _ => None,
    });
    let is_encoded = |error: &BodyError| *error == BodyError::Encoding;
    faults.max_by_key(is_encoded)
}

/// Whether a backend takes a body of this type for JSON: clients that set no type have libraries that call it text.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    let is_text = [&b"text/plain"[..], b"text/json"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known));
    is_text || MediaType::read(content_type) == MediaType::Json
}

/// Whether a list of encodings changes nothing (RFC 9110 section 8.4).
fn is_identity(content_encoding: &[u8]) -> bool {
    content_encoding
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether a `content-type` leaves the character set at UTF-8.
fn is_utf8(content_type: &[u8]) -> bool {
    let parameters = content_type.split(|byte| *byte == b';').skip(1);
    parameters.map(<[u8]>::trim_ascii).all(|parameter| {
        let (name, value) = match parameter.iter().position(|byte| *byte == b'=') {
            Some(at) => parameter.split_at_checked(at).unwrap_or((parameter, b"")),
            None => (parameter, &b""[..]),
        };
        let value: Vec<u8> = value
            .iter()
            .filter(|byte| !b"=\" ".contains(byte))
            .map(u8::to_ascii_lowercase)
            .collect();
        !name.trim_ascii().eq_ignore_ascii_case(b"charset") || value == b"utf-8" || value == b"utf8"
    })
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
