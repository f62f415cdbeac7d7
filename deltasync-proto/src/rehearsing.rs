//! A push that only tells what it would move: it runs as any other up to its delta, which is made and packed as it would
//! be, counted, and not sent; then the transfer is cancelled.
//!
//! Where the delta would go with the offer, the receiver is asked first all the same: the answer tells whether it would
//! have been of use. So a dry run takes a round trip where the push takes none, and both move the same bytes, but for the
//! delta: what the receiver says in place of it has no payload, and its last word, a few bytes, is not counted.
//!
//! Invariant: no frame with operations or literals is queued.

use alloc::boxed::Box;

use deltasync_core::ByteLen;

use crate::context::{Context, Trouble};
use crate::delivering::Delivering;
use crate::delivery::Delivery;
use crate::sending::{Common, End, Sending, ended};
use crate::{OpenedFile, Outcome, Progress, TransferMessage};

/// What a dry run has not sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unsent {
    /// Bytes of frames, headers left out.
    bytes: u64,
    /// The bytes of a delta that would be on its way by now, with the offer.
    ahead: Option<u64>,
}

impl Unsent {
    /// A delta of so many bytes would go with the offer.
    pub(crate) fn go_ahead(&mut self, bytes: u64) {
        self.ahead = Some(bytes);
    }

    /// True when what the receiver says is the answer to an offer with which the delta would have come.
    pub(crate) fn is_ahead(self) -> bool {
        self.ahead.is_some()
    }

    /// Counts a frame's payload.
    pub(crate) fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// All that was counted.
    pub(crate) fn bytes(self) -> ByteLen {
        ByteLen::new(self.bytes)
    }
}

impl Common {
    /// This push only tells what it would move.
    pub(crate) fn is_dry(&self) -> bool {
        self.origin.to.as_ref().is_some_and(|wish| wish.dry)
    }

    /// The receiver answers an offer with which the delta would have come.
    pub(crate) fn unsent_ahead(
        mut self,
        message: TransferMessage,
        target: OpenedFile,
        delivery: Option<Box<Delivery>>,
        cx: &mut Context<'_>,
    ) -> Result<Sending, Trouble> {
        let ahead = self.unsent.ahead.take().unwrap_or(0);
        match (message, delivery) {
            // It would have come for nothing.
            (TransferMessage::Stale, Some(_)) => {
                self.unsent.count(ahead);
                Ok(Sending::list(self, target, cx))
            }
            (TransferMessage::Same(generation), Some(_)) => {
                self.unsent.count(ahead);
                Ok(ended(&self, &target, End::Same(generation), cx))
            }
            (TransferMessage::Current, Some(delivery)) => Ok(Delivering::begin(self, target, *delivery, cx)),
            (TransferMessage::Current | TransferMessage::Same(_), None) => Ok(Delivering::whole(self, target, cx)),
            (other, _) => Err(cx.unexpected(&other, "waiting for the answer to a dry run")),
        }
    }

    /// All would have been sent.
    pub(crate) fn rehearsed(self, target: &OpenedFile, mut progress: Progress, cx: &mut Context<'_>) -> Sending {
        progress.wire = ByteLen::new(cx.flow.wire) + self.unsent.bytes();
        cx.flow.clear();
        cx.send(TransferMessage::Cancel);
        let (len, root) = (target.chunks.len(), target.chunks.root());
        let known = self.known;
        Sending::Ended(Outcome { len, root, generation: None, progress, repairs: 0, known })
    }
}
