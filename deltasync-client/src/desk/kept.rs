//! Where the desktop client keeps its address book and its history: two small files in a directory of the user's own.
//!
//! A file is written whole beside the old one and renamed over it, so a run that is cut off leaves the old or the new one.
//!
//! # Security
//!
//! They name servers and files, and are readable by the user alone.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::{env, fs};

use tempfile::NamedTempFile;

use crate::base;

/// The most bytes of a file that are read.
const READ_MAX: u64 = 8 << 20;

/// A text that is kept between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptText {
    /// The address book.
    Addresses(String),
    /// The history.
    History(String),
}

/// Where the desktop client keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeskFiles {
    directory: PathBuf,
}

impl DeskFiles {
    /// Keeps them in this directory, which is made when there is something to keep.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// In `$XDG_STATE_HOME/deltasync-gui`, else `~/.local/state/deltasync-gui`. `None` without these variables.
    pub fn of_user() -> Option<Self> {
        of_variables(|name| env::var_os(name)).map(Self::new)
    }

    /// Both texts, empty where nothing was kept.
    pub(crate) fn read(&self) -> io::Result<[KeptText; 2]> {
        Ok([KeptText::Addresses(self.text(ADDRESSES)?), KeptText::History(self.text(HISTORY)?)])
    }

    /// Replaces a text.
    pub(crate) fn write(&self, text: &KeptText) -> io::Result<()> {
        let (name, text) = match text {
            KeptText::Addresses(text) => (ADDRESSES, text),
            KeptText::History(text) => (HISTORY, text),
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(text.as_bytes())?;
        file.persist(self.directory.join(name))?;
        Ok(())
    }

    /// The directory, for messages.
    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    fn text(&self, name: &str) -> io::Result<String> {
        let file = match fs::File::open(self.directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(READ_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

const ADDRESSES: &str = "servers.jsonl";
const HISTORY: &str = "history.jsonl";

fn of_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    Some(base::state(variable)?.join("deltasync-gui"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().expect("space");
        let files = DeskFiles::new(dir.path().join("a/b"));
        assert_eq!(
            files.read().expect("nothing"),
            [KeptText::Addresses(String::new()), KeptText::History(String::new())]
        );
        for text in ["one", "two"] {
            files.write(&KeptText::History(text.into())).expect("written");
        }
        files.write(&KeptText::Addresses("x".into())).expect("written");
        let read = files.read().expect("read");
        assert_eq!(read, [KeptText::Addresses("x".into()), KeptText::History("two".into())]);
        let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o077;
        assert_eq!((mode(files.directory().join(HISTORY)), mode(files.directory().to_owned())), (0, 0));
        assert_eq!(fs::read_dir(files.directory()).expect("there").count(), 2, "nothing else stays");
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error() {
        let files = DeskFiles::new("/dev/null/x");
        assert!(files.write(&KeptText::History(String::new())).is_err());
        assert!(files.read().is_err());
    }

    #[test]
    fn the_directory_is_that_of_the_system() {
        let of = |variables: &[(&str, &str)]| {
            of_variables(|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
        };
        let home = ("HOME", "/home/u");
        assert_eq!(of(&[("XDG_STATE_HOME", "/s"), home]), Some("/s/deltasync-gui".into()));
        assert_eq!(of(&[("XDG_STATE_HOME", "s"), home]), Some("/home/u/.local/state/deltasync-gui".into()));
        assert_eq!(of(&[]), None);
    }
}
