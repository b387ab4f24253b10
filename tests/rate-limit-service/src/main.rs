//! `rate-limit-service`: Envoy's rate limit service over limitador's limits and Redis, until told to end.

mod counters;
mod service;

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use limitador::limit::Limit;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::counters::Counters;
use crate::service::Service;

/// Envoy's rate limit service (v3) with counters in Redis.
#[derive(Debug, Parser)]
#[command(name = "rate-limit-service")]
struct Options {
    /// Where to listen; port 0 picks a free port
    #[arg(long, default_value = "127.0.0.1:9104")]
    listen: SocketAddr,
    /// Redis
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    redis: String,
    /// The limits: a JSON array of limitador's limits
    #[arg(long)]
    limits: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rate-limit-service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let limits = read_limits(options)?;
    let counters = Counters::connect(&options.redis)
        .await
        .map_err(|error| format!("{}: {error}", options.redis))?;
    // Before `ready` is said: whoever waits for it may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(options.listen).await?;
    println!("grpc {}\nready", listener.local_addr()?);
    Server::builder()
        .add_service(RateLimitServiceServer::new(Service::new(limits, counters)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}

fn read_limits(options: &Options) -> Result<Vec<Limit>, String> {
    let named = |error: &dyn Error| format!("{}: {error}", options.limits.display());
    let text = fs::read(&options.limits).map_err(|error| named(&error))?;
    serde_json::from_slice(&text).map_err(|error| named(&error))
}
