//! The chunk list of a file that is read once, on as many threads as are free.
//!
//! Short files are cut and digested by the thread that answers, in the buffer it has. A file of [`LONG`] or more is taken
//! in sections: each thread reads and cuts the next one under a lock, since sections are cut in order, and digests it
//! without, which is most of the work. Threads start for one file and end with it; the [`Helpers`] of a storage bound how
//! many there are for all files together, so that a file is done by one thread when others are busy.
//!
//! The sums of a file that is to be remembered are made of the same bytes on the way.
//!
//! Cost: one read of the file. Memory: the buffer of the thread; for each thread of a long file a section of 256 KiB with
//! the longest chunk before it. Files whose chunks are longer than [`LONGEST_CHUNK`], from 1 TiB on, are done by one
//! thread, which holds one chunk.
//!
//! Invariant: the list is the same on any number of threads.

use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Chunker, Cutter, LimitExceeded, Limits, Section, SectionCutter, SectionJoiner,
};
use deltasync_proto::Cutting;

use crate::known::Summing;
use crate::lock::lock;
use crate::source::with_buffer;

/// Files that are shorter, in bytes, are not worth another thread: one digests 8 MiB in a few milliseconds.
pub(super) const LONG: u64 = 8 << 20;

/// The longest chunk of a file that is shared among threads, in bytes.
const LONGEST_CHUNK: usize = 2 << 20;

/// The start of a file that decides how it is cut, in bytes.
pub(super) const START: usize = 128;

/// Threads that may be started to help those that answer.
#[derive(Debug)]
pub(super) struct Helpers {
    free: AtomicUsize,
}

impl Helpers {
    /// At most so many at once.
    pub(super) fn new(most: usize) -> Self {
        Self { free: AtomicUsize::new(most) }
    }

    /// As many as are free.
    fn take(&self) -> Taken<'_> {
        Taken { helpers: self, count: self.free.swap(0, Ordering::AcqRel) }
    }
}

/// Helpers of one file, given back when dropped.
struct Taken<'a> {
    helpers: &'a Helpers,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.helpers.free.fetch_add(self.count, Ordering::AcqRel);
    }
}

/// Why there is no list.
#[derive(Debug)]
pub(super) enum NoList {
    /// It has fewer bytes than it had.
    Shorter,
    /// What the system says.
    System(io::Error),
    /// It has too many bytes or chunks.
    TooLarge(LimitExceeded),
}

impl From<io::Error> for NoList {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Shorter,
            _ => Self::System(error),
        }
    }
}

impl From<LimitExceeded> for NoList {
    fn from(error: LimitExceeded) -> Self {
        Self::TooLarge(error)
    }
}

/// How the list of a file is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunking<'a> {
    pub(super) cutting: &'a Cutting,
    pub(super) algorithm: Algorithm,
    pub(super) limits: &'a Limits,
    pub(super) helpers: &'a Helpers,
    /// Where the sums of a long file go, except for those with the longest chunks.
    pub(super) sums: Option<&'a Summing>,
}

