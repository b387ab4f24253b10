//! Counters in Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use limitador::counter::Counter;
use redis::aio::ConnectionManager;
use redis::{Client, RedisError, Script};

/// Adds to counters and answers what they then are and for how many milliseconds they live. Redis runs a
/// script alone, so limits are exact whatever the number of gateways and of services. A window begins
/// with the first hit in it.
const COUNT: &str = "
    local answer = {}
    for at, key in ipairs(KEYS) do
        local hits, window = tonumber(ARGV[2 * at - 1]), ARGV[2 * at]
        if hits > 0 then
            redis.call('incrby', key, hits)
            redis.call('expire', key, window, 'NX')
        end
        answer[2 * at - 1] = tonumber(redis.call('get', key) or 0)
        answer[2 * at] = redis.call('pttl', key)
    end
    return answer";

/// A counter to add to.
pub(crate) struct Hit {
    pub(crate) counter: Counter,
    pub(crate) hits: u64,
}

/// What a counter is after that.
pub(crate) struct Counted {
    pub(crate) value: u64,
    pub(crate) reset: Duration,
}

/// The counters of all limits.
pub(crate) struct Counters {
    redis: ConnectionManager,
    count: Script,
}

impl Counters {
    pub(crate) async fn connect(address: &str) -> Result<Self, RedisError> {
        Ok(Self {
            redis: Client::open(address)?.get_connection_manager().await?,
            count: Script::new(COUNT),
        })
    }

    /// Adds to all of them at once; one answer for each.
    pub(crate) async fn count(&self, hits: &[Hit]) -> Result<Vec<Counted>, RedisError> {
        if hits.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = self.count.prepare_invoke();
        for Hit { counter, hits } in hits {
            let window = counter.limit().seconds();
            script.key(name(counter)).arg(*hits).arg(window);
        }
        let answer: Vec<i64> = script.invoke_async(&mut self.redis.clone()).await?;
        let pairs = answer.chunks_exact(2).zip(hits);
        Ok(pairs
            .map(|(pair, hit)| Counted {
                value: u64::try_from(pair[0]).unwrap_or_default(),
                // Negative: nothing was counted yet.
                reset: u64::try_from(pair[1])
                    .map_or_else(|_| hit.counter.window(), Duration::from_millis),
            })
            .collect())
    }
}

/// A counter's name: everything that tells limits apart but their amount, so that a limit can be raised.
fn name(counter: &Counter) -> String {
    let limit = counter.limit();
    let conditions: BTreeSet<String> = limit.conditions().into_iter().collect();
    let domain = limit.namespace().as_ref();
    let values = counter.set_variables();
    format!("{domain} {} {conditions:?} {values:?}", limit.seconds())
}
