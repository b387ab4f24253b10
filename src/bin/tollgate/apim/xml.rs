//! Policies of API Management as XML.
//!
//! The portal takes and shows expressions as they are: `value="@(a["b"] < c && d)"`, which is no XML. So
//! expressions are escaped first, and places are told in the text as it was.

use crate::document::Malformed;

/// A text made well-formed, with the way back.
#[derive(Debug)]
pub(super) struct Escaped {
    pub(super) text: String,
    /// Places after which the two texts differ: in the escaped one, in the original.
    steps: Vec<(usize, usize)>,
}

impl Escaped {
    /// Escapes the expressions of a policy.
    pub(super) fn new(raw: &str) -> Self {
        let mut escaped = Self {
            text: String::with_capacity(raw.len()),
            steps: Vec::new(),
        };
        let emptied = without_comments(raw);
        let raw = emptied.as_str();
        let mut rest = raw;
        while let Some((end, expression)) = next_expression(rest) {
            let (before, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            escaped.text.push_str(before);
            let (expression, after) = after.split_at_checked(expression).unwrap_or((after, ""));
            let at = raw
                .len()
                .saturating_sub(after.len().saturating_add(expression.len()));
            escaped.expression(expression, at);
            escaped
                .steps
                .push((escaped.text.len(), raw.len().saturating_sub(after.len())));
            rest = after;
        }
        escaped.text.push_str(rest);
        escaped
    }

    fn expression(&mut self, expression: &str, start: usize) {
        for unit in Units(expression, 0) {
            self.steps
                .push((self.text.len(), start.saturating_add(unit.start)));
            match unit.character {
                '"' => self.text.push_str("&quot;"),
                '\'' => self.text.push_str("&apos;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '&' => self.text.push_str("&amp;"),
                other => self.text.push(other),
            }
        }
    }

    /// A place of the escaped text in the original.
    pub(super) fn original(&self, at: usize) -> usize {
        let after = self.steps.partition_point(|(escaped, _)| *escaped <= at);
        let before = after.checked_sub(1).and_then(|index| self.steps.get(index));
        let shifted = before.map_or(at, |(escaped, original)| {
            at.saturating_sub(*escaped).saturating_add(*original)
        });
        // An entity may stand for a single character.
        let next = self.steps.get(after).map(|(_, original)| *original);
        next.map_or(shifted, |next| shifted.min(next))
    }
}

/// The same text with spaces for what comments hold, byte for byte.
fn without_comments(raw: &str) -> String {
    const OPEN: &str = "<!--";
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, comment)) = rest.split_once(OPEN) {
        let Some((inner, after)) = comment.split_once("-->") else {
            break;
        };
        text.push_str(before);
        text.push_str(OPEN);
        let blank = |byte| if byte == b'\n' { '\n' } else { ' ' };
        text.extend(inner.bytes().map(blank));
        text.push_str("-->");
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Why XML cannot be read, in the original text.
pub(super) fn malformed(error: &roxmltree::Error, escaped: &Escaped) -> Malformed {
    let position = error.pos();
    let row = usize::try_from(position.row).unwrap_or(1).saturating_sub(1);
    let column = usize::try_from(position.col).unwrap_or(1).saturating_sub(1);
    let start: usize = escaped
        .text
        .split_inclusive('\n')
        .take(row)
        .map(str::len)
        .sum();
    let line = escaped.text.get(start..).unwrap_or_default();
    let inside: usize = line.chars().take(column).map(char::len_utf8).sum();
    let problem = error.to_string();
    // The place is told by the caret.
    let problem = problem
        .rsplit_once(" at ")
        .map_or(problem.as_str(), |(said, _)| said);
    Malformed {
        problem: format!("not valid XML: {problem}"),
        at: escaped.original(start.saturating_add(inside)),
    }
}

/// A character as XML reads it, and where it begins.
struct Unit {
    character: char,
    start: usize,
    end: usize,
}

/// Characters with entities resolved, so that both `"` and `&quot;` are quotes.
struct Units<'a>(&'a str, usize);

const ENTITIES: [(&str, char); 5] = [
    ("&quot;", '"'),
    ("&apos;", '\''),
    ("&lt;", '<'),
    ("&gt;", '>'),
    ("&amp;", '&'),
];

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let start = self.1;
        let rest = self.0.get(start..)?;
        let entity = ENTITIES.iter().find(|(entity, _)| rest.starts_with(entity));
        let (length, character) = match entity {
            Some((entity, character)) => (entity.len(), *character),
            None => {
                let character = rest.chars().next()?;
                (character.len_utf8(), character)
            }
        };
        self.1 = start.saturating_add(length);
        Some(Unit {
            character,
            start,
            end: self.1,
        })
    }
}

