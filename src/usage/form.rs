//! `model` in a form (`multipart/form-data`, RFC 7578), read as the form streams by.
//!
//! Parts pass; only what may become the closing delimiter waits ([`FormReader::held`]), because no backend acts
//! on a form without its end. Readers of forms differ in what they take for a delimiter, a header or a name, so
//! a form that leaves them a choice is refused: line breaks other than CRLF, text that looks like a delimiter
//! and is none, parameters in other spellings, transfer encodings, parts in parts.

use std::fmt;

use super::bytes::{Cursor, hyphen, is_white_space};
use super::request::{BodyError, MAX_MODEL, Member, count};
use super::text::Kept;
use crate::request::reads_as;

/// Longest boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Most bytes of one part's headers. A file's name has up to 255 characters, and may be there twice.
const MAX_HEADERS: usize = 4_096;

/// Longest name of a field.
const MAX_FIELD: usize = 128;

const LINE_BREAK: &[u8] = b"\r\n";

/// What leaves readers of a form a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// `content-type` does not name one boundary, or in a way that readers take apart differently.
    Boundary,
    /// The boundary is somewhere else than in a delimiter that RFC 2046 has.
    Delimiter,
    /// A part's headers are not those of a form, or too long.
    Headers,
    /// A part has parts.
    Nested,
    /// A part is encoded for a transfer that HTTP does not need.
    TransferEncoding,
    /// A part is not as long as its headers say.
    Length,
    /// Something follows the closing delimiter.
    AfterEnd,
}

impl fmt::Display for FormError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Boundary => "content-type does not name the form's boundary in one way",
            Self::Delimiter => "the form's boundary is in a place that is no delimiter",
            Self::Headers => "a part of the form has other headers than a form's",
            Self::Nested => "a part of the form has parts",
            Self::TransferEncoding => "a part of the form has a transfer encoding",
            Self::Length => "a part of the form is not as long as its headers say",
            Self::AfterEnd => "something follows the end of the form",
        })
    }
}

/// Reads one form as it passes, cut anywhere.
#[derive(Clone, Debug)]
pub struct FormReader {
    /// Two hyphens and the boundary.
    delimiter: Vec<u8>,
    /// For each length that was matched: how much of it still matches without its first byte (Knuth, Morris
    /// and Pratt).
    shorter: Vec<usize>,
    state: State,
    refused: Option<BodyError>,
    seen_model: bool,
    model: Option<String>,
    /// The part that is being read.
    part: Part,
    /// Its headers, or where it is `model` its value.
    kept: Kept,
    /// Bytes of its content so far, what has matched the delimiter included.
    size: u64,
}

/// Where the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In what precedes the first delimiter, or in a part's content.
    Text(Scan),
    /// Behind a delimiter, of whose line this byte was read.
    Delimited(Option<u8>),
    /// In a part's headers.
    Headers,
    /// Behind the closing delimiter.
    Closed,
}

/// The search for a delimiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scan {
    /// How much of it was found.
    matched: usize,
    /// What was found began a line.
    at_line: bool,
    /// How much of a line break is just before.
    line: Line,
}

/// How much of a line break was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Something else.
    Within,
    /// CR.
    Ending,
    /// All of it, or nothing was read yet.
    Begun,
}

/// What headers say of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    is_model: bool,
    /// `content-length`, which some clients send.
    length: Option<u64>,
}

impl Scan {
    const START: Self = Self {
        matched: 0,
        at_line: false,
        line: Line::Begun,
    };

    /// Where content begins: the break before it belongs to the headers.
    const CONTENT: Self = Self {
        matched: 0,
        at_line: false,
        line: Line::Within,
    };
}

