//! Policy expressions: as much of C# as policies use to look at tokens and answers.

use std::collections::HashMap;

/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 64;

/// Most words of an expression.
const MAX_TOKENS: usize = 4_000;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Text(String),
    Number(i64),
    Truth(bool),
    Name(String),
    Member(Box<Self>, String),
    Call(Box<Self>, Vec<Self>),
    Index(Box<Self>, Vec<Self>),
    Not(Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    /// `new[] { ... }`
    List(Vec<Self>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    Number(i64),
    Name(String),
    Sign(&'static str),
}

/// Longest first.
const SIGNS: [&str; 27] = [
    "==", "!=", "&&", "||", "??", ">=", "<=", "=>", "?.", "(", ")", "[", "]", "{", "}", ".", ",",
    "!", "<", ">", "=", ";", "?", ":", "+", "-", "*",
];

/// Binary operators, from the loosest.
const LEVELS: [&[&str]; 6] = [
    &["??"],
    &["||"],
    &["&&"],
    &["==", "!="],
    &[">=", "<=", "<", ">"],
    &["+"],
];

/// Reads `@(...)` or `@{ ... return ...; }`; `None` for what has no place here.
pub(super) fn read(text: &str) -> Option<Expression> {
    let text = text.trim();
    if let Some(inner) = text
        .strip_prefix("@(")
        .and_then(|text| text.strip_suffix(')'))
    {
        let mut reader = Reader::new(inner)?;
        let expression = reader.expression(0)?;
        return reader.is_at_end().then_some(expression);
    }
    let inner = text.strip_prefix("@{")?.strip_suffix('}')?;
    Reader::new(inner)?.block()
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = if rest.starts_with("//") {
            rest = rest.split_once('\n')?.1.trim_start();
            continue;
        } else if let Some(inner) = rest.strip_prefix("@\"") {
            verbatim(inner)?
        } else if first == '"' || first == '\'' {
            string(rest.get(1..)?, first)?
        } else if first.is_ascii_digit() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (digits, after) = rest.split_at_checked(end)?;
            (Token::Number(digits.parse().ok()?), after)
        } else if first.is_alphabetic() || first == '_' {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(end)?;
            (Token::Name(name.to_owned()), after)
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign))?;
            (Token::Sign(sign), rest.get(sign.len()..)?)
        };
        found.push(token);
        if found.len() > MAX_TOKENS {
            return None;
        }
        rest = after.trim_start();
    }
    Some(found)
}

fn string(text: &str, quote: char) -> Option<(Token, &str)> {
    let mut plain = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next()?.1 {
                'n' => plain.push('\n'),
                't' => plain.push('\t'),
                other => plain.push(other),
            },
            end if end == quote => {
                return Some((Token::Text(plain), text.get(at.saturating_add(1)..)?));
            }
            other => plain.push(other),
        }
    }
    None
}

fn verbatim(text: &str) -> Option<(Token, &str)> {
    let end = text.find('"')?;
    // Doubled quotes are rare, and nothing here needs them.
    let (plain, after) = (text.get(..end)?, text.get(end.saturating_add(1)..)?);
    (!after.starts_with('"')).then(|| (Token::Text(plain.to_owned()), after))
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    /// Variables of a block.
    locals: HashMap<String, Expression>,
}

