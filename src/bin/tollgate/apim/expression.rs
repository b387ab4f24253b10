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

/// What an expression stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// The application that calls.
    App,
    /// Another claim of the token.
    Claim(String),
    /// The token.
    Token,
    /// Its claims.
    Claims,
    /// A request header, by its lower-case name, or a piece of it.
    Header(String),
    /// A text of the policy's own.
    Text(String),
    /// The subscription or user of API Management.
    Subscriber,
    /// The caller's address.
    Address,
    /// Something else.
    Other,
}

/// What variables stand for.
pub(super) type Variables = HashMap<String, Meaning>;

/// What an expression stands for.
pub(super) fn meaning(expression: &Expression, variables: &Variables) -> Meaning {
    match expression {
        Expression::Text(text) => Meaning::Text(text.clone()),
        Expression::Index(of, arguments) => first_text(arguments)
            .map_or(Meaning::Other, |name| member(of, name, variables))
            .or_of_header(of, variables),
        Expression::Call(called, arguments) => match called.as_ref() {
            Expression::Member(of, method) => call(of, method, arguments, variables),
            _ => Meaning::Other,
        },
        Expression::Member(of, name) => property(of, name, expression, variables),
        Expression::Binary("??", left, _) => meaning(left, variables),
        _ => Meaning::Other,
    }
}

impl Meaning {
    /// An element of a split header is a piece of it.
    fn or_of_header(self, of: &Expression, variables: &Variables) -> Self {
        match (self, meaning(of, variables)) {
            (Self::Other, found @ (Self::Header(_) | Self::App | Self::Claim(_))) => found,
            (found, _) => found,
        }
    }
}

fn first_text(arguments: &[Expression]) -> Option<&str> {
    match arguments.first()? {
        Expression::Text(text) => Some(text),
        _ => None,
    }
}

/// What stands under a name in variables, headers or claims.
fn member(of: &Expression, name: &str, variables: &Variables) -> Meaning {
    match path(of).as_deref() {
        Some("context.Variables") => variables.get(name).cloned().unwrap_or(Meaning::Other),
        Some("context.Request.Headers") => Meaning::Header(name.to_ascii_lowercase()),
        _ if meaning(of, variables) == Meaning::Claims => match name {
            "appid" | "azp" => Meaning::App,
            other => Meaning::Claim(other.to_owned()),
        },
        _ => Meaning::Other,
    }
}

fn call(of: &Expression, method: &str, arguments: &[Expression], variables: &Variables) -> Meaning {
    match method {
        "GetValueOrDefault" => {
            first_text(arguments).map_or(Meaning::Other, |name| member(of, name, variables))
        }
        "AsJwt" => match meaning(of, variables) {
            Meaning::Header(name) if name == "authorization" => Meaning::Token,
            _ => Meaning::Other,
        },
        "First" | "FirstOrDefault" | "Last" | "LastOrDefault" | "Split" | "Substring" | "Skip"
        | "Replace" | "Trim" | "ToArray" | "ToLower" | "ToLowerInvariant" | "ToString"
        | "ToUpper" | "ToUpperInvariant" => meaning(of, variables),
        _ => Meaning::Other,
    }
}

fn property(of: &Expression, name: &str, whole: &Expression, variables: &Variables) -> Meaning {
    match path(whole).as_deref() {
        Some("string.Empty" | "String.Empty") => return Meaning::Text(String::new()),
        Some(
            "context.Subscription.Id"
            | "context.Subscription.Key"
            | "context.Subscription.Name"
            | "context.User.Id",
        ) => return Meaning::Subscriber,
        Some("context.Request.IpAddress") => return Meaning::Address,
        _ => {}
    }
    match (meaning(of, variables), name) {
        (Meaning::Token, "Claims") => Meaning::Claims,
        (Meaning::Token, "Subject") => Meaning::Claim("sub".to_owned()),
        (Meaning::Token, "Id") => Meaning::Claim("jti".to_owned()),
        _ => Meaning::Other,
    }
}

