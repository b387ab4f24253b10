//! Changes to a request's headers, on hosts whose header maps differ.
//!
//! nginx brings a header back that was removed when one of its name is set, and Apache Traffic Server sets only
//! what is present, and reports success otherwise. So a header that is present is replaced without being removed, and
//! one that is absent is added. Whether that held is read back the first time that a VM does each of these.

use std::cell::Cell;

use super::abi;
use crate::forward::HeaderChanges;
use crate::request::HeaderMap;

/// Writes the headers of requests.
#[derive(Debug, Default)]
pub(super) struct HeaderWriter {
    /// What this host was seen to do as it should.
    proven: Cell<Writes>,
    /// It does not let headers be added; then all are replaced.
    cannot_add: Cell<bool>,
}

/// Ways of changing a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Writes {
    removed: bool,
    replaced: bool,
    replaced_several: bool,
    added: bool,
    set_absent: bool,
}

impl Writes {
    fn and(self, other: Self) -> Self {
        Self {
            removed: self.removed || other.removed,
            replaced: self.replaced || other.replaced,
            replaced_several: self.replaced_several || other.replaced_several,
            added: self.added || other.added,
            set_absent: self.set_absent || other.set_absent,
        }
    }
}

impl HeaderWriter {
    /// Changes the headers of the effective context's request, which came with these.
    ///
    /// # Errors
    /// The host refused a change, or did not carry it out: the request must not go on.
    pub(super) fn apply(
        &self,
        changes: &HeaderChanges,
        headers: &HeaderMap,
    ) -> Result<(), abi::Failed> {
        let mut writes = Writes::default();
        for name in &changes.remove {
            let is_set = |(set, _): &(String, Vec<u8>)| set.as_bytes() == name;
            if !changes.set.iter().any(is_set) {
                abi::remove_header(abi::Map::Request, name)?;
                writes.removed = true;
            }
        }
        for (name, value) in &changes.set {
            self.set(name, value, values(headers, name), &mut writes)?;
        }
        let proven = self.proven.get();
        if writes.and(proven) == proven {
            return Ok(());
        }
        if let Some(name) = unfulfilled(changes, &abi::headers(abi::Map::Request)?) {
            let name = String::from_utf8_lossy(name);
            log::error!("this host does not change the request header {name:?} as requested");
            return Err(abi::Failed(0));
        }
        self.proven.set(writes.and(proven));
        Ok(())
    }

    /// Sets a header of which so many values are present.
    fn set(
        &self,
        name: &str,
        value: &[u8],
        present: usize,
        writes: &mut Writes,
    ) -> Result<(), abi::Failed> {
        if present == 0 && !self.cannot_add.get() {
            if abi::add_request_header(name, value).is_ok() {
                writes.added = true;
                return Ok(());
            }
            self.cannot_add.set(true);
            log::warn!(
                "this host refuses proxy_add_header_map_value: headers are replaced instead"
            );
        }
        match present {
            0 => writes.set_absent = true,
            1 => writes.replaced = true,
            _ => writes.replaced_several = true,
        }
        abi::set_request_header(name, value)
    }
}

fn values(headers: &HeaderMap, name: &str) -> usize {
    let is_named = |(found, _): &(&[u8], &[u8])| *found == name.as_bytes();
    headers.iter().filter(is_named).count()
}

/// The first header that is not as it was to be.
fn unfulfilled<'a>(changes: &'a HeaderChanges, found: &HeaderMap) -> Option<&'a [u8]> {
    let wrong = changes.set.iter().find(|(name, value)| {
        values(found, name) != 1 || found.first(name) != Some(value.as_slice())
    });
    let is_there = |name: &&Vec<u8>| found.iter().any(|(found, _)| found == name.as_slice());
    let is_set = |name: &&Vec<u8>| {
        changes
            .set
            .iter()
            .any(|(set, _)| set.as_bytes() == name.as_slice())
    };
    let mut removed = changes.remove.iter().filter(|name| !is_set(name));
    wrong
        .map(|(name, _)| name.as_bytes())
        .or_else(|| removed.find(is_there).map(Vec::as_slice))
}
