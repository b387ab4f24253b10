//! Records of limits in shared data: whatever stands there, no more than the limit is let in, and nobody is
//! locked out for good.

use tollgate::limits::{
    Admission, Admitted, Asking, Deployment, NamedLimit, ResponseStatus, Settlement, admit,
    name_limits,
};
use tollgate::policy::{Count, Limit, Measure, Period, Scope, Window};
use tollgate::store::{Expected, MemoryStore, SharedStore};
use tollgate::time::Time;

use super::Target;
use crate::common::NOON;

const KEY: &str = "record";
const MOST: usize = 3;
/// 64 sections, each with its name, window, and as many slots as there are.
const MAX_RECORD: usize = 1 + 64 * (8 + 9 + 8 + 1 + 65 * 9);

fn limit(measure: Measure, amount: u64, window: Window, count: Count) -> Limit {
    let scope = Scope::default();
    Limit {
        measure,
        amount,
        window,
        count,
        scope,
    }
}

fn limits() -> Vec<NamedLimit> {
    let window = Window::Sliding { millis: 60_000 };
    name_limits(&[
        limit(Measure::Calls, 3, window, Count::Success),
        limit(
            Measure::Tokens { reserve: true },
            90,
            window,
            Count::Success,
        ),
        limit(Measure::Calls, 5, Window::Calendar(Period::Day), Count::All),
    ])
}

/// A limit that is never reached, and into which a call puts nothing.
fn observer() -> Vec<NamedLimit> {
    let measure = Measure::Tokens { reserve: false };
    name_limits(&[limit(
        measure,
        u64::MAX,
        Window::Calendar(Period::Month),
        Count::All,
    )])
}

fn ask(store: &MemoryStore, limits: &[NamedLimit], now: u64) -> Admitted {
    let asking = Asking {
        action: None,
        deployment: Deployment::None,
        reserve: Some(30),
    };
    let clock = || Time::from_millis(now);
    admit(store, KEY.to_owned(), limits, &asking, &clock, &mut 0).unwrap()
}

/// Ten calls, a tenth of a second apart; those that were let in.
fn ten(store: &MemoryStore, limits: &[NamedLimit], now: u64) -> Vec<Admission> {
    let calls = (0..10).map(|call| ask(store, limits, now + call * 100));
    calls
        .filter_map(|admitted| match admitted {
            Admitted::Counted(admission) => Some(admission),
            Admitted::Reached(reached) => {
                assert!(
                    reached.room_in > 0 && reached.remaining <= reached.limit,
                    "{reached:?}"
                );
                None
            }
        })
        .collect()
}

fn record(store: &MemoryStore) -> Vec<u8> {
    store.read(KEY).unwrap().unwrap().value
}

pub(super) const LIMITS: Target = Target {
    name: "limits",
    seeds: || {
        let store = MemoryStore::default();
        let mut seeds = vec![Vec::new(), vec![2], vec![1]];
        for call in 0..4 {
            ask(&store, &limits(), NOON - 30_000 + call * 7_000);
            seeds.push(record(&store));
        }
        ask(&store, &observer(), NOON);
        seeds.push(record(&store));
        // The layout of the version before: 65 slots of four bytes.
        let section = seeds[3][1..18].to_vec();
        let slot = (NOON * 64 / 60_000).to_le_bytes();
        seeds.push([&[1][..], &section, &slot, &[1, 0, 0, 0].repeat(65)].concat());
        // From a far future, and in the oldest slot: counted now, and soon gone.
        let future = (1_u64 << 60).to_le_bytes();
        let oldest = [&[1, 64][..], &1_u64.to_le_bytes()].concat();
        seeds.push([&[2][..], &section, &future, &oldest].concat());
        seeds
    },
    check,
    outcomes: &["counts as nothing", "counts", "full"],
    words: &[
        "\u{2}",
        "\u{1}",
        "\0",
        "\0\0\0\0\0\0\0\0",
        "\u{1}\0\0\0\0\0\0\0",
        "\u{7f}",
        "A",
    ],
};

fn check(input: &[u8]) -> String {
    let written = || {
        let store = MemoryStore::default();
        store.write(KEY, input, Expected::Absent).unwrap();
        store
    };
    // What was read is written in one way.
    let store = written();
    ask(&store, &observer(), NOON);
    let once = record(&store);
    ask(&store, &observer(), NOON);
    assert_eq!(record(&store), once);
    assert!(once.len() <= MAX_RECORD);

    let store = written();
    let mut admitted = ten(&store, &limits(), NOON);
    let count = admitted.len();
    assert!(count <= MOST, "{count} let in");
    // A place that is given back is one place.
    if let Some(admission) = admitted.pop() {
        let failed = Settlement {
            status: ResponseStatus::Code(500),
            tokens: 0,
        };
        let now = NOON + 1_000;
        // Others may have left the window by then.
        let kept = MemoryStore::default();
        kept.write(KEY, &record(&store), Expected::Absent).unwrap();
        let free = ten(&kept, &limits(), now).len();
        admission
            .settle(&store, &failed, &|| Time::from_millis(now), &mut 0)
            .unwrap();
        assert!(ten(&store, &limits(), now).len() <= free + 1);
    }
    assert!(record(&store).len() <= MAX_RECORD);
    // A day later all windows have passed, whatever the clock had been.
    assert_eq!(ten(&store, &limits(), NOON + 2 * 86_400_000).len(), MOST);
    match count {
        0 => "full",
        MOST => "counts as nothing",
        _ => "counts",
    }
    .to_owned()
}
