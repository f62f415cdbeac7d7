//! A bounded pool of threads that runs a [`BlockingStorage`] as a [`Storage`], with or without an async runtime.
//!
//! Requests wait in three lanes: scans (describe, basis, list, recall, remember: they read whole files or directories),
//! commits and all others, which do a bounded piece of work. Scans may hold half of the threads, and a free thread serves
//! the lanes in turn; so however many files are being cut, pieces of other transfers are still applied, and the other way
//! round. Commits wait for a disk that syncs many in the time of one: they get [`Threads::COMMITS`] threads beside the
//! others, which cost next to nothing while they wait.
//!
//! Threads start when there is work for one more and end with the pool. A request that panics answers by a fault, as its
//! [`Reply`] is dropped, and costs no thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, thread};

use deltasync_proto::Ask;

use crate::{BlockingStorage, Reply, Storage};

/// Threads that answer for a [`BlockingStorage`]. Dropping it lets running requests end and answers waiting ones by a
/// fault.
pub struct Threads {
    shared: Arc<Shared>,
}

impl Threads {
    /// The fewest threads a pool has, without those for commits: two for scans, and two for the rest.
    pub const FEWEST: usize = 4;

    /// How many commits are under way at once. Measured with 1,000 files of 1 KiB on ext4, see `local/syncing.rs`.
    pub const COMMITS: usize = 32;

    /// A pool of at most `threads` threads, at least [`Threads::FEWEST`], and up to [`Threads::COMMITS`] more for commits.
    pub fn new(storage: Arc<impl BlockingStorage>, threads: usize) -> Self {
        let threads = threads.max(Self::FEWEST);
        let state = State {
            storage: Some(storage),
            lanes: [Lane::new(threads), Lane::new(threads / 2), Lane::new(Self::COMMITS)],
            next: 0,
            idle: 0,
            started: 0,
            threads,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() }) }
    }

    /// How many threads suit this machine: two a core, as many of them wait for a disk, but 8 to 64.
    pub fn for_this_machine() -> usize {
        thread::available_parallelism().map_or(8, |cores| (2 * cores.get()).clamp(8, 64))
    }
}

impl Storage for Threads {
    fn submit(&self, ask: Ask, reply: Reply) {
        let mut state = self.shared.lock();
        state.lanes[lane_of(&ask)].waiting.push_back((ask, reply));
        if state.runnable() > state.idle && state.started < state.threads + Threads::COMMITS {
            let shared = Arc::clone(&self.shared);
            if thread::Builder::new().name("storage".into()).spawn(move || shared.work()).is_ok() {
                state.started += 1;
            } else if state.started == 0 {
                // Nobody will ever come for it. Its reply is dropped, and so answers.
                let refused = state.take_waiting();
                drop(state);
                drop(refused);
                return;
            }
        }
        self.shared.work.notify_one();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let (storage, waiting) = (state.storage.take(), state.take_waiting());
        drop(state);
        self.shared.work.notify_all();
        // Outside of the lock, since replies and the storage do as they like when dropped.
        drop((storage, waiting));
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Threads").field("threads", &state.threads).field("started", &state.started).finish()
    }
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    /// `None` once the pool is dropped.
    storage: Option<Arc<dyn BlockingStorage>>,
    lanes: [Lane; 3],
    /// The lane that is served first.
    next: usize,
    idle: usize,
    started: usize,
    /// Of all lanes but that of commits together.
    threads: usize,
}

struct Lane {
    waiting: VecDeque<(Ask, Reply)>,
    running: usize,
    most: usize,
}

/// The lane of commits, and of what else waits for syncs.
const COMMITS: usize = 2;

/// The lane of a request; which lane may hold how many threads is set in [`Threads::new`].
fn lane_of(ask: &Ask) -> usize {
    match ask {
        Ask::Describe { .. }
        | Ask::Basis { .. }
        | Ask::Alike { .. }
        | Ask::Refine { .. }
        | Ask::List { .. }
        | Ask::Recall { .. }
        | Ask::Remember { .. } => 1,
        Ask::Commit { .. } | Ask::MakeDirectory { .. } | Ask::Rename { .. } | Ask::Remove { .. } => COMMITS,
        _ => 0,
    }
}

impl Lane {
    fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), running: 0, most }
    }
}

impl State {
    /// How many more requests of a lane may run now, if so many wait.
    fn room(&self, lane: usize) -> usize {
        let own = self.lanes[lane].most - self.lanes[lane].running;
        if lane == COMMITS {
            return own;
        }
        let running: usize = self.lanes[..COMMITS].iter().map(|lane| lane.running).sum();
        own.min(self.threads.saturating_sub(running))
    }

    /// How many of those that wait may run now.
    fn runnable(&self) -> usize {
        let ready = |lane: usize| self.lanes[lane].waiting.len().min(self.room(lane));
        (0..self.lanes.len()).map(ready).sum()
    }

    fn take_waiting(&mut self) -> [VecDeque<(Ask, Reply)>; 3] {
        self.lanes.each_mut().map(|lane| std::mem::take(&mut lane.waiting))
    }

