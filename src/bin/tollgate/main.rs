//! The command line: policies checked, decisions explained, policies of API Management taken over,
//! request logs summed up, gateways probed. For people; the module has none of it.
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::string_slice,
        reason = "tests compute on their own constants"
    )
)]

mod apim;
mod check;
mod document;
mod explain;
mod failure;
mod input;
mod manual;
mod operations;
mod place;
mod pretty;
mod probe;
mod report;
mod request_log;
mod roles;
mod usage;

use std::io::Write;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use clap::{Parser, Subcommand, ValueEnum};

use failure::Failure;

/// Check, explain and take over policies of Tollgate; sum up its request log; probe a gateway.
#[derive(Parser)]
#[command(name = "tollgate", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Colour of what is written
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
}

#[derive(Clone, Copy, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Arguments),
    Explain(Box<explain::Arguments>),
    Import(apim::Arguments),
    Roles(roles::Arguments),
    Operations(operations::Arguments),
    Usage(usage::Arguments),
    Probe(Box<probe::Arguments>),
    Completions(manual::Completions),
    Man(manual::Man),
}

impl Command {
    /// Whether its exit code says more than that it wrote something.
    fn judges(&self) -> bool {
        match self {
            Self::Check(_) | Self::Explain(_) | Self::Import(_) | Self::Probe(_) => true,
            Self::Roles(_)
            | Self::Operations(_)
            | Self::Usage(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// What was asked for is so: exit code 0.
    Well,
    /// It is not so: the policy is bad, the request is refused. Exit code 1.
    Badly,
    /// Nobody knows, and that is written. Exit code 2.
    Unknown,
}

/// Where commands write: results to `out`, what is said about them to `err`.
struct Streams<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let choice = match arguments.color {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    };
    let mut out = AutoStream::new(std::io::stdout().lock(), choice);
    let mut err = AutoStream::new(std::io::stderr().lock(), choice);
    let streams = Streams {
        out: &mut out,
        err: &mut err,
    };
    let ended = run(&arguments.command, streams).and_then(|ended| {
        out.flush()?;
        Ok(ended)
    });
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::from(1),
        Ok(Ended::Unknown) => ExitCode::from(2),
        // Whoever reads has read enough, as `head` does. What was to be judged is not judged then.
        Err(failure) if failure.is_broken_pipe() => match arguments.command.judges() {
            true => ExitCode::from(2),
            false => ExitCode::SUCCESS,
        },
        Err(failure) => {
            // With nobody left to tell there is nobody to tell.
            let _ = report::failure(&failure, &mut err);
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command, streams: Streams<'_>) -> Result<Ended, Failure> {
    match command {
        Command::Check(arguments) => check::run(arguments, streams),
        Command::Explain(arguments) => explain::run(arguments, streams),
        Command::Import(arguments) => apim::run(arguments, streams),
        Command::Roles(arguments) => roles::run(arguments, streams),
        Command::Operations(arguments) => operations::run(arguments, streams),
        Command::Usage(arguments) => usage::run(arguments, streams),
        Command::Probe(arguments) => probe::run(arguments, streams),
        Command::Completions(arguments) => manual::completions(arguments, streams),
        Command::Man(arguments) => manual::man(arguments, streams),
    }
}
