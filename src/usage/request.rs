//! What a request body asks for: the model, and what bounds the answer.

use std::fmt;
use std::ops::Range;

use super::attachments::{AttachmentReader, Attachments};
use super::bytes::Cursor;
use super::form::FormError;
use super::grammar::{Fault, Grammar, Token};
use super::text::{Kept, unescaped};
use crate::json;

/// Longest model name, as it is written. Deployments have up to 64 characters, fine-tuned models
/// about 100.
pub(super) const MAX_MODEL: usize = 1024;

/// Longest name that can be one of those looked for, each of its characters escaped.
const MAX_NAME: usize = 6 * "max_completion_tokens".len();

/// Longest number or literal that is read.
const MAX_SCALAR: usize = 32;

/// Longest `stream_options`. Those of the SDKs take 50 bytes.
pub(crate) const MAX_OPTIONS: u64 = 1_024;

/// A member of a request body that decides something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// `best_of`: completions made and counted, of which `n` are answered
    BestOf,
    /// `include_usage` within `stream_options`
    IncludeUsage,
    /// `max_completion_tokens`
    MaxCompletionTokens,
    /// `max_output_tokens`
    MaxOutputTokens,
    /// `max_tokens`
    MaxTokens,
    /// `model`
    Model,
    /// `n`
    N,
    /// `stream`
    Stream,
    /// `stream_options`
    StreamOptions,
}

impl Member {
    const ALL: [Self; 9] = [
        Self::BestOf,
        Self::IncludeUsage,
        Self::MaxCompletionTokens,
        Self::MaxOutputTokens,
        Self::MaxTokens,
        Self::Model,
        Self::N,
        Self::Stream,
        Self::StreamOptions,
    ];

    /// Its name in the body.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BestOf => "best_of",
            Self::IncludeUsage => "include_usage",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::MaxTokens => "max_tokens",
            Self::Model => "model",
            Self::N => "n",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
        }
    }

    const fn bit(self) -> u16 {
        match self {
            Self::BestOf => 1,
            Self::IncludeUsage => 1 << 1,
            Self::MaxCompletionTokens => 1 << 2,
            Self::MaxOutputTokens => 1 << 3,
            Self::MaxTokens => 1 << 4,
            Self::Model => 1 << 5,
            Self::N => 1 << 6,
            Self::Stream => 1 << 7,
            Self::StreamOptions => 1 << 8,
        }
    }
}

/// Why a request body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Its headers say that it is something else than JSON.
    MediaType,
    /// It is compressed, or text in another character set than UTF-8: its headers say so, or its bytes are no UTF-8.
    Encoding,
    /// It is not JSON, to the letter of RFC 8259.
    NotJson,
    /// It is some other JSON value.
    NotAnObject,
    /// It nests deeper than 128 levels.
    TooDeep,
    /// It ends too early, or is empty.
    Truncated,
    /// A member is there twice, be it written with escapes or in another case.
    Repeated(Member),
    /// A member's name is written in another case, which readers take for the member or not.
    OtherCase(Member),
    /// A member's value has another type than the API's, or is negative.
    WrongType(Member),
    /// A member's value is longer than any that makes sense.
    TooLong(Member),
    /// A member is not there.
    Absent(Member),
    /// A form has a file in the place of a member.
    File(Member),
    /// `model` is not the name of a deployment.
    NotADeployment,
    /// A form that readers take apart differently.
    Form(FormError),
}

