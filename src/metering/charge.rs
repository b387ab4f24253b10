//! What a call is charged: one rule for every way in which a call can end.
//!
//! Never less than what was delivered, as far as the gateway sees it. Limits, metrics, filter state and
//! request log all take the sum from here.

use crate::usage::Usage;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No response began: its caller left, or the gateway gave up.
    NoResponse,
    /// The gateway itself responded, because the backend took too long. The backend has the call all the same.
    TimedOut,
    /// The backend refused the call, or failed.
    Failed,
    /// The backend responded with 2xx, however much of that came.
    Succeeded(Delivered),
    /// The gateway hands over no status: it may have been 2xx.
    StatusUnknown(Delivered),
}

/// What a response delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The usage that it reports.
    pub usage: Option<Usage>,
    /// The tokens that its content is estimated at.
    pub content: u64,
    /// The same of what came after the last usage that a stream reports.
    pub after_usage: u64,
}

/// What a call is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// What the response reports, if it reports tokens.
    pub usage: Option<Usage>,
    /// What no usage covers.
    pub estimated: Option<u64>,
}

impl Charge {
    /// The charge of a call. `prompt`: what its request is estimated at. `reserved`: what limits hold for it.
    #[must_use]
    pub fn of(ending: &Ending, prompt: u64, reserved: u64) -> Self {
        match ending {
            Ending::Failed => Self::default(),
            Ending::NoResponse | Ending::TimedOut => Self::estimated(prompt.max(reserved)),
            Ending::Succeeded(delivered) => {
                let usage = delivered.usage.filter(|usage| usage.tokens().is_some());
                if usage.is_none() {
                    return Self::estimated(delivered.estimate(prompt).max(reserved));
                }
                let after = delivered.after_usage;
                Self {
                    usage,
                    estimated: (after > 0).then_some(after),
                }
            }
            Ending::StatusUnknown(delivered) => {
                let reported = delivered.usage.and_then(|usage| usage.tokens());
                let reported =
                    reported.map_or(0, |tokens| tokens.saturating_add(delivered.after_usage));
                let estimate = delivered.estimate(prompt).max(reported);
                Self::estimated(estimate.max(reserved))
            }
        }
    }

    /// All tokens of it.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        let reported = self.usage.and_then(|usage| usage.tokens());
        reported
            .unwrap_or_default()
            .saturating_add(self.estimated.unwrap_or_default())
    }

    fn estimated(tokens: u64) -> Self {
        Self {
            usage: None,
            estimated: Some(tokens),
        }
    }
}

impl Delivered {
    /// What a call with this response is estimated at. Tools report their tokens even where the model does not.
    fn estimate(&self, prompt: u64) -> u64 {
        let tools = self.usage.and_then(|usage| usage.tools);
        prompt
            .saturating_add(self.content)
            .saturating_add(tools.unwrap_or_default())
    }
}

/// Whether the gateway's response code details say that it responded itself on timing out. Envoy has
/// `stream_idle_timeout`, `response_timeout`, `upstream_per_try_timeout`, `upstream_per_try_idle_timeout`,
/// `max_duration_timeout`, `request_overall_timeout` and `upstream_max_stream_duration_reached`
/// (`envoy/stream_info/stream_info.h`); of a backend's own response they are `via_upstream`. The text in
/// brackets is why a connection failed: a backend that was not reached has no call.
#[must_use]
pub fn is_timeout(details: &[u8]) -> bool {
    let end = details.iter().position(|byte| b"{(".contains(byte));
    let name = end.and_then(|end| details.get(..end)).unwrap_or(details);
    name.ends_with(b"_timeout") || name.ends_with(b"_max_stream_duration_reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: u64 = 11;

    fn reported(tokens: u64) -> Option<Usage> {
        Some(Usage {
            total: Some(tokens),
            ..Usage::default()
        })
    }

    fn delivered(usage: Option<Usage>, content: u64, after_usage: u64) -> Delivered {
        Delivered {
            usage,
            content,
            after_usage,
        }
    }

    #[test]
    fn every_way_in_which_a_call_ends_has_its_charge() {
        let tools = Some(Usage {
            tools: Some(7),
            ..Usage::default()
        });
        let whole = delivered(reported(25), 900, 0);
        let early = delivered(reported(25), 900, 800);
        let silent = delivered(None, 900, 900);
        let odd = delivered(Some(Usage::default()), 900, 900);
        for (ending, without, with_hold) in [
            (Ending::Failed, (0, None), (0, None)),
            (Ending::NoResponse, (11, Some(11)), (500, Some(500))),
            (Ending::TimedOut, (11, Some(11)), (500, Some(500))),
            (Ending::Succeeded(whole), (25, None), (25, None)),
            (Ending::Succeeded(early), (825, Some(800)), (825, Some(800))),
            (
                Ending::Succeeded(silent),
                (911, Some(911)),
                (911, Some(911)),
            ),
            (Ending::Succeeded(odd), (911, Some(911)), (911, Some(911))),
            (
                Ending::Succeeded(delivered(None, 20, 0)),
                (31, Some(31)),
                (500, Some(500)),
            ),
            (
                Ending::Succeeded(delivered(tools, 20, 0)),
                (38, Some(38)),
                (500, Some(500)),
            ),
            (
                Ending::StatusUnknown(whole),
                (911, Some(911)),
                (911, Some(911)),
            ),
            (
                Ending::StatusUnknown(delivered(reported(2_000), 900, 3)),
                (2_003, Some(2_003)),
                (2_003, Some(2_003)),
            ),
            (
                Ending::StatusUnknown(Delivered::default()),
                (11, Some(11)),
                (500, Some(500)),
            ),
        ] {
            for (reserved, (tokens, estimated)) in [(0, without), (500, with_hold)] {
                let charge = Charge::of(&ending, PROMPT, reserved);
                assert_eq!(charge.tokens(), tokens, "{ending:?} {reserved}");
                assert_eq!(charge.estimated, estimated, "{ending:?} {reserved}");
            }
        }
    }

    #[test]
    fn a_charge_does_not_wrap() {
        let most = delivered(reported(u64::MAX), u64::MAX, u64::MAX);
        for ending in [Ending::Succeeded(most), Ending::StatusUnknown(most)] {
            assert_eq!(Charge::of(&ending, u64::MAX, u64::MAX).tokens(), u64::MAX);
        }
    }

    #[test]
    fn l3_a_timeout_is_told_from_the_backends_own_status_by_the_details() {
        for details in [
            "stream_idle_timeout",
            "response_timeout",
            "upstream_response_timeout",
            "upstream_per_try_timeout",
            "upstream_per_try_idle_timeout",
            "upstream_max_stream_duration_reached",
            "max_duration_timeout",
            "request_overall_timeout",
            "response_timeout{more}",
        ] {
            assert!(is_timeout(details.as_bytes()), "{details}");
        }
        for details in [
            "",
            "via_upstream",
            "direct_response",
            "no_healthy_upstream",
            "upstream_reset_before_response_started{connection_timeout}",
            "upstream_reset_before_response_started{delayed_connect_error:_timeout}",
            "downstream_local_disconnect(transport_socket_timeout)",
            "tollgate_TokenNotPresent",
        ] {
            assert!(!is_timeout(details.as_bytes()), "{details}");
        }
    }
}
