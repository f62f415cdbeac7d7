//! The base directories of a user, in which each program has one of its own.
//!
//! Source: XDG Base Directory Specification 0.8.

use std::ffi::OsString;
use std::path::PathBuf;

/// The directory that a variable names. It has to be absolute, or it does not count.
pub(crate) fn named(variable: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where programs keep what they remember between their runs: `$XDG_STATE_HOME`, else `~/.local/state`.
pub(crate) fn state(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    named(&variable, "XDG_STATE_HOME").or_else(|| Some(named(&variable, "HOME")?.join(".local/state")))
}

/// Where programs have their settings: `$XDG_CONFIG_HOME`, else `~/.config`.
pub(crate) fn config(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    named(&variable, "XDG_CONFIG_HOME").or_else(|| Some(named(&variable, "HOME")?.join(".config")))
}
