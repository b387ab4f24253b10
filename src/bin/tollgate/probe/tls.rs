//! Whom the probe trusts, and what TLS failed at.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::failure::Failure;
use crate::input::{Input, name_of};

pub(crate) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Configurations that trust the same certificate authorities.
pub(crate) struct Trust {
    negotiated: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl Trust {
    /// The authorities of a PEM file, or those of the system.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, Failure> {
        let roots = match ca_file {
            Some(path) => from_file(path)?,
            None => from_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(format!("TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            negotiated: offering(&[HTTP2, HTTP1]),
            http1: offering(&[HTTP1]),
        })
    }

    pub(crate) fn config(&self, is_negotiated: bool) -> &Arc<ClientConfig> {
        if is_negotiated {
            &self.negotiated
        } else {
            &self.http1
        }
    }
}

fn from_file(path: &Path) -> Result<RootCertStore, Failure> {
    let name = name_of(path);
    let file = Input::read(path)?;
    let bad = |error: &dyn std::fmt::Display| Failure::new(format!("{name}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&file.bytes) {
        let certificate = certificate.map_err(|error| bad(&error))?;
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() {
        let remedy = "give a PEM file with the certificates of one or more authorities";
        return Err(Failure::with_remedy(
            format!("{name}: no certificate in it"),
            remedy,
        ));
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(Failure::with_remedy(
            format!(
                "the system has no certificate authorities{}",
                why.unwrap_or_default()
            ),
            "install them, such as Debian's ca-certificates, or give --ca-file",
        ));
    }
    Ok(roots)
}

/// What a handshake failed at, in words.
pub(crate) fn describe(error: &io::Error) -> String {
    describe_late(error).unwrap_or_else(|| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the connection was closed in the handshake".to_owned()
        }
        kind => kind.to_string(),
    })
}

/// The same, where TLS is what failed.
pub(crate) fn describe_late(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(problem) => certificate(problem),
        Error::InvalidMessage(_) => "the gateway does not speak TLS on this port".to_owned(),
        Error::NoApplicationProtocol => "the gateway speaks neither HTTP/2 nor HTTP/1.1".to_owned(),
        other => other.to_string(),
    })
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        // The others: an authority of the same name, with another key.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is of an unknown authority; --ca-file names others".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name".to_owned()
        }
        other => format!("the certificate is not valid: {other}"),
    }
}
