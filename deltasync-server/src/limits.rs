//! What the peers of a server may take of it, in one place.
//!
//! | limit | default | over it |
//! |---|---|---|
//! | connections in all | 8,192 | `Close` with code busy |
//! | connections of one address (IPv4) or network (IPv6, /64); loopback is exempt | 64 | `Close` with code busy |
//! | time for the whole hello, from the accept on | 10 s | `Close` with code timed out |
//! | time without a transfer | 10 min | `Close` with code timed out |
//! | time without a byte, or without 16 KiB of what has begun to move | 30 s | `Close` with code timed out |
//! | transfers of one connection at a time, and as many files of trees that wait for them | 256 | `Refused` with code busy |
//! | transfers begun in a second, on one connection | 5,000, twice as many at once | it is read more slowly |
//! | the same, of one address or network; loopback is exempt | 10,000, twice as many at once | they are read more slowly |
//! | memory of one connection's transfers | 128 MiB | they wait, or `Refused` with code busy |
//! | bytes in flight of one transfer | 1 MiB, then 4 MiB | `Close` with code misbehaved |
//! | length of a file | 16 TiB | `Close` with code limit |
//! | length of a path, of a name in it | 4,096 and 255 bytes | `Close` with code invalid |
//! | entries in one page of a listing | 200 | another page is asked for |
//!
//! The first nine are fields of [`ServerLimits`]; what a session enforces is set from them in its
//! [`Config`](deltasync_proto::Config) and [`Limits`](deltasync_core::Limits), the rest is fixed by the protocol. No
//! limit of one peer is spent by another but the first, which is why the second is far below it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deltasync_core::ByteLen;
use deltasync_proto::{Config, Pace, Rate, Timestamp};

/// What the peers of a server may take of it. `ServerLimits::default()` suits a server open to strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The most connections at a time (default 8,192).
    pub connections: usize,
    /// The most of them from one address, or one /64 network of IPv6 (default 64).
    pub connections_per_address: usize,
    /// How many transfers a second may begin on one connection (default 5,000).
    pub requests: u32,
    /// How many transfers a second may begin from one address (default 10,000).
    pub requests_per_address: u32,
    /// The limits by address also hold for this machine's own, such as 127.0.0.1 (default false).
    pub loopback: bool,
    /// The most transfers of one connection at a time (default 256), and as many files of trees that wait for them.
    pub transfers: usize,
    /// How many bytes the transfers of one connection may hold together (default 128 MiB).
    pub memory: ByteLen,
    /// The longest file (default 16 TiB).
    pub file: ByteLen,
    /// How long a peer may take for its hello, from the moment its connection was accepted (default 10 s).
    pub handshake: Duration,
    /// How long a connection may be without a transfer; `None`: any time (default 10 min).
    pub idle: Option<Duration>,
    /// How long a peer may be silent, or keep us from moving on (default 30 s).
    pub stall: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: 64,
            requests: 5000,
            requests_per_address: 10_000,
            loopback: false,
            transfers: 256,
            memory: ByteLen::new(128 << 20),
            file: deltasync_core::Limits::default().file,
            handshake: Duration::from_secs(10),
            idle: Some(Duration::from_secs(600)),
            stall: Duration::from_secs(30),
        }
    }
}

impl ServerLimits {
    /// What a session enforces of this, in place of what `config` says.
    pub(crate) fn session(&self, mut config: Config) -> Config {
        let keepalive = config.keepalive.min(self.stall / 3);
        config.limits = config.limits.file(self.file);
        config
            .transfers(self.transfers)
            .handshake(self.handshake)
            .silence(keepalive, self.stall)
            .idle(self.idle)
            .requests(Some(Rate::of(self.requests)))
            .memory(self.memory.get())
    }
}

/// Who counts as one peer: an address, or a /64 network of IPv6, which one customer of a provider has whole.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

/// How much each address takes of the server now.
#[derive(Debug)]
pub(crate) struct Origins {
    most: usize,
    rate: Rate,
    loopback: bool,
    start: Instant,
    taken: Mutex<HashMap<IpAddr, Origin>>,
}

#[derive(Debug, Default)]
struct Origin {
    connections: usize,
    pace: Pace,
}

/// A connection's place among those of its address; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    origins: Arc<Origins>,
    /// `None` for those that are exempt.
    origin: Option<IpAddr>,
}

