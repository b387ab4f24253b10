//! Header maps as gateways keep them: names in any case, and the faults of some gateways on demand.

use std::borrow::Cow;
use std::ops::ControlFlow;

use proxy_wasm_host::HeaderMap;
use proxy_wasm_host::{NotAllowed, PairVisitor};

/// How a gateway's header maps differ from Envoy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderQuirk {
    /// Not at all.
    #[default]
    None,
    /// A header that was removed is back when one of its name is set (nginx).
    RemovedComesBack,
    /// Setting a header that is absent does nothing, and succeeds (Apache Traffic Server).
    SetNeedsPresent,
    /// Nothing that is set or removed changes anything, and all succeeds.
    NothingChanges,
}

/// Pairs in order, found by their names in any case.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldMap {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    removed: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) quirk: HeaderQuirk,
}

impl From<Vec<(Vec<u8>, Vec<u8>)>> for FieldMap {
    fn from(pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self {
            pairs,
            ..Self::default()
        }
    }
}

fn is_named(key: &[u8]) -> impl Fn(&(Vec<u8>, Vec<u8>)) -> bool {
    move |(name, _)| name.eq_ignore_ascii_case(key)
}

impl HeaderMap for FieldMap {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let found = self.pairs.iter().find(|pair| is_named(key)(pair));
        found.map(|(_, value)| Cow::Borrowed(value.as_slice()))
    }

    fn for_each_pair(&self, f: &mut PairVisitor<'_>) -> ControlFlow<()> {
        self.pairs
            .iter()
            .try_for_each(|(name, value)| f(name, value))
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), NotAllowed> {
        match self.quirk {
            HeaderQuirk::NothingChanges => return Ok(()),
            HeaderQuirk::SetNeedsPresent if self.get(key).is_none() => return Ok(()),
            HeaderQuirk::RemovedComesBack => {
                let back = self.removed.extract_if(.., |pair| is_named(key)(pair));
                let back: Vec<_> = back.collect();
                self.pairs.retain(|pair| !is_named(key)(pair));
                self.pairs.extend(back);
            }
            HeaderQuirk::None | HeaderQuirk::SetNeedsPresent => {
                self.pairs.retain(|pair| !is_named(key)(pair));
            }
        }
        self.pairs.push((key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), NotAllowed> {
        if self.quirk != HeaderQuirk::NothingChanges {
            self.pairs.push((key.to_vec(), value.to_vec()));
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), NotAllowed> {
        if self.quirk != HeaderQuirk::NothingChanges {
            let gone = self.pairs.extract_if(.., |pair| is_named(key)(pair));
            self.removed.extend(gone);
        }
        Ok(())
    }

    fn replace_all(&mut self, pairs: &[(&[u8], &[u8])]) -> Result<(), NotAllowed> {
        self.pairs = pairs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        Ok(())
    }
}
