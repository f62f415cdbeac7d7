//! What several files of stories share: two ends that outlast a run, and a storage that meddles.
#![allow(dead_code, reason = "each file of stories uses some of it")]

use std::sync::Arc;

use deltasync_core::RelPath;
use deltasync_io::{BlockingStorage, KeepForm, MemoryStorage};
use deltasync_proto::{Answer, Ask, Config, RootId, StorageFault};
use deltasync_testkit::{Pair, Ran, Rng, file};

pub(crate) fn random(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// The content of the file of the stories.
pub(crate) fn content(storage: &MemoryStorage) -> Option<Vec<u8>> {
    storage.get(RootId::new(0), &file()).map(|bytes| bytes.to_vec())
}

pub(crate) fn put(storage: &MemoryStorage, path: &RelPath, bytes: &[u8]) {
    storage.insert(RootId::new(0), path.clone(), bytes.to_vec());
}

/// Two ends over which several runs go.
pub(crate) struct Ends {
    pub(crate) local: Arc<MemoryStorage>,
    pub(crate) remote: Arc<MemoryStorage>,
    pub(crate) config: Config,
    seed: u64,
}

impl Ends {
    /// Ends of which the client remembers nothing.
    pub(crate) fn forgetful(seed: u64) -> Self {
        Self { local: Arc::default(), remote: Arc::default(), config: Config::default(), seed }
    }

    /// Ends of which the client remembers what it has pushed, in this form.
    pub(crate) fn remembering(seed: u64, form: KeepForm) -> Self {
        let ends = Self { config: Config::default().remember(true), ..Self::forgetful(seed) };
        ends.local.keep(form);
        ends.remote.keep(form);
        ends
    }

    /// The next run over them.
    pub(crate) fn pair(&mut self) -> Pair {
        self.seed += 1;
        Pair::new(self.seed).config(self.config.clone()).over(self.local.clone(), self.remote.clone())
    }

    /// Pushes `bytes`: the server has them then.
    #[track_caller]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Ran {
        let ran = self.pair().target(bytes).run_to_end();
        ran.outcome();
        assert!(content(&self.remote).as_deref() == Some(bytes), "the server has something else");
        ran
    }

    /// Pulls: the client has then what the server has.
    #[track_caller]
    pub(crate) fn pull(&mut self) -> Ran {
        let ran = self.pair().pulled_onto(None).run_to_end();
        ran.outcome();
        assert!(content(&self.local) == content(&self.remote), "the client has something else");
        ran
    }
}

/// A memory whose answers `meddle` may change, or what lies under it.
pub(crate) struct Meddling<F> {
    pub(crate) memory: Arc<MemoryStorage>,
    pub(crate) meddle: F,
}

impl<F: Fn(&MemoryStorage, Ask) -> Result<Answer, StorageFault> + Send + Sync + 'static> BlockingStorage
    for Meddling<F>
{
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        (self.meddle)(&self.memory, ask)
    }
}

/// A memory that meddles.
pub(crate) fn meddling<F>(memory: &Arc<MemoryStorage>, meddle: F) -> Arc<Meddling<F>>
where
    F: Fn(&MemoryStorage, Ask) -> Result<Answer, StorageFault> + Send + Sync + 'static,
{
    Arc::new(Meddling { memory: memory.clone(), meddle })
}
