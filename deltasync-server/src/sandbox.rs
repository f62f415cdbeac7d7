//! A sandbox of the kernel's around the server (landlock): what it does not need, it can no longer do.
//!
//! After [`Sandbox::enter`] a thread and all threads that it starts can open, make, rename and remove files, directories
//! and symbolic links below the served directory, and nothing elsewhere: no other file is opened, also through such a
//! link, nothing is executed, no device or pipe is made, no TCP socket is bound or connected, no process outside is
//! signalled. What is open already stays open: listening sockets still accept, the log is still written. It is the second
//! wall behind the one in `deltasync-io`, which opens paths of peers only beneath a handle: a mistake there, or code that
//! a peer smuggles in, meets it.
//!
//! The rules ask for what Linux 6.12 has. An older kernel enforces those that it knows; one that cannot allow renames
//! between directories (before 5.19) would break commits, and counts as having none. Costs some 100 ns an open.
//!
//! Invariant: a thread never leaves it. It holds for a thread and those started after it, so a program enters before it
//! builds its runtime.
//!
//! Source: landlock(7).

use std::io;
use std::path::Path;

/// Whether a server shuts itself into a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sandbox {
    /// If the kernel has it.
    #[default]
    Auto,
    /// Yes, or it does not start.
    On,
    /// No.
    Off,
}

/// Why a sandbox that was asked for is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// This system has none, or too old a one.
    #[error("this system has no sandbox (landlock, Linux 5.19 or newer): {0}")]
    Missing(String),
    /// The directory cannot be opened.
    #[error("{0}")]
    Directory(io::Error),
}

impl Sandbox {
    /// Restricts the calling thread, and all threads that it starts from now on, to the files below `directory`, for
    /// good. Returns what is in force, to be logged.
    ///
    /// # Errors
    ///
    /// When `directory` cannot be opened; under [`Sandbox::On`] when the system cannot do it. No file is out of reach then.
    pub fn enter(self, directory: &Path) -> Result<String, SandboxError> {
        match self {
            Self::Off => Ok("off, as asked".to_owned()),
            Self::On => restrict(directory),
            Self::Auto => match restrict(directory) {
                Err(SandboxError::Missing(why)) => Ok(format!("none: {why}")),
                restricted => restricted,
            },
        }
    }
}

#[cfg(target_os = "linux")]
fn restrict(directory: &Path) -> Result<String, SandboxError> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset,
        RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    };

    /// What the rules below are written for; a newer kernel's further restrictions wait until they have been tried.
    const WANTED: ABI = ABI::V6;

    let missing = |error: RulesetError| SandboxError::Missing(error.to_string());
    let directory = PathFd::new(directory).map_err(|error| match error {
        PathFdError::OpenCall { source, .. } => SandboxError::Directory(source),
        error => SandboxError::Directory(io::Error::other(error)),
    })?;
    // No devices or pipes; symbolic links are entries of trees. The one socket is that by which the server's own user
    // reaches it.
    let allowed: BitFlags<AccessFs> = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .map_err(missing)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))
        .map_err(missing)?
        .handle_access(AccessNet::from_all(WANTED))
        .map_err(missing)?
        .scope(Scope::from_all(WANTED))
        .map_err(missing)?
        .create()
        .map_err(missing)?
        .add_rule(PathBeneath::new(directory, allowed))
        .map_err(missing)?
        .restrict_self()
        .map_err(missing)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok("landlock, all rules".to_owned()),
        RulesetStatus::PartiallyEnforced => Ok("landlock, those rules that this kernel knows".to_owned()),
        RulesetStatus::NotEnforced => Err(SandboxError::Missing("the kernel enforces nothing".to_owned())),
    }
}

#[cfg(not(target_os = "linux"))]
fn restrict(_: &Path) -> Result<String, SandboxError> {
    Err(SandboxError::Missing("it is not Linux".to_owned()))
}
