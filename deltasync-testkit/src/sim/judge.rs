//! Whether what a client is told is true, and whether what failed had a cause.
//!
//! A push that ended well published the announced root, as a version that replaced what its condition names, or found it
//! there at some moment of its run; a pull that ended well has at the client what the server had at some moment of it.
//! Over a connection whose bytes were damaged less can be said, since nothing but contents is protected there yet: what
//! arrived is still a file that somebody had as a whole. Every failure is of a kind that something in the run explains.

use deltasync_core::{Algorithm, Digest};
use deltasync_proto::{Condition, FaultKind, Outcome, RefusalCode, TransferError};

use super::SECOND;
use super::client::{Running, Task};
use super::plan::{TaskVerb, Wanted};
use super::store::Weather;
use super::tally::Seen;
use super::world::World;

/// How long a transfer may take, beyond what a slow link and a slow storage add.
const ALLOWED: u64 = 180 * SECOND;

impl World {
    /// Takes in how a transfer ended at its client; true when it is to be started again.
    ///
    /// # Errors
    ///
    /// Which promise was broken.
    pub(super) fn judge(
        &mut self,
        client: usize,
        index: usize,
        connection: usize,
        result: Result<Outcome, TransferError>,
    ) -> Result<bool, String> {
        let task = &self.clients[client].tasks[index];
        let running = task.running.as_ref().expect("it has just ended");
        let took = self.now - running.since;
        let excess = self.excess - running.excess;
        if took > ALLOWED + excess {
            return Err(format!("{} took {took} ns, of which {excess} are explained", described(client, task)));
        }
        let wrong = |what: String| format!("{}: {what}", described(client, task));
        match result {
            Ok(outcome) => {
                let running = running.clone();
                let retried = task.tries > 1;
                let seen = self.judge_success(client, index, connection, &running, &outcome);
                seen.map_err(wrong)?.into_iter().for_each(|seen| self.tally.add(seen));
                let task = &self.clients[client].tasks[index];
                if matches!(task.plan.verb, TaskVerb::Push(_)) && !self.connections[connection].damaged {
                    self.server.settle(&task.plan.path, outcome.root);
                    // What it found there the next push to the same path may name.
                    let found = self.server.history.latest(&task.plan.path, outcome.root);
                    if let (None, Some(found)) = (outcome.generation, found) {
                        let said = self.connections[connection].said.entry(task.plan.path.clone()).or_default();
                        *said = (*said).max(found + 1);
                    }
                }
                if retried {
                    self.tally.add(Seen::Retried);
                }
                Ok(false)
            }
            Err(error) => {
                let (seen, again, explained) = self.explain(client, task, connection, running, &error);
                if !explained {
                    return Err(wrong(format!("failed without a cause: {error:?}")));
                }
                self.tally.add(seen);
                Ok(again)
            }
        }
    }

    fn judge_success(
        &self,
        client: usize,
        index: usize,
        connection: usize,
        running: &Running,
        outcome: &Outcome,
    ) -> Result<Vec<Seen>, String> {
        let Running { since, conflicts, .. } = running;
        let task = &self.clients[client].tasks[index];
        let (server, local) = (&self.server.history, &self.clients[client].store.history);
        let root = outcome.root;
        let mut seen = if outcome.known { vec![Seen::Known] } else { Vec::new() };
        // The local file, and what may have come of it.
        if matches!(task.plan.verb, TaskVerb::Root | TaskVerb::List) {
            return Ok(seen);
        }
        let is_push = matches!(task.plan.verb, TaskVerb::Push(_));
        seen.push(match (is_push, outcome.generation) {
            (true, Some(_)) => Seen::Pushed,
            (true, None) => Seen::PushedSame,
            (false, _) => Seen::Pulled,
        });
        if !local.was_there(&task.local, root, *since, self.now) {
            return Err(format!("root {root} is not that of the local file"));
        }
        if self.connections[connection].damaged {
            if !server.is_known(root) {
                return Err(format!("nobody ever had a file with root {root}"));
            }
            return Ok(seen);
        }
        if !is_push && !server.was_there(&task.plan.path, root, *since, self.now) {
            return Err(format!("the server had no file with root {root} at {} while it was pulled", task.plan.path));
        }
        let (history, path) = if is_push { (server, &task.plan.path) } else { (local, &task.local) };
        let Some(generation) = outcome.generation else {
            if !history.was_there(path, root, *since, self.now) {
                return Err(format!("root {root} was said to be there, and was not"));
            }
            return Ok(seen);
        };
        let Some(version) = history.published(path, generation.get()) else {
            return Err(format!("generation {generation:?} was never published at {path}"));
        };
        if version.root != Some(root) || version.connection != Some(connection) {
            return Err(format!("generation {generation:?} is not what was pushed: {version:?}"));
        }
        let holds = match task.condition.expect("it was started") {
            Condition::Any => true,
            Condition::Absent => version.replaced.is_none(),
            Condition::Root(wanted) => version.replaced == Some(wanted),
        };
        if !holds {
            return Err(format!("under {:?} it replaced {:?}", task.condition, version.replaced));
        }
        if task.plan.condition != Wanted::Any {
            seen.push(Seen::ConditionHeld);
        }
        let last = conflicts.last().map(|current| current.map(|current| current.root));
        let any = task.condition == Some(Condition::Any);
        if !is_push && any && version.contested {
            return Err("it replaced a local file that had changed meanwhile".to_owned());
        }
        if is_push && any && version.contested && last != Some(version.replaced) {
            return Err(format!("it replaced {:?} after a conflict, and was told of {last:?}", version.replaced));
        }
        Ok(seen)
    }

