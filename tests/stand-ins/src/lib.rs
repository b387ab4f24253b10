//! Local stand-ins for Entra ID and for Azure OpenAI.
//!
//! They answer as the real services do, as far as a gateway and its clients can see, and can be
//! told to misbehave: `/control/...` on each of them is for tests.
//!
//! | module | owns |
//! | --- | --- |
//! | [`start`] | options, listeners, what runs where |
//! | [`server`] | connections: HTTP/1.1 and HTTP/2, plain or TLS, resets |
//! | [`tls`] | the private CA and the certificate |
//! | [`message`] | requests and answers as plain values |
//! | [`keys`] | signing keys, their rotation, the published key set |
//! | [`tokens`] | access tokens, right and wrong ones |
//! | [`entra`] | the Entra ID stand-in |
//! | [`openai`] | the Azure OpenAI stand-in |

pub mod entra;
pub mod keys;
pub mod message;
pub mod openai;
pub mod random;
pub mod server;
pub mod start;
pub mod tls;
pub mod tokens;

mod body;