impl BodyError {
    /// Whether the body is a good one but for its `model`.
    #[must_use]
    pub fn is_about_model(self) -> bool {
        matches!(
            self,
            Self::NotADeployment
                | Self::Repeated(Member::Model)
                | Self::OtherCase(Member::Model)
                | Self::WrongType(Member::Model)
                | Self::TooLong(Member::Model)
                | Self::Absent(Member::Model)
                | Self::File(Member::Model)
        )
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MediaType => formatter.write_str("content-type names something else than JSON"),
            Self::Encoding => formatter.write_str("it is compressed or not UTF-8"),
            Self::NotJson => formatter.write_str("the body is not JSON"),
            Self::NotAnObject => formatter.write_str("the body is not a JSON object"),
            Self::TooDeep => formatter.write_str("the body is nested too deeply"),
            Self::Truncated => formatter.write_str("the body ends too early"),
            Self::Repeated(member) => write!(formatter, "`{}` is repeated", member.name()),
            Self::OtherCase(member) => {
                write!(formatter, "`{}` is written in another way", member.name())
            }
            Self::WrongType(member) => write!(formatter, "`{}` has the wrong type", member.name()),
            Self::TooLong(member) => write!(formatter, "`{}` is too long", member.name()),
            Self::Absent(member) => write!(formatter, "`{}` is missing", member.name()),
            Self::File(member) => write!(formatter, "`{}` is a file", member.name()),
            Self::NotADeployment => formatter.write_str("`model` is not a deployment's name"),
            Self::Form(error) => error.fmt(formatter),
        }
    }
}

/// Reads one request body as it passes.
///
/// [`Self::model`] is there as soon as it was read, but only the end of the body shows that it is
/// not repeated. So a body may go on to the backend while it is read, as long as its last bytes
/// wait for [`Self::finish`]: no backend acts on half a JSON object. `null` is as good as
/// absent, as clients write it. A body that is wrong in several ways is refused for one of them, and
/// which one may depend on how it is cut.
#[derive(Clone, Debug)]
pub struct ModelReader {
    grammar: Grammar,
    /// How much of a byte order mark was read, as long as one may come.
    mark: Option<usize>,
    utf8: Utf8,
    refused: Option<BodyError>,
    scanned: u64,
    /// The members seen, a bit each.
    seen: u16,
    /// The member whose value comes next or is being read.
    member: Option<Member>,
    in_options: bool,
    /// The name or value that is being read.
    kept: Kept,
    model: Option<String>,
    stream: Option<bool>,
    include_usage: Option<bool>,
    /// It is there twice, or in another case.
    asked_oddly: bool,
    counts: Counts,
    /// The list that is being read, of those whose members are looked for.
    list: List,
    prompts: u64,
    token_ids: u64,
    data_sources: bool,
    attachments: AttachmentReader,
    options_begin: Option<u64>,
    options_end: Option<u64>,
    closed_at: Option<u64>,
}

