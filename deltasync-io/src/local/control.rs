//! A socket in the directory of ours, by which the server's own user reaches a server that runs.
//!
//! The lock of a served directory tells that a server runs, and the socket beside it is how to speak with it: `scrub` asks
//! so for what it may not do itself. Both ends reach it through a handle of the directory, so no link on the way is followed
//! and no path is too long for a socket's address (108 bytes). What is said is the caller's affair.
//!
//! Invariant: only who may enter `.deltasync` (mode 0700) and write to the socket (mode 0600) can connect: the user that
//! the server runs as, and root.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use deltasync_core::Name;

use super::{LocalStorage, named, own};
use crate::disk::{DiskDir, SystemDir};

const SOCKET: &str = "control";

/// Whom [`connect_control`] found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reached {
    /// A server that listens.
    Server(UnixStream),
    /// Nobody listens. A server that has only just begun may do so in a moment.
    Nobody,
    /// No server has ever served this directory.
    NeverServed,
}

impl LocalStorage {
    /// Listens for who wants to speak with the server of this directory, in place of a server that has ended. For
    /// [`connect_control`].
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] when the directory is not served or not one of this system, or where the system has
    /// no way to a socket by a handle (Linux has, with `/proc` mounted); what the system says.
    pub fn control(&self) -> io::Result<UnixListener> {
        let private = self.served.as_ref().and_then(|served| served.private.system());
        private.ok_or(io::ErrorKind::Unsupported)?.listen(&own(SOCKET))
    }
}

/// Connects to the server of a directory.
///
/// # Errors
///
/// What the system says, with the path; [`io::ErrorKind::PermissionDenied`] for another user than the server's.
pub fn connect_control(directory: impl AsRef<Path>) -> io::Result<Reached> {
    let directory = directory.as_ref();
    let at_directory = |error: io::Error| named(directory, &error);
    let start = SystemDir::start(directory, false).map_err(at_directory)?;
    let private = Name::new(super::root::PRIVATE).expect("letters after a dot are a name");
    let private = match start.open_dir(&private) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reached::NeverServed),
        private => private.map_err(at_directory)?,
    };
    let private = private.as_any().downcast_ref::<SystemDir>().expect("it was opened by one");
    match private.connect(&own(SOCKET)) {
        Ok(stream) => Ok(Reached::Server(stream)),
        // What stays of a server that was killed refuses.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(Reached::Nobody)
        }
        Err(error) => Err(at_directory(error)),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;
    use crate::LocalOptions;

    fn serve(directory: &Path) -> LocalStorage {
        LocalStorage::serve(directory, LocalOptions::default()).expect("it can be served")
    }

    #[test]
    fn who_connects_reaches_the_server_that_runs_however_long_the_path() {
        let directory = TempDir::new().expect("a temporary directory");
        let deep = directory.path().join("a".repeat(200));
        fs::create_dir(&deep).expect("made");
        assert!(matches!(connect_control(&deep), Ok(Reached::NeverServed)));
        let storage = serve(&deep);
        assert!(matches!(connect_control(&deep), Ok(Reached::Nobody)));
        let listener = storage.control().expect("it listens");
        let is = fs::symlink_metadata(deep.join(".deltasync/control")).expect("it is there");
        assert!(is.file_type().is_socket() && is.permissions().mode() & 0o777 == 0o600);
        let Ok(Reached::Server(mut stream)) = connect_control(&deep) else { panic!("it listens") };
        stream.write_all(b"hello").expect("there is room");
        drop(stream);
        let mut heard = String::new();
        listener.accept().expect("one has connected").0.read_to_string(&mut heard).expect("text");
        assert_eq!(heard, "hello");
        // A server that was killed leaves its socket, and the next one takes its place.
        drop((listener, storage));
        assert!(matches!(connect_control(&deep), Ok(Reached::Nobody)));
        let storage = serve(&deep);
        let _listener = storage.control().expect("it listens again");
        assert!(matches!(connect_control(&deep), Ok(Reached::Server(_))));
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = TempDir::new().expect("a temporary directory");
        let outside = directory.path().join("outside");
        let _listener = UnixListener::bind(&outside).expect("a socket of someone else");
        let root = directory.path().join("root");
        fs::create_dir_all(root.join(".deltasync")).expect("made");
        let control = root.join(".deltasync/control");
        symlink(&outside, &control).expect("linked");
        assert!(connect_control(&root).is_err());
        let storage = serve(&root);
        let _listener = storage.control().expect("the link is replaced");
        assert!(fs::symlink_metadata(&control).expect("it is there").file_type().is_socket());
        assert!(fs::symlink_metadata(&outside).expect("it is there").file_type().is_socket());
        // Nor is a link in place of the directory.
        let other = directory.path().join("other");
        fs::create_dir(&other).expect("made");
        symlink(root.join(".deltasync"), other.join(".deltasync")).expect("linked");
        assert!(connect_control(&other).is_err());
    }
}
