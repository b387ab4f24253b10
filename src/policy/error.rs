//! What is wrong with a policy, told so that it can be put right.

use std::fmt;

/// Most errors that are told in full. A generated policy that is wrong is wrong in the same
/// way a thousand times.
const MAX_TOLD: usize = 50;

/// One thing that is wrong with a policy.
///
/// Shown as `apps[2].limits[0].per: <what is wrong>; <what would be right>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Where: the JSON path, `$` for the whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right. Empty where the problem says it already.
    pub remedy: String,
}

/// Everything that is wrong with a policy: at least one error, the first 50 in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyErrors {
    told: Vec<PolicyError>,
    more: usize,
}

impl PolicyErrors {
    pub(super) fn push(&mut self, error: PolicyError) {
        if self.told.len() < MAX_TOLD {
            self.told.push(error);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The errors that are told in full, in the order of the policy.
    pub fn iter(&self) -> impl Iterator<Item = &PolicyError> {
        self.told.iter()
    }

    /// How many errors there are beyond those.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.problem)?;
        if !self.remedy.is_empty() {
            write!(formatter, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// One line per error.
impl fmt::Display for PolicyErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.told.iter().enumerate() {
            if position > 0 {
                formatter.write_str("\n")?;
            }
            error.fmt(formatter)?;
        }
        if self.more > 0 {
            write!(formatter, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

impl std::error::Error for PolicyErrors {}