impl Reader {
    fn new(text: &str) -> Option<Self> {
        Some(Self {
            tokens: tokens(text)?,
            at: 0,
            locals: HashMap::new(),
        })
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at.saturating_add(ahead))
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at = self.at.saturating_add(1);
        token
    }

    fn sign(&self, ahead: usize, wanted: &str) -> bool {
        matches!(self.peek(ahead), Some(Token::Sign(sign)) if *sign == wanted)
    }

    fn skip(&mut self, wanted: &str) -> bool {
        let found = self.sign(0, wanted);
        if found {
            self.at = self.at.saturating_add(1);
        }
        found
    }

    fn name(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead) {
            Some(Token::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// `var a = ...; string b = ...; return ...;`
    fn block(&mut self) -> Option<Expression> {
        loop {
            if self.name(0) == Some("return") {
                self.at = self.at.saturating_add(1);
                let value = self.expression(0)?;
                return (self.skip(";") && self.is_at_end()).then_some(value);
            }
            self.name(0)?;
            let name = self.name(1)?.to_owned();
            self.at = self.at.saturating_add(2);
            if !self.skip("=") {
                return None;
            }
            let value = self.expression(0)?;
            if !self.skip(";") {
                return None;
            }
            self.locals.insert(name, value);
        }
    }

    fn expression(&mut self, depth: usize) -> Option<Expression> {
        self.level(0, depth.saturating_add(1))
    }

    fn level(&mut self, level: usize, depth: usize) -> Option<Expression> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary(depth);
        };
        let mut left = self.level(level.saturating_add(1), depth)?;
        while let Some(operator) = operators.iter().find(|operator| self.sign(0, operator)) {
            self.at = self.at.saturating_add(1);
            let right = self.level(level.saturating_add(1), depth)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        Some(left)
    }

    fn unary(&mut self, depth: usize) -> Option<Expression> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.skip("!") {
            let inner = self.unary(depth.saturating_add(1))?;
            return Some(Expression::Not(Box::new(inner)));
        }
        if let Some(length) = self.cast() {
            self.at = self.at.saturating_add(length);
            // A cast changes nothing that is looked at here.
            return self.unary(depth.saturating_add(1));
        }
        let mut value = self.primary(depth)?;
        loop {
            value = if self.skip(".") || self.skip("?.") {
                let Some(Token::Name(name)) = self.take() else {
                    return None;
                };
                Expression::Member(Box::new(value), name)
            } else if self.sign(0, "[") || (self.sign(0, "?") && self.sign(1, "[")) {
                self.skip("?");
                self.skip("[");
                Expression::Index(Box::new(value), self.arguments("]", depth)?)
            } else if self.skip("(") {
                Expression::Call(Box::new(value), self.arguments(")", depth)?)
            } else if let Some(length) = self.type_arguments() {
                self.at = self.at.saturating_add(length);
                value
            } else {
                return Some(value);
            };
        }
    }

    /// The length of a cast such as `(string)` or `(Jwt)`, before something to cast.
    fn cast(&self) -> Option<usize> {
        if !self.sign(0, "(") {
            return None;
        }
        let mut length = 2;
        self.name(1)?;
        while self.sign(length, ".") {
            self.name(length.saturating_add(1))?;
            length = length.saturating_add(2);
        }
        if self.sign(length, "?") {
            length = length.saturating_add(1);
        }
        if !self.sign(length, ")") {
            return None;
        }
        length = length.saturating_add(1);
        let follows = match self.peek(length) {
            Some(Token::Name(_) | Token::Text(_) | Token::Number(_)) => true,
            _ => self.sign(length, "("),
        };
        follows.then_some(length)
    }

    /// The length of type arguments before a call: `<string>(`.
    fn type_arguments(&self) -> Option<usize> {
        if !self.sign(0, "<") {
            return None;
        }
        self.name(1)?;
        let mut length = 2;
        if self.sign(length, "?") {
            length = length.saturating_add(1);
        }
        let is_call = self.sign(length, ">") && self.sign(length.saturating_add(1), "(");
        is_call.then_some(length.saturating_add(1))
    }

    fn arguments(&mut self, end: &str, depth: usize) -> Option<Vec<Expression>> {
        let mut values = Vec::new();
        while !self.skip(end) {
            values.push(self.expression(depth.saturating_add(1))?);
            if !self.skip(",") && !self.sign(0, end) {
                return None;
            }
        }
        Some(values)
    }

    fn primary(&mut self, depth: usize) -> Option<Expression> {
        match self.take()? {
            Token::Text(text) => Some(Expression::Text(text)),
            Token::Number(number) => Some(Expression::Number(number)),
            Token::Name(name) if name == "new" => self.list(depth),
            Token::Name(name) if name == "true" => Some(Expression::Truth(true)),
            Token::Name(name) if name == "false" => Some(Expression::Truth(false)),
            Token::Name(name) => Some(match self.locals.get(&name) {
                Some(value) => value.clone(),
                None => Expression::Name(name),
            }),
            Token::Sign("(") => {
                let inner = self.expression(depth.saturating_add(1))?;
                self.skip(")").then_some(inner)
            }
            Token::Sign(_) => None,
        }
    }

    /// `new[] { ... }`, `new string[] { ... }`, `new List<string> { ... }`
    fn list(&mut self, depth: usize) -> Option<Expression> {
        while !self.sign(0, "{") {
            match self.take()? {
                Token::Name(_) | Token::Sign("[" | "]" | "<" | ">" | "(" | ")") => {}
                _ => return None,
            }
        }
        self.skip("{");
        Some(Expression::List(self.arguments("}", depth)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_expression_is_none() {
        for text in [
            "",
            "x",
            "@(",
            "@()",
            "@(a b)",
            "@(a.)",
            "@(a[)",
            "@(\"a)",
            "@{ return a }",
            "@{ if (a) { return b; } }",
            "@(a ? b : c)",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let deep = format!("@({}1{})", "(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(read(&deep), None);
        let not = format!("@({}1)", "!".repeat(5_000));
        assert_eq!(read(&not), None);
    }
}