impl Origins {
    pub(crate) fn new(limits: &ServerLimits) -> Arc<Self> {
        Arc::new(Self {
            most: limits.connections_per_address,
            rate: Rate::of(limits.requests_per_address),
            loopback: limits.loopback,
            start: Instant::now(),
            taken: Mutex::default(),
        })
    }

    /// A place for one more connection from this address, if there is one.
    pub(crate) fn place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        if address.to_canonical().is_loopback() && !self.loopback {
            return Some(Place { origins: self.clone(), origin: None });
        }
        let origin = origin(address);
        let mut taken = self.lock();
        let entry = taken.entry(origin).or_default();
        if entry.connections >= self.most {
            return None;
        }
        entry.connections += 1;
        Some(Place { origins: self.clone(), origin: Some(origin) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Origin>> {
        // Counts are changed in one step each: a panic elsewhere leaves them right.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Place {
    /// A transfer has begun on this connection.
    pub(crate) fn count(&self) {
        if let Some(origin) = self.origin
            && let Some(entry) = self.origins.lock().get_mut(&origin)
        {
            entry.pace.count(self.origins.rate, self.origins.now());
        }
    }

    /// For how long nothing may be read from this address, because it begins transfers too fast.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let origin = self.origin?;
        let next = self.origins.lock().get(&origin)?.pace.next(self.origins.rate);
        let wait = Duration::from_nanos(next.get().saturating_sub(self.origins.now().get()));
        (!wait.is_zero()).then_some(wait)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(origin) = self.origin else { return };
        let mut taken = self.origins.lock();
        if let Some(entry) = taken.get_mut(&origin) {
            entry.connections -= 1;
            // What it has overdrawn is forgotten only with its last connection, when it is not overdrawn any more.
            let even = entry.pace.next(self.origins.rate) <= self.origins.now();
            if entry.connections == 0 && even {
                taken.remove(&origin);
            }
        }
        // Those that were overdrawn when they left.
        if taken.len() > SWEPT {
            let now = self.origins.now();
            taken.retain(|_, entry| entry.connections > 0 || entry.pace.next(self.origins.rate) > now);
        }
    }
}

/// From so many addresses on, those that left are looked for.
const SWEPT: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_places_and_gets_them_back() {
        let limits = ServerLimits { connections_per_address: 2, ..ServerLimits::default() };
        let origins = Origins::new(&limits);
        for [one, other] in [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8:0:1::1"]] {
            let held: Vec<_> = (0..2).map(|_| origins.place(address(one)).expect("a place")).collect();
            assert!(origins.place(address(one)).is_none());
            assert!(origins.place(address(other)).is_some(), "others have their own");
            drop(held);
            assert!(origins.place(address(one)).is_some());
        }
        assert!(origins.lock().is_empty(), "nothing is kept of those that left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_its_ipv4() {
        assert_eq!(origin(address("2001:db8::1:2:3:4")), origin(address("2001:db8::ffff:0:0:1")));
        assert_eq!(origin(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        let origins = Origins::new(&ServerLimits { connections_per_address: 0, ..ServerLimits::default() });
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            // ::1 is masked to :: by its network, and must still be known.
            assert!(origins.place(address(loopback)).is_some(), "{loopback}");
        }
        let strict = ServerLimits { connections_per_address: 0, loopback: true, ..ServerLimits::default() };
        assert!(Origins::new(&strict).place(address("127.0.0.1")).is_none());
    }

    #[test]
    fn an_address_that_begins_too_much_waits_and_others_do_not() {
        let limits = ServerLimits { requests_per_address: 10, ..ServerLimits::default() };
        let origins = Origins::new(&limits);
        let [one, same, other] =
            ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|a| origins.place(address(a)).expect("a place"));
        for _ in 0..20 {
            assert_eq!(one.wait(), None);
            one.count();
        }
        assert!(one.wait().is_some() && same.wait().is_some() && other.wait().is_none());
    }

    #[test]
    fn a_session_is_given_what_the_server_allows() {
        let limits = ServerLimits { stall: Duration::from_secs(6), transfers: 7, ..ServerLimits::default() };
        let config = limits.session(Config::default());
        assert_eq!((config.silence, config.keepalive), (Duration::from_secs(6), Duration::from_secs(2)));
        assert_eq!((config.transfers, config.memory), (7, 128 << 20));
    }
}
