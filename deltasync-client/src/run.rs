//! Carries out a command line: runs its verb, draws progress, prints the result, and says how it ended.
//!
//! The standard output has the result and nothing else, the standard error errors and, on a terminal, progress. The
//! first Ctrl-C (or SIGTERM) cancels the verb, which then ends in order within two seconds; the second ends the program.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use deltasync_core::{DeltaSummary, Limits};
use deltasync_proto::{Entry, EntryKind};
use percent_encoding::percent_encode;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::{ArgsVerb, CopyArgs, ListArgs, PushArgs, VerifyArgs, WatchArgs};
use crate::completions::{completions, man};
use crate::demo::demo;
use crate::explain::explain;
use crate::face::{Face, Look};
use crate::place::ENCODED;
use crate::shown::{Grouped, Moment, Percent, Span};
use crate::summary::{chain, json_of_failure};
use crate::terminal;
use crate::{
    Args, Bars, ClientError, ExitStatus, Options, Place, Shown, State, Summary, UsageError, Verified, WatchUpdate,
};
use crate::{
    delta, list, make_directory, patch, predict_pull, predict_push, pull, push, remove, rename, signature, verify,
    watch,
};

/// How long work on files may go on after it was cancelled.
const PATIENCE: Duration = Duration::from_secs(2);

/// Carries out a command line and prints what came of it.
pub fn run(args: Args) -> ExitStatus {
    // One thread carries a connection, and starts sooner than many: reading, writing and computing have threads of their own.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&ClientError::file("start", "the runtime".as_ref())(error)),
    };
    let cancel = CancellationToken::new();
    let status = runtime.block_on(async {
        watch_signals(cancel.clone());
        match args.verb {
            ArgsVerb::Push(PushArgs { copy: args, state }) => {
                let options = state.add_to(args.options(), State::of_user);
                copy(args, true, &options, &cancel).await
            }
            ArgsVerb::Pull(args) => {
                let options = args.options();
                copy(args, false, &options, &cancel).await
            }
            ArgsVerb::Watch(args) => watch_directory(args, &cancel).await,
            ArgsVerb::Ls(args) => list_place(args, &cancel).await,
            ArgsVerb::Mkdir(args) => {
                let options = args.session.options();
                let make = async |place: &_, face: &Face| {
                    make_directory(place, &options, &cancel, |update| face.update(&update)).await
                };
                each(&args.places, &cancel, make).await
            }
            ArgsVerb::Mv(args) => {
                let options = args.session.options();
                let give = async |from: &_, face: &Face| {
                    rename(from, &args.to, &options, &cancel, |update| face.update(&update)).await
                };
                each(std::slice::from_ref(&args.from), &cancel, give).await
            }
            ArgsVerb::Rm(args) => {
                let options = args.session.options();
                let take = async |place: &_, face: &Face| {
                    remove(place, args.recursive, &options, &cancel, |update| face.update(&update)).await
                };
                each(&args.places, &cancel, take).await
            }
            ArgsVerb::Verify(args) => verify_file(args, &cancel).await,
            ArgsVerb::Signature(args) => {
                let (token, limits) = (cancel.clone(), Limits::default());
                let work = move || {
                    signature(&args.basis, &args.out, args.hash.hash, args.block_len, &limits, &token).map(|()| None)
                };
                classic(work, &cancel).await
            }
            ArgsVerb::Delta(args) => {
                let token = cancel.clone();
                let work = move || {
                    let summary = delta(&args.signature, &args.target, &args.out, &Limits::default(), &token)?;
                    Ok(args.verbose.then_some(summary))
                };
                classic(work, &cancel).await
            }
            ArgsVerb::Patch(args) => {
                let token = cancel.clone();
                let work = move || {
                    let summary = patch(&args.basis, &args.delta, &args.out, &Limits::default(), &token)?;
                    Ok(args.verbose.then_some(summary))
                };
                classic(work, &cancel).await
            }
            ArgsVerb::Explain(args) => {
                explain(&args, State::of_user, &cancel).await.map_or_else(|error| complain(&error), print)
            }
            ArgsVerb::Demo(args) => {
                demo(&args, &cancel).await.map_or_else(|error| complain(&error), |()| ExitStatus::Done)
            }
            ArgsVerb::Completions(args) => print(completions(&args)),
            ArgsVerb::Man(args) => man(&args).map_or_else(|error| complain(&error), print),
        }
    });
    // A read that never returns must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    status
}