impl Chunking<'_> {
    /// The list of a file of `len` bytes, no more of which are read; `read` fills a piece of them from an offset on.
    pub(super) fn list(
        &self,
        len: u64,
        read: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync,
    ) -> Result<ChunkList, NoList> {
        LimitExceeded::check("file length", len, self.limits.file.get())?;
        if len < LONG {
            return self.alone(len, read);
        }
        let mut start = [0; START];
        read(&mut start, 0)?;
        let cutter = self.cutting.cutter(ByteLen::new(len), &start);
        if cutter.max_len() > LONGEST_CHUNK {
            return self.alone(len, read);
        }
        let helpers = self.helpers.take();
        if helpers.count == 0 && self.sums.is_none() {
            return self.alone(len, read);
        }
        self.together(len, cutter, helpers.count, read)
    }

    /// On this thread.
    fn alone(&self, len: u64, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> Result<ChunkList, NoList> {
        let new = |start: &[u8]| {
            let cutter = self.cutting.cutter(ByteLen::new(len), start);
            Chunker::new(cutter, self.algorithm, self.limits)
        };
        with_buffer(|buffer| {
            let mut begun: Option<Chunker> = None;
            let mut at = 0;
            while at < len {
                let next = usize::try_from(len - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                let piece = &mut buffer[..next];
                read(piece, at)?;
                begun.get_or_insert_with(|| new(piece)).push(piece)?;
                at += next as u64;
            }
            Ok(begun.unwrap_or_else(|| new(&[])).finish()?)
        })
    }

    /// On this thread and as many as `helpers` others, as far as the system starts them.
    fn together(
        &self,
        len: u64,
        cutter: Cutter,
        helpers: usize,
        read: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync,
    ) -> Result<ChunkList, NoList> {
        let cutter = SectionCutter::new(cutter, self.algorithm, ByteLen::new(len));
        let (sections, joiner) = (Mutex::new(Some(cutter)), Mutex::new(SectionJoiner::new(self.limits)));
        let next = |section: &mut Section| match lock(&sections).as_mut() {
            Some(cutter) => cutter.next(section, |room, at| read(room, at.get())),
            // Another thread has failed.
            None => Ok(false),
        };
        let work = || {
            let mut section = Section::default();
            let mut sums = self.sums.map(|sums| (sums, sums.summer()));
            let mut work = || {
                while next(&mut section)? {
                    let hashed = section.hash();
                    if let Some((sums, summer)) = &mut sums {
                        sums.add(section.blocks(), summer);
                    }
                    lock(&joiner).add(hashed)?;
                }
                Ok(())
            };
            let result: Result<(), NoList> = work();
            if result.is_err() {
                lock(&sections).take();
            }
            result
        };
        thread::scope(|scope| {
            let start = |_| thread::Builder::new().name("digests".into()).spawn_scoped(scope, work).ok();
            let others: Vec<_> = (0..helpers).filter_map(start).collect();
            let own = work();
            others.into_iter().fold(own, |result, other| match other.join() {
                Ok(theirs) => result.and(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let cutter = sections.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let joiner = joiner.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(joiner.finish(cutter.expect("it is only taken where there is an error")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::laws::noise;

    fn chunking<'a>(helpers: &'a Helpers, algorithm: Algorithm, limits: &'a Limits) -> Chunking<'a> {
        Chunking { cutting: &Cutting::ByContent, algorithm, limits, helpers, sums: None }
    }

    fn reader(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<()> + Sync {
        |piece, at| {
            let rest = bytes.get(at as usize..).and_then(|rest| rest.get(..piece.len()));
            piece.copy_from_slice(rest.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn check_list_is_the_same_on_any_threads(bytes: &[u8], algorithm: Algorithm) {
        let len = bytes.len() as u64;
        let cutter = Cutter::for_len(ByteLen::new(len));
        let expected = ChunkList::of(bytes, cutter, algorithm);
        let limits = Limits::default();
        for threads in 1..=5 {
            let helpers = Helpers::new(threads - 1);
            let chunking = chunking(&helpers, algorithm, &limits);
            assert_eq!(chunking.list(len, reader(bytes)).expect("read"), expected, "{len} bytes, {threads} threads");
            // Of files that are too short for it, too.
            let list = chunking.together(len, cutter, threads - 1, reader(bytes)).expect("read");
            assert_eq!(list, expected, "{len} bytes together, {threads} threads");
            assert_eq!(helpers.free.load(Ordering::Acquire), threads - 1);
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_list_of_one() {
        let mut bytes = noise(LONG as usize + (1 << 20) + 7, 1);
        bytes[1 << 20..2 << 20].fill(0);
        let section = 256 << 10;
        let long = LONG as usize;
        for len in [0, 1, section - 1, section, section + 1, 5 * section, long - 1, long, long + 1, bytes.len()] {
            check_list_is_the_same_on_any_threads(&bytes[..len], Algorithm::Blake3);
        }
        check_list_is_the_same_on_any_threads(&bytes, Algorithm::Sha256);
    }

    /// How many threads read a file, that is read again and again until one of the helpers has had its turn.
    fn readers(chunking: &Chunking<'_>, bytes: &[u8], times: usize) -> usize {
        let readers = Mutex::new(BTreeSet::new());
        let read = |piece: &mut [u8], at: u64| {
            lock(&readers).insert(format!("{:?}", thread::current().id()));
            reader(bytes)(piece, at)
        };
        for _ in 0..times {
            chunking.list(bytes.len() as u64, read).expect("read");
            if lock(&readers).len() > 1 {
                break;
            }
        }
        readers.into_inner().expect("no panic").len()
    }

    #[test]
    fn helpers_read_long_files_and_no_others() {
        let bytes = noise(LONG as usize, 2);
        let limits = Limits::default();
        let (none, one) = (Helpers::new(0), Helpers::new(1));
        let with = |helpers, bytes, times| readers(&chunking(helpers, Algorithm::Blake3, &limits), bytes, times);
        assert_eq!(with(&one, &bytes, 500), 2);
        assert_eq!((with(&one, &bytes[1..], 20), with(&none, &bytes, 20)), (1, 1));
        let huge = Chunking {
            cutting: &Cutting::Exactly(Cutter::MinCdc { average: 2 << 20 }),
            ..chunking(&one, Algorithm::Blake3, &limits)
        };
        assert_eq!(readers(&huge, &bytes, 20), 1, "its chunks are too long");
    }

    #[test]
    fn a_second_file_does_without_the_helpers_of_the_first() {
        let bytes = noise(LONG as usize, 3);
        let (limits, helpers) = (Limits::default(), Helpers::new(2));
        let chunking = chunking(&helpers, Algorithm::Blake3, &limits);
        let alone = Mutex::new(None);
        let read = |piece: &mut [u8], at: u64| {
            if at > LONG / 2 {
                lock(&alone).get_or_insert_with(|| {
                    let me = thread::current().id();
                    let mine = |piece: &mut [u8], at: u64| {
                        assert_eq!(thread::current().id(), me);
                        reader(&bytes)(piece, at)
                    };
                    chunking.list(LONG, mine).expect("read")
                });
            }
            reader(&bytes)(piece, at)
        };
        let list = chunking.list(LONG, read).expect("read");
        assert_eq!(lock(&alone).as_ref(), Some(&list));
        assert_eq!(helpers.free.load(Ordering::Acquire), 2);
    }

    #[test]
    fn whatever_goes_wrong_ends_all_threads_and_is_told() {
        let bytes = noise(LONG as usize, 4);
        for threads in 1..=4 {
            let (limits, few, helpers) = (Limits::default(), Limits::default().chunks(1000), Helpers::new(threads - 1));
            let chunking = chunking(&helpers, Algorithm::Blake3, &limits);
            let many = Chunking { limits: &few, ..chunking }.list(LONG, reader(&bytes));
            assert!(matches!(many, Err(NoList::TooLarge(LimitExceeded { wanted: 1001, .. }))), "{many:?}");
            let shorter = chunking.list(LONG, reader(&bytes[..LONG as usize - 1]));
            assert!(matches!(shorter, Err(NoList::Shorter)), "{shorter:?}");
            let broken = |piece: &mut [u8], at: u64| match at {
                0x40_0000.. => Err(ErrorKind::ConnectionReset.into()),
                _ => reader(&bytes)(piece, at),
            };
            let failed = chunking.list(LONG, broken);
            assert!(
                matches!(&failed, Err(NoList::System(error)) if error.kind() == ErrorKind::ConnectionReset),
                "{failed:?}"
            );
            let panics = |piece: &mut [u8], at: u64| {
                assert!(at < LONG / 2, "a panic that the test wants");
                reader(&bytes)(piece, at)
            };
            assert!(catch_unwind(AssertUnwindSafe(|| chunking.list(LONG, panics))).is_err());
            assert_eq!(helpers.free.load(Ordering::Acquire), threads - 1);
        }
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let (limits, helpers) = (Limits::default().file(ByteLen::new(4)), Helpers::new(1));
        let list = chunking(&helpers, Algorithm::Blake3, &limits).list(5, |_, _| unreachable!("it is too long"));
        assert!(matches!(list, Err(NoList::TooLarge(LimitExceeded { wanted: 5, allowed: 4, .. }))), "{list:?}");
    }
}
