//! Where a session's files live: a request goes in with a handle for the reply, and the answer comes when it comes.
//!
//! [`Storage`] is object-safe and says nothing of threads or runtimes, so that files on blocking threads, memory and
//! object stores fit alike. Who can only answer at once implements [`BlockingStorage`] and is run by
//! [`Threads`](crate::Threads).
//!
//! Invariant: every request gets exactly one answer. A [`Reply`] that is dropped answers by a fault, so that a storage
//! with a bug fails a transfer and hangs none.

use std::fmt;

use deltasync_proto::{Answer, Ask, FaultKind, StorageFault};

/// Whoever holds the files.
///
/// # Security
///
/// The places in a request come from a peer. A [`RelPath`](deltasync_core::RelPath) cannot climb out of its root by its
/// bytes; that no symbolic link on the way leads out is for the storage to see to.
pub trait Storage: Send + Sync + 'static {
    /// Takes in a request and returns at once; the answer goes through `reply`, from any thread. Requests may be answered
    /// in any order.
    fn submit(&self, ask: Ask, reply: Reply);
}

/// A storage in its simplest form: it answers while the caller waits.
pub trait BlockingStorage: Send + Sync + 'static {
    /// The answer to a request. May block on a disk, and is called from several threads at once.
    ///
    /// # Errors
    ///
    /// [`StorageFault`] with a message that names the path as the peer knows it, and no path of the machine: it may be
    /// shown to the peer.
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault>;
}

/// Takes the answer to one request.
pub struct Reply(Option<Box<Taker>>);

type Taker = dyn FnOnce(Result<Answer, StorageFault>) + Send;

impl Reply {
    /// A reply that hands the answer to `f`, which must not block.
    pub fn new(f: impl FnOnce(Result<Answer, StorageFault>) + Send + 'static) -> Self {
        Self(Some(Box::new(f)))
    }

    /// Answers.
    pub fn send(mut self, answer: Result<Answer, StorageFault>) {
        self.hand_over(answer);
    }

    fn hand_over(&mut self, answer: Result<Answer, StorageFault>) {
        if let Some(f) = self.0.take() {
            f(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.hand_over(Err(StorageFault::new(FaultKind::Other, "the storage gave no answer")));
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_reply_answers_once_also_when_it_is_dropped() {
        let (sender, answers) = mpsc::channel();
        let reply = |sender: &mpsc::Sender<_>| {
            let sender = sender.clone();
            Reply::new(move |answer: Result<Answer, StorageFault>| {
                sender.send(answer.is_ok()).expect("the test listens")
            })
        };
        reply(&sender).send(Ok(Answer::Applied));
        drop(reply(&sender));
        drop(sender);
        assert_eq!(answers.into_iter().collect::<Vec<_>>(), [true, false]);
    }
}
