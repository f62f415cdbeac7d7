//! The staging of a served directory: what it may take, and what is kept of stages that came to nothing, to go on from.
//!
//! A stage that is dropped before its commit leaves its file, when that holds enough to be worth it: a partial. The file's
//! name tells from its first byte on which target it is a part of, as a hash of the place and one of the root, so that a
//! partial is found again also after the process was killed or the machine went down. Nothing about its content is
//! believed: it is read and cut like any basis, and what is made of it is checked like any target.
//!
//! There is one partial for each target. They may take as much as is left of the quota for staging, at most 64 GiB, in at
//! most 4,096 files, each for at most seven days after its last byte was written; the oldest go first, also when a stage
//! needs their room. While a stage is being written, what it has claimed so far counts, some MiB ahead of what has come:
//! announcing a length claims nothing.
//!
//! Age is told by the clock of the disk, which is read off a file that is made for that at the start.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use deltasync_core::{Algorithm, ByteLen, Digest, Name};
use deltasync_proto::Place;

use super::root::Dir;
use crate::disk::{AnyFile, DiskKind};

/// Fewer bytes than this are not worth being kept.
pub(super) const LEAST: u64 = 64 << 10;

/// How long a partial is kept, in seconds.
pub(super) const AGE_MAX: i64 = 7 * 24 * 60 * 60;

/// How many partials are kept, and how many bytes.
const MOST: usize = 4096;
const BYTES_MAX: u64 = 64 << 30;

/// What is staged in a served directory.
#[derive(Debug)]
pub(super) struct Staging {
    directory: Arc<Dir>,
    /// What all may take, in bytes.
    quota: u64,
    /// What the disk's clock showed at the start, in seconds since 1970, and when that was.
    started: (i64, Instant),
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// What stages have claimed, in bytes.
    claimed: u64,
    partials: BTreeMap<Target, Partial>,
    /// What the partials take, in bytes.
    bytes: u64,
}

/// Which target a stage is for. Those of one place stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    place: [u8; 16],
    root: [u8; 8],
}

#[derive(Debug)]
struct Partial {
    name: Name,
    len: u64,
    /// When it was written last, in seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

/// No more can be staged just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} more bytes do not fit with the {claimed} that are being staged: at most {quota} at once")]
pub(super) struct Full {
    wanted: ByteLen,
    claimed: ByteLen,
    quota: ByteLen,
}

impl Target {
    pub(super) fn new(place: &Place, algorithm: Algorithm, root: Digest) -> Self {
        let mut bytes = b"deltasync staged place ".to_vec();
        bytes.extend_from_slice(&place.root.get().to_le_bytes());
        bytes.extend_from_slice(place.path.as_bytes());
        let place = Algorithm::Blake3.digest(&bytes);
        let bytes = [b"deltasync staged root ", algorithm.name().as_bytes(), root.as_bytes()].concat();
        let root = Algorithm::Blake3.digest(&bytes);
        let (place, _) = place.as_bytes().split_first_chunk().expect("16 of 32 bytes");
        let (root, _) = root.as_bytes().split_first_chunk().expect("8 of 32 bytes");
        Self { place: *place, root: *root }
    }

    /// The name of a stage for it, unlike any other by `number`.
    pub(super) fn name(&self, number: u32) -> Name {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = format!("{}-{}-{number:08x}", hex(&self.place), hex(&self.root));
        Name::new(text).expect("digits and letters are a name")
    }

    /// The target that a name is of.
    fn of_name(name: &Name) -> Option<Self> {
        let text = std::str::from_utf8(name.as_bytes()).ok()?;
        let (place, rest) = text.split_once('-')?;
        let (root, number) = rest.split_once('-')?;
        let place = u128::from_str_radix(place, 16).ok()?.to_be_bytes();
        let target = Self { place, root: u64::from_str_radix(root, 16).ok()?.to_be_bytes() };
        (target.name(u32::from_str_radix(number, 16).ok()?) == *name).then_some(target)
    }
}

impl Staging {
    /// Takes over a directory: what can be gone on from is kept, and all else removed. Also returns how many files that were.
    pub(super) fn open(directory: Dir, quota: ByteLen) -> io::Result<(Self, u64)> {
        let now = directory.now()?;
        let staging = Self {
            directory: Arc::new(directory),
            quota: quota.get(),
            started: (now, Instant::now()),
            held: Mutex::default(),
        };
        let names: io::Result<Vec<_>> = staging.directory.names().and_then(Iterator::collect);
        let mut removed = 0;
        for name in names? {
            let is = staging.directory.stat(&name)?.filter(|is| is.kind == DiskKind::File && is.len >= LEAST);
            match (Target::of_name(&name), is) {
                (Some(target), Some(is)) => {
                    staging.hold(target, Partial { name, len: is.len, modified: is.modified });
                }
                _ => {
                    staging.directory.remove(&name)?;
                    removed += 1;
                }
            }
        }
        Ok((staging, removed))
    }

