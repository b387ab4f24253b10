//! The body that the server sends: piece by piece, and perhaps only half of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::message::Content;

/// Time for the first half to arrive before the connection is reset.
const BEFORE_RESET: Duration = Duration::from_millis(50);

pub(crate) struct ScriptedBody {
    pieces: VecDeque<Bytes>,
    length: Option<u64>,
    paused: bool,
    reset: Option<(Pin<Box<Sleep>>, Arc<Notify>)>,
}

impl ScriptedBody {
    pub(crate) fn whole(content: Content) -> Self {
        match content {
            Content::Whole(bytes) => {
                let length = u64::try_from(bytes.len()).ok();
                Self {
                    length,
                    ..Self::of([bytes])
                }
            }
            Content::Pieces(pieces) => Self::of(pieces),
        }
    }

    /// Sends the first half and then has the connection reset.
    pub(crate) fn half(content: Content, reset: Arc<Notify>) -> Self {
        let half = match content {
            Content::Whole(bytes) => vec![bytes.slice(..bytes.len() / 2)],
            Content::Pieces(mut pieces) => {
                pieces.truncate(pieces.len() / 2);
                pieces
            }
        };
        Self {
            reset: Some((Box::pin(sleep(BEFORE_RESET)), reset)),
            ..Self::of(half)
        }
    }

    fn of(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect();
        Self {
            pieces,
            length: None,
            paused: true,
            reset: None,
        }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some((timer, reset)) = &mut self.reset else {
            return Poll::Ready(None);
        };
        if timer.as_mut().poll(context).is_ready() {
            reset.notify_one();
            // Nothing more comes; the connection goes away under this body.
            self.reset = Some((Box::pin(sleep(Duration::from_secs(3600))), Arc::default()));
        }
        Poll::Pending
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // A pause between two pieces makes the server send each of them on its own.
        self.paused = !self.paused;
        if self.paused && !self.pieces.is_empty() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => self.poll_end(context).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.reset.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
