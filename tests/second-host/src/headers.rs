//! Header pairs as a test reads them.

use std::fmt;

/// Header pairs, in order, repeats kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// The pairs as they are.
    #[must_use]
    pub fn new(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self(pairs)
    }

    /// The first value under `name`, in any case of letters.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    /// Every value under `name`.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// The value under `name` as a number.
    ///
    /// # Panics
    ///
    /// When there is none, or it is not a number.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        let value = self
            .get(name)
            .unwrap_or_else(|| panic!("no header {name} in {self:?}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {value} is not a whole number"))
    }

    /// Whether a header `name` is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The pairs.
    #[must_use]
    pub fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.0
    }

    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        self.0.push((name.to_vec(), value.to_vec()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name.as_bytes()));
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map()
            .entries(self.0.iter().map(|(key, value)| (text(key), text(value))))
            .finish()
    }
}
