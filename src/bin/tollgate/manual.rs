//! `tollgate completions` and `tollgate man`.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::input::name_of;
use crate::{Arguments, Ended, Streams};

/// Write completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate completions bash > ~/.local/share/bash-completion/completions/tollgate
  tollgate completions zsh > ~/.zfunc/_tollgate
  tollgate completions fish > ~/.config/fish/completions/tollgate.fish")]
pub(crate) struct Completions {
    shell: Shell,
}

/// Write the man page, or with --dir one for every command
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate man | man -l -
  tollgate man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// A folder for `tollgate.1`, `tollgate-check.1` and so on
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions, streams: Streams<'_>) -> Result<Ended, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "tollgate",
        &mut script,
    );
    streams.out.write_all(&script)?;
    Ok(Ended::Well)
}

pub(crate) fn man(arguments: &Man, streams: Streams<'_>) -> Result<Ended, Failure> {
    match &arguments.dir {
        Some(dir) => {
            clap_mangen::generate_to(Arguments::command(), dir)
                .map_err(|error| Failure::of_file(&name_of(dir), &error))?;
        }
        None => clap_mangen::Man::new(Arguments::command()).render(streams.out)?,
    }
    Ok(Ended::Well)
}
