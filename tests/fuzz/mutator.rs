//! Changes of inputs, by chance but the same every time.

use std::collections::BTreeMap;

use crate::common::Random;
use crate::targets::Target;

/// Longest input. What is longer costs time and says nothing new.
const MAX_INPUT: usize = 4_096;

/// Most inputs that are kept of one outcome.
const MAX_KEPT: usize = 64;

/// Inputs by how far they came: each outcome is changed further as often as any other, so that a run is not
/// spent on what the first check refuses.
#[derive(Default)]
pub(crate) struct Pool(BTreeMap<String, Vec<Vec<u8>>>);

impl Pool {
    pub(crate) fn add(&mut self, outcome: String, input: Vec<u8>, random: &mut Random) {
        let kept = self.0.entry(outcome).or_default();
        if kept.len() < MAX_KEPT {
            kept.push(input);
        } else if random.below(16) == 0 {
            // One of the later half: the seeds stay.
            kept[MAX_KEPT / 2 + random.below(MAX_KEPT / 2)] = input;
        }
    }

    fn pick(&self, random: &mut Random) -> &[u8] {
        let outcome = random.below(self.0.len());
        random.pick(self.0.values().nth(outcome).unwrap())
    }

    /// An input that is a change of another, mostly by one step.
    pub(crate) fn change(&self, target: &Target, random: &mut Random) -> Vec<u8> {
        let mut input = self.pick(random).to_vec();
        let most = 1 + random.below(4);
        for _ in 0..=random.below(most) {
            let other = self.pick(random);
            step(&mut input, other, target.words, random);
        }
        input.truncate(MAX_INPUT);
        input
    }
}

fn step(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = at + random.below(input.len() - at + 1);
    // Short pieces more often than long ones.
    let near = end.min(at + random.below(16));
    match random.below(14) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
        2 => drop(input.drain(at..near)),
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        6 => {
            let piece = piece(other, random).to_vec();
            input.splice(at..near, piece);
        }
        7 => {
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        8 if input.len() - at >= 8 => {
            let number = random.next() >> random.below(64);
            input[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        9 | 10 => {
            let (from, to) = run_at(other, random.below(other.len() + 1));
            replace_run(input, at, &other[from..to]);
        }
        11 => replace_run(input, at, random.pick(&NUMBERS).as_bytes()),
        12 => replace_run(input, at, random.pick(words).as_bytes()),
        _ => drop(input.splice(at..near, random.pick(words).bytes())),
    }
}

const NUMBERS: [&str; 8] = [
    "0",
    "1",
    "-1",
    "255",
    "65536",
    "4294967295",
    "18446744073709551615",
    "1e309",
];

fn piece<'a>(of: &'a [u8], random: &mut Random) -> &'a [u8] {
    let from = random.below(of.len() + 1);
    &of[from..from + random.below(of.len() - from + 1)]
}

/// The letters and digits around a place: a word, a number, a name.
fn run_at(input: &[u8], at: usize) -> (usize, usize) {
    let is_end = |byte: &u8| !byte.is_ascii_alphanumeric();
    let from = input[..at]
        .iter()
        .rposition(is_end)
        .map_or(0, |end| end + 1);
    let length = input[at..].iter().position(is_end);
    (from, length.map_or(input.len(), |length| at + length))
}

fn replace_run(input: &mut Vec<u8>, at: usize, instead: &[u8]) {
    let (from, to) = run_at(input, at);
    input.splice(from..to, instead.iter().copied());
}
