//! Options, listeners, and what runs where.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::entra::Entra;
use crate::openai::OpenAi;
use crate::server::{Site, serve};
use crate::tls;

/// Local stand-ins for Entra ID and Azure OpenAI. Port 0 picks a free port.
#[derive(Debug, Parser)]
#[command(name = "stand-ins")]
pub struct Options {
    /// Entra ID over HTTP
    #[arg(long, default_value = "127.0.0.1:9101")]
    pub entra_http: SocketAddr,
    /// Entra ID over HTTPS
    #[arg(long, default_value = "127.0.0.1:9102")]
    pub entra_https: SocketAddr,
    /// Azure OpenAI over HTTP
    #[arg(long, default_value = "127.0.0.1:9103")]
    pub openai: SocketAddr,
    /// Azure OpenAI over HTTPS, if wanted
    #[arg(long)]
    pub openai_https: Option<SocketAddr>,
    /// Where to write ca.pem
    #[arg(long, default_value = "target/stand-ins")]
    pub tls_dir: PathBuf,
    /// The authority in issuers, for example http://127.0.0.1:9101; without it, the address asked
    #[arg(long)]
    pub public_url: Option<String>,
    /// End when stdin is closed
    #[arg(long)]
    pub exit_with_stdin: bool,
}

/// The listeners that are open.
#[derive(Debug)]
pub struct Running {
    /// Entra ID over HTTP.
    pub entra_http: SocketAddr,
    /// Entra ID over HTTPS.
    pub entra_https: SocketAddr,
    /// Azure OpenAI over HTTP.
    pub openai: SocketAddr,
    /// Azure OpenAI over HTTPS.
    pub openai_https: Option<SocketAddr>,
    /// The CA's certificate.
    pub ca_pem: PathBuf,
}

impl Running {
    /// One line per listener, as the binary prints them.
    pub fn lines(&self) -> Vec<String> {
        let listeners = [
            ("entra-http", Some(self.entra_http)),
            ("entra-https", Some(self.entra_https)),
            ("openai", Some(self.openai)),
            ("openai-https", self.openai_https),
        ];
        listeners
            .iter()
            .filter_map(|(name, at)| at.map(|at| format!("{name} {at}")))
            .collect()
    }
}

/// Opens all listeners; they serve for as long as the runtime lives.
pub async fn start(options: &Options) -> io::Result<Running> {
    let (acceptor, ca_pem) = tls::prepare(&options.tls_dir)?;
    let entra: Arc<dyn Site> = Arc::new(Entra::new(options.public_url.as_deref()));
    let openai: Arc<dyn Site> = Arc::new(OpenAi::default());

    let secure = Some(&acceptor);
    let openai_https = match options.openai_https {
        Some(address) => Some(open(address, secure, &openai).await?),
        None => None,
    };
    Ok(Running {
        entra_http: open(options.entra_http, None, &entra).await?,
        entra_https: open(options.entra_https, secure, &entra).await?,
        openai: open(options.openai, None, &openai).await?,
        openai_https,
        ca_pem,
    })
}

async fn open(
    address: SocketAddr,
    tls: Option<&TlsAcceptor>,
    site: &Arc<dyn Site>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    let bound = listener.local_addr()?;
    tokio::spawn(serve(listener, tls.cloned(), Arc::clone(site)));
    Ok(bound)
}