/// Where the next expression begins, and how long it is. Comments have none.
fn next_expression(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = rest.find(['@', '<'])?;
        let here = rest.get(at..)?;
        let start = from.saturating_add(at);
        let skipped = if here.starts_with("<!--") {
            here.find("-->")
        } else if here.starts_with("<![CDATA[") {
            here.find("]]>")
        } else if begins_expression(text.get(..start)?, here) {
            match expression_length(here) {
                Some(length) => return Some((start, length)),
                None => Some(1),
            }
        } else {
            Some(1)
        };
        from = start.saturating_add(skipped?);
    }
}

/// An expression is the whole of an attribute or of an element's text.
fn begins_expression(before: &str, here: &str) -> bool {
    let opens = here.starts_with("@(") || here.starts_with("@{");
    opens && before.trim_end().ends_with(['"', '\'', '>'])
}

/// The length of an expression up to the bracket that closes it, as C# reads strings, characters and
/// comments.
fn expression_length(text: &str) -> Option<usize> {
    let mut units = Units(text, 1).peekable();
    let mut open: Vec<char> = Vec::new();
    let mut before = ' ';
    while let Some(unit) = units.next() {
        match unit.character {
            '(' | '{' | '[' => open.push(unit.character),
            ')' | '}' | ']' => {
                open.pop()?;
                if open.is_empty() {
                    return Some(unit.end);
                }
            }
            '"' => skip_string(&mut units, before == '@')?,
            '\'' => skip_quoted(&mut units, '\'')?,
            '/' if units.peek().is_some_and(|next| next.character == '/') => {
                units.find(|unit| unit.character == '\n')?;
            }
            _ => {}
        }
        before = unit.character;
    }
    None
}

fn skip_string(units: &mut std::iter::Peekable<Units<'_>>, verbatim: bool) -> Option<()> {
    if !verbatim {
        return skip_quoted(units, '"');
    }
    loop {
        units.find(|unit| unit.character == '"')?;
        // Two quotes stand for one.
        if units.next_if(|unit| unit.character == '"').is_none() {
            return Some(());
        }
    }
}

fn skip_quoted(units: &mut std::iter::Peekable<Units<'_>>, quote: char) -> Option<()> {
    while let Some(unit) = units.next() {
        match unit.character {
            '\\' => {
                units.next()?;
            }
            character if character == quote => return Some(()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_escaped_and_nothing_else() {
        for (raw, value) in [
            (
                r#"<a b="@(x["y"] < 1 && z > ')')"/>"#,
                r#"@(x["y"] < 1 && z > ')')"#,
            ),
            (r#"<a b='@(x["y"])'/>"#, r#"@(x["y"])"#),
            (r#"<a b="@(x[&quot;y&quot;] &lt; 1)"/>"#, r#"@(x["y"] < 1)"#),
            (r#"<a b="@("a)\"b")"/>"#, r#"@("a)\"b")"#),
            (r#"<a b="@(@"c:\"")")"/>"#, r#"@(@"c:\"")")"#),
            (r#"<a b="x@(y)"/>"#, "x@(y)"),
            (r#"<!-- é -- @(" <a --><a b="@("<")"/>"#, r#"@("<")"#),
            (r#"<a b="@("/>"#, "@("),
        ] {
            let escaped = Escaped::new(raw);
            let read = roxmltree::Document::parse(&escaped.text);
            let read = read.unwrap_or_else(|error| panic!("{raw} {}: {error}", escaped.text));
            assert_eq!(read.root_element().attribute("b"), Some(value), "{raw}");
        }
        let raw = "<!-- @(\" --><a>\n  @{ return a < b && c; }\n</a>";
        let escaped = Escaped::new(raw);
        let read = roxmltree::Document::parse(&escaped.text).unwrap();
        assert_eq!(
            read.root_element().text().unwrap().trim(),
            "@{ return a < b && c; }"
        );
    }

    #[test]
    fn places_lead_back() {
        let raw = r#"<p><a b="@(x["y"] && 1)"/><c/></p>"#;
        let escaped = Escaped::new(raw);
        let read = roxmltree::Document::parse(&escaped.text).unwrap();
        for name in ["p", "a", "c"] {
            let node = read
                .descendants()
                .find(|node| node.has_tag_name(name))
                .unwrap();
            let at = escaped.original(node.range().start);
            assert_eq!(raw.find(&format!("<{name}")), Some(at), "{name}");
        }
    }

    #[test]
    fn nothing_makes_it_stop_or_panic() {
        let pieces = [
            "@(", "\"", "<a>", "'", "&quot;", ")", "é", "<!--", "@{", "\\", "]]>",
        ];
        let mut state: u64 = 7;
        for _ in 0..2_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                text.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
            }
            let escaped = Escaped::new(&text);
            for at in 0..=escaped.text.len() {
                assert!(escaped.original(at) <= text.len(), "{text}");
            }
        }
    }
}
