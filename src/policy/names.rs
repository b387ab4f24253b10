//! Names that end up in logs, metrics and HTTP headers.

use super::reader::{Node, Read};
use super::wording::quoted;

/// Longest name of an application or issuer, in characters.
const MAX_LABEL: usize = 64;

/// Longest header name.
const MAX_HEADER: usize = 128;

/// Reads a name for logs and metrics: visible ASCII and single spaces.
pub(super) fn label(node: &Node<'_>) -> Read<String> {
    let text = node.string("batch")?;
    let is_usable = (1..=MAX_LABEL).contains(&text.len())
        && text.split(' ').all(|word| {
            let visible = word.bytes().all(|byte| byte.is_ascii_graphic());
            visible && !word.is_empty()
        });
    if is_usable {
        return Ok(text.to_owned());
    }
    let remedy = format!("write 1 to {MAX_LABEL} visible ASCII characters, with single spaces");
    Err(node.note(format!("{} is not a usable name", quoted(text)), remedy))
}

/// Reads a header name (RFC 9110 section 5.1) into lower case. `at` is where it stands: an
/// element of a list or a member.
pub(super) fn header(name: &str, at: &Node<'_>) -> Read<String> {
    if name.starts_with(':') {
        let problem = format!("{} is a pseudo-header of HTTP/2", quoted(name));
        return Err(at.note(problem, "write the name of an ordinary header"));
    }
    if name.is_empty() || name.len() > MAX_HEADER || !name.bytes().all(is_token) {
        let problem = format!("{} is not a header name", quoted(name));
        let remedy = "write letters, digits and hyphens, such as \"x-app-id\"";
        return Err(at.note(problem, remedy));
    }
    Ok(name.to_ascii_lowercase())
}

/// `_` written as `-`: many servers take the two for the same, so a rule about one must hold
/// for the other.
pub(super) fn hyphenated(name: &str) -> String {
    name.replace('_', "-")
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