    /// The next request that may run now, and its lane.
    fn pick(&mut self) -> Option<(usize, Ask, Reply)> {
        for turn in 0..self.lanes.len() {
            let index = (self.next + turn) % self.lanes.len();
            if self.room(index) > 0
                && let Some((ask, reply)) = self.lanes[index].waiting.pop_front()
            {
                self.lanes[index].running += 1;
                self.next = index + 1;
                return Some((index, ask, reply));
            }
        }
        None
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while let Some(storage) = state.storage.clone() {
            let Some((lane, ask, reply)) = state.pick() else {
                drop(storage);
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            // The panic itself has been reported by the hook; what it leaves behind is the storage's own matter.
            let _ = catch_unwind(AssertUnwindSafe(|| reply.send(storage.answer(ask))));
            drop(storage);
            state = self.lock();
            state.lanes[lane].running -= 1;
        }
        state.started -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};
    use std::time::Duration;

    use deltasync_core::{Algorithm, RelPath};
    use deltasync_proto::{Answer, Cutting, FaultKind, FileHandle, Place, Replaces, RootId, StageHandle, StorageFault};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Scans and seals wait until they are let go, a commit until all of its lane run; an apply answers at once, and a
    /// reopen panics.
    struct Gate {
        go: Mutex<mpsc::Receiver<()>>,
        scanning: AtomicUsize,
        committing: Barrier,
    }

    impl BlockingStorage for Gate {
        fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
            match ask {
                Ask::Describe { .. } => {
                    self.scanning.fetch_add(1, Ordering::SeqCst);
                    let _ = self.go.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Err(StorageFault::new(FaultKind::NotFound, "scanned"))
                }
                Ask::Seal { .. } => {
                    self.scanning.fetch_add(1, Ordering::SeqCst);
                    let _ = self.go.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    Ok(Answer::Applied)
                }
                Ask::Commit { .. } => {
                    self.committing.wait();
                    Ok(Answer::Applied)
                }
                Ask::Reopen { .. } => panic!("a panic that the test wants"),
                _ => Ok(Answer::Applied),
            }
        }
    }

    fn describe() -> Ask {
        let place = Place { root: RootId::new(0), path: RelPath::ROOT };
        Ask::Describe { place, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, remember: None }
    }

    fn quick() -> Ask {
        Ask::Recheck { file: FileHandle::new(()) }
    }

    fn commit() -> Ask {
        Ask::Commit { stage: StageHandle::new(()), replaces: Replaces::Nothing }
    }

    fn pool(threads: usize) -> (Threads, Arc<Gate>, mpsc::Sender<()>) {
        let (open, go) = mpsc::channel();
        let gate = Arc::new(Gate {
            go: Mutex::new(go),
            scanning: AtomicUsize::new(0),
            committing: Barrier::new(Threads::COMMITS),
        });
        (Threads::new(Arc::clone(&gate), threads), gate, open)
    }

    fn submit(threads: &Threads, ask: Ask, answers: &mpsc::Sender<Result<(), String>>) {
        let answers = answers.clone();
        threads.submit(ask, Reply::new(move |answer| drop(answers.send(answer.map(drop).map_err(|f| f.message)))));
    }

    #[test]
    fn a_hundred_long_scans_do_not_keep_a_piece_from_being_applied() {
        let (threads, gate, open) = pool(4);
        let (scans, scanned) = mpsc::channel();
        let (pieces, applied) = mpsc::channel();
        (0..100).for_each(|_| submit(&threads, describe(), &scans));
        for _ in 0..10 {
            submit(&threads, quick(), &pieces);
            assert_eq!(applied.recv_timeout(PATIENCE), Ok(Ok(())));
        }
        assert!(gate.scanning.load(Ordering::SeqCst) <= 2, "half of the threads");
        drop(open);
        (0..100).for_each(|_| assert_eq!(scanned.recv_timeout(PATIENCE), Ok(Err("scanned".into()))));
    }

    /// Each commit waits here for all others of its lane, so that they would hang if fewer ran.
    #[test]
    fn commits_run_together_beside_as_many_others_as_before() {
        let (threads, gate, open) = pool(4);
        let (sender, answers) = mpsc::channel();
        let (commits, committed) = mpsc::channel();
        (0..100).for_each(|_| submit(&threads, Ask::Seal { stage: StageHandle::new(()) }, &sender));
        (0..4 * Threads::COMMITS).for_each(|_| submit(&threads, commit(), &commits));
        (0..4 * Threads::COMMITS).for_each(|_| assert_eq!(committed.recv_timeout(PATIENCE), Ok(Ok(()))));
        assert_eq!(gate.scanning.load(Ordering::SeqCst), 4, "the threads for commits do nothing else");
        assert!(threads.shared.lock().started <= 4 + Threads::COMMITS);
        drop(open);
        (0..100).for_each(|_| assert_eq!(answers.recv_timeout(PATIENCE), Ok(Ok(()))));
    }

    #[test]
    fn a_panic_answers_by_a_fault_and_costs_no_thread() {
        let (threads, _gate, _open) = pool(4);
        let (sender, answers) = mpsc::channel();
        for _ in 0..8 {
            submit(&threads, Ask::Reopen { stage: StageHandle::new(()) }, &sender);
            assert_eq!(answers.recv_timeout(PATIENCE), Ok(Err("the storage gave no answer".into())));
        }
        submit(&threads, quick(), &sender);
        assert_eq!(answers.recv_timeout(PATIENCE), Ok(Ok(())));
    }

    #[test]
    fn what_waits_when_the_pool_goes_is_answered_by_a_fault() {
        let (threads, gate, open) = pool(4);
        let (sender, answers) = mpsc::channel();
        (0..20).for_each(|_| submit(&threads, describe(), &sender));
        drop(threads);
        drop(open);
        drop(sender);
        let answers: Vec<_> = answers.into_iter().collect();
        assert_eq!(answers.len(), 20);
        assert!(answers.iter().filter(|answer| **answer == Err("the storage gave no answer".into())).count() >= 18);
        drop(gate);
    }
}
