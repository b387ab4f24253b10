//! The grammar of JSON (RFC 8259), to the letter, for text that is pushed in pieces.

use super::bytes::{Cursor, quote_escape_or_control};

/// Deepest nesting accepted. Parsers stop at 64 (.NET) or a few hundred; tool schemas nest about
/// twenty deep. One bit each.
pub(super) const MAX_DEPTH: u8 = 128;

/// A piece of JSON text. Strings and scalars come in parts as they come in: raw, without the
/// quotes, the last part possibly empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An object opens.
    Object,
    /// An array opens.
    Array,
    /// The innermost of them closes.
    End,
    Name {
        part: &'a [u8],
        last: bool,
    },
    Text {
        part: &'a [u8],
        last: bool,
    },
    /// A number, `true`, `false` or `null`.
    Scalar {
        part: &'a [u8],
        last: bool,
    },
}

/// Why text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotJson,
    TooDeep,
}

/// Takes JSON text apart, and accepts nothing else.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    state: State,
    depth: u8,
    /// One bit for each open bracket, the innermost lowest: whether it is an object.
    objects: u128,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Value,
    /// After `[`.
    ValueOrEnd,
    Name,
    /// After `{`.
    NameOrEnd,
    Colon,
    /// After a value.
    After,
    String {
        name: bool,
        escape: Escape,
    },
    Number(Number),
    /// What has to follow of `true`, `false` or `null`.
    Literal(&'static [u8]),
}

#[derive(Clone, Copy, Debug)]
enum Escape {
    No,
    Begun,
    /// Hexadecimal digits to come.
    Digits(u8),
}