/// Without signals to be had, Ctrl-C ends the program as it always did.
fn watch_signals(cancel: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        cancel.cancel();
        next().await;
        std::process::exit(ExitStatus::Interrupted.code().into());
    });
}

async fn copy(args: CopyArgs, pushing: bool, options: &Options, cancel: &CancellationToken) -> ExitStatus {
    if args.dry_run {
        return predict(args, pushing, options, cancel).await;
    }
    let face = Face::new(look(&args));
    let report = |update| face.update(&update);
    let work = async {
        if pushing {
            let sources = local_sources(&args.sources)?;
            return push(&sources, &args.destination, options, cancel, report).await;
        }
        match &args.destination {
            Place::Local(path) => pull(&args.sources, path, options, cancel, report).await,
            Place::Remote(place) => Err(UsageError::RemoteDestination(place.to_string()).into()),
        }
    };
    let result = face.watch(work).await;
    match result {
        Ok(summary) => conclude(&summary, &args),
        Err(error) => conclude_failure(&error, &args),
    }
}

async fn predict(args: CopyArgs, pushing: bool, options: &Options, cancel: &CancellationToken) -> ExitStatus {
    let face = Face::new(look(&args));
    let report = |update| face.update(&update);
    let work = async {
        if pushing {
            let sources = local_sources(&args.sources)?;
            return predict_push(&sources, &args.destination, options, cancel, report).await;
        }
        match &args.destination {
            Place::Local(path) => predict_pull(&args.sources, path, options, cancel, report).await,
            Place::Remote(place) => Err(UsageError::RemoteDestination(place.to_string()).into()),
        }
    };
    let prediction = match face.watch(work).await {
        Ok(prediction) => prediction,
        Err(error) => return conclude_failure(&error, &args),
    };
    let printed = print(match (args.json, args.quiet) {
        (true, _) => prediction.to_json() + "\n",
        (false, true) => String::new(),
        (false, false) => prediction.text(),
    });
    let left_out = prediction.files.iter().flat_map(|file| &file.left_out);
    for file in left_out.filter(|_| !args.quiet) {
        file.result.as_ref().err().into_iter().for_each(|error| say(&format!("{}: {}", file.source, chain(error))));
    }
    let mut hints: Vec<&str> = Vec::new();
    for (file, error) in prediction.errors() {
        match file {
            Some(file) => say(&format!("{} -> {}: {}", file.source, file.target, chain(error))),
            None => say(&chain(error)),
        }
        hints.extend(error.hint().filter(|hint| !hints.contains(hint)).as_slice());
    }
    hints.into_iter().for_each(say_hint);
    printed.max(prediction.status())
}

fn conclude_failure(error: &ClientError, args: &CopyArgs) -> ExitStatus {
    let printed = if args.json { print(json_of_failure(error) + "\n") } else { ExitStatus::Done };
    printed.max(complain(error))
}

fn look(args: &CopyArgs) -> Look {
    match args.quiet {
        true => Look::Nothing,
        false if !args.no_progress && terminal::can_draw() => Look::Bars(Box::new(Bars::new(args.sources.len()))),
        false => Look::Lines,
    }
}

