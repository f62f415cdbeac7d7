//! The desktop client without its window: what is on the desk, as plain data and transitions.
//!
//! A window sends [`DeskAction`]s in and draws what [`Desk`] holds. Each action, and each [`DeskTold`] that comes back from
//! the verbs, changes the desk at once and gives [`DeskEffect`]s: work that takes time, which [`DeskExecutor`] carries out
//! on a thread of its own. So the window never waits for the network or a disk, and all that it can do is tested here
//! without it.
//!
//! At most [`Desk::RUNNING_MAX`] transfers run at once, the others wait in the order in which they were asked for. Watches
//! run beside them, since they never end by themselves.
//!
//! Nothing here looks at a clock: whoever tells something says when it is.

mod words;
pub use words::Trouble;

mod addresses;
pub use addresses::{AddressBook, address as desk_address};

mod alteration;
pub use alteration::Alteration;

mod history;
pub use history::{History, HistoryEnd, HistoryEntry};

mod browser;
pub use browser::{Browser, Listing, RootState, SortBy};

mod live;
pub use live::Live;

mod job;
pub use job::{Job, JobId, JobState, Moved, Report, Task};

mod messages;
pub use messages::{DeskAction, DeskEffect, DeskTold};

mod kept;
pub use kept::{DeskFiles, KeptText};

mod executor;
pub use executor::DeskExecutor;

#[cfg(test)]
mod tests;

use deltasync_core::{ByteLen, Digest, Name, RelPath};
use deltasync_proto::{Entry, EntryKind};

use self::addresses::address;
use crate::{RemotePlace, Shown};

/// All that is on the desk.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    book: AddressBook,
    browser: Option<Browser>,
    jobs: Vec<Job>,
    history: History,
    trouble: Option<Trouble>,
    next: u64,
    ticket: u64,
}

impl Desk {
    /// The most transfers that run at once, watches not counted.
    pub const RUNNING_MAX: usize = 3;

    /// The servers that were used, the last used first.
    pub fn book(&self) -> &AddressBook {
        &self.book
    }

    /// The directory that is looked at.
    pub fn browser(&self) -> Option<&Browser> {
        self.browser.as_ref()
    }

    /// The queue, in the order in which its entries were asked for.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// What was done.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What went wrong last, unless it concerns one transfer or the listing: these have their own.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Takes in what somebody does.
    pub fn act(&mut self, action: DeskAction) -> Vec<DeskEffect> {
        match action {
            DeskAction::Connect(text) => match address(&text) {
                Ok(place) => self.look_at(place),
                Err(trouble) => self.fail(trouble),
            },
            DeskAction::Forget(place) => {
                self.book.forget(&place);
                vec![self.keep_book()]
            }
            DeskAction::Leave => {
                self.browser = None;
                // What a listing that still runs brings is not for the next one.
                self.ticket += 1;
                Vec::new()
            }
            DeskAction::Open(name) => self.open(&name),
            DeskAction::GoTo(path) => self.go_to(path),
            DeskAction::Up => match self.browser.as_ref().and_then(|browser| browser.place.path.split_last()) {
                Some((parent, _)) => self.go_to(parent),
                None => Vec::new(),
            },
            DeskAction::Refresh => self.refresh(),
            DeskAction::Sort(by) => self.on_browser(|browser| browser.sort(by)),
            DeskAction::Select { name, add } => self.on_browser(|browser| browser.select(&name, add)),
            DeskAction::AskRoot(name) => self.ask_root(name),
            DeskAction::Push(sources) => {
                let tasks = self.here().into_iter().flat_map(|to| {
                    sources.iter().map(move |source| Task::Push { source: source.clone(), to: to.clone() })
                });
                self.enqueue(tasks.collect())
            }
            DeskAction::Pull(to) => {
                let Some(browser) = &self.browser else { return Vec::new() };
                let sources = browser.selected.iter().filter_map(|name| browser.place_of(name));
                let tasks = sources.map(|source| Task::Pull { source, to: to.clone() }).collect();
                self.enqueue(tasks)
            }
            DeskAction::Verify(file) => {
                let place = self.browser.as_ref().and_then(|browser| browser.place_of(&browser.single()?.name));
                self.enqueue(place.map(|place| Task::Verify { file, place }).into_iter().collect())
            }
            DeskAction::Watch(source) => {
                self.enqueue(self.here().map(|to| Task::Watch { source, to }).into_iter().collect())
            }
            DeskAction::MakeDirectory(name) => self.alter(&name, Alteration::Make),
            DeskAction::Rename { name, to } => {
                let Some(from) = self.browser.as_ref().and_then(|browser| browser.place_of(&name)) else {
                    return Vec::new();
                };
                self.alter(&to, |to| Alteration::Rename { from, to })
            }
            DeskAction::Remove => {
                let Some(browser) = &self.browser else { return Vec::new() };
                let places = browser.selected.iter().filter_map(|name| browser.place_of(name));
                places.map(|place| DeskEffect::Alter(Alteration::Remove(place))).collect()
            }
            DeskAction::Pause(id) => self.stop(id, JobState::Pausing, JobState::Paused),
            DeskAction::Cancel(id) => self.stop(id, JobState::Cancelling, JobState::Cancelled),
            DeskAction::Resume(id) => self.queue_again(id, |state| matches!(state, JobState::Paused)),
            DeskAction::Retry(id) => self.queue_again(id, JobState::has_ended),
            DeskAction::Dismiss(id) => {
                self.jobs.retain(|job| job.id != id || !job.state.has_ended());
                Vec::new()
            }
            DeskAction::DismissEnded => {
                self.jobs.retain(|job| !job.state.has_ended());
                Vec::new()
            }
            DeskAction::ClearHistory => {
                self.history.clear();
                vec![self.keep_history()]
            }
            DeskAction::DismissTrouble => {
                self.trouble = None;
                Vec::new()
            }
        }
    }