impl FormReader {
    /// A reader for a form with this `content-type`; `None` where that is of another type.
    #[must_use]
    pub fn new(content_type: &[u8]) -> Option<Self> {
        let (essence, parameters) = split_at(content_type, b';');
        if !essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"multipart/form-data")
        {
            return None;
        }
        let boundary = boundary(parameters);
        let delimiter = [b"--", boundary.unwrap_or_default()].concat();
        Some(Self {
            shorter: shorter(&delimiter),
            delimiter,
            state: State::Text(Scan::START),
            refused: boundary
                .is_none()
                .then_some(BodyError::Form(FormError::Boundary)),
            seen_model: false,
            model: None,
            part: Part::default(),
            kept: Kept::up_to(MAX_HEADERS),
            size: 0,
        })
    }

    /// Reads on. Once refused, nothing more is read.
    ///
    /// # Errors
    /// The form is refused; it must not reach the backend whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let read = self.read(bytes);
        self.refused = read.err();
        read
    }

    /// The end of the body.
    ///
    /// # Errors
    /// The form is refused.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        if self.refused.is_none() && !self.is_closed() {
            self.refused = Some(BodyError::Truncated);
        }
        self.refused.map_or(Ok(()), Err)
    }

    /// The value of `model`, once its part was read.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether the closing delimiter was read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How many of the last bytes may belong to the closing delimiter.
    #[must_use]
    pub fn held(&self) -> usize {
        match self.state {
            _ if self.refused.is_some() => 0,
            State::Text(scan) if scan.at_line => scan.matched,
            State::Delimited(byte) => self
                .delimiter
                .len()
                .saturating_add(usize::from(byte.is_some())),
            State::Text(_) | State::Headers | State::Closed => 0,
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        let mut input = Cursor::new(bytes);
        while !input.is_empty() {
            match self.state {
                State::Text(scan) => self.text(scan, &mut input)?,
                State::Delimited(before) => self.delimited(before, &mut input)?,
                State::Headers => self.headers(&mut input)?,
                State::Closed => {
                    let rest = input.take(usize::MAX);
                    if !rest.iter().all(|byte| is_white_space(*byte)) {
                        return Err(FormError::AfterEnd.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Content up to the next byte that could begin a delimiter, or one byte of what could be one.
    fn text(&mut self, scan: Scan, input: &mut Cursor<'_>) -> Result<(), BodyError> {
        let bytes = match scan.matched {
            0 => match input.take_until(hyphen) {
                [] => input.take(1),
                plain => plain,
            },
            _ => input.take(1),
        };
        self.size = self.size.saturating_add(count(bytes.len()));
        if self.part.is_model {
            self.kept.push(bytes);
            self.kept.whole().ok_or(BodyError::TooLong(Member::Model))?;
        }
        let scan = self.scan(scan, bytes);
        if scan.matched < self.delimiter.len() {
            self.state = State::Text(scan);
            return Ok(());
        }
        if !scan.at_line {
            return Err(FormError::Delimiter.into());
        }
        self.state = State::Delimited(None);
        self.part_ends()
    }

    /// Searches on in `bytes`: one, or some of which none can begin a delimiter.
    fn scan(&self, scan: Scan, bytes: &[u8]) -> Scan {
        let [byte] = bytes else {
            return Scan {
                line: bytes.iter().fold(scan.line, |line, byte| line.then(*byte)),
                ..Scan::CONTENT
            };
        };
        let line = scan.line.then(*byte);
        let mut matched = scan.matched;
        let mut at_line = if matched == 0 {
            scan.line == Line::Begun
        } else {
            scan.at_line
        };
        while self.delimiter.get(matched) != Some(byte) {
            let Some(last) = matched.checked_sub(1) else {
                return Scan {
                    line,
                    ..Scan::CONTENT
                };
            };
            // What is before it now belongs to a delimiter, and is no line break.
            matched = self.shorter.get(last).copied().unwrap_or_default();
            at_line = false;
        }
        Scan {
            matched: matched.saturating_add(1),
            at_line,
            line,
        }
    }

    /// A delimiter was found, which ends the part before it, if there is one.
    fn part_ends(&mut self) -> Result<(), BodyError> {
        let ending = self.delimiter.len().saturating_add(LINE_BREAK.len());
        let part = std::mem::take(&mut self.part);
        if let Some(length) = part.length
            && self.size.checked_sub(count(ending)) != Some(length)
        {
            return Err(FormError::Length.into());
        }
        if part.is_model {
            let value = self.kept.whole().unwrap_or_default();
            let length = value.len().saturating_sub(ending);
            let value = value.get(..length).unwrap_or_default();
            let model = str::from_utf8(value).map_err(|_| BodyError::WrongType(Member::Model))?;
            self.model = Some(model.to_owned());
        }
        Ok(())
    }

    /// The two bytes that say whether a part follows a delimiter, or nothing.
    fn delimited(&mut self, before: Option<u8>, input: &mut Cursor<'_>) -> Result<(), BodyError> {
        let byte = input.next();
        self.state = match (before, byte) {
            (None, Some(b'\r' | b'-')) => State::Delimited(byte),
            (Some(b'\r'), Some(b'\n')) => {
                self.kept.clear_for(MAX_HEADERS);
                State::Headers
            }
            (Some(b'-'), Some(b'-')) => State::Closed,
            _ => return Err(FormError::Delimiter.into()),
        };
        Ok(())
    }

    fn headers(&mut self, input: &mut Cursor<'_>) -> Result<(), BodyError> {
        // Byte by byte: they are few, and end with a line feed.
        self.kept.push(input.take(1));
        let block = self.kept.whole().ok_or(FormError::Headers)?;
        if !block.ends_with(b"\n") {
            return Ok(());
        }
        let Some(block) = block.strip_suffix(b"\r\n\r\n") else {
            // A part without headers is none of a form's.
            return match block {
                b"\r\n" => Err(FormError::Headers.into()),
                _ => Ok(()),
            };
        };
        if find(block, &self.delimiter).is_some() {
            return Err(FormError::Delimiter.into());
        }
        let part = part(block)?;
        if part.is_model && std::mem::replace(&mut self.seen_model, true) {
            return Err(BodyError::Repeated(Member::Model));
        }
        self.part = part;
        self.size = 0;
        let ending = self.delimiter.len().saturating_add(LINE_BREAK.len());
        self.kept.clear_for(MAX_MODEL.saturating_add(ending));
        self.state = State::Text(Scan::CONTENT);
        Ok(())
    }
}

impl Line {
    fn then(self, byte: u8) -> Self {
        match (self, byte) {
            (_, b'\r') => Self::Ending,
            (Self::Ending, b'\n') => Self::Begun,
            _ => Self::Within,
        }
    }
}

impl From<FormError> for BodyError {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

/// The table for a search that never goes back.
fn shorter(pattern: &[u8]) -> Vec<usize> {
    let mut table: Vec<usize> = Vec::with_capacity(pattern.len());
    let mut matched = 0_usize;
    for byte in pattern {
        if table.is_empty() {
            table.push(0);
            continue;
        }
        while matched > 0 && pattern.get(matched) != Some(byte) {
            matched = table
                .get(matched.saturating_sub(1))
                .copied()
                .unwrap_or_default();
        }
        if pattern.get(matched) == Some(byte) {
            matched = matched.saturating_add(1);
        }
        table.push(matched);
    }
    table
}

/// The boundary that the parameters of a `content-type` name, if every reader finds the same. Beside it there may
/// be a `charset`, of the names of fields; clients that send one send UTF-8.
fn boundary(parameters: &[u8]) -> Option<&[u8]> {
    let (mut boundary, mut charset) = (None, None);
    for parameter in Parameters(parameters) {
        let Parameter {
            name,
            value,
            is_quoted,
        } = parameter?;
        let known = if name.eq_ignore_ascii_case(b"boundary") {
            let is_good = (1..=MAX_BOUNDARY).contains(&value.len())
                && value.iter().all(|byte| is_of_boundary(*byte, is_quoted));
            is_good.then_some(&mut boundary)
        } else {
            let is_good = name.eq_ignore_ascii_case(b"charset") && is_utf8(value);
            is_good.then_some(&mut charset)
        };
        let known = known?;
        if known.replace(value).is_some() {
            return None;
        }
    }
    boundary
}

/// RFC 2046 section 5.1.1, but for spaces, at which readers cut; and outside of quotes what is of no token (RFC
/// 2045 section 5.1).
fn is_of_boundary(byte: u8, is_quoted: bool) -> bool {
    byte.is_ascii_alphanumeric()
        || b"'+_-.".contains(&byte)
        || (is_quoted && b"(),/:=?".contains(&byte))
}

fn is_utf8(charset: &[u8]) -> bool {
    [&b"utf-8"[..], b"utf8"]
        .iter()
        .any(|name| charset.eq_ignore_ascii_case(name))
}

/// Reads a part's headers, without the empty line that ends them.
fn part(block: &[u8]) -> Result<Part, BodyError> {
    let mut part = Part::default();
    let (mut disposition, mut media_type, mut encoding) = (None, None, None);
    for line in Lines(Some(block)) {
        let (name, value) = header(line).ok_or(FormError::Headers)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let before = if is("content-disposition") {
            disposition.replace(value).is_some()
        } else if is("content-type") {
            media_type.replace(value).is_some()
        } else if is("content-transfer-encoding") {
            encoding.replace(value).is_some()
        } else if is("content-length") {
            let length = length(value).ok_or(FormError::Length)?;
            part.length.replace(length).is_some()
        } else {
            is("content-encoding")
        };
        if before {
            return Err(FormError::Headers.into());
        }
    }
    // Those that change nothing (RFC 2045 section 6.2).
    let is_plain = |encoding: &[u8]| {
        let plain = [&b"7bit"[..], b"8bit", b"binary"];
        plain
            .iter()
            .any(|known| encoding.eq_ignore_ascii_case(known))
    };
    if !encoding.is_none_or(is_plain) {
        return Err(FormError::TransferEncoding.into());
    }
    if media_type.is_some_and(|value| starts_with(value, b"multipart/")) {
        return Err(FormError::Nested.into());
    }
    let field = field(disposition.ok_or(FormError::Headers)?)?;
    if field.is_model && (field.is_file || !media_type.is_none_or(is_text)) {
        return Err(BodyError::File(Member::Model));
    }
    part.is_model = field.is_model;
    Ok(part)
}

/// Lines that end with CRLF.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let end = find(rest, LINE_BREAK);
        let (line, after) = rest
            .split_at_checked(end.unwrap_or(rest.len()))
            .unwrap_or((rest, &[]));
        self.0 = after.strip_prefix(LINE_BREAK);
        Some(line)
    }
}

/// Name and value of a header line. White space before the name would fold it to the line before, and some readers
/// end lines at a bare CR or LF.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(end)?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let is_value = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    let is_good = !name.is_empty() && name.iter().all(is_name) && value.iter().all(is_value);
    is_good.then_some((name, value.strip_prefix(b":")?.trim_ascii()))
}

fn length(value: &[u8]) -> Option<u64> {
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value)
        .ok()
        .filter(|_| is_plain)?
        .parse()
        .ok()
}

/// A field of the form, as `content-disposition` names it (RFC 7578 section 4.2).
struct Field {
    is_model: bool,
    is_file: bool,
}

fn field(disposition: &[u8]) -> Result<Field, BodyError> {
    let (kind, parameters) = split_at(disposition, b';');
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(FormError::Headers.into());
    }
    let (mut name, mut file, mut extended) = (None, None, None);
    for parameter in Parameters(parameters) {
        let parameter = parameter.ok_or(FormError::Headers)?;
        let is = |known: &str| parameter.name.eq_ignore_ascii_case(known.as_bytes());
        if is("name*") {
            return Err(BodyError::OtherCase(Member::Model));
        }
        let known = if is("name") {
            &mut name
        } else if is("filename") {
            &mut file
        } else if is("filename*") {
            &mut extended
        } else {
            return Err(FormError::Headers.into());
        };
        if known.replace(parameter.value).is_some() {
            return Err(FormError::Headers.into());
        }
    }
    if file.is_some_and(holds_name) {
        return Err(FormError::Headers.into());
    }
    Ok(Field {
        is_model: is_model(name.ok_or(FormError::Headers)?)?,
        is_file: file.is_some() || extended.is_some(),
    })
}

/// Whether a field is `model`: to the letter, or to no reader.
fn is_model(name: &[u8]) -> Result<bool, BodyError> {
    const MODEL: &str = "model";
    if name == MODEL.as_bytes() {
        return Ok(true);
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(byte);
    if reads_as(name, MODEL) || (!name.iter().all(is_plain) && mentions(name, MODEL)) {
        return Err(BodyError::OtherCase(Member::Model));
    }
    if name == b"_charset_" {
        // The character set of the other fields (RFC 7578 section 4.6).
        return Err(BodyError::Encoding);
    }
    if !(1..=MAX_FIELD).contains(&name.len()) || !name.iter().all(is_plain) {
        return Err(FormError::Headers.into());
    }
    Ok(false)
}

/// Whether a word is in a text, some of its letters escaped by backslashes, in any case.
fn mentions(text: &[u8], word: &str) -> bool {
    let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\\').collect();
    find(&plain, word.as_bytes()).is_some()
}

/// Whether a file's name has something in it that careless readers take for the parameter `name`.
fn holds_name(file: &[u8]) -> bool {
    const NAME: &[u8] = b"name";
    let mut rest = file;
    while let Some(at) = find(rest, NAME) {
        rest = rest
            .get(at.saturating_add(NAME.len())..)
            .unwrap_or_default();
        let next = rest.iter().find(|byte| !b"* \t".contains(byte));
        if next == Some(&b'=') {
            return true;
        }
    }
    false
}

/// Where a word is in a text first, in any case.
fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    let mut places = text.windows(word.len().max(1));
    places.position(|place| place.eq_ignore_ascii_case(word))
}

/// Whether a field of this type is text in UTF-8. Readers take others for files.
fn is_text(media_type: &[u8]) -> bool {
    let (essence, parameters) = split_at(media_type, b';');
    essence.trim_ascii().eq_ignore_ascii_case(b"text/plain")
        && Parameters(parameters).all(|parameter| {
            parameter.is_some_and(|parameter| {
                parameter.name.eq_ignore_ascii_case(b"charset") && is_utf8(parameter.value)
            })
        })
}

fn starts_with(value: &[u8], prefix: &[u8]) -> bool {
    let start = value.get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What is before the first of these bytes, and the rest from it on.
fn split_at(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == at);
    text.split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or((text, &[]))
}

/// Parameters, each behind a semicolon; `None` for one that readers take apart differently.
struct Parameters<'a>(&'a [u8]);

/// `name=value` or `name="value"`.
struct Parameter<'a> {
    name: &'a [u8],
    value: &'a [u8],
    is_quoted: bool,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<Parameter<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_ascii();
        if rest.is_empty() {
            return None;
        }
        let read = parameter(rest);
        self.0 = read.as_ref().map_or(&[][..], |(_, rest)| *rest);
        Some(read.map(|(parameter, _)| parameter))
    }
}

fn parameter(text: &[u8]) -> Option<(Parameter<'_>, &[u8])> {
    let rest = text.strip_prefix(b";")?.trim_ascii_start();
    let (name, rest) = split_at(rest, b'=');
    let rest = rest.strip_prefix(b"=")?;
    let (value, rest, is_quoted) = match rest.strip_prefix(b"\"") {
        Some(rest) => {
            let (value, rest) = split_at(rest, b'"');
            (value, rest.strip_prefix(b"\"")?, true)
        }
        None => {
            let end = rest.iter().position(|byte| !is_of_token(*byte));
            let (value, rest) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
            (value, rest, false)
        }
    };
    // A backslash there escapes the quote, or is a letter of its own, as readers like.
    let is_good = !name.is_empty()
        && name.iter().all(|byte| is_of_token(*byte))
        && (is_quoted || !value.is_empty())
        && !value.ends_with(b"\\");
    let parameter = Parameter {
        name,
        value,
        is_quoted,
    };
    is_good.then_some((parameter, rest))
}

/// RFC 9110 section 5.6.2.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