async fn watch_directory(args: WatchArgs, cancel: &CancellationToken) -> ExitStatus {
    if args.push.copy.dry_run {
        return complain(&UsageError::WatchDry.into());
    }
    let watching = args.watching();
    let PushArgs { copy: args, state } = args.push;
    let options = state.add_to(args.options(), State::of_user);
    let idle = || if args.quiet { Look::Nothing } else { Look::Lines };
    let face = Face::new(idle());
    // What goes on failing in the same way is said once.
    let mut failing: Vec<String> = Vec::new();
    let report = |update| match update {
        WatchUpdate::Pushing => face.change(look(&args)),
        WatchUpdate::Push(update) => face.update(&update),
        WatchUpdate::Pushed { summary, changed } => {
            face.change(idle());
            let fails: Vec<_> = summary.errors().map(|(_, error)| chain(error)).collect();
            if changed && (fails.is_empty() || fails != failing) {
                conclude(&summary, &args);
            }
            failing = fails;
        }
        WatchUpdate::NoNotices { why, every } => {
            say(&format!("{why}; comparing every {} instead", Span(every)));
        }
    };
    let work = async {
        let sources = local_sources(&args.sources)?;
        let [source] = &sources[..] else { return Err(UsageError::WatchOfSeveral(sources.len()).into()) };
        watch(source, &args.destination, &options, &watching, cancel, report).await
    };
    match face.watch(work).await {
        Ok(summary) => {
            let text = if args.json { summary.to_json() } else { summary.line() };
            let printed = if args.quiet && !args.json { ExitStatus::Done } else { print(text + "\n") };
            printed.max(ExitStatus::Interrupted)
        }
        Err(error) => conclude_failure(&error, &args),
    }
}

fn local_sources(places: &[Place]) -> Result<Vec<PathBuf>, UsageError> {
    let local = |place: &Place| match place {
        Place::Local(path) => Ok(path.clone()),
        Place::Remote(place) => Err(UsageError::RemoteSource(place.to_string())),
    };
    places.iter().map(local).collect()
}

fn conclude(summary: &Summary, args: &CopyArgs) -> ExitStatus {
    let mut text = String::new();
    if args.json {
        text = summary.to_json() + "\n";
    } else if !args.quiet && summary.done().next().is_some() {
        if args.verbose {
            text = summary.account();
        }
        text += &summary.line();
        text.push('\n');
    }
    let printed = print(text);
    if !args.quiet {
        for (file, note) in summary.notes() {
            say(&format!("{} -> {}: {note}", file.source, file.target));
        }
    }
    // Many files tend to fail for the same reason: what to do about it is said once.
    let mut hints: Vec<&str> = Vec::new();
    for (file, error) in summary.errors() {
        match file {
            Some(file) => say(&format!("{} -> {}: {}", file.source, file.target, chain(error))),
            None => say(&chain(error)),
        }
        hints.extend(error.hint().filter(|hint| !hints.contains(hint)).as_slice());
    }
    hints.into_iter().for_each(say_hint);
    printed.max(summary.status())
}

async fn list_place(args: ListArgs, cancel: &CancellationToken) -> ExitStatus {
    let mut printed = ExitStatus::Done;
    let page = |entries: Vec<Entry>| {
        let line = if args.json { entry_json } else { entry_line };
        printed = printed.max(print(entries.iter().map(line).collect()));
    };
    let (face, options) = (Face::new(Look::Lines), args.session.options());
    let result = face.watch(list(&args.place, &options, cancel, |update| face.update(&update), page)).await;
    printed.max(result.map_or_else(|error| complain(&error), |()| ExitStatus::Done))
}

/// Does something at each place, also when it fails at another one.
async fn each(
    places: &[Place],
    cancel: &CancellationToken,
    verb: impl AsyncFn(&Place, &Face) -> Result<(), ClientError>,
) -> ExitStatus {
    let mut status = ExitStatus::Done;
    for place in places {
        let face = Face::new(Look::Lines);
        if let Err(error) = face.watch(verb(place, &face)).await {
            status = status.max(complain(&error));
        }
        if cancel.is_cancelled() {
            return ExitStatus::Interrupted;
        }
    }
    status
}

fn entry_line(entry: &Entry) -> String {
    let name = Shown(entry.name.as_bytes());
    let (size, mark) = match entry.kind {
        EntryKind::File => (Grouped(entry.len.get()).to_string(), ""),
        EntryKind::Directory => ("directory".into(), "/"),
        _ => ("other".into(), ""),
    };
    format!("{size:>17}  {}  {name}{mark}\n", Moment(entry.modified))
}

