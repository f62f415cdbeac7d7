//! Carries out what a desk wants done: the verbs of this crate, on a runtime and a thread of their own.
//!
//! What they tell is put where the window takes it from. Of what a transfer does only the newest state waits there, told
//! [`TELL_EVERY`] at most, so a window that sleeps holds no memory and slows no transfer. All else is told once for each
//! effect.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use deltasync_proto::Entry;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    Alteration, Browser, DeskEffect, DeskFiles, DeskTold, JobId, KeptText, Live, Moved, Report, Task, Trouble,
};
use crate::{
    ClientError, Options, Place, RemotePlace, Retries, Shown, Summary, Update, WatchOptions, WatchUpdate, list,
    make_directory, pull, push, remove, rename, root_at, verify, watch,
};

/// How often the state of a transfer is told at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A thread that carries out effects. Dropping it ends all that runs, which takes two seconds at most; what was staged is
/// kept.
#[derive(Debug)]
pub struct DeskExecutor {
    effects: UnboundedSender<DeskEffect>,
    inbox: Arc<Inbox>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DeskExecutor {
    /// Begins, and tells what was kept in `files`. `wake` is called, on any thread, when there is something to take.
    ///
    /// # Errors
    ///
    /// What the system says when there can be no thread.
    pub fn start(
        files: Option<DeskFiles>,
        options: Options,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (effects, wanted) = unbounded_channel();
        let inbox = Arc::new(Inbox { waiting: Mutex::default(), wake: Box::new(wake) });
        let stop = CancellationToken::new();
        let serving = Serving { inbox: inbox.clone(), options, stop: stop.clone() };
        let thread =
            std::thread::Builder::new().name("desk".into()).spawn(move || serving.run(&runtime, files, wanted))?;
        Ok(Self { effects, inbox, stop, thread: Some(thread) })
    }

    /// Has this carried out.
    pub fn run(&self, effect: DeskEffect) {
        // The thread ends when this is dropped, not before.
        let _ = self.effects.send(effect);
    }

    /// What was told since this was called last.
    pub fn take(&self) -> Vec<DeskTold> {
        let waiting = std::mem::take(&mut *self.inbox.lock());
        let live = waiting.live.into_iter().map(|(id, live)| DeskTold::Live(id, live));
        live.chain(waiting.told).collect()
    }
}

impl Drop for DeskExecutor {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed there.
            let _ = thread.join();
        }
    }
}

/// What waits to be taken.
struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct Waiting {
    live: BTreeMap<JobId, Box<Live>>,
    told: Vec<DeskTold>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, told: DeskTold) {
        self.lock().told.push(told);
        (self.wake)();
    }

    fn tell_live(&self, id: JobId, live: &Live) {
        self.lock().live.insert(id, Box::new(live.clone()));
        (self.wake)();
    }
}

/// What the thread works with.
#[derive(Clone, Debug)]
struct Serving {
    inbox: Arc<Inbox>,
    options: Options,
    stop: CancellationToken,
}

impl Serving {
    fn run(self, runtime: &Runtime, files: Option<DeskFiles>, wanted: UnboundedReceiver<DeskEffect>) {
        runtime.block_on(self.serve(files, wanted));
    }

