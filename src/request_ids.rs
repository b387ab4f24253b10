//! The ids by which callers and operators find a request again.

use crate::secrets;

/// The gateway's id of a request. Envoy makes one where the caller sends none.
pub const REQUEST_ID: &str = "x-request-id";
/// The caller's own id of a request, which Azure returns.
pub const CLIENT_REQUEST_ID: &str = "x-ms-client-request-id";

/// Longest `x-request-id`, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// Longest `x-ms-client-request-id`, in bytes.
const MAX_CLIENT_REQUEST_ID: usize = 64;

/// A value of `x-request-id`, if it may be logged and returned.
#[must_use]
pub fn request_id(value: &[u8]) -> Option<&str> {
    presentable(value, MAX_REQUEST_ID)
}

/// A value of `x-ms-client-request-id`, if it may be logged and returned.
#[must_use]
pub fn client_request_id(value: &[u8]) -> Option<&str> {
    presentable(value, MAX_CLIENT_REQUEST_ID)
}

/// Visible ASCII, not too long, and nothing like a token or a key: callers can write anything there.
fn presentable(value: &[u8], most: usize) -> Option<&str> {
    let is_plain = (1..=most).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    if !is_plain || secrets::holds_secret(value) {
        return None;
    }
    str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j1_an_id_is_short_visible_ascii_and_no_secret() {
        for (id, in_request, in_client) in [
            (
                "7f3c9b1e-0d52-4c1a-9a8e-2f1b6c7d8e90".to_owned(),
                true,
                true,
            ),
            ("x".repeat(64), true, true),
            ("a-".repeat(64), true, false),
            ("a-".repeat(64) + "b", false, false),
            (String::new(), false, false),
            ("two words".to_owned(), false, false),
            ("caf\u{e9}".to_owned(), false, false),
            ("a\tb".to_owned(), false, false),
            ("eyJhbGciOiJSUzI1NiJ9.e30.c2ln".to_owned(), false, false),
            ("sk-proj-0123456789abcdef".to_owned(), false, false),
            ("0123456789abcdef0123456789abcdef".to_owned(), false, false),
        ] {
            let text = id.as_bytes();
            assert_eq!(request_id(text), in_request.then_some(&*id), "{id}");
            assert_eq!(client_request_id(text), in_client.then_some(&*id), "{id}");
        }
    }
}
