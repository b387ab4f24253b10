//! What a call used, read as its bytes stream by; and what a request body asks for.
//!
//! Every reader here is pushed bytes, cut anywhere, and gives the same result for every cut. None
//! keeps more than a few KiB, recurses, or goes back: the cost is linear in the bytes, and a gigabyte
//! of answer takes no more memory than a small one.
//!
//! | reader | reads |
//! | --- | --- |
//! | [`JsonUsageReader`] | `usage` in a JSON answer |
//! | [`EventStreamReader`] | `usage` in server-sent events |
//! | [`EventFilter`] | the same, and takes out the usage event that the caller did not ask for |
//! | [`AnswerReader`] | whichever of these an answer's headers call for |
//! | [`ModelReader`] | `model` and what bounds the answer, in a request body |
//! | [`FormReader`] | `model` in a request body that is a form |
//!
//! The two sides differ in how strict they are. An answer comes from the backend, so what is
//! odd in it is passed over, and what was found stays found. A request comes from anyone: what two
//! readers could read differently is refused.

mod answer;
mod attachments;
mod bytes;
mod count;
mod events;
mod filter;
mod form;
mod grammar;
mod reading;
mod request;
mod skip;
mod text;

pub use answer::JsonUsageReader;
pub use attachments::Attachments;
pub(crate) use bytes::is_white_space;
pub use count::Usage;
pub use events::EventStreamReader;
pub use filter::{EventFilter, MAX_HELD};
pub use form::{FormError, FormReader};
pub(crate) use reading::MediaType;
pub use reading::{AnswerReader, BodyReader, Passed, is_event_stream};
pub use request::{BodyError, Member, ModelReader};
