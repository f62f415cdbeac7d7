//! Where a client remembers what servers have, between its runs: a directory of the user's own.
//!
//! A push that knows what the server has begins with the delta, so it takes one round trip and asks the server for no
//! survey. What was remembered is checked by both ends, never trusted: when somebody else has changed the file meanwhile,
//! or when the directory is gone, damaged or in use, the push goes on as if nothing had been remembered.
//!
//! Each server is known by its address as it was written, in the form `HOST:PORT`. Two names of one server are two
//! servers here, which costs a little disk.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use deltasync_core::ByteLen;
use deltasync_io::{KeepForm, KnownFiles};

use crate::{Server, base};

/// Where and how a client remembers files that it has pushed to servers.
///
/// # Security
///
/// The directory holds what the files held, readable by the user alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// The directory; made when there is something to remember. It may be deleted at any time.
    pub directory: PathBuf,
    /// How many bytes all files in it may take, for all servers (default 1 GiB).
    pub quota: ByteLen,
    /// In which form files are remembered from now on (default [`KeepForm::Auto`]).
    pub form: KeepForm,
}

impl State {
    /// Remembers in this directory, with the defaults for the rest.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), quota: KnownFiles::QUOTA, form: KeepForm::Auto }
    }

    /// The directory that the program uses unless told otherwise: `$DELTASYNC_STATE`, else
    /// `$XDG_STATE_HOME/deltasync`, else `~/.local/state/deltasync`. `None` without any of these variables.
    pub fn of_user() -> Option<Self> {
        directory(|name| env::var_os(name)).map(Self::new)
    }

    /// Sets how many bytes all files in the directory may take.
    #[must_use]
    pub fn quota(mut self, quota: ByteLen) -> Self {
        self.quota = quota;
        self
    }

    /// Sets in which form files are remembered from now on.
    #[must_use]
    pub fn form(mut self, form: KeepForm) -> Self {
        self.form = form;
        self
    }

    /// What is remembered of one server.
    pub(crate) fn of(&self, server: &Server) -> KnownFiles {
        KnownFiles::new(&self.directory, server.address()).quota(self.quota).form(self.form)
    }
}

/// As [`State::of_user`], from these variables.
fn directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("DELTASYNC_STATE").or_else(|| Some(base::state(&variable)?.join("deltasync")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_directory(variables: &[(&str, &str)], expected: Option<&str>) {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        };
        assert_eq!(directory(variable), expected.map(PathBuf::from), "{variables:?}");
    }

    #[test]
    fn the_directory_is_the_users_choice_or_that_of_the_system() {
        let [own, xdg, home] = [("DELTASYNC_STATE", "own"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/u")];
        check_directory(&[own, xdg, home], Some("own"));
        check_directory(&[xdg, home], Some("/xdg/deltasync"));
        check_directory(&[home], Some("/home/u/.local/state/deltasync"));
        check_directory(&[], None);
    }

    #[test]
    fn what_is_empty_or_relative_does_not_count() {
        let home = ("HOME", "/home/u");
        for other in [("DELTASYNC_STATE", ""), ("XDG_STATE_HOME", ""), ("XDG_STATE_HOME", "xdg")] {
            check_directory(&[other, home], Some("/home/u/.local/state/deltasync"));
        }
        check_directory(&[("HOME", "")], None);
    }
}
