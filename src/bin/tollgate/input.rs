//! Files and standard input, read whole and bounded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::failure::Failure;

/// Largest file that is read whole: an Envoy bootstrap has some kilobytes, a key set up to 1 MiB.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What standard input is called in messages.
const STANDARD_INPUT: &str = "standard input";

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Input {
    /// What it is called in messages.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Input {
    /// Reads a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = name_of(path);
        let read = |source: &mut dyn Read| {
            let mut bytes = Vec::new();
            let limit = MAX_FILE.saturating_add(1);
            source.take(limit).read_to_end(&mut bytes).map(|_| bytes)
        };
        let bytes = if is_standard_input(path) {
            read(&mut std::io::stdin().lock())
        } else {
            File::open(path).and_then(|mut file| read(&mut file))
        };
        let bytes = bytes.map_err(|error| Failure::of_file(&name, &error))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(Failure::new(format!("{name}: larger than 16 MiB")));
        }
        Ok(Self { name, bytes })
    }

    /// The text of a file that has to be UTF-8.
    pub(crate) fn into_text(self) -> Result<(String, String), Failure> {
        let name = self.name;
        match String::from_utf8(self.bytes) {
            // Editors of Windows begin files with a byte order mark.
            Ok(text) => Ok((name, text.trim_start_matches('\u{feff}').to_owned())),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let bytes = error.as_bytes().iter().take(good);
                let line = bytes.filter(|byte| **byte == b'\n').count();
                Err(Failure::with_remedy(
                    format!(
                        "{name}:{}: not UTF-8, at byte {good}",
                        line.saturating_add(1)
                    ),
                    "save the file as UTF-8",
                ))
            }
        }
    }
}

/// What a file is called in messages.
pub(crate) fn name_of(path: &Path) -> String {
    if is_standard_input(path) {
        STANDARD_INPUT.to_owned()
    } else {
        path.display().to_string()
    }
}

pub(crate) fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a file whole.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::of_file(&name_of(path), &error))
}