/// `context.Request.Headers` and the like.
fn path(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Name(name) => Some(name.clone()),
        Expression::Member(of, name) => Some(format!("{}.{name}", path(of)?)),
        _ => None,
    }
}

/// Which requests a condition is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// Those of these applications.
    Apps(Vec<String>),
    /// Those of all others.
    NotApps(Vec<String>),
    /// Those with this header.
    Header(String),
}

/// Reads a condition; `None` where it is about something else.
pub(super) fn condition(expression: &Expression, variables: &Variables) -> Option<Condition> {
    use Condition::{Apps, Header, NotApps};
    match expression {
        Expression::Not(inner) => match condition(inner, variables)? {
            Apps(apps) => Some(NotApps(apps)),
            NotApps(apps) => Some(Apps(apps)),
            Header(_) => None,
        },
        Expression::Binary("||", left, right) => {
            match (condition(left, variables)?, condition(right, variables)?) {
                (Apps(left), Apps(right)) => Some(Apps([left, right].concat())),
                _ => None,
            }
        }
        Expression::Binary("&&", left, right) => {
            match (condition(left, variables)?, condition(right, variables)?) {
                (NotApps(left), NotApps(right)) => Some(NotApps([left, right].concat())),
                _ => None,
            }
        }
        Expression::Binary("==", left, right) => equal(left, right, variables),
        Expression::Binary("!=", left, right) => match equal(left, right, variables) {
            Some(Apps(apps)) => Some(NotApps(apps)),
            Some(_) => None,
            None => is_not_empty(left, right, variables),
        },
        Expression::Call(called, arguments) => called_condition(called, arguments, variables),
        _ => None,
    }
}

fn equal(left: &Expression, right: &Expression, variables: &Variables) -> Option<Condition> {
    match (meaning(left, variables), meaning(right, variables)) {
        (Meaning::App, Meaning::Text(app)) | (Meaning::Text(app), Meaning::App) => {
            Some(Condition::Apps(vec![app]))
        }
        _ => match (left, right) {
            (inner, Expression::Truth(true)) | (Expression::Truth(true), inner) => {
                condition(inner, variables)
            }
            _ => None,
        },
    }
}

fn is_not_empty(left: &Expression, right: &Expression, variables: &Variables) -> Option<Condition> {
    let is_nothing = match right {
        Expression::Name(name) => name == "null",
        other => meaning(other, variables) == Meaning::Text(String::new()),
    };
    match meaning(left, variables) {
        Meaning::Header(name) if is_nothing => Some(Condition::Header(name)),
        _ => None,
    }
}

fn called_condition(
    called: &Expression,
    arguments: &[Expression],
    variables: &Variables,
) -> Option<Condition> {
    let Expression::Member(of, method) = called else {
        return None;
    };
    match (method.as_str(), of.as_ref(), arguments) {
        ("Equals", Expression::Name(_), [left, right, ..]) => equal(left, right, variables),
        ("Equals", left, [right, ..]) => equal(left, right, variables),
        ("ContainsKey", headers, [Expression::Text(name)])
            if path(headers).as_deref() == Some("context.Request.Headers") =>
        {
            Some(Condition::Header(name.to_ascii_lowercase()))
        }
        ("Contains", Expression::List(values), [app])
            if meaning(app, variables) == Meaning::App =>
        {
            let apps = values.iter().map(|value| match value {
                Expression::Text(text) => Some(text.clone()),
                _ => None,
            });
            apps.collect::<Option<Vec<_>>>().map(Condition::Apps)
        }
        _ => None,
    }
}

/// The statuses for which a condition on the answer holds; `None` where it is about something else.
pub(super) fn statuses(expression: &Expression) -> Option<Vec<u16>> {
    let mut found = Vec::new();
    for status in 100..=599 {
        if holds(expression, i64::from(status))? {
            found.push(status);
        }
    }
    Some(found)
}

