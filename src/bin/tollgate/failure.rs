//! Why a command could not do what it was asked for.

use std::fmt;
use std::io;

/// What is wrong, where, and what would be right. Exit code 2.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    remedy: Option<String>,
    kind: Option<io::ErrorKind>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: None,
            kind: None,
        }
    }

    pub(crate) fn with_remedy(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::new(message)
        }
    }

    /// A file, or standard input, that could not be read or written.
    pub(crate) fn of_file(name: &str, error: &io::Error) -> Self {
        Self {
            kind: Some(error.kind()),
            ..Self::new(format!("{name}: {error}"))
        }
    }

    pub(crate) fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.kind == Some(io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// Only the standard streams fail without a name.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of_file("writing", &error)
    }
}

/// What failed below a CSV writer: a pipe that is closed stays one.
pub(crate) fn of_csv(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
