//! Words for error messages: values from the policy made short and printable, and guesses at
//! what was meant.

use std::borrow::Cow;

/// Characters of a value that are shown: its beginning and its end.
const SHOWN: (usize, usize) = (60, 20);

/// Characters that are shown of a message made elsewhere; a position in the text is at its end.
const SHOWN_OF_MESSAGE: (usize, usize) = (160, 60);

/// Longest word that a guess is made for.
const MAX_GUESSED: usize = 40;

/// A value from the policy in quotes, short and without control characters.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", shorten(text, SHOWN))
}

/// A message from elsewhere, short and on one line.
pub(super) fn quoted_message(message: &str) -> String {
    let escape = |character: char| match character {
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    shorten(message, SHOWN_OF_MESSAGE)
        .chars()
        .map(escape)
        .collect()
}

fn shorten(text: &str, (head, tail): (usize, usize)) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= head.saturating_add(tail) {
        return Cow::Borrowed(text);
    }
    let start = text.chars().take(head);
    let end = text.chars().skip(length.saturating_sub(tail));
    Cow::Owned(start.chain("...".chars()).chain(end).collect())
}

/// `"a", "b" or "c"`
pub(super) fn alternatives(options: &[&str]) -> String {
    let quoted: Vec<String> = options.iter().map(|option| quoted(option)).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// Guesses which option was meant, or names them all.
pub(super) fn meant(given: &str, options: &[&str]) -> String {
    closest(given, options).map_or_else(
        || format!("write {}", alternatives(options)),
        |option| format!("did you mean {}?", quoted(option)),
    )
}

/// The option that `given` is a slip of, if any is near enough: one letter in three may differ,
/// or all are there in another order.
pub(super) fn closest<'o>(given: &str, options: &[&'o str]) -> Option<&'o str> {
    if given.len() > MAX_GUESSED {
        return None;
    }
    let given = given.to_ascii_lowercase();
    options
        .iter()
        .map(|option| (slips(&given, &option.to_ascii_lowercase()), *option))
        .min_by_key(|(slips, _)| *slips)
        .filter(|(slips, option)| slips.saturating_mul(3) <= option.len())
        .map(|(_, option)| option)
}

fn slips(given: &str, option: &str) -> usize {
    if sorted(given) == sorted(option) {
        return 1;
    }
    distance(given, option)
}

fn sorted(text: &str) -> Vec<char> {
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    letters
}

/// Letters to insert, delete or replace to turn `left` into `right` (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (position, letter) in left.chars().enumerate() {
        let mut diagonal = position;
        let mut before = position.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = diagonal.saturating_add(usize::from(letter != other));
            let shifted = before.min(*cell).saturating_add(1);
            diagonal = *cell;
            before = replaced.min(shifted);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshtein() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("limits", "limits", 0),
            ("audience", "audiences", 1),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn guesses_only_what_is_near() {
        let options = ["tenant_id", "issuers", "per"];
        assert_eq!(closest("tenantId", &options), Some("tenant_id"));
        assert_eq!(closest("isuers", &options), Some("issuers"));
        assert_eq!(closest("Per", &options), Some("per"));
        assert_eq!(closest("pre", &options), Some("per"));
        assert_eq!(closest("par", &options), Some("per"));
        assert_eq!(closest("pear", &options), Some("per"));
        assert_eq!(closest("aud", &options), None);
        assert_eq!(closest("colour", &options), None);
        assert_eq!(closest(&"tenant_id".repeat(9), &options), None);
    }

    #[test]
    fn values_are_short_and_printable() {
        assert_eq!(quoted("a\"b\n\u{202e}"), r#""a\"b\n\u{202e}""#);
        assert_eq!(quoted(&"é".repeat(80)).chars().count(), 82);
        assert_eq!(
            quoted(&format!("{}{}", "a".repeat(100), "z".repeat(100))),
            format!("\"{}...{}\"", "a".repeat(60), "z".repeat(20))
        );
        assert_eq!(quoted_message("a\r\n\u{1b}b"), r"a\r\n\u{1b}b");
    }

    #[test]
    fn lists_alternatives() {
        assert_eq!(alternatives(&["a"]), r#""a""#);
        assert_eq!(alternatives(&["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
