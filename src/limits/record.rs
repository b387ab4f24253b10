//! The bytes of one application's limits in shared data.
//!
//! `version`, then a section for each limit: its [`LimitId`], its kind of window, its state.
//! Bytes that do not read as that (a foreign value, a later format) count as nothing counted. Those of
//! the version before, which only counted calls, are read too: an update keeps what was counted.

use super::window::{Layout, State};
use super::{LimitId, NamedLimit};
use crate::policy::{Period, Window};
use crate::time::Time;

const VERSION: u8 = 2;
const VERSION_BEFORE: u8 = 1;

/// Most sections kept; limits of policies that are gone are dropped first.
const MAX_SECTIONS: usize = 64;

/// The states of one application's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    sections: Vec<Section>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    id: LimitId,
    window: Window,
    state: State,
}

impl Record {
    /// Reads a record.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        let layout = match *version {
            VERSION => Layout::Sparse,
            VERSION_BEFORE => Layout::Dense,
            _ => return None,
        };
        let mut sections = Vec::new();
        while !rest.is_empty() {
            if sections.len() >= MAX_SECTIONS {
                return None;
            }
            let (id, left) = rest.split_first_chunk::<8>()?;
            let (window, left) = decode_window(left)?;
            let (state, left) = State::decode(window, layout, left)?;
            sections.push(Section {
                id: LimitId(*id),
                window,
                state,
            });
            rest = left;
        }
        Some(Self { sections })
    }

    /// Writes the record: no more than can be read again. What was begun last, outside of an admission,
    /// is left out first.
    pub(super) fn encode(&self) -> Vec<u8> {
        let size = |section: &Section| section.state.size().saturating_add(SECTION_HEAD);
        let sizes = self.sections.iter().map(size);
        let mut bytes = Vec::with_capacity(sizes.fold(1, usize::saturating_add));
        bytes.push(VERSION);
        for section in self.sections.iter().take(MAX_SECTIONS) {
            bytes.extend_from_slice(&section.id.0);
            encode_window(section.window, &mut bytes);
            section.state.encode(&mut bytes);
        }
        bytes
    }

    /// The state of a limit that is in the record.
    pub(super) fn known(&mut self, id: LimitId) -> Option<&mut State> {
        let section = self.sections.iter_mut().find(|section| section.id == id);
        section.map(|section| &mut section.state)
    }

    /// The state of a limit, begun when it is new.
    pub(super) fn state(&mut self, id: LimitId, window: Window) -> &mut State {
        let mut all = self.sections.iter();
        let found = all.position(|section| section.id == id);
        let is_good = |section: &Section| section.window == window;
        let found = found.filter(|at| self.sections.get(*at).is_some_and(is_good));
        let position = found.unwrap_or_else(|| self.begin(id, window));
        #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
        &mut self.sections[position].state
    }

    /// Where the state of a limit is that was not found at once.
    #[cold]
    fn begin(&mut self, id: LimitId, window: Window) -> usize {
        // A section that lies about its window would be written as none that can be read.
        self.sections
            .retain(|section| section.id != id || section.window == window);
        let position = self.sections.iter().position(|section| section.id == id);
        position.unwrap_or_else(|| {
            self.sections.push(Section {
                id,
                window,
                state: State::new(window),
            });
            self.sections.len().saturating_sub(1)
        })
    }

    /// Whether something was counted after this moment.
    pub(super) fn is_ahead_of(&self, now: Time) -> bool {
        let is_ahead = |section: &Section| section.state.is_ahead_of(section.window, now);
        self.sections.iter().any(is_ahead)
    }

    /// Drops limits that the policy no longer has, once nothing is counted in them.
    pub(super) fn drop_finished(&mut self, current: &[NamedLimit], now: Time) {
        let is_current = |id| current.iter().any(|named| named.id == id);
        self.sections.retain_mut(|section| {
            if is_current(section.id) {
                return true;
            }
            section.state.advance(section.window, now);
            !section.state.is_empty()
        });
        let mut excess = self.sections.len().saturating_sub(MAX_SECTIONS);
        self.sections.retain(|section| {
            let drop = excess > 0 && !is_current(section.id);
            excess = excess.saturating_sub(usize::from(drop));
            !drop
        });
    }
}

const SLIDING: u8 = 0;
/// Bytes of a section before its state: 8 of its id, the kind of its window, 8 of the window's length.
const SECTION_HEAD: usize = 17;

fn encode_window(window: Window, bytes: &mut Vec<u8>) {
    let (kind, millis) = match window {
        Window::Sliding { millis } => (SLIDING, millis),
        Window::Calendar(Period::Hour) => (1, 0),
        Window::Calendar(Period::Day) => (2, 0),
        Window::Calendar(Period::Week) => (3, 0),
        Window::Calendar(Period::Month) => (4, 0),
    };
    bytes.push(kind);
    bytes.extend_from_slice(&millis.to_le_bytes());
}