    /// A client was told the root of a file.
    pub(super) fn judge_root(
        &self,
        client: usize,
        index: usize,
        connection: usize,
        root: Digest,
    ) -> Result<(), String> {
        let task = &self.clients[client].tasks[index];
        let since = task.running.as_ref().expect("it runs").since;
        let had = self.server.history.was_there(&task.plan.path, root, since, self.now);
        if had || self.connections[connection].damaged {
            return Ok(());
        }
        Err(format!("{}: the server never had root {root} meanwhile", described(client, task)))
    }

    /// What kind of failure it is, whether the transfer is started again, and whether something in the run explains it.
    fn explain(
        &self,
        client: usize,
        task: &Task,
        connection: usize,
        running: &Running,
        error: &TransferError,
    ) -> (Seen, bool, bool) {
        let (ours, theirs) = (&self.clients[client].store.weather, &self.server.weather);
        let either = |what: fn(&Weather) -> usize| what(ours) + what(theirs) > 0;
        let (troubled, damaged) = (self.connections[connection].troubled, self.connections[connection].damaged);
        let faults = either(|weather| weather.fault + weather.late_fault + weather.disk);
        let mut edits = self.plan.clients[client].batches.iter().flat_map(|(_, tasks)| tasks);
        let edited = task.plan.edit.is_some() || edits.any(|other| other.edits(&task.plan));
        let restarts = edited || either(|weather| weather.changed);
        let conditional = task.plan.condition != Wanted::Any;
        let absent = self.server.history.was_absent(&task.plan.path, running.since);
        let is_pull = !matches!(task.plan.verb, TaskVerb::Push(_));
        match error {
            TransferError::ConnectionLost(_) => (Seen::Lost, true, troubled),
            TransferError::Stalled { .. } => (Seen::Stalled, true, troubled),
            TransferError::Cancelled => (Seen::Cancelled, false, task.plan.cancel.is_some()),
            TransferError::CancelledByPeer => (Seen::Refused, false, damaged),
            TransferError::Changed { .. } => (Seen::SourceChanged, false, restarts),
            TransferError::Integrity { .. } => (Seen::Integrity, false, damaged || either(|weather| weather.rot)),
            TransferError::Conflict { .. } => (
                Seen::LocalConflict,
                false,
                is_pull && (edited || conditional || ours.conflict > 0 || self.shares(client, task)),
            ),
            TransferError::Storage(fault) => match fault.kind {
                FaultKind::Conflict => {
                    (Seen::LocalConflict, false, is_pull && (edited || ours.conflict > 0 || self.shares(client, task)))
                }
                FaultKind::Changed => (Seen::SourceChanged, false, restarts || damaged),
                _ => (Seen::StorageFailed, false, faults || damaged),
            },
            TransferError::Refused(refusal) => match refusal.code {
                RefusalCode::Busy => (Seen::Refused, true, true),
                RefusalCode::Stalled => (Seen::Stalled, true, troubled),
                RefusalCode::NotFound => (Seen::Refused, false, is_pull && absent || damaged),
                RefusalCode::Conflict => (Seen::ConditionFailed, false, conditional || theirs.conflict > 0 || damaged),
                RefusalCode::Changed => (Seen::SourceChanged, false, restarts || self.is_contested(task) || damaged),
                RefusalCode::Integrity => (Seen::Integrity, false, damaged || either(|weather| weather.rot)),
                RefusalCode::Storage | RefusalCode::Full | RefusalCode::Denied => {
                    (Seen::StorageFailed, false, faults || damaged || theirs.conflict > 0)
                }
                _ => (Seen::Refused, false, damaged),
            },
            _ => (Seen::Refused, false, false),
        }
    }

    /// True when another task of the client pulls to the same file.
    fn shares(&self, client: usize, task: &Task) -> bool {
        self.clients[client].tasks.iter().filter(|other| other.local == task.local).count() > 1
    }

    /// True when a file that is pulled may be published meanwhile.
    fn is_contested(&self, task: &Task) -> bool {
        matches!(task.plan.verb, TaskVerb::Pull)
    }

    /// Every file is the last version of its path.
    pub(super) fn check_content(&self) -> Result<(), String> {
        let stores = self.clients.iter().map(|client| &client.store).chain([&self.server]);
        for store in stores {
            for path in store.history.paths() {
                let (there, last) = (store.ground.root(path), store.history.current(path));
                if there != last.and_then(|(_, version)| version.root) {
                    return Err(format!("{path} has root {there:?}, and should have {last:?}"));
                }
            }
        }
        Ok(())
    }

    /// Nothing more happens: nobody waits, nothing is left behind.
    pub(super) fn check_the_end(&self) -> Result<(), String> {
        self.check_content()?;
        for (number, client) in self.clients.iter().enumerate() {
            if !client.is_done() {
                return Err(format!("client {number} waits for ever"));
            }
            if client.store.live() > 0 {
                return Err(format!("{} handles live at client {number}", client.store.live()));
            }
        }
        if self.server.live() > 0 {
            return Err(format!("{} handles live at the server", self.server.live()));
        }
        for (number, connection) in self.connections.iter().enumerate() {
            if let Some((side, _)) = connection.ends.iter().find(|(_, end)| end.finished.is_none()) {
                return Err(format!("{side:?} {number} never finished"));
            }
        }
        Ok(())
    }
}

fn described(client: usize, task: &Task) -> String {
    let verb = match &task.plan.verb {
        TaskVerb::Push(bytes) => format!("push of {}", Algorithm::Blake3.digest(bytes)),
        TaskVerb::Pull => "pull".to_owned(),
        TaskVerb::Root => "root".to_owned(),
        TaskVerb::List => "list".to_owned(),
    };
    format!("client {client}, {verb}, {}", task.plan.path)
}