/// The last thing seen of a number.
#[derive(Clone, Copy, Debug)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Grammar {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: 0,
        }
    }

    /// Arrays and objects that are open.
    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    /// Whether the outermost value is closed. Only white space may follow.
    pub(super) fn is_complete(&self) -> bool {
        self.depth == 0 && matches!(self.state, State::After)
    }

    /// The next token; `None` at the end of the input.
    pub(super) fn next<'a>(&mut self, input: &mut Cursor<'a>) -> Result<Option<Token<'a>>, Fault> {
        loop {
            match self.state {
                State::String { name, escape } => {
                    return if input.is_empty() {
                        Ok(None)
                    } else {
                        self.string(name, escape, input).map(Some)
                    };
                }
                State::Number(number) => {
                    return if input.is_empty() {
                        Ok(None)
                    } else {
                        self.number(number, input).map(Some)
                    };
                }
                State::Literal(rest) => {
                    return match input.peek() {
                        None => Ok(None),
                        Some(next) => self.literal(rest, next, input).map(Some),
                    };
                }
                _ => {}
            }
            input.skip_whitespace();
            let Some(next) = input.peek() else {
                return Ok(None);
            };
            if let Some(token) = self.structure(next, input)? {
                return Ok(Some(token));
            }
        }
    }

    /// Between strings and scalars.
    fn structure<'a>(
        &mut self,
        next: u8,
        input: &mut Cursor<'a>,
    ) -> Result<Option<Token<'a>>, Fault> {
        let token = match (self.state, next) {
            (State::ValueOrEnd, b']') | (State::NameOrEnd, b'}') => Some(self.close()?),
            (State::Value | State::ValueOrEnd, _) => {
                self.state = match next {
                    b'"' => string(false),
                    b'{' | b'[' => {
                        input.next();
                        return self.open(next == b'{').map(Some);
                    }
                    // These take the byte themselves: it is part of the scalar.
                    b't' => return Ok(self.begin(State::Literal(b"true"))),
                    b'f' => return Ok(self.begin(State::Literal(b"false"))),
                    b'n' => return Ok(self.begin(State::Literal(b"null"))),
                    b'-' | b'0'..=b'9' => {
                        let first = input.take(1);
                        self.state = State::Number(Number::first(next));
                        return Ok(Some(Token::Scalar {
                            part: first,
                            last: false,
                        }));
                    }
                    _ => return Err(Fault::NotJson),
                };
                None
            }
            (State::Name | State::NameOrEnd, b'"') => {
                self.state = string(true);
                None
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                None
            }
            (State::After, b',') if self.depth > 0 => {
                self.state = if self.in_object() {
                    State::Name
                } else {
                    State::Value
                };
                None
            }
            (State::After, b'}') if self.depth > 0 && self.in_object() => Some(self.close()?),
            (State::After, b']') if self.depth > 0 && !self.in_object() => Some(self.close()?),
            _ => return Err(Fault::NotJson),
        };
        input.next();
        Ok(token)
    }

    fn begin(&mut self, state: State) -> Option<Token<'static>> {
        self.state = state;
        None
    }

    /// Whether the innermost bracket is an object's.
    pub(super) fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn open(&mut self, object: bool) -> Result<Token<'static>, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.depth = self.depth.saturating_add(1);
        self.objects = self.objects << 1 | u128::from(object);
        Ok(if object {
            self.state = State::NameOrEnd;
            Token::Object
        } else {
            self.state = State::ValueOrEnd;
            Token::Array
        })
    }

    fn close(&mut self) -> Result<Token<'static>, Fault> {
        self.depth = self.depth.checked_sub(1).ok_or(Fault::NotJson)?;
        self.objects >>= 1;
        self.state = State::After;
        Ok(Token::End)
    }

    fn string<'a>(
        &mut self,
        name: bool,
        mut escape: Escape,
        input: &mut Cursor<'a>,
    ) -> Result<Token<'a>, Fault> {
        let before = input.clone();
        let mut closed = false;
        while !closed {
            if let Escape::No = escape {
                input.take_until(quote_escape_or_control);
            }
            let Some(next) = input.next() else { break };
            escape = match (escape, next) {
                (Escape::No, b'"') => {
                    closed = true;
                    Escape::No
                }
                (Escape::No, b'\\') => Escape::Begun,
                (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
                | (Escape::Digits(1), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => Escape::No,
                (Escape::Begun, b'u') => Escape::Digits(4),
                (Escape::Digits(more), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    Escape::Digits(more.saturating_sub(1))
                }
                _ => return Err(Fault::NotJson),
            };
        }
        let part = before.up_to(input, usize::from(closed));
        self.state = match (closed, name) {
            (false, _) => State::String { name, escape },
            (true, true) => State::Colon,
            (true, false) => State::After,
        };
        let last = closed;
        Ok(if name {
            Token::Name { part, last }
        } else {
            Token::Text { part, last }
        })
    }

    fn number<'a>(
        &mut self,
        mut number: Number,
        input: &mut Cursor<'a>,
    ) -> Result<Token<'a>, Fault> {
        let before = input.clone();
        while let Some(next) = input.peek() {
            let Some(then) = number.then(next) else { break };
            number = then;
            input.next();
        }
        let part = before.up_to(input, 0);
        let last = !input.is_empty();
        self.state = match last {
            false => State::Number(number),
            true if number.may_end() => State::After,
            true => return Err(Fault::NotJson),
        };
        Ok(Token::Scalar { part, last })
    }

    fn literal<'a>(
        &mut self,
        rest: &'static [u8],
        next: u8,
        input: &mut Cursor<'a>,
    ) -> Result<Token<'a>, Fault> {
        match rest.split_first() {
            Some((expected, rest)) if *expected == next => {
                self.state = if rest.is_empty() {
                    State::After
                } else {
                    State::Literal(rest)
                };
                Ok(Token::Scalar {
                    part: input.take(1),
                    last: rest.is_empty(),
                })
            }
            _ => Err(Fault::NotJson),
        }
    }
}

fn string(name: bool) -> State {
    State::String {
        name,
        escape: Escape::No,
    }
}

impl Number {
    fn first(byte: u8) -> Self {
        match byte {
            b'-' => Self::Minus,
            b'0' => Self::Zero,
            _ => Self::Integer,
        }
    }

    /// The number with one more byte; `None` if that is no part of it.
    fn then(self, next: u8) -> Option<Self> {
        Some(match (self, next) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::Exponent
        )
    }
}