fn holds(expression: &Expression, status: i64) -> Option<bool> {
    match expression {
        Expression::Truth(value) => Some(*value),
        Expression::Not(inner) => Some(!holds(inner, status)?),
        Expression::Binary("&&", left, right) => {
            Some(holds(left, status)? && holds(right, status)?)
        }
        Expression::Binary("||", left, right) => {
            Some(holds(left, status)? || holds(right, status)?)
        }
        Expression::Binary(operator, left, right) => {
            let (left, right) = (value(left, status)?, value(right, status)?);
            match *operator {
                "==" => Some(left == right),
                "!=" => Some(left != right),
                ">=" => Some(left >= right),
                "<=" => Some(left <= right),
                ">" => Some(left > right),
                "<" => Some(left < right),
                _ => None,
            }
        }
        _ => None,
    }
}

fn value(expression: &Expression, status: i64) -> Option<i64> {
    match expression {
        Expression::Number(number) => Some(*number),
        other => (path(other)? == "context.Response.StatusCode").then_some(status),
    }
}

/// What the parts of a key stand for, without the texts that are the same for all: `"tpm-" + appid` is
/// as good as the application alone.
pub(super) fn parts(key: &Expression, variables: &Variables) -> Vec<Meaning> {
    if let Expression::Binary("+", left, right) = key {
        return [parts(left, variables), parts(right, variables)].concat();
    }
    match meaning(key, variables) {
        Meaning::Text(_) => Vec::new(),
        found => vec![found],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "aaaaaaaa-0000-0000-0000-000000000001";
    const JWT: &str = r#"context.Request.Headers.GetValueOrDefault("Authorization","").Split(' ').Last().AsJwt()"#;

    fn variables() -> Variables {
        [
            ("jwt".to_owned(), Meaning::Token),
            ("appId".to_owned(), Meaning::App),
        ]
        .into()
    }

    fn means(text: &str) -> Meaning {
        let expression = read(text).unwrap_or_else(|| panic!("not read: {text}"));
        meaning(&expression, &variables())
    }

    #[test]
    fn the_application_in_all_its_spellings() {
        for text in [
            format!(r#"@({JWT}.Claims.GetValueOrDefault("appid", ""))"#),
            format!(r#"@({JWT}?.Claims.GetValueOrDefault("appid", string.Empty))"#),
            format!(r#"@({JWT}.Claims["appid"].FirstOrDefault())"#),
            format!(r#"@((string){JWT}.Claims.GetValueOrDefault("azp") ?? "none")"#),
            format!(r#"@{{ var jwt = {JWT}; return jwt.Claims.GetValueOrDefault("appid"); }}"#),
            format!("@{{\n  // the caller\n  string t = {JWT}.Claims.GetValueOrDefault(\"appid\", \"\");\n  return t.ToLower();\n}}"),
            r#"@(context.Request.Headers["Authorization"].First().Split(' ')[1].AsJwt().Claims["appid"][0])"#.to_owned(),
            r#"@(((Jwt)context.Variables["jwt"]).Claims.GetValueOrDefault("appid", "unknown"))"#.to_owned(),
            r#"@(context.Variables.GetValueOrDefault<Jwt>("jwt").Claims.GetValueOrDefault("azp", ((Jwt)context.Variables["jwt"]).Claims.GetValueOrDefault("appid","")))"#.to_owned(),
            r#"@((string)context.Variables["appId"])"#.to_owned(),
            r#"@(context.Variables.GetValueOrDefault<string>("appId", "x"))"#.to_owned(),
        ] {
            assert_eq!(means(&text), Meaning::App, "{text}");
        }
    }

    #[test]
    fn what_else_counters_are_kept_by() {
        for (text, expected) in [
            ("@(context.Request.IpAddress)", Meaning::Address),
            ("@(context.Subscription?.Id)", Meaning::Subscriber),
            ("@(context.Subscription.Key)", Meaning::Subscriber),
            (r#"@("all")"#, Meaning::Text("all".into())),
            (
                r#"@(((Jwt)context.Variables["jwt"]).Subject)"#,
                Meaning::Claim("sub".into()),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("X-Team",""))"#,
                Meaning::Header("x-team".into()),
            ),
            (r#"@(context.Variables["unknown"])"#, Meaning::Other),
            (
                r#"@(context.Request.Headers["X"].First().AsJwt().Claims["appid"])"#,
                Meaning::Other,
            ),
        ] {
            assert_eq!(means(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_known_by_their_parts() {
        let parts = |text| parts(&read(text).unwrap(), &variables());
        assert_eq!(
            parts(r#"@("tpm-" + (string)context.Variables["appId"] + "-x")"#),
            [Meaning::App]
        );
        assert_eq!(parts(r#"@("all" + "-" + "of-them")"#), []);
        assert_eq!(
            parts(r#"@((string)context.Variables["appId"] + context.Request.IpAddress)"#),
            [Meaning::App, Meaning::Address]
        );
    }

    #[test]
    fn conditions_on_the_application_and_on_keys() {
        use Condition::{Apps, Header, NotApps};
        let one = || vec![APP.to_owned()];
        let other = || vec![APP.to_owned(), "b".to_owned()];
        let app = r#"(string)context.Variables["appId"]"#;
        for (text, expected) in [
            (format!("@({app} == \"{APP}\")"), Some(Apps(one()))),
            (format!("@(\"{APP}\" == {app})"), Some(Apps(one()))),
            (
                format!("@(({app} == \"{APP}\") == true)"),
                Some(Apps(one())),
            ),
            (
                format!("@({JWT}.Claims.GetValueOrDefault(\"appid\", \"\") == \"{APP}\")"),
                Some(Apps(one())),
            ),
            (
                format!("@({JWT}.Claims.GetValueOrDefault(\"appid\", \"\").Equals(\"{APP}\"))"),
                Some(Apps(one())),
            ),
            (
                format!("@({app} == \"{APP}\" || {app} == \"b\")"),
                Some(Apps(other())),
            ),
            (
                format!("@(new[] {{ \"{APP}\", \"b\" }}.Contains({app}))"),
                Some(Apps(other())),
            ),
            (
                format!(
                    "@(new string[] {{ \"{APP}\", \"b\" }}.Contains(context.Variables[\"appId\"]))"
                ),
                Some(Apps(other())),
            ),
            (format!("@(!({app} == \"{APP}\"))"), Some(NotApps(one()))),
            (
                format!("@({app} != \"{APP}\" && {app} != \"b\")"),
                Some(NotApps(other())),
            ),
            (
                format!("@({app} == \"{APP}\" && context.Operation.Id == \"x\")"),
                None,
            ),
            (
                r#"@(context.Request.Headers.ContainsKey("Api-Key"))"#.to_owned(),
                Some(Header("api-key".into())),
            ),
            (
                r#"@(context.Request.Headers.GetValueOrDefault("api-key","") != "")"#.to_owned(),
                Some(Header("api-key".into())),
            ),
            (r#"@(context.Operation.Id == "chat")"#.to_owned(), None),
        ] {
            let expression = read(&text).unwrap_or_else(|| panic!("not read: {text}"));
            assert_eq!(condition(&expression, &variables()), expected, "{text}");
        }
    }

    #[test]
    fn conditions_on_the_status_are_evaluated() {
        let found = |text| statuses(&read(text).unwrap());
        assert_eq!(
            found("@(context.Response.StatusCode == 200)"),
            Some(vec![200])
        );
        assert_eq!(
            found("@(context.Response.StatusCode >= 200 && context.Response.StatusCode < 300)"),
            Some((200..300).collect())
        );
        assert_eq!(
            found("@(context.Response.StatusCode == 200 || 201 == context.Response.StatusCode)"),
            Some(vec![200, 201])
        );
        assert_eq!(
            found("@(!(context.Response.StatusCode > 100))"),
            Some(vec![100])
        );
        assert_eq!(found("@(true)"), Some((100..600).collect()));
        assert_eq!(found("@(context.Response.Headers.Count == 1)"), None);
    }

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