    async fn serve(self, files: Option<DeskFiles>, mut wanted: UnboundedReceiver<DeskEffect>) {
        let (keep, texts) = unbounded_channel();
        let keeping = tokio::spawn(keep_texts(self.inbox.clone(), files, texts));
        let mut running: BTreeMap<JobId, CancellationToken> = BTreeMap::new();
        let mut listing = self.stop.child_token();
        let mut tasks = JoinSet::new();
        loop {
            let effect = tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = tasks.join_next() => continue,
                effect = wanted.recv() => effect,
            };
            match effect {
                None => break,
                Some(DeskEffect::Keep(text)) => {
                    // It goes on until `keep` is dropped.
                    let _ = keep.send(text);
                }
                Some(DeskEffect::List { ticket, place }) => {
                    listing.cancel();
                    listing = self.stop.child_token();
                    tasks.spawn(self.clone().list(ticket, place, listing.clone()));
                }
                Some(DeskEffect::Root(place)) => {
                    tasks.spawn(self.clone().root(place));
                }
                Some(DeskEffect::Alter(alteration)) => {
                    tasks.spawn(self.clone().alter(alteration));
                }
                Some(DeskEffect::Start(id, task)) => {
                    let cancel = self.stop.child_token();
                    running.insert(id, cancel.clone());
                    running.retain(|_, cancel| !cancel.is_cancelled());
                    tasks.spawn(self.clone().start(id, task, cancel));
                }
                Some(DeskEffect::Stop(id)) => {
                    if let Some(cancel) = running.remove(&id) {
                        cancel.cancel();
                    }
                }
            }
        }
        self.stop.cancel();
        while tasks.join_next().await.is_some() {}
        drop(keep);
        let _ = keeping.await;
    }

    /// Somebody sits there and waits: what cannot be had now is said at once.
    fn at_once(&self) -> Options {
        self.options.clone().retries(Retries::NONE)
    }

    async fn list(self, ticket: u64, place: RemotePlace, cancel: CancellationToken) {
        let mut rows: Vec<Entry> = Vec::new();
        let mut cut = false;
        let full = cancel.child_token();
        let page = |page: Vec<Entry>| {
            let room = Browser::ROWS_MAX - rows.len();
            if page.len() > room {
                cut = true;
                full.cancel();
            }
            rows.extend(page.into_iter().take(room));
        };
        let result = list(&Place::Remote(place), &self.at_once(), &full, |_| {}, page).await;
        if cancel.is_cancelled() {
            return;
        }
        let result = match result {
            Err(error) if !cut => Err(Trouble::from(&error)),
            _ => Ok((rows, cut)),
        };
        self.inbox.tell(DeskTold::Listed(ticket, result));
    }

    async fn root(self, place: RemotePlace) {
        let result = root_at(&Place::Remote(place.clone()), &self.at_once(), &self.stop, |_| {}).await;
        self.inbox.tell(DeskTold::Root(place, result.map_err(|error| Trouble::from(&error))));
    }

    async fn alter(self, alteration: Alteration) {
        let (options, cancel) = (self.at_once(), &self.stop);
        let remote = |place: &RemotePlace| Place::Remote(place.clone());
        let result = match &alteration {
            Alteration::Make(place) => make_directory(&remote(place), &options, cancel, |_| {}).await,
            Alteration::Rename { from, to } => rename(&remote(from), &remote(to), &options, cancel, |_| {}).await,
            Alteration::Remove(place) => remove(&remote(place), true, &options, cancel, |_| {}).await,
        };
        self.inbox.tell(DeskTold::Altered(alteration, result.map_err(|error| Trouble::from(&error))));
    }

    async fn start(self, id: JobId, task: Task, cancel: CancellationToken) {
        let mut teller = Teller::new(self.inbox.clone(), id);
        let result = self.carry_out(task, &cancel, &mut teller).await;
        teller.flush();
        self.inbox.tell(DeskTold::Ended(id, result));
    }

    async fn carry_out(&self, task: Task, cancel: &CancellationToken, teller: &mut Teller) -> Result<Report, Trouble> {
        let failed = |error: ClientError| Trouble::from(&error);
        let options = &self.options;
        match task {
            Task::Push { source, to } => {
                let to = Place::Remote(to);
                let summary = push(&[source], &to, options, cancel, |update| teller.take(&update)).await;
                moved(&summary.map_err(failed)?).map(Report::Moved)
            }
            Task::Pull { source, to } => {
                let sources = [Place::Remote(source)];
                let summary = pull(&sources, &into(&to), options, cancel, |update| teller.take(&update)).await;
                moved(&summary.map_err(failed)?).map(Report::Moved)
            }
            Task::Verify { file, place } => {
                let place = Place::Remote(place);
                let verified = verify(&file, &place, options, cancel, |update| teller.take(&update)).await;
                verified.map(Report::from).map_err(failed)
            }
            Task::Watch { source, to } => {
                let report = |update: WatchUpdate| teller.take_watch(update);
                let watched =
                    watch(&source, &Place::Remote(to), options, &WatchOptions::default(), cancel, report).await;
                watched.map(|summary| Report::Watched(summary.line())).map_err(failed)
            }
        }
    }
}

/// A directory of this machine, written so that what comes goes into it.
fn into(directory: &Path) -> std::path::PathBuf {
    directory.join("")
}

/// What a push or pull came to; the first thing that went wrong, when something did.
fn moved(summary: &Summary) -> Result<Moved, Trouble> {
    let mut errors = summary.errors();
    let Some((file, error)) = errors.next() else { return Ok(Moved::of(summary)) };
    let mut trouble = Trouble::from(error);
    // The name of the source itself stands beside it.
    if let Some(file) = file.filter(|file| summary.files.iter().all(|source| source.source != file.source)) {
        trouble.what = format!("{}: {}", Shown(file.source.as_bytes()), trouble.what);
    }
    match errors.count() {
        0 => {}
        more => trouble.what += &format!(" (and {more} more)"),
    }
    Err(trouble)
}

/// Tells what one transfer does, not too often.
struct Teller {
    inbox: Arc<Inbox>,
    id: JobId,
    begun: Instant,
    told: Option<Instant>,
    live: Live,
}

impl Teller {
    fn new(inbox: Arc<Inbox>, id: JobId) -> Self {
        Self { inbox, id, begun: Instant::now(), told: None, live: Live::default() }
    }

    fn take(&mut self, update: &Update) {
        self.live.take(self.begun.elapsed(), update);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.flush();
        }
    }

    fn take_watch(&mut self, update: WatchUpdate) {
        match update {
            WatchUpdate::Pushing => (self.begun, self.live) = (Instant::now(), Live::default()),
            WatchUpdate::Push(update) => self.take(&update),
            WatchUpdate::Pushed { summary, changed } => {
                self.flush();
                if changed {
                    self.inbox.tell(DeskTold::Pushed(self.id, moved(&summary)));
                }
            }
            WatchUpdate::NoNotices { why, every } => {
                let seconds = every.as_secs();
                let what =
                    format!("the system tells of no changes ({why}), so the folder is compared every {seconds} s");
                self.inbox.tell(DeskTold::Trouble(Trouble::new(what, "")));
            }
        }
    }

    fn flush(&mut self) {
        self.told = Some(Instant::now());
        self.inbox.tell_live(self.id, &self.live);
    }
}

/// Tells what was kept, and then keeps what comes, one text after the other.
async fn keep_texts(inbox: Arc<Inbox>, files: Option<DeskFiles>, mut texts: UnboundedReceiver<KeptText>) {
    let Some(files) = files else {
        while texts.recv().await.is_some() {}
        return;
    };
    let trouble = |error: io::Error, doing| {
        let what = format!("cannot {doing} {}: {error}", Shown::path(files.directory()));
        DeskTold::Trouble(Trouble::new(what, "Servers and history are kept there; check that you may write there"))
    };
    let reading = files.clone();
    match blocking(move || reading.read()).await {
        Ok(kept) => kept.into_iter().for_each(|text| inbox.tell(DeskTold::Kept(text))),
        Err(error) => inbox.tell(trouble(error, "read")),
    }
    while let Some(text) = texts.recv().await {
        let writing = files.clone();
        if let Err(error) = blocking(move || writing.write(&text)).await {
            inbox.tell(trouble(error, "write"));
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
