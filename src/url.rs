//! The part of URLs that a key fetch needs: scheme, authority, path with query.

use std::fmt;

/// An absolute `http` or `https` URL (RFC 3986) without user information or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host, lower case, with its port where that is not the scheme's own.
    pub authority: String,
    /// Path and query, beginning with `/`.
    pub path: String,
}

/// A URL scheme that a callout can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP, for test doubles.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Longest URL accepted, in bytes.
const MAX_URL: usize = 2048;

impl Scheme {
    /// The scheme's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Url {
    /// Reads an absolute URL; `None` for anything a callout could misread.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_URL
            || !text.bytes().all(|byte| byte.is_ascii_graphic())
            || text.contains(['#', '\\', '"', '<', '>'])
        {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let scheme = if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else {
            return None;
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        if authority.is_empty() || authority.contains('@') || authority.starts_with(':') {
            return None;
        }
        let path = match path.chars().next() {
            None => "/".to_owned(),
            Some('?') => format!("/{path}"),
            Some(_) => path.to_owned(),
        };
        Some(Self {
            scheme,
            authority: without_default_port(authority, scheme).to_ascii_lowercase(),
            path,
        })
    }
}

/// An empty port is the scheme's own as well (RFC 3986 section 6.2.3).
fn without_default_port(authority: &str, scheme: Scheme) -> &str {
    let default = match scheme {
        Scheme::Http => "80",
        Scheme::Https => "443",
    };
    match authority.rsplit_once(':') {
        Some((host, port)) if port.is_empty() || port == default => host,
        Some(_) | None => authority,
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}://{}{}",
            self.scheme.as_str(),
            self.authority,
            self.path
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_url() {
        let url = Url::parse("HTTPS://Login.Example:8443/t/v2.0/keys?p=1").unwrap();
        assert_eq!(
            url.to_string(),
            "https://login.example:8443/t/v2.0/keys?p=1"
        );
        assert_eq!(Url::parse("http://127.0.0.1:9101").unwrap().path, "/");
        assert_eq!(Url::parse("http://h?x").unwrap().path, "/?x");
        let of_length = |length: usize| format!("https://h/{}", "x".repeat(length - 10));
        assert!(Url::parse(&of_length(MAX_URL)).is_some());
        assert!(Url::parse(&of_length(MAX_URL + 1)).is_none());
    }

    #[test]
    fn k5_the_default_port_is_the_same_host() {
        for (text, expected) in [
            ("https://H:443/k", "https://h/k"),
            ("https://h:/k", "https://h/k"),
            ("https://h:443", "https://h/"),
            ("http://h:80/k?x=:443", "http://h/k?x=:443"),
            ("https://[::1]:443/", "https://[::1]/"),
            ("https://[fe80::443]/", "https://[fe80::443]/"),
            ("https://h:80/", "https://h:80/"),
            ("http://h:443/", "http://h:443/"),
            ("https://h:8443/", "https://h:8443/"),
            ("https://h:4443/", "https://h:4443/"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), expected, "{text}");
        }
        assert_eq!(Url::parse("https://h:443"), Url::parse("HTTPS://H/"));
    }

    #[test]
    fn refuses_what_a_callout_could_misread() {
        for text in [
            "",
            "login.example/keys",
            "ftp://h/",
            "https://",
            "https:///keys",
            "https://u@h/",
            "https://u:p@h/",
            "https://h/#f",
            "https://h/\\x",
            "https://h/a b",
            "https://h/\r\nx",
            "https://:80/",
            "javascript://h",
            "https://hé/",
        ] {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
        assert_eq!(Url::parse(&format!("https://h/{}", "x".repeat(3000))), None);
    }
}
