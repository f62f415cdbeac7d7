//! What a connection waits for, and until when: the hello, signs of life, the rest of a frame, room for what we send.
//!
//! A peer that trickles must not hold a connection for ever. So what has begun moves on by at least [`STEP`] bytes, or
//! comes to its end, within each span of [`Config::silence`]: a frame that has begun to come, and the bytes that wait to
//! leave. One byte a minute is no progress. A connection on which no transfer runs may be ended after a time of its own.
//!
//! Invariant: `next` is the earliest time at which `due` has something to say, so a driver that keeps the deadline never
//! wakes in vain and never late.

use crate::{Config, SessionError, Timestamp};

/// How many bytes count as progress, within a frame or of what leaves.
pub(crate) const STEP: usize = 16 << 10;

/// What a connection lacks that is ended for being idle, in [`SessionError::TimedOut`].
pub const NOTHING_TO_DO: &str = "transfer";

/// When the peer last did what it should.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    received: Timestamp,
    pinged: bool,
    /// A frame that has begun to come.
    frame: Option<Mark>,
    /// Bytes that wait to leave.
    leaving: Option<Mark>,
    /// When a transfer last ran.
    active: Timestamp,
}

/// The last progress of something that is not whole.
#[derive(Clone, Copy, Debug)]
struct Mark {
    since: Timestamp,
    bytes: usize,
}

/// What a deadline asks for.
#[derive(Debug)]
pub(crate) enum Due {
    /// The peer is asked for a sign of life.
    Ping,
    /// The connection ends.
    End(SessionError),
}

/// What the connection is in the middle of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// Both hellos are known.
    pub(crate) open: bool,
    /// Transfers run, or wait to.
    pub(crate) busy: bool,
}

impl Mark {
    const fn at(now: Timestamp) -> Self {
        Self { since: now, bytes: 0 }
    }

    fn moved(self, now: Timestamp, len: usize) -> Self {
        let bytes = self.bytes + len;
        if bytes >= STEP { Self::at(now) } else { Self { bytes, ..self } }
    }
}

impl Watch {
    /// The peer's bytes have come.
    pub(crate) fn received(&mut self, now: Timestamp) {
        (self.received, self.pinged) = (now, false);
    }

    /// After `len` received bytes were looked at, `frames` whole frames were taken, and the rest is of a frame that is
    /// not whole, if `partial`.
    pub(crate) fn taken(&mut self, now: Timestamp, len: usize, frames: usize, partial: bool) {
        self.frame = partial.then(|| match self.frame {
            Some(mark) if frames == 0 => mark.moved(now, len),
            _ => Mark::at(now),
        });
    }

    /// True while a frame is on its way, of which nobody knows what it says.
    pub(crate) fn is_receiving(&self) -> bool {
        self.frame.is_some()
    }

    /// We do not take what the peer sends: it cannot be late.
    pub(crate) fn held_up(&mut self, now: Timestamp) {
        if let Some(mark) = &mut self.frame {
            mark.since = now;
        }
    }

    /// Bytes wait to leave, perhaps behind others.
    pub(crate) fn transmitted(&mut self, now: Timestamp) {
        self.leaving.get_or_insert(Mark::at(now));
    }

    /// So many bytes have left, and so many still wait.
    pub(crate) fn written(&mut self, now: Timestamp, len: usize, left: usize) {
        self.leaving = self.leaving.filter(|_| left > 0).map(|mark| mark.moved(now, len));
    }

    /// A transfer runs.
    pub(crate) fn active(&mut self, now: Timestamp) {
        self.active = now;
    }

    /// What is due now.
    pub(crate) fn due(&mut self, now: Timestamp, stage: Stage, config: &Config) -> Option<Due> {
        let late = |what, after| Some(Due::End(SessionError::TimedOut { what, after }));
        if !stage.open {
            let over = now >= Timestamp::new(0).after(config.handshake);
            return if over { late("hello", config.handshake) } else { None };
        }
        let over = |mark: Option<Mark>| mark.is_some_and(|mark| now >= mark.since.after(config.silence));
        if over(self.frame) {
            return late("rest of a frame", config.silence);
        }
        if over(self.leaving) {
            return late("room for what we send", config.silence);
        }
        if self.pinged && now >= self.received.after(config.silence) {
            return late("sign of life", config.silence);
        }
        if let Some(idle) = config.idle
            && !stage.busy
            && now >= self.active.after(idle)
        {
            return late(NOTHING_TO_DO, idle);
        }
        if !self.pinged && now >= self.received.after(config.keepalive) {
            self.pinged = true;
            return Some(Due::Ping);
        }
        None
    }

    /// When something will be due, if nothing comes before.
    pub(crate) fn next(&self, stage: Stage, config: &Config) -> Timestamp {
        if !stage.open {
            return Timestamp::new(0).after(config.handshake);
        }
        let life = if self.pinged { config.silence } else { config.keepalive };
        let marks = [self.frame, self.leaving].into_iter().flatten().map(|mark| mark.since.after(config.silence));
        let idle = config.idle.filter(|_| !stage.busy).map(|idle| self.active.after(idle));
        marks.chain(idle).fold(self.received.after(life), Timestamp::min)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Whatever happens, nothing is due before `next` and something is at it.
    fn check_next_is_when_something_is_due(steps: &[(u64, u8, usize)], busy: bool) {
        let config = Config::default().idle(Some(Duration::from_secs(45)));
        let stage = Stage { open: true, busy };
        let (mut watch, mut now) = (Watch::default(), Timestamp::new(0));
        for &(seconds, what, len) in steps {
            let next = watch.next(stage, &config);
            let later = now.after(Duration::from_secs(seconds));
            if later >= next {
                let just_before = Timestamp::new(next.get() - 1).max(now);
                if just_before < next {
                    assert!(watch.due(just_before, stage, &config).is_none(), "{watch:?}");
                }
                match watch.due(next.max(now), stage, &config) {
                    Some(Due::Ping) => assert!(watch.next(stage, &config) > next.max(now), "{watch:?}"),
                    Some(Due::End(_)) => return,
                    None => panic!("nothing is due at {next:?}: {watch:?}"),
                }
                now = next.max(now);
                continue;
            }
            now = later;
            match what {
                0 => {
                    watch.received(now);
                    watch.taken(now, len, len % 3, len % 2 == 0);
                }
                1 => watch.transmitted(now),
                2 => watch.written(now, len, len % 4),
                _ => watch.active(now),
            }
        }
    }

    proptest! {
        #[test]
        fn next_is_when_something_is_due(
            steps in prop::collection::vec((0u64..40, 0u8..4, 0usize..20_000), 0..60), busy: bool,
        ) {
            check_next_is_when_something_is_due(&steps, busy);
        }
    }
}