fn entry_json(entry: &Entry) -> String {
    #[derive(Serialize)]
    struct Object<'a> {
        name: &'a str,
        encoded: String,
        kind: &'static str,
        size: u64,
        modified: i64,
    }
    let object = Object {
        name: &String::from_utf8_lossy(entry.name.as_bytes()),
        encoded: percent_encode(entry.name.as_bytes(), ENCODED).to_string(),
        kind: match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            _ => "other",
        },
        size: entry.len.get(),
        modified: entry.modified,
    };
    serde_json::to_string(&object).expect("numbers and text serialize") + "\n"
}

async fn verify_file(args: VerifyArgs, cancel: &CancellationToken) -> ExitStatus {
    let face = Face::new(if args.quiet { Look::Nothing } else { Look::Lines });
    let options = args.session.options();
    let work = verify(&args.file, &args.place, &options, cancel, |update| face.update(&update));
    let verified = match face.watch(work).await {
        Ok(verified) => verified,
        Err(error) => return complain(&error),
    };
    let text = match (args.json, args.quiet) {
        (true, _) => verified_json(&verified),
        (false, true) => String::new(),
        (false, false) => {
            let line = |root, place: &dyn std::fmt::Display| format!("{root}  {place}\n");
            line(verified.local.1, &Shown::path(&args.file)) + &line(verified.remote.1, &args.place)
        }
    };
    let printed = print(text);
    if verified.equal() {
        return printed;
    }
    complain(&ClientError::Differ { local: verified.local.1, remote: verified.remote.1 })
}

fn verified_json(verified: &Verified) -> String {
    let end = |(len, root): &(deltasync_core::ByteLen, deltasync_core::Digest)| serde_json::json!({ "root": root.to_string(), "bytes": len.get() });
    let object = serde_json::json!({
        "equal": verified.equal(),
        "algorithm": verified.algorithm.name(),
        "local": end(&verified.local),
        "remote": end(&verified.remote),
    });
    object.to_string() + "\n"
}

/// Runs work on files; when it is cancelled it has a moment to throw away what it staged.
async fn classic(
    work: impl FnOnce() -> Result<Option<DeltaSummary>, ClientError> + Send + 'static,
    cancel: &CancellationToken,
) -> ExitStatus {
    let task = tokio::task::spawn_blocking(work);
    let patience = async {
        cancel.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    let result = tokio::select! {
        result = task => result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
        () = patience => Err(ClientError::Interrupted),
    };
    match result {
        Ok(None) => ExitStatus::Done,
        Ok(Some(DeltaSummary { copied, literal, root })) => {
            let sums = deltasync_core::Stats { target: copied + literal, copied, literal, repairs: 0 };
            let (target, copied) = (Grouped(sums.target.get()), Grouped(copied.get()));
            let (literal, reused) = (Grouped(literal.get()), Percent(sums.reused()));
            say(&format!(
                "target {target} bytes: {copied} copied and {literal} literal ({reused} reused), root {root}"
            ));
            ExitStatus::Done
        }
        Err(error) => complain(&error),
    }
}

/// Prints on the standard output. Whoever closed it wants no more: that is no failure.
pub(crate) fn print(text: String) -> ExitStatus {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&ClientError::file("write to", Path::new("the standard output"))(error))
        }
        _ => ExitStatus::Done,
    }
}

/// Says on the standard error what went wrong and what to do next.
fn complain(error: &ClientError) -> ExitStatus {
    say(&chain(error));
    error.hint().into_iter().for_each(say_hint);
    error.into()
}

pub(crate) fn say(text: &str) {
    // Where the standard error is gone too, the exit status has to do.
    let _ = writeln!(io::stderr(), "deltasync: {}", Shown(text.as_bytes()));
}

pub(crate) fn say_hint(hint: &str) {
    let _ = writeln!(io::stderr(), "hint: {}", Shown(hint.as_bytes()));
}
