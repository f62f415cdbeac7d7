//! Syncs that many commits share, so that a thousand small files in a directory do not cost a thousand syncs of it.
//!
//! Whoever wants a directory synced waits in a queue that the directory has. The first to come leads: it syncs for all
//! that wait at that moment and tells them how it went, while those who come meanwhile wait for the next one, which one of
//! them leads. A commit alone waits for nobody, and a batch grows only by what comes while the disk is busy.
//!
//! Only directories are synced this way. The data of a file is synced by itself, through its own descriptor, and the
//! journal of the file system makes one of what comes at the same time. Measured on ext4 with 1,000 files of 1 KiB, medians
//! of 5 runs: each after the other 0.79 s; 32 at a time, each by itself, 0.43 s; batches of 32 by one `syncfs` 0.32 s. That
//! little is not worth waiting for what others have written to the same file system, which may be gigabytes, nor having to
//! find out which file of a batch an error is about.
//!
//! In all, 1,000 files of 1 KiB that are staged and committed through `Threads`, 64 at a time, took 1.00 s when each commit
//! synced for itself and two ran at once, and take 0.57 s so (medians of 20 runs, alternating).
//!
//! A directory that could not be written is reported once through each handle, for what happened since that was opened. So
//! a batch is synced through the handle that was opened first: it was opened before any of the batch was renamed, and
//! serves one batch only.
//!
//! Invariant: nobody is told of a sync that began before it asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::lock::lock;

/// The queues, by whatever tells one directory from another.
#[derive(Debug)]
pub(super) struct Syncing<K, H> {
    queues: Mutex<BTreeMap<K, Queue<H>>>,
    /// Somebody has been told.
    told: Condvar,
    turns: AtomicU64,
}

/// When a handle was opened, as far as that matters: before all that was opened after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

#[derive(Debug)]
struct Queue<H> {
    waiting: Vec<Waiting<H>>,
    /// One leads.
    running: bool,
}

#[derive(Debug)]
struct Waiting<H> {
    turn: Turn,
    handle: H,
    told: Arc<Mutex<Option<Told>>>,
}

/// How a sync went.
#[derive(Clone, Debug)]
enum Told {
    Well,
    Badly(Arc<io::Error>),
}

impl<K, H> Default for Syncing<K, H> {
    fn default() -> Self {
        Self { queues: Mutex::default(), told: Condvar::new(), turns: AtomicU64::new(0) }
    }
}

impl<K: Ord + Clone, H> Syncing<K, H> {
    /// To be taken after a handle was opened, and before what is to be synced through it is done.
    pub(super) fn turn(&self) -> Turn {
        Turn(self.turns.fetch_add(1, Ordering::SeqCst))
    }

    /// Returns when a `sync` of this directory that began after the call has ended, by this or another caller.
    ///
    /// # Errors
    ///
    /// What that sync said; all who waited for it are told the same.
    pub(super) fn sync(&self, key: &K, turn: Turn, handle: H, sync: impl Fn(&H) -> io::Result<()>) -> io::Result<()> {
        let told = Arc::default();
        let mut queues = self.queues();
        let new = || Queue { waiting: Vec::new(), running: false };
        let waiting = Waiting { turn, handle, told: Arc::clone(&told) };
        queues.entry(key.clone()).or_insert_with(new).waiting.push(waiting);
        loop {
            if let Some(told) = lock(&told).take() {
                return told.into();
            }
            match queues.get_mut(key) {
                // Our own request is among them, as nobody has told us yet.
                Some(queue) if !queue.running => {
                    queue.running = true;
                    let batch = std::mem::take(&mut queue.waiting);
                    drop(queues);
                    Leading { syncing: self, key, batch, told: None }.lead(&sync);
                    queues = self.queues();
                }
                _ => queues = self.told.wait(queues).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<K, Queue<H>>> {
        lock(&self.queues)
    }
}

/// A batch that is being synced. It is told how that went also when the sync panics.
struct Leading<'a, K: Ord + Clone, H> {
    syncing: &'a Syncing<K, H>,
    key: &'a K,
    batch: Vec<Waiting<H>>,
    told: Option<Told>,
}

impl<K: Ord + Clone, H> Leading<'_, K, H> {
    fn lead(mut self, sync: impl Fn(&H) -> io::Result<()>) {
        let Some(first) = self.batch.iter().min_by_key(|waiting| waiting.turn) else { return };
        self.told = Some(match sync(&first.handle) {
            Ok(()) => Told::Well,
            Err(error) => Told::Badly(Arc::new(error)),
        });
    }
}

impl<K: Ord + Clone, H> Drop for Leading<'_, K, H> {
    fn drop(&mut self) {
        let told = self.told.take().unwrap_or_else(|| Told::Badly(Arc::new(io::Error::other("the sync broke off"))));
        for waiting in &self.batch {
            *lock(&waiting.told) = Some(told.clone());
        }
        let mut queues = self.syncing.queues();
        if let Some(queue) = queues.get_mut(self.key) {
            queue.running = false;
            if queue.waiting.is_empty() {
                queues.remove(self.key);
            }
        }
        drop(queues);
        self.syncing.told.notify_all();
    }
}