fn decode_window(bytes: &[u8]) -> Option<(Window, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (millis, rest) = rest.split_first_chunk::<8>()?;
    let window = match *kind {
        SLIDING => Window::Sliding {
            millis: u64::from_le_bytes(*millis),
        },
        1 => Window::Calendar(Period::Hour),
        2 => Window::Calendar(Period::Day),
        3 => Window::Calendar(Period::Week),
        4 => Window::Calendar(Period::Month),
        _ => return None,
    };
    Some((window, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::name_limits;
    use crate::policy::{Count, Limit, Measure, Scope};

    #[test]
    fn every_window_is_read_back() {
        for window in [
            Window::Sliding { millis: 90_000 },
            Window::Calendar(Period::Hour),
            Window::Calendar(Period::Day),
            Window::Calendar(Period::Week),
            Window::Calendar(Period::Month),
        ] {
            let mut bytes = Vec::new();
            encode_window(window, &mut bytes);
            bytes.push(7);
            assert_eq!(decode_window(&bytes), Some((window, &[7][..])));
        }
        assert_eq!(decode_window(&[5; 9]), None);
        assert_eq!(decode_window(&[0; 8]), None);
    }

    fn named(minutes: u64) -> NamedLimit {
        let window = Window::Sliding {
            millis: minutes * 60_000,
        };
        name_limits(&[Limit {
            measure: Measure::Calls,
            amount: 1,
            window,
            count: Count::All,
            scope: Scope::default(),
        }])
        .remove(0)
    }

    fn record(limits: &[NamedLimit], now: Time) -> Record {
        let mut record = Record::default();
        for NamedLimit { id, limit } in limits {
            let state = record.state(*id, limit.window);
            state.advance(limit.window, now);
            state.take(1);
        }
        record
    }

    const NOW: Time = Time::from_millis(1_772_366_400_000);

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let record = record(&[named(1), named(2)], NOW);
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), record);
        for end in 0..bytes.len() {
            let cut = Record::decode(&bytes[..end]);
            assert!(cut.sections.len() < record.sections.len());
        }
        for garbage in [&b""[..], b"\x01", b"\x02x", &[0xff; 5000], &[2; 5000]] {
            Record::decode(garbage).encode();
        }
    }

    #[test]
    fn what_the_version_before_counted_is_kept() {
        let limit = named(1);
        let slot = NOW.millis() * 64 / 60_000;
        let mut bytes = vec![VERSION_BEFORE];
        bytes.extend_from_slice(&limit.id.0);
        encode_window(limit.limit.window, &mut bytes);
        bytes.extend_from_slice(&slot.to_le_bytes());
        for count in [3_u32, 0, 4].into_iter().chain([0; 62]) {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        let mut old = Record::decode(&bytes);
        let standing = |record: &mut Record, millis| {
            let now = Time::from_millis(NOW.millis() + millis);
            let state = record.state(limit.id, limit.limit.window);
            state.advance(limit.limit.window, now);
            state.standing(limit.limit.window, 10, 1, now).used
        };
        let mut new = Record::decode(&old.encode());
        assert_eq!(new, old);
        assert_eq!(standing(&mut old, 0), 7);
        assert_eq!(standing(&mut new, 60_000), 3);
        assert_eq!(standing(&mut new, 61_000), 0);
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let limits: Vec<_> = (1..=64).map(named).collect();
        let mut full = record(&limits, NOW);
        let late = named(65);
        full.state(late.id, late.limit.window).take(1);
        let mut read = Record::decode(&full.encode());
        assert_eq!(read.sections.len(), MAX_SECTIONS);
        assert!(read.known(limits[0].id).is_some());
        assert!(read.known(late.id).is_none());
    }

    #[test]
    fn limits_of_old_policies_go_when_they_are_empty() {
        let (old, new) = (named(1), named(2));
        let mut record = record(&[old, new.clone()], NOW);
        record.drop_finished(std::slice::from_ref(&new), NOW);
        assert_eq!(record.sections.len(), 2);
        let later = Time::from_millis(NOW.millis() + 62_000);
        record.drop_finished(std::slice::from_ref(&new), later);
        assert_eq!(record.sections.len(), 1);
        assert_eq!(record.sections[0].id, new.id);
    }

    #[test]
    fn a_section_that_lies_about_its_window_is_begun_anew() {
        let limit = named(1);
        let mut record = Record::default();
        record
            .state(limit.id, Window::Calendar(Period::Day))
            .take(7);
        let window = limit.limit.window;
        let state = record.state(limit.id, window);
        state.advance(window, NOW);
        state.take(1);
        let mut read = Record::decode(&record.encode());
        assert_eq!(read, record);
        let state = read.state(limit.id, window);
        assert_eq!(state.standing(window, 10, 1, NOW).used, 1);
    }

    #[test]
    fn the_number_of_sections_is_bounded() {
        let limits: Vec<_> = (1..200).map(named).collect();
        let current = limits.last().unwrap();
        let mut record = record(&limits, NOW);
        record.drop_finished(std::slice::from_ref(current), NOW);
        assert_eq!(record.sections.len(), MAX_SECTIONS);
        assert!(
            record
                .sections
                .iter()
                .any(|section| section.id == current.id)
        );
        assert_eq!(Record::decode(&record.encode()), record);
    }
}
