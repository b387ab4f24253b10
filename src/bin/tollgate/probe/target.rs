//! The gateway's address.

use std::str::FromStr;

use hyper::Uri;

/// A gateway, as it is given on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    /// A name or an address, an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as `Host` and `:authority` carry them.
    pub(crate) authority: String,
    /// What every path begins with; empty or `/prefix`.
    prefix: String,
}

impl Target {
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// A path of the gateway, to the letter: nothing is normalized.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, authority, prefix) = (self.scheme(), &self.authority, &self.prefix);
        write!(formatter, "{scheme}://{authority}{prefix}")
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write an address such as https://gateway.example.com";
        // An error of the parser would repeat a password that stands in the address.
        let uri: Uri = text.parse().map_err(|_| FORM.to_owned())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(FORM.to_owned()),
        };
        let authority = uri.authority().ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("credentials in the address are not sent; remove them".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("an address without a query and a fragment is needed".to_owned());
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(FORM.to_owned());
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| FORM.to_owned())?,
            None if authority.as_str().len() > host.len() => return Err(FORM.to_owned()),
            None => default_port(tls),
        };
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let target: Target = "https://gateway.example.com".parse().unwrap();
        assert_eq!((target.tls, target.port), (true, 443));
        assert_eq!(target.path("/openai"), "/openai");
        let target: Target = "http://[::1]:10000/azure/".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 10000));
        assert_eq!(target.path("//openai"), "/azure//openai");
        assert_eq!(target.to_string(), "http://[::1]:10000/azure");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for text in [
            "",
            "gateway",
            "gateway:443",
            "ftp://gateway",
            "https://",
            "https:///path",
            "https://user:secret@gateway",
            "https://gateway?api-key=secret",
            "https://gateway/#secret",
            "https://gateway:port",
            "https://gateway:99999",
            "https://gate way",
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