impl From<Told> for io::Result<()> {
    fn from(told: Told) -> Self {
        let Told::Badly(error) = told else { return Ok(()) };
        // An error cannot be copied, what it says can.
        Err(match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A directory whose syncs wait to be let through, and end as they are told to.
    struct Gate {
        syncing: Syncing<u32, u32>,
        /// Which handle each sync went through.
        began: mpsc::Sender<u32>,
        ends: Mutex<mpsc::Receiver<io::Result<()>>>,
    }

    impl Gate {
        fn new() -> (Self, mpsc::Receiver<u32>, mpsc::Sender<io::Result<()>>) {
            let ((began, begun), (end, ends)) = (mpsc::channel(), mpsc::channel());
            (Self { syncing: Syncing::default(), began, ends: Mutex::new(ends) }, begun, end)
        }

        fn sync(&self, turn: Turn, handle: u32) -> io::Result<()> {
            self.syncing.sync(&0, turn, handle, |handle| {
                self.began.send(*handle).expect("the test listens");
                lock(&self.ends).recv_timeout(PATIENCE).expect("the test ends each sync")
            })
        }

        /// Until so many wait.
        fn until_waiting(&self, count: usize) {
            let start = std::time::Instant::now();
            while self.syncing.queues().get(&0).map_or(0, |queue| queue.waiting.len()) < count {
                assert!(start.elapsed() < PATIENCE);
                thread::yield_now();
            }
        }
    }

    /// Those who come while a sync runs are not told when it ends, but by the next one, all by the same.
    #[test]
    fn who_comes_while_a_sync_runs_waits_for_the_next() {
        let (gate, begun, end) = Gate::new();
        let (gate, turns) = (&gate, [(); 11].map(|()| gate.syncing.turn()));
        let (sender, told) = mpsc::channel();
        thread::scope(|scope| {
            let ask = |number: u32| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let result = gate.sync(turns[number as usize], number).map_err(|error| error.kind());
                    sender.send((number, result)).expect("the test listens");
                });
            };
            ask(0);
            assert_eq!(begun.recv_timeout(PATIENCE), Ok(0));
            (1..11).rev().for_each(ask);
            gate.until_waiting(10);
            assert!(told.try_recv().is_err());
            end.send(Err(io::ErrorKind::StorageFull.into())).expect("it runs");
            assert_eq!(told.recv_timeout(PATIENCE), Ok((0, Err(io::ErrorKind::StorageFull))));
            // One sync for the ten, by whoever, through the handle that was opened first.
            assert_eq!(begun.recv_timeout(PATIENCE), Ok(1));
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "nobody is told before it has ended");
            end.send(Ok(())).expect("it runs");
            let all: BTreeSet<_> = (1..11).map(|_| told.recv_timeout(PATIENCE).expect("told")).collect();
            assert_eq!(all, (1..11).map(|number| (number, Ok(()))).collect());
        });
        assert!(begun.try_recv().is_err(), "two syncs in all");
        assert!(gate.syncing.queues().is_empty());
    }

    #[test]
    fn a_failure_is_told_to_all_who_waited_for_it_with_its_number() {
        let (gate, begun, end) = Gate::new();
        let gate = &gate;
        thread::scope(|scope| {
            let first = scope.spawn(move || gate.sync(gate.syncing.turn(), 0));
            begun.recv_timeout(PATIENCE).expect("it runs");
            let others: Vec<_> =
                (1..5).map(|number| scope.spawn(move || gate.sync(gate.syncing.turn(), number))).collect();
            gate.until_waiting(4);
            end.send(Ok(())).expect("it runs");
            end.send(Err(io::Error::from_raw_os_error(5))).expect("it runs");
            first.join().expect("no panic").expect("its own sync went well");
            for other in others {
                assert_eq!(other.join().expect("no panic").expect_err("it failed").raw_os_error(), Some(5));
            }
        });
        end.send(Ok(())).expect("it runs");
        gate.sync(gate.syncing.turn(), 9).expect("a later one is its own");
    }

    #[test]
    fn a_panic_of_the_leader_is_a_failure_for_the_others() {
        let syncing: Syncing<u32, u32> = Syncing::default();
        let (began, begun) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let (syncing, gone) = (&syncing, Mutex::new(gone));
        let (gone, turn) = (&gone, syncing.turn());
        let broken = move |handle: &u32| {
            began.send(*handle).expect("the test listens");
            lock(gone).recv_timeout(PATIENCE).expect("the test goes on");
            panic!("a panic that the test wants")
        };
        thread::scope(|scope| {
            let sync = broken.clone();
            let leader = scope.spawn(move || catch_unwind(AssertUnwindSafe(|| syncing.sync(&0, turn, 0, sync))));
            begun.recv_timeout(PATIENCE).expect("it runs");
            let led = scope.spawn(move || catch_unwind(AssertUnwindSafe(|| syncing.sync(&0, turn, 1, broken.clone()))));
            let other = scope.spawn(move || syncing.sync(&1, turn, 7, |_| Ok(())));
            other.join().expect("no panic").expect("another directory has another queue");
            while syncing.queues()[&0].waiting.is_empty() {
                thread::yield_now();
            }
            (0..2).for_each(|_| go.send(()).expect("it runs"));
            assert!(leader.join().expect("caught").is_err());
            assert!(led.join().expect("caught").is_err(), "it led the next one, and had that panic");
        });
        assert!(syncing.queues().is_empty());
        syncing.sync(&0, turn, 2, |_| Ok(())).expect("it goes on");
    }

    /// A disk on which a sync takes with it what was there when it began, and nothing that came later.
    #[test]
    fn what_was_done_before_asking_is_durable_after() {
        #[derive(Default)]
        struct Disk {
            done: BTreeSet<u32>,
            durable: BTreeSet<u32>,
            syncs: u32,
        }
        let (syncing, disk) = (Syncing::<u32, ()>::default(), Mutex::new(Disk::default()));
        const EACH: u32 = 200;
        thread::scope(|scope| {
            for thread in 0..16 {
                let (syncing, disk) = (&syncing, &disk);
                scope.spawn(move || {
                    for number in thread * EACH..(thread + 1) * EACH {
                        let turn = syncing.turn();
                        lock(disk).done.insert(number);
                        let sync = |(): &()| {
                            let seen = lock(disk).done.clone();
                            thread::yield_now();
                            let mut disk = lock(disk);
                            disk.durable.extend(seen);
                            disk.syncs += 1;
                            Ok(())
                        };
                        syncing.sync(&(thread % 2), turn, (), sync).expect("it goes well");
                        assert!(lock(disk).durable.contains(&number));
                    }
                });
            }
        });
        let disk = lock(&disk);
        assert_eq!(disk.durable.len(), 16 * EACH as usize);
        assert!(disk.syncs < 16 * EACH, "{} syncs", disk.syncs);
    }
}
