//! `stand-ins`: Entra ID and Azure OpenAI on local ports, until told to end.

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tollgate_stand_ins::start::{Options, start};

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stand-ins: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> std::io::Result<()> {
    // Before `ready` is said: whoever waits for it may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = start(options).await?;
    announce(&running.lines())?;

    let stdin_closed = stdin_closed(options.exit_with_stdin);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stdin_closed => {}
    }
    Ok(())
}

fn announce(lines: &[String]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    writeln!(stdout, "ready")?;
    stdout.flush()
}

/// Resolves when stdin ends, or never if nobody asked for that.
async fn stdin_closed(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel();
    // A plain thread: tokio's stdin would hold up the end of the runtime.
    std::thread::spawn(move || {
        let mut ignored = [0_u8; 1024];
        while matches!(std::io::stdin().read(&mut ignored), Ok(count) if count > 0) {}
        let _ = ended.send(());
    });
    let _ = end.await;
}