impl Default for ModelReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelReader {
    /// A reader at the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            grammar: Grammar::new(),
            mark: Some(0),
            utf8: Utf8::default(),
            refused: None,
            scanned: 0,
            seen: 0,
            member: None,
            in_options: false,
            kept: Kept::up_to(MAX_NAME),
            model: None,
            stream: None,
            include_usage: None,
            asked_oddly: false,
            counts: Counts::default(),
            list: List::Other,
            prompts: 0,
            token_ids: 0,
            data_sources: false,
            attachments: AttachmentReader::new(),
            options_begin: None,
            options_end: None,
            closed_at: None,
        }
    }

    /// Reads on. Once refused, nothing more is read.
    ///
    /// # Errors
    /// The body is refused; it must not reach the backend whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let read = self.read(bytes);
        self.scanned = self.scanned.saturating_add(count(bytes.len()));
        self.refused = read.err();
        read
    }

    /// The end of the body.
    ///
    /// # Errors
    /// The body is refused.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.refused {
            Some(error) => Err(error),
            None if self.grammar.is_complete() => Ok(()),
            None => {
                self.refused = Some(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// `model`, unescaped, once it was read.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// `stream`
    #[must_use]
    pub fn stream(&self) -> Option<bool> {
        self.stream
    }

    /// `stream_options.include_usage`, if it is there once and as it is written here.
    #[must_use]
    pub fn include_usage(&self) -> Option<bool> {
        self.include_usage.filter(|_| !self.asked_oddly)
    }

    /// The number in a member that has one: `n`, `best_of` and those that bound an answer.
    #[must_use]
    pub fn count(&self, member: Member) -> Option<u64> {
        self.counts.of(member)
    }

    /// How many texts a list of prompts has, each of which gets answers of its own.
    #[must_use]
    pub fn prompts(&self) -> u64 {
        self.prompts
    }

    /// How many tokens there are in lists of tokens, which prompts and inputs may be instead of texts.
    #[must_use]
    pub fn token_ids(&self) -> u64 {
        self.token_ids
    }

    /// Whether there are `data_sources` ("on your data"), which do not go together with `stream_options`.
    #[must_use]
    pub fn has_data_sources(&self) -> bool {
        self.data_sources
    }

    /// Base64 data in it so far, which is no text.
    #[must_use]
    pub fn attachments(&self) -> Attachments {
        self.attachments.found()
    }

    /// Bytes of the body so far, from which the prompt is estimated.
    #[must_use]
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Where in the body the value of `stream_options` stands.
    #[must_use]
    pub fn stream_options_at(&self) -> Option<Range<u64>> {
        Some(self.options_begin?..self.options_end?)
    }

    /// Where the value of `stream_options` begins, when its end was not read yet.
    #[must_use]
    pub fn stream_options_open_at(&self) -> Option<u64> {
        self.options_begin.filter(|_| self.options_end.is_none())
    }

    /// Where in the body the bracket that closes the object stands, once it was read.
    #[must_use]
    pub fn closed_at(&self) -> Option<u64> {
        self.closed_at
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        if !self.utf8.push(bytes) {
            return Err(BodyError::Encoding);
        }
        let mut input = Cursor::new(bytes);
        self.skip_mark(&mut input)?;
        loop {
            let token = self.grammar.next(&mut input).map_err(|fault| match fault {
                Fault::NotJson => BodyError::NotJson,
                Fault::TooDeep => BodyError::TooDeep,
            })?;
            let Some(token) = token else { return Ok(()) };
            self.token(token, self.scanned.saturating_add(count(input.taken())))?;
        }
    }

    /// Skips a byte order mark before the object, as RFC 8259 section 8.1 lets readers do. Azure does.
    fn skip_mark(&mut self, input: &mut Cursor<'_>) -> Result<(), BodyError> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        while let Some(read) = self.mark {
            match (MARK.get(read), input.peek()) {
                (Some(_), None) => return Ok(()),
                (Some(wanted), Some(byte)) if *wanted == byte => {
                    input.next();
                    self.mark = Some(read.saturating_add(1));
                }
                (Some(_), Some(_)) if read > 0 => return Err(BodyError::NotJson),
                (Some(_), Some(_)) | (None, _) => self.mark = None,
            }
        }
        Ok(())
    }

    /// One token, which ends at `end`.
    fn token(&mut self, token: Token<'_>, end: u64) -> Result<(), BodyError> {
        let depth = self.grammar.depth();
        self.list(token, depth);
        match token {
            _ if end_of_body(depth) && token != Token::End => Err(BodyError::NotAnObject),
            Token::Array if depth == 1 => Err(BodyError::NotAnObject),
            Token::Object | Token::Array => self.opened(token, end),
            Token::End => self.closed(depth, end),
            Token::Name { part, last } => {
                self.attachments.name(part, last);
                self.name(part, last)
            }
            Token::Text { part, last } => {
                let member = self.grammar.in_object();
                self.attachments.text(part, last, member);
                self.text(part, last)
            }
            Token::Scalar { part, last } => self.scalar(part, last, end),
        }
    }

    /// Looks for the members of lists: prompts, which are texts or lists of tokens, and data sources.
    fn list(&mut self, token: Token<'_>, depth: u8) {
        let begins = matches!(token, Token::Object | Token::Array);
        match (self.list, depth) {
            // Its own bracket, or all of the value.
            (_, 0 | 1) | (List::Other, _) => {}
            (List::Prompts | List::Inputs, 2) if token == Token::Object => self.list = List::Other,
            (List::Prompts | List::Inputs, 2 | 3)
                if matches!(token, Token::Scalar { last: true, .. }) =>
            {
                self.token_ids = self.token_ids.saturating_add(1);
            }
            (_, 2) if begins => {}
            (List::DataSources, _) => self.data_sources = true,
            (List::Prompts, 2) if matches!(token, Token::Text { last: true, .. }) => {
                self.prompts = self.prompts.saturating_add(1);
            }
            (List::Prompts, 3) if begins => self.prompts = self.prompts.saturating_add(1),
            (List::Prompts | List::Inputs, _) => {}
        }
    }

    fn opened(&mut self, token: Token<'_>, end: u64) -> Result<(), BodyError> {
        match self.member.take() {
            None => Ok(()),
            Some(Member::StreamOptions) if token == Token::Object => {
                self.in_options = true;
                self.kept.clear_for(MAX_NAME);
                self.options_begin = Some(end.saturating_sub(1));
                Ok(())
            }
            Some(member) => Err(BodyError::WrongType(member)),
        }
    }

    fn closed(&mut self, depth: u8, end: u64) -> Result<(), BodyError> {
        match depth {
            0 => self.closed_at = Some(end.saturating_sub(1)),
            1 if self.in_options => {
                self.in_options = false;
                self.options_end = Some(end);
                let begin = self.options_begin.unwrap_or_default();
                if end.saturating_sub(begin) > MAX_OPTIONS {
                    return Err(BodyError::TooLong(Member::StreamOptions));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, part: &[u8], last: bool) -> Result<(), BodyError> {
        match (self.grammar.depth(), self.in_options) {
            (1, _) | (2, true) => {}
            _ => return Ok(()),
        }
        self.kept.push(part);
        if !last {
            return Ok(());
        }
        self.member = self.named()?;
        self.kept.clear_for(match self.member {
            None => MAX_NAME,
            Some(Member::Model) => MAX_MODEL,
            Some(_) => MAX_SCALAR,
        });
        Ok(())
    }

    /// The member that the name means, which must be its first.
    fn named(&mut self) -> Result<Option<Member>, BodyError> {
        let Some(raw) = self.kept.whole() else {
            self.list = List::Other;
            return Ok(None);
        };
        // A lone surrogate: every reader makes something else of it.
        let name = unescaped(raw).ok_or(BodyError::NotJson)?;
        // Where readers in C see its end.
        let seen_in_c = name.split('\0').next().unwrap_or_default();
        if !self.in_options {
            self.list = List::of(seen_in_c);
        }
        let inner = |member: &Member| (*member == Member::IncludeUsage) == self.in_options;
        let meant = Member::ALL
            .into_iter()
            .filter(inner)
            .find(|member| member.name().eq_ignore_ascii_case(seen_in_c));
        let Some(member) = meant else { return Ok(None) };
        let is_first = self.seen & member.bit() == 0;
        if member == Member::IncludeUsage && (!is_first || member.name() != name) {
            // Nothing is decided by it, and usage is asked for unless it surely was.
            self.asked_oddly = true;
            return Ok(None);
        }
        if !is_first {
            return Err(BodyError::Repeated(member));
        }
        if member.name() != name {
            return Err(BodyError::OtherCase(member));
        }
        self.seen |= member.bit();
        Ok(Some(member))
    }

    fn text(&mut self, part: &[u8], last: bool) -> Result<(), BodyError> {
        match self.member {
            None => return Ok(()),
            Some(Member::Model) => {}
            Some(member) => return Err(BodyError::WrongType(member)),
        }
        self.kept.push(part);
        let raw = self.kept.whole().ok_or(BodyError::TooLong(Member::Model))?;
        if last {
            let model = unescaped(raw).ok_or(BodyError::NotJson)?;
            self.model = Some(model.into_owned());
            self.value_ends();
        }
        Ok(())
    }

    fn scalar(&mut self, part: &[u8], last: bool, end: u64) -> Result<(), BodyError> {
        let Some(member) = self.member else {
            return Ok(());
        };
        if member == Member::StreamOptions && self.options_begin.is_none() {
            self.options_begin = Some(end.saturating_sub(count(part.len())));
        }
        self.kept.push(part);
        let raw = self.kept.whole().ok_or(BodyError::TooLong(member))?;
        if last {
            let value = Scalar::read(raw).ok_or(BodyError::WrongType(member))?;
            if member == Member::StreamOptions {
                self.options_end = Some(end);
            }
            self.set(member, value)?;
            self.value_ends();
        }
        Ok(())
    }

    fn set(&mut self, member: Member, value: Scalar) -> Result<(), BodyError> {
        match (member, value) {
            (_, Scalar::Null) => {}
            (Member::Stream, Scalar::Bool(stream)) => self.stream = Some(stream),
            (Member::IncludeUsage, Scalar::Bool(usage)) => self.include_usage = Some(usage),
            (member, Scalar::Count(count)) if self.counts.set(member, count) => {}
            _ => return Err(BodyError::WrongType(member)),
        }
        Ok(())
    }

    fn value_ends(&mut self) {
        self.member = None;
        self.kept.clear_for(MAX_NAME);
    }
}

/// The numbers in members that have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    best_of: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    max_tokens: Option<u64>,
    n: Option<u64>,
}

impl Counts {
    fn of(mut self, member: Member) -> Option<u64> {
        *self.place(member)?
    }

    /// False where the member is no number.
    fn set(&mut self, member: Member, count: u64) -> bool {
        self.place(member)
            .map(|place| *place = Some(count))
            .is_some()
    }

    fn place(&mut self, member: Member) -> Option<&mut Option<u64>> {
        match member {
            Member::BestOf => Some(&mut self.best_of),
            Member::MaxCompletionTokens => Some(&mut self.max_completion_tokens),
            Member::MaxOutputTokens => Some(&mut self.max_output_tokens),
            Member::MaxTokens => Some(&mut self.max_tokens),
            Member::N => Some(&mut self.n),
            Member::IncludeUsage | Member::Model | Member::Stream | Member::StreamOptions => None,
        }
    }
}

/// No bracket is open: before the object, or after it.
fn end_of_body(depth: u8) -> bool {
    depth == 0
}

pub(super) fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A list in a body, by the name of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// `prompt`, for which each of the texts gets answers of its own (completions).
    Prompts,
    /// `input` (embeddings, responses)
    Inputs,
    /// `data_sources`
    DataSources,
    Other,
}

impl List {
    /// In any case, as a reader may take it.
    fn of(name: &str) -> Self {
        if name.eq_ignore_ascii_case("prompt") {
            Self::Prompts
        } else if name.eq_ignore_ascii_case("input") {
            Self::Inputs
        } else if name.eq_ignore_ascii_case("data_sources") {
            Self::DataSources
        } else {
            Self::Other
        }
    }
}

/// A value without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Null,
    Bool(bool),
    Count(u64),
}

impl Scalar {
    /// From JSON text; `None` for what is none of these, such as -1 or 1.5.
    fn read(raw: &[u8]) -> Option<Self> {
        match raw {
            b"null" => return Some(Self::Null),
            b"true" => return Some(Self::Bool(true)),
            b"false" => return Some(Self::Bool(false)),
            _ => {}
        }
        let number = serde_json::from_slice(raw).ok()?;
        json::whole(&number).map(Self::Count)
    }
}

/// Checks that text is UTF-8, cut anywhere.
#[derive(Clone, Debug, Default)]
struct Utf8 {
    /// The start of a character that the last piece cut off.
    open: Vec<u8>,
}

impl Utf8 {
    /// False once it is not.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let mut input = Cursor::new(bytes);
        while !self.open.is_empty() {
            let Some(next) = input.next() else {
                return true;
            };
            self.open.push(next);
            match std::str::from_utf8(&self.open) {
                Ok(_) => self.open.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(input.rest()) {
            Ok(_) => true,
            Err(error) => {
                input.take(error.valid_up_to());
                let cut_off = error.error_len().is_none();
                if cut_off {
                    self.open.extend_from_slice(input.rest());
                }
                cut_off
            }
        }
    }
}

#[cfg(test)]
mod tests;