    /// Where stages lie.
    pub(super) fn directory(&self) -> &Arc<Dir> {
        &self.directory
    }

    /// Claims room for a stage that grows; partials give way.
    ///
    /// # Errors
    ///
    /// [`Full`] when stages alone would pass the quota.
    pub(super) fn claim(&self, bytes: u64) -> Result<(), Full> {
        let mut held = self.held();
        let fits = held.claimed.checked_add(bytes).filter(|claimed| *claimed <= self.quota);
        let Some(claimed) = fits else {
            let (wanted, claimed) = (ByteLen::new(bytes), ByteLen::new(held.claimed));
            return Err(Full { wanted, claimed, quota: ByteLen::new(self.quota) });
        };
        held.claimed = claimed;
        let going = self.fit(&mut held);
        drop(held);
        self.remove(going);
        Ok(())
    }

    /// Gives back what a stage had claimed.
    pub(super) fn release(&self, bytes: u64) {
        let mut held = self.held();
        held.claimed = held.claimed.saturating_sub(bytes);
    }

    /// The most that a stage may ever take, in bytes.
    pub(super) fn quota(&self) -> u64 {
        self.quota
    }

    /// What the disk's clock has passed, in seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let (then, since) = self.started;
        then.saturating_add(i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX))
    }

    /// What partials take, in bytes.
    pub(super) fn partial_bytes(&self) -> u64 {
        self.held().bytes
    }

    /// Removes the oldest partial, as the disk is full; false when there is none.
    pub(super) fn give_way(&self) -> bool {
        let gone = self.held().take_oldest();
        let any = gone.is_some();
        self.remove(gone);
        any
    }

    /// Keeps the file of a stage that came to nothing, which nobody writes any more.
    pub(super) fn keep(&self, target: Target, name: Name) {
        match self.directory.stat(&name) {
            Ok(Some(is)) if is.len >= LEAST => {
                self.hold(target, Partial { name, len: is.len, modified: is.modified });
            }
            _ => self.remove([name]),
        }
    }

    /// The target is there: what was kept of it goes.
    pub(super) fn forget(&self, target: &Target) {
        let gone = self.held().take(target);
        self.remove(gone);
    }

    /// Opens the partial of a target, or else the newest of the same place, whatever it was to become.
    pub(super) fn find(&self, target: &Target) -> Option<AnyFile> {
        let held = self.held();
        let exact = held.partials.get(target);
        let of_place = Target { root: [0; 8], ..*target }..=Target { root: [0xff; 8], ..*target };
        let partial = exact.or_else(|| {
            let newest = held.partials.range(of_place).max_by_key(|(_, partial)| partial.modified);
            newest.map(|(_, partial)| partial)
        })?;
        if self.is_old(partial) {
            return None;
        }
        self.directory.open_file(&partial.name).ok()
    }

    /// Holds a partial if there is none of the same target that is longer; what must go for it is removed.
    fn hold(&self, target: Target, partial: Partial) {
        let mut held = self.held();
        let longer = held.partials.get(&target).is_some_and(|other| other.len >= partial.len);
        if longer || self.is_old(&partial) {
            drop(held);
            return self.remove([partial.name]);
        }
        let mut going: Vec<_> = held.take(&target).into_iter().collect();
        held.bytes += partial.len;
        held.partials.insert(target, partial);
        going.extend(self.fit(&mut held));
        drop(held);
        self.remove(going);
    }

    /// Takes out what is old, and the oldest until the rest fits.
    fn fit(&self, held: &mut Held) -> Vec<Name> {
        let mut going = Vec::new();
        let room = self.quota.saturating_sub(held.claimed).min(BYTES_MAX);
        while held.bytes > room || held.partials.len() > MOST {
            going.extend(held.take_oldest());
        }
        going
    }

    fn is_old(&self, partial: &Partial) -> bool {
        self.now().saturating_sub(partial.modified.0) > AGE_MAX
    }

    /// There is nobody to tell of a failure: what stays is looked at again at the next start.
    fn remove(&self, names: impl IntoIterator<Item = Name>) {
        for name in names {
            let _ = self.directory.remove(&name);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn take(&mut self, target: &Target) -> Option<Name> {
        let Partial { name, len, .. } = self.partials.remove(target)?;
        self.bytes -= len;
        Some(name)
    }

    fn take_oldest(&mut self) -> Option<Name> {
        let (target, _) = self.partials.iter().min_by_key(|(_, partial)| partial.modified)?;
        let target = *target;
        self.take(&target)
    }
}
