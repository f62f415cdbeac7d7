//! How a session behaves: what an embedder may set, with defaults that work.

use core::time::Duration;

use deltasync_core::{Algorithm, CAN_PACK, Limits};

use crate::Rate;

/// Settings of a [`Session`](crate::Session). `Config::default()` suits files up to 16 TiB and links up to a gigabit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Which digest we announce roots in, as a sender and when we ask for a root (default BLAKE3).
    pub algorithm: Algorithm,
    /// Bounds on what comes from the peer.
    pub limits: Limits,
    /// The most transfers that run at once: a client lets more wait, a server refuses more (default 32 and 256). Pushed trees
    /// that only wait for their members do not count, so that there may be twice as many in all.
    pub transfers: usize,
    /// The literal bytes of one piece of a delta, in bytes: 1 to 512 KiB (default 256 KiB), others are brought within.
    pub piece: usize,
    /// The zstd level of literals, 0 to send them raw (default 3).
    pub level: i32,
    /// How long a peer may take for its hello, counted from the first moment of the connection (default 10 s).
    pub handshake: Duration,
    /// After how long without a byte from the peer it is asked for one (default 10 s).
    pub keepalive: Duration,
    /// After how long without a byte from the peer the connection is given up (default 30 s). Within each such time at
    /// least 16 KiB of a frame that has begun, and of what waits to leave, must move, or all the rest of it.
    pub silence: Duration,
    /// After how long without a transfer the connection is ended (default: never).
    pub idle: Option<Duration>,
    /// How many transfers a peer may begin in a second; what is above that is not read yet (default: any number).
    pub requests: Option<Rate>,
    /// How many bytes the transfers of this session may hold together (default 1 GiB, at least 2 MiB). Half of it is for
    /// what the peer has sent and we have not used up: a transfer that passes it is refused as busy. The other half is
    /// for work: a transfer that finds no room waits.
    pub memory: u64,
    /// Whether our storage is asked to remember what both ends have after a push, so that the next one needs less
    /// (default false).
    pub remember: bool,
    /// How many bits of tags and fine sums are used; fewer make collisions, to exercise repair.
    #[doc(hidden)]
    pub tag_bits: u32,
    /// The highest version we speak, to exercise negotiation.
    #[doc(hidden)]
    pub version: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            limits: Limits::default(),
            transfers: 256,
            piece: 256 << 10,
            level: if CAN_PACK { 3 } else { 0 },
            handshake: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            idle: None,
            requests: None,
            memory: 1 << 30,
            remember: false,
            tag_bits: 48,
            version: crate::VERSION,
        }
    }
}

impl Config {
    /// Sets which digest we announce roots in.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets the bounds on what comes from the peer.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the most transfers that run at once.
    #[must_use]
    pub fn transfers(mut self, transfers: usize) -> Self {
        self.transfers = transfers;
        self
    }

    /// Sets the zstd level of literals; 0 sends them raw.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Sets how long a peer may take for its hello.
    #[must_use]
    pub fn handshake(mut self, handshake: Duration) -> Self {
        self.handshake = handshake;
        self
    }

    /// Sets after how long without a byte the peer is asked for one, and after how long it is given up.
    #[must_use]
    pub fn silence(mut self, keepalive: Duration, silence: Duration) -> Self {
        self.keepalive = keepalive;
        self.silence = silence;
        self
    }

    /// Sets after how long without a transfer the connection is ended.
    #[must_use]
    pub fn idle(mut self, idle: Option<Duration>) -> Self {
        self.idle = idle;
        self
    }

    /// Sets how many transfers a peer may begin in a second.
    #[must_use]
    pub fn requests(mut self, requests: Option<Rate>) -> Self {
        self.requests = requests;
        self
    }

    /// Sets how many bytes the transfers of this session may hold together.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Sets whether our storage is asked to remember what both ends have after a push.
    #[must_use]
    pub fn remember(mut self, remember: bool) -> Self {
        self.remember = remember;
        self
    }

    /// The most bytes of a receiver's survey: 16 for each chunk that we could have offered.
    pub(crate) fn survey_max(&self) -> u64 {
        (self.limits.chunks as u64).saturating_mul(16)
    }

    /// Sets how many bits of tags and fine sums are used (1 to 48).
    #[doc(hidden)]
    #[must_use]
    pub fn tag_bits(mut self, bits: u32) -> Self {
        self.tag_bits = bits;
        self
    }

    /// Sets the highest version we speak.
    #[doc(hidden)]
    #[must_use]
    pub fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }
}