    /// Takes in what has come of something; `now` is in seconds since 1970.
    pub fn told(&mut self, now: i64, told: DeskTold) -> Vec<DeskEffect> {
        match told {
            DeskTold::Kept(KeptText::Addresses(text)) => self.book = AddressBook::parse(&text),
            DeskTold::Kept(KeptText::History(text)) => self.history = History::parse(&text),
            DeskTold::Trouble(trouble) => return self.fail(trouble),
            DeskTold::Listed(ticket, result) => return self.listed(ticket, result),
            DeskTold::Root(place, result) => return self.root_came(&place, result),
            DeskTold::Altered(alteration, result) => return self.altered(now, &alteration, result),
            DeskTold::Live(id, live) => {
                if let Some(job) = self.job_mut(id).filter(|job| job.state.is_active()) {
                    job.live = *live;
                }
            }
            DeskTold::Pushed(id, result) => return self.pushed(now, id, result),
            DeskTold::Ended(id, result) => return self.ended(now, id, result),
        }
        Vec::new()
    }

    fn fail(&mut self, trouble: Trouble) -> Vec<DeskEffect> {
        self.trouble = Some(trouble);
        Vec::new()
    }

    /// The directory that is looked at, to put something into.
    fn here(&self) -> Option<RemotePlace> {
        self.browser.as_ref().map(|browser| RemotePlace { directory: true, ..browser.place.clone() })
    }

    fn on_browser(&mut self, change: impl FnOnce(&mut Browser)) -> Vec<DeskEffect> {
        self.browser.as_mut().map(change);
        Vec::new()
    }

    fn look_at(&mut self, place: RemotePlace) -> Vec<DeskEffect> {
        let sort = self.browser.as_ref().map(|browser| browser.sort).unwrap_or_default();
        self.trouble = None;
        let mut browser = Browser::new(place);
        browser.sort = sort;
        self.browser = Some(browser);
        self.refresh()
    }

    fn go_to(&mut self, path: RelPath) -> Vec<DeskEffect> {
        let Some(here) = self.here() else { return Vec::new() };
        self.look_at(RemotePlace { path, ..here })
    }

    fn open(&mut self, name: &Name) -> Vec<DeskEffect> {
        let Some(browser) = &self.browser else { return Vec::new() };
        let is_directory = browser.row(name).is_some_and(|entry| entry.kind == EntryKind::Directory);
        match browser.place_of(name).filter(|_| is_directory) {
            Some(place) => self.go_to(place.path),
            None => Vec::new(),
        }
    }

