//! `deltasync-server scrub`: checks the stored files of a directory, by the server that runs on it or by itself.
//!
//! Who holds the lock of the directory does the work. When that is a server, it is asked, and its answers are shown; when
//! it is nobody, this process takes the lock and goes through the files by the same code. A server that has only just begun
//! has the lock and does not listen yet, so for two seconds both are tried in turn.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use std::{fmt, thread};

use deltasync_core::ByteLen;
use deltasync_io::{LocalOptions, LocalStorage, Reached, ScrubOptions, connect_control};

use crate::control::Question;
use crate::scrub::{Ended, ScrubLine, pass};
use crate::state::PassState;
use crate::text::{MESSAGE_MAX, visible};

/// What a check of all stored files has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// Everything is as it was published, or as another program has made it.
    Well,
    /// A disk has lost something.
    Damaged,
}

/// How often it is tried to find somebody, and the time in between.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// The longest line of an answer, in bytes.
const LINE_MAX: u64 = 1 << 16;

/// Checks all that is stored in `directory`, and prints on standard output what it finds: for people, or as `json`, one
/// object a line. `rate` is the most bytes to read in a second.
///
/// # Errors
///
/// When it could not be done; the message names the directory.
pub fn scrub_directory(directory: &Path, rate: Option<u64>, json: bool) -> io::Result<Scrubbed> {
    let at_directory =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot scrub {}: {error}", directory.display()));
    let mut shown = Shown { json, progress: !json && io::stderr().is_terminal(), end: None };
    for _ in 0..TRIES {
        match connect_control(directory)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot scrub {error}")))?
        {
            Reached::Server(stream) => {
                ask(stream, rate, &mut shown).map_err(at_directory)?;
                return shown.end().map_err(at_directory);
            }
            Reached::NeverServed => {
                let never = io::Error::new(io::ErrorKind::NotFound, "no server has ever served it");
                return Err(at_directory(never));
            }
            _ => {}
        }
        // All of the history and of staging: what an operator lets them take is not known here.
        let options = LocalOptions::default().history(ByteLen::new(u64::MAX)).staging(ByteLen::new(u64::MAX));
        match LocalStorage::serve(directory, options) {
            Ok(storage) => {
                let options = rate.into_iter().fold(ScrubOptions::default(), ScrubOptions::rate);
                let mut failed = None;
                let ended = pass(&storage, options, |line| {
                    failed = line.and_then(|line| shown.take(line).err());
                    failed.is_none()
                });
                return match (ended.map_err(at_directory)?, failed) {
                    (Ended::Stopped, Some(error)) => Err(error),
                    _ => shown.end().map_err(at_directory),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(BETWEEN),
            Err(error) => return Err(io::Error::new(error.kind(), format!("cannot scrub {error}"))),
        }
    }
    let silent = "a server has it and does not listen on .deltasync/control: is it of an older version?";
    Err(at_directory(io::Error::other(silent)))
}

/// Asks a server, and shows its answer.
fn ask(mut stream: UnixStream, rate: Option<u64>, shown: &mut Shown) -> io::Result<()> {
    let mut question = serde_json::to_vec(&Question::Scrub { rate }).map_err(io::Error::other)?;
    question.push(b'\n');
    stream.write_all(&question)?;
    let mut answer = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if answer.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        shown.take(serde_json::from_str(&line).map_err(io::Error::other)?)?;
    }
}

/// What the user sees.
struct Shown {
    json: bool,
    progress: bool,
    end: Option<Scrubbed>,
}

impl Shown {
    fn take(&mut self, line: ScrubLine) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if let ScrubLine::Error { message } = &line {
            return Err(io::Error::other(visible(message, MESSAGE_MAX)));
        }
        if let ScrubLine::End { damage, .. } = &line {
            self.end = Some(if *damage { Scrubbed::Damaged } else { Scrubbed::Well });
        }
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&line).map_err(io::Error::other)?)?;
            return out.flush();
        }
        // From the line of progress, which may be longer.
        let clear = if self.progress { "\r\x1b[K" } else { "" };
        match line {
            ScrubLine::Progress { position, pass } if self.progress => {
                let Counted { files, bytes } = Counted::of(&pass);
                let position = visible(&position, 60);
                eprint!("{clear}{files}, {bytes}  {position}");
                io::stderr().flush()
            }
            ScrubLine::Finding(finding) => {
                eprint!("{clear}");
                let finding = finding.bound();
                writeln!(out, "{}: {}: {}", finding.kind, finding.path, finding.message)
            }
            ScrubLine::End { pass, .. } => {
                eprint!("{clear}");
                writeln!(out, "{}", Told(pass))
            }
            ScrubLine::Waiting => {
                eprintln!("waiting for another scrub to end");
                Ok(())
            }
            ScrubLine::Progress { .. } | ScrubLine::Error { .. } => Ok(()),
        }
    }

    fn end(self) -> io::Result<Scrubbed> {
        self.end.ok_or_else(|| io::Error::other("the server has ended"))
    }
}

struct Counted {
    files: String,
    bytes: String,
}

impl Counted {
    fn of(pass: &PassState) -> Self {
        let files = format!("{} file{}", pass.files, if pass.files == 1 { "" } else { "s" });
        Self { files, bytes: format!("{:.1} MB", pass.bytes as f64 / 1e6) }
    }
}

/// A pass that has ended, in a line.
struct Told(PassState);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted { files, bytes } = Counted::of(&self.0);
        write!(f, "checked {files}, {bytes}: ")?;
        let PassState { damaged, unreadable, changed, gone, old_versions, .. } = self.0;
        let counts = [
            (damaged, "damaged"),
            (unreadable, "unreadable"),
            (old_versions, "damaged among the old versions"),
            (changed, "changed by other programs"),
            (gone, "removed by other programs"),
        ];
        let mut first = true;
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{}{count} {what}", if first { "" } else { ", " })?;
            first = false;
        }
        if first { write!(f, "all is well") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_what_was_found() {
        let told = |pass| Told(pass).to_string();
        let pass = PassState { files: 1, bytes: 1_500_000, ..PassState::default() };
        assert_eq!(told(pass), "checked 1 file, 1.5 MB: all is well");
        let pass = PassState { files: 0, damaged: 2, gone: 1, ..pass };
        assert_eq!(told(pass), "checked 0 files, 1.5 MB: 2 damaged, 1 removed by other programs");
    }
}
