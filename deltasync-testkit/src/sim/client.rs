//! What a client of a run does: batches of transfers, each on a connection of its own, started again when that is lost.
//!
//! As the client of a person does: a transfer that ended with its connection, or of which the peer said nothing, is
//! started again on the next connection under the same condition, up to [`TRIES`] times. What it will replace under a
//! condition is looked up when it is started first.

use std::collections::VecDeque;

use bytes::Bytes;
use deltasync_core::{Algorithm, Name, RelPath};
use deltasync_proto::{
    Command, Condition, Config, Destination, Event, EventKind, Input, Place, RootId, TransferId, Version,
};

use super::ground::Ground;
use super::plan::{ClientPlan, TaskPlan, TaskVerb, Wanted};
use super::store::Store;
use super::tally::Seen;
use super::world::{Happening, Side, World};
use super::{MILLISECOND, SECOND};

/// How often a transfer is started at most.
const TRIES: usize = 5;

/// A client, its files, and what it is about.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: Config,
    pub(super) store: Store,
    batches: VecDeque<(u64, Vec<TaskPlan>)>,
    pub(super) tasks: Vec<Task>,
    begun: usize,
    connection: Option<usize>,
}

/// A transfer that a client wants.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) plan: TaskPlan,
    /// The local file.
    pub(super) local: RelPath,
    pub(super) condition: Option<Condition>,
    pub(super) tries: usize,
    pub(super) running: Option<Running>,
    pub(super) done: bool,
}

/// A task under way.
#[derive(Clone, Debug)]
pub(super) struct Running {
    transfer: TransferId,
    /// Since when, on the virtual clock.
    pub(super) since: u64,
    /// The excess of the world then.
    pub(super) excess: u64,
    /// What other writers were said to have published.
    pub(super) conflicts: Vec<Option<Version>>,
}

impl Client {
    pub(super) fn new(plan: &ClientPlan) -> Self {
        Self {
            config: plan.config.clone(),
            store: Store::new(Ground::memory(), plan.weather.clone()),
            batches: plan.batches.clone().into(),
            tasks: Vec::new(),
            begun: 0,
            connection: None,
        }
    }

    /// True when it wants nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.batches.is_empty() && self.tasks.iter().all(|task| task.done) && self.connection.is_none()
    }
}

impl World {
    /// Whatever clients will push may come to be at the server, and the other way round.
    pub(super) fn allow_contents(&mut self) {
        let root = |bytes: &Bytes| Algorithm::Blake3.digest(bytes);
        let mut roots: Vec<_> = self.plan.files.iter().map(|(_, bytes)| root(bytes)).collect();
        for task in self.plan.clients.iter().flat_map(|client| &client.batches).flat_map(|(_, tasks)| tasks) {
            if let TaskVerb::Push(bytes) = &task.verb {
                roots.push(root(bytes));
            }
            roots.extend(task.edit.iter().map(|(_, bytes)| root(bytes)));
        }
        let stores = self.clients.iter_mut().map(|client| &mut client.store).chain([&mut self.server]);
        for store in stores {
            roots.iter().for_each(|root| store.history.allow(*root));
        }
    }

    /// A client begins its next batch, or goes on with this one.
    pub(super) fn go(&mut self, number: usize) -> Result<(), String> {
        let now = self.now;
        let client = &mut self.clients[number];
        if client.tasks.iter().all(|task| task.done) {
            let Some((_, plans)) = client.batches.pop_front() else { return Ok(()) };
            client.begun += 1;
            let begun = client.begun;
            client.tasks = plans.into_iter().enumerate().map(|(task, plan)| Task::new(plan, begun, task)).collect();
            for task in &client.tasks {
                if let TaskVerb::Push(bytes) = &task.plan.verb {
                    client.store.put(&task.local, bytes, now);
                }
            }
        }
        let Some(connection) = self.connect(number) else {
            self.clients[number].tasks.iter_mut().for_each(|task| task.tries += 1);
            return self.rest(number);
        };
        self.clients[number].connection = Some(connection);
        for task in 0..self.clients[number].tasks.len() {
            if !self.clients[number].tasks[task].done {
                self.start(number, task, connection)?;
            }
        }
        self.begin(connection)
    }