    fn refresh(&mut self) -> Vec<DeskEffect> {
        let Some(browser) = &mut self.browser else { return Vec::new() };
        browser.listing = Listing::Loading;
        self.ticket += 1;
        vec![DeskEffect::List { ticket: self.ticket, place: browser.place.clone() }]
    }

    fn listed(&mut self, ticket: u64, result: Result<(Vec<Entry>, bool), Trouble>) -> Vec<DeskEffect> {
        let Some(browser) = self.browser.as_mut().filter(|_| ticket == self.ticket) else { return Vec::new() };
        let fine = result.is_ok();
        browser.listed(result);
        let place = RemotePlace { path: RelPath::ROOT, ..browser.place.clone() };
        if !fine || self.book.places().first() == Some(&place) {
            return Vec::new();
        }
        self.book.used(&place);
        vec![self.keep_book()]
    }

    fn ask_root(&mut self, name: Name) -> Vec<DeskEffect> {
        let Some(browser) = &mut self.browser else { return Vec::new() };
        let is_file = browser.row(&name).is_some_and(|entry| entry.kind == EntryKind::File);
        let Some(place) = browser.place_of(&name).filter(|_| is_file) else { return Vec::new() };
        browser.set_root(name, RootState::Asked);
        vec![DeskEffect::Root(place)]
    }

    fn root_came(&mut self, place: &RemotePlace, result: Result<(ByteLen, Digest), Trouble>) -> Vec<DeskEffect> {
        let root = match result {
            Ok((len, root)) => RootState::Known(len, root),
            Err(trouble) => RootState::Failed(trouble),
        };
        let split = place.path.split_last();
        self.on_browser(|browser| match split {
            Some((parent, name)) if browser.place.server == place.server && browser.place.path == parent => {
                browser.set_root(name, root);
            }
            _ => {}
        })
    }

    /// Changes something at the place with this name in the directory.
    fn alter(&mut self, name: &str, alteration: impl FnOnce(RemotePlace) -> Alteration) -> Vec<DeskEffect> {
        let Some(browser) = &self.browser else { return Vec::new() };
        match Name::new(name.trim()).and_then(|name| browser.place.join(&name)) {
            Ok(place) => vec![DeskEffect::Alter(alteration(place))],
            Err(error) => self.fail(Trouble::new(error.to_string(), "Choose another name: it may hold no /")),
        }
    }

    fn altered(&mut self, now: i64, alteration: &Alteration, result: Result<(), Trouble>) -> Vec<DeskEffect> {
        let (what, place, line) = alteration.words();
        let (ended, line) = match &result {
            Ok(()) => (HistoryEnd::Done, line),
            Err(trouble) => (HistoryEnd::Failed, trouble.what.clone()),
        };
        let name = place.name().map_or_else(String::new, |name| Shown(name.as_bytes()).to_string());
        let entry = HistoryEntry { at: now, what: what.to_owned(), name, to: place.to_string(), ended, line };
        let mut effects = self.note(entry);
        if let Err(trouble) = result {
            self.trouble = Some(trouble);
        }
        // Also when it failed: what is there is not what was thought to be.
        let parent = place.path.split_last().map(|(parent, _)| parent);
        let is_here =
            |browser: &Browser| browser.place.server == place.server && Some(&browser.place.path) == parent.as_ref();
        if self.browser.as_ref().is_some_and(is_here) {
            effects.extend(self.refresh());
        }
        effects
    }

    fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.id == id)
    }

    /// Adds tasks to the queue, but for those that are in it and have not ended.
    fn enqueue(&mut self, tasks: Vec<Task>) -> Vec<DeskEffect> {
        for task in tasks {
            if self.jobs.iter().any(|job| job.task == task && !job.state.has_ended()) {
                continue;
            }
            self.jobs.push(Job::new(JobId(self.next), task));
            self.next += 1;
        }
        self.start_next()
    }

    /// Begins what waits, as far as there is room.
    fn start_next(&mut self) -> Vec<DeskEffect> {
        let running = self.jobs.iter().filter(|job| job.state.is_active() && !job.task.is_watch()).count();
        let mut room = Self::RUNNING_MAX.saturating_sub(running);
        let mut effects = Vec::new();
        for job in self.jobs.iter_mut().filter(|job| job.state == JobState::Queued) {
            if !job.task.is_watch() {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            (job.state, job.live) = (JobState::Running, Live::default());
            effects.push(DeskEffect::Start(job.id, job.task.clone()));
        }
        effects
    }

    /// Ends a job that runs, by the first state, or one that waits, to the second.
    fn stop(&mut self, id: JobId, ending: JobState, ended: JobState) -> Vec<DeskEffect> {
        let Some(job) = self.job_mut(id) else { return Vec::new() };
        match job.state {
            JobState::Running => {
                job.state = ending;
                vec![DeskEffect::Stop(id)]
            }
            // It is on its way to its end; only how that counts changes.
            JobState::Pausing => {
                job.state = ending;
                Vec::new()
            }
            JobState::Queued | JobState::Paused => {
                job.state = ended;
                Vec::new()
            }
            JobState::Cancelling | JobState::Cancelled | JobState::Done(_) | JobState::Failed(_) => Vec::new(),
        }
    }

    fn queue_again(&mut self, id: JobId, may: impl FnOnce(&JobState) -> bool) -> Vec<DeskEffect> {
        match self.job_mut(id) {
            Some(job) if may(&job.state) => {
                job.state = JobState::Queued;
                self.start_next()
            }
            _ => Vec::new(),
        }
    }

    fn pushed(&mut self, now: i64, id: JobId, result: Result<Moved, Trouble>) -> Vec<DeskEffect> {
        let Some(job) = self.job_mut(id) else { return Vec::new() };
        job.pushes.0 += 1;
        let task = job.task.clone();
        let entry = match &result {
            Ok(moved) => entry_of(now, &task, HistoryEnd::Done, moved.line()),
            Err(trouble) => entry_of(now, &task, HistoryEnd::Failed, trouble.what.clone()),
        };
        job.pushes.1 = Some(result);
        let mut effects = self.note(entry);
        effects.extend(self.refresh_after(&task));
        effects
    }

    fn ended(&mut self, now: i64, id: JobId, result: Result<Report, Trouble>) -> Vec<DeskEffect> {
        let Some(job) = self.job_mut(id).filter(|job| job.state.is_active()) else { return Vec::new() };
        let was = std::mem::replace(&mut job.state, JobState::Paused);
        job.state = match (was, result) {
            // A watch that was switched off is off.
            (JobState::Pausing, Ok(Report::Watched(_)) | Err(_)) => JobState::Paused,
            (JobState::Cancelling, Err(_)) => JobState::Cancelled,
            (_, Ok(report)) => JobState::Done(report),
            (_, Err(trouble)) => JobState::Failed(trouble),
        };
        let task = job.task.clone();
        let (end, line) = match &job.state {
            JobState::Done(report) => {
                let end = if matches!(report, Report::Differ(..)) { HistoryEnd::Failed } else { HistoryEnd::Done };
                (end, report.line())
            }
            JobState::Failed(trouble) => (HistoryEnd::Failed, trouble.what.clone()),
            JobState::Cancelled => (HistoryEnd::Cancelled, "cancelled".to_owned()),
            _ => return self.start_next(),
        };
        let mut effects = self.start_next();
        effects.extend(self.note(entry_of(now, &task, end, line)));
        effects.extend(self.refresh_after(&task));
        effects
    }

    /// Lists again what is looked at when a task may have changed it.
    fn refresh_after(&mut self, task: &Task) -> Vec<DeskEffect> {
        match self.browser.as_ref().is_some_and(|browser| task.changes(&browser.place)) {
            true => self.refresh(),
            false => Vec::new(),
        }
    }

    fn note(&mut self, entry: HistoryEntry) -> Vec<DeskEffect> {
        self.history.add(entry);
        vec![self.keep_history()]
    }

    fn keep_book(&self) -> DeskEffect {
        DeskEffect::Keep(KeptText::Addresses(self.book.to_text()))
    }

    fn keep_history(&self) -> DeskEffect {
        DeskEffect::Keep(KeptText::History(self.history.to_text()))
    }
}

fn entry_of(at: i64, task: &Task, ended: HistoryEnd, line: String) -> HistoryEntry {
    HistoryEntry { at, what: task.word().to_owned(), name: task.name(), to: task.to(), ended, line }
}
