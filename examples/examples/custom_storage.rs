//! A storage of one's own: an inbox, to which anyone may push, from which nobody can pull, and which replaces nothing.
//!
//! `cargo run --release --example custom_storage`. A session asks in [`Ask`]s and takes [`Answer`]s; what a stage or an
//! opened file is, is the storage's own business, behind a handle. What it does not want to do it answers by a fault,
//! which ends that transfer and no other.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{Algorithm, Generation, Name, RelPath, Step};
use deltasync_io::{BlockingStorage, Control, MemoryStorage, Report, Threads, drive, entropy};
use deltasync_proto::{
    Answer, Ask, Command, Condition, Config, Destination, EventKind, FaultKind, Place, RootId, Session,
};
use deltasync_proto::{StageHandle, StorageFault, TransferId};
use tokio::sync::mpsc::unbounded_channel;

/// What has come, in order: the name it was pushed under, and its bytes.
#[derive(Default)]
struct Inbox(Mutex<Vec<(RelPath, Vec<u8>)>>);

/// Behind a [`StageHandle`]; when a transfer fails its handle is dropped, and this with it.
struct Letter {
    path: RelPath,
    algorithm: Algorithm,
    bytes: Mutex<Vec<u8>>,
}

impl BlockingStorage for Inbox {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        Ok(match ask {
            // Nothing here is the basis of something else: everything comes as literals.
            Ask::Basis { destination, .. } => {
                Answer::Basis { place: destination.place, file: None, twin: None, partial: None }
            }
            Ask::Stage { place, algorithm, .. } => {
                let letter = Letter { path: place.path, algorithm, bytes: Mutex::default() };
                Answer::Staged(StageHandle::new(letter))
            }
            Ask::Apply { stage, plan, literals, .. } => {
                let mut bytes = locked(&letter(&stage)?.bytes);
                for step in plan.steps() {
                    match *step {
                        Step::Literal { start, len } => bytes.extend_from_slice(&literals[start..start + len]),
                        Step::Copy { .. } => return Err(StorageFault::new(FaultKind::Other, "there is no basis")),
                    }
                }
                Answer::Applied
            }
            Ask::Seal { stage } => {
                let letter = letter(&stage)?;
                Answer::Sealed { root: letter.algorithm.digest(&locked(&letter.bytes)), members: None }
            }
            // The session has compared the digest. A real inbox would make the letter durable before it answers.
            Ask::Commit { stage, .. } => {
                let letter = letter(&stage)?;
                let mut inbox = locked(&self.0);
                inbox.push((letter.path.clone(), locked(&letter.bytes).clone()));
                Answer::Committed(Generation::new(inbox.len() as u64))
            }
            _ => return Err(StorageFault::new(FaultKind::Denied, "an inbox gives nothing away")),
        })
    }
}

fn letter(stage: &StageHandle) -> Result<&Letter, StorageFault> {
    stage.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a stage of another storage"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (root, path, name) = (RootId::new(0), RelPath::new("letter")?, Name::new("letter")?);
    let (files, inbox) = (Arc::new(MemoryStorage::new()), Arc::new(Inbox::default()));
    let here = Place { root, path: path.clone() };
    let push = Command::Push {
        source: here.clone(),
        path: path.clone(),
        name: name.clone(),
        directory: false,
        condition: Condition::Any,
    };
    let pull = Command::Pull {
        path: path.clone(),
        destination: Destination { place: here, name, directory: false },
        condition: Condition::Any,
    };
    for (text, command) in [("first", push.clone()), ("second", push), ("not yet", pull)] {
        files.insert(root, path.clone(), text);
        let (near, far) = tokio::io::duplex(64 << 10);
        let (controls, control) = unbounded_channel();
        let (_open, no_control) = unbounded_channel();
        controls.send(Control::Command { transfer: TransferId::new(1), command })?;
        controls.send(Control::Finish)?;
        let client = Session::client(Config::default(), entropy()?);
        let server = Session::server(Config::default(), entropy()?);
        let report = |report| match report {
            Report::Event(event) if matches!(event.kind, EventKind::Ended(_)) => println!("{text}: {:?}", event.kind),
            _ => {}
        };
        let ours = Arc::new(Threads::new(Arc::clone(&files), Threads::FEWEST));
        let theirs = Arc::new(Threads::new(Arc::clone(&inbox), Threads::FEWEST));
        tokio::try_join!(drive(client, near, ours, control, report), drive(server, far, theirs, no_control, |_| {}))?;
    }
    let letters: Vec<_> =
        locked(&inbox.0).iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert_eq!(letters, ["first", "second"]);
    Ok(())
}