    fn start(&mut self, number: usize, index: usize, connection: usize) -> Result<(), String> {
        let (now, excess) = (self.now, self.excess);
        let client = &mut self.clients[number];
        let task = &mut client.tasks[index];
        let transfer = TransferId::new(u32::try_from(index).expect("a few tasks") + 1);
        let is_push = matches!(task.plan.verb, TaskVerb::Push(_));
        let history = if is_push { &self.server.history } else { &client.store.history };
        let replaced = if is_push { &task.plan.path } else { &task.local };
        let current = history.root(replaced);
        let condition = *task.condition.get_or_insert_with(|| match task.plan.condition {
            Wanted::Any => Condition::Any,
            Wanted::Absent => Condition::Absent,
            Wanted::Current => current.map_or(Condition::Absent, Condition::Root),
            Wanted::Other => Condition::Root(Algorithm::Blake3.digest(b"a file that nobody has")),
        });
        task.running = Some(Running { transfer, since: now, excess, conflicts: Vec::new() });
        let place = Place { root: RootId::new(0), path: task.local.clone() };
        let path = task.plan.path.clone();
        let name: Name = path.split_last().expect("no path of a plan is empty").1;
        let command = match &task.plan.verb {
            TaskVerb::Push(_) => Command::Push { source: place, path: path.clone(), name, directory: false, condition },
            TaskVerb::Pull => {
                let destination = Destination { place, name, directory: false };
                Command::Pull { path: path.clone(), destination, condition }
            }
            TaskVerb::Root => Command::Root { path: path.clone() },
            TaskVerb::List => Command::List { path: RelPath::ROOT, after: None },
        };
        let (first, local) = (task.tries == 0, task.local.clone());
        let (cancel, edit) = (task.plan.cancel, task.plan.edit.clone());
        task.tries += 1;
        if is_push {
            let serial = self.server.history.serial();
            self.connections[connection].said.entry(path).or_insert(serial);
        }
        self.note("starts", (connection, Side::Client), u64::from(transfer.get()), || format!("{command:?}"));
        if let Some(after) = cancel.filter(|_| first) {
            self.enter(now + after, Happening::Cancel(number, connection, transfer));
        }
        if let Some((after, bytes)) = edit.filter(|_| first) {
            self.enter(now + after, Happening::Edit(number, local, bytes));
        }
        self.command(connection, transfer, command)
    }

    pub(super) fn cancel(&mut self, number: usize, connection: usize, transfer: TransferId) -> Result<(), String> {
        if self.clients[number].connection != Some(connection) {
            return Ok(());
        }
        self.input((connection, Side::Client), Input::Command { transfer, command: Command::Cancel })
    }

    pub(super) fn on_client_event(&mut self, connection: usize, event: Event) -> Result<(), String> {
        let number = self.connections[connection].client.expect("recordings have no client");
        let runs = |task: &Task| task.running.as_ref().is_some_and(|running| running.transfer == event.transfer);
        let index = self.clients[number].tasks.iter().position(runs);
        let index = index.ok_or_else(|| format!("client {number}: an event of no task: {event:?}"))?;
        let task = &mut self.clients[number].tasks[index];
        match event.kind {
            EventKind::Conflict { current } => {
                task.running.as_mut().expect("it runs").conflicts.push(current);
                self.tally.add(Seen::ConflictAgreed);
            }
            EventKind::Root { root, .. } => self.judge_root(number, index, connection, root)?,
            EventKind::Ended(result) => {
                let again = self.judge(number, index, connection, result)?;
                let task = &mut self.clients[number].tasks[index];
                task.running = None;
                task.done = !again;
                if again && task.tries >= TRIES {
                    task.done = true;
                    self.tally.add(Seen::GivenUp);
                }
                if self.clients[number].tasks.iter().all(|task| task.running.is_none()) {
                    self.tell((connection, Side::Client), Input::Finish)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn on_client_finished(&mut self, connection: usize) -> Result<(), String> {
        let serial = self.server.history.serial();
        self.connections[connection].gone = Some(serial);
        let number = self.connections[connection].client.expect("recordings have no client");
        self.clients[number].connection = None;
        self.rest(number)
    }

    /// A client waits before it connects again.
    fn rest(&mut self, number: usize) -> Result<(), String> {
        for task in &mut self.clients[number].tasks {
            if !task.done && task.tries >= TRIES {
                task.done = true;
                self.tally.add(Seen::GivenUp);
            }
        }
        let client = &self.clients[number];
        let wait = match client.batches.front() {
            _ if !client.tasks.iter().all(|task| task.done) => (100 + self.rng.below(5_000) as u64) * MILLISECOND,
            Some((wait, _)) => *wait,
            None => return Ok(()),
        };
        let at = self.now + wait.min(60 * SECOND);
        self.enter(at, Happening::Go(number));
        Ok(())
    }
}

impl Task {
    fn new(plan: TaskPlan, batch: usize, index: usize) -> Self {
        let local = match plan.verb {
            // Each push has a file of its own, each path one where it is pulled to.
            TaskVerb::Push(_) => format!("from/{batch}-{index}").into_bytes(),
            TaskVerb::Pull | TaskVerb::Root | TaskVerb::List => [b"to/", plan.path.as_bytes()].concat(),
        };
        let local = RelPath::new(local).expect("a plain path");
        Self { plan, local, condition: None, tries: 0, running: None, done: false }
    }
}
