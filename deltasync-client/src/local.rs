//! Files of this machine as a storage wants them: a directory to open, and a path below it.
//!
//! A storage follows no symbolic links, so they are resolved here, where the paths come from whoever runs the program.
//! What cannot work is found out before a connection is made: a source that is missing, unreadable or neither a regular
//! file nor a directory, a destination in a directory that does not exist.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use deltasync_core::{Name, RelPath};

use crate::{ClientError, Shown, UsageError};

/// A file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalSource {
    /// The directory it lies in, canonical.
    pub(crate) root: PathBuf,
    /// Its name in that directory.
    pub(crate) path: RelPath,
    /// Its name as it was written, which is another one for a symbolic link.
    pub(crate) name: Name,
}

/// A directory to send with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalTree {
    /// The directory, canonical.
    pub(crate) root: PathBuf,
    /// Its name as it was written; `None` where its contents are meant: `dir/`, `dir/.`, `..`.
    pub(crate) name: Option<Name>,
}

/// What a source on this machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalFound {
    /// A regular file.
    File(LocalSource),
    /// A directory.
    Tree(LocalTree),
}

impl LocalFound {
    /// Looks at a source; reads nothing of it.
    pub(crate) fn find(path: &Path) -> Result<Self, ClientError> {
        let fault = || ClientError::file("read", path);
        let meta = fs::metadata(path).map_err(fault())?;
        if meta.is_dir() {
            fs::read_dir(path).map_err(fault())?;
            let root = path.canonicalize().map_err(fault())?;
            let name = if is_contents(path) { None } else { Some(split(path)?.1) };
            return Ok(Self::Tree(LocalTree { root, name }));
        }
        if !meta.is_file() {
            return Err(UsageError::NotASource(Shown::path(path).to_string()).into());
        }
        File::open(path).map_err(fault())?;
        let real = path.canonicalize().map_err(fault())?;
        let (root, file) = split(&real)?;
        let (_, name) = split(path)?;
        Ok(Self::File(LocalSource { root, path: rel_path(&file, path)?, name }))
    }
}

impl LocalSource {
    /// Looks at a source that has to be a file; reads nothing of it.
    pub(crate) fn find(path: &Path) -> Result<Self, ClientError> {
        match LocalFound::find(path)? {
            LocalFound::File(file) => Ok(file),
            LocalFound::Tree(_) => Err(UsageError::SourceDirectory(Shown::path(path).to_string()).into()),
        }
    }
}

/// Whether a directory written like this means what is in it, or what goes into it: it ends in `/`, or has no name of its
/// own, as `.` and `..`.
pub(crate) fn is_contents(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || matches!(bytes.rsplit(|byte| *byte == b'/').next(), Some(b"." | b".."))
}

/// Where to write on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalTarget {
    /// A directory that is there, canonical.
    pub(crate) root: PathBuf,
    /// The path below it; the root itself when files go into that directory.
    pub(crate) path: RelPath,
    /// It is a directory, or is to become one.
    pub(crate) directory: bool,
}

impl LocalTarget {
    /// Looks at a destination; makes nothing. `directory` says that it has to be one, however it is written.
    pub(crate) fn find(path: &Path, directory: bool) -> Result<Self, ClientError> {
        let shown = || Shown::path(path).to_string();
        let fault = || ClientError::file("write to", path);
        let directory = directory || path.as_os_str().as_bytes().ends_with(b"/");
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let root = path.canonicalize().map_err(fault())?;
                return Ok(Self { root, path: RelPath::ROOT, directory: true });
            }
            Ok(_) if directory => return Err(UsageError::NotADirectory(shown()).into()),
            Ok(meta) if !meta.is_file() => return Err(UsageError::NotAFile(shown()).into()),
            Ok(_) => {
                let (root, name) = split(&path.canonicalize().map_err(fault())?)?;
                return Ok(Self { root, path: rel_path(&name, path)?, directory });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // `file/` where `file` is a file.
            Err(error) if directory && error.kind() == io::ErrorKind::NotADirectory => {
                return Err(UsageError::NotADirectory(shown()).into());
            }
            Err(error) => return Err(fault()(error)),
        }
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            return Err(UsageError::DanglingLink(shown()).into());
        }
        let (parent, name) = split(path)?;
        let root = parent.canonicalize().map_err(fault())?;
        Ok(Self { root, path: rel_path(&name, path)?, directory })
    }
}

impl LocalTarget {
    /// The same place, if `wanted` and it is a directory that has one above it, as a path below that: so that what takes
    /// its place can be made beside it.
    pub(crate) fn in_parent(self, wanted: bool) -> Self {
        let name = self.root.file_name().and_then(|name| RelPath::new(name.as_bytes()).ok());
        match (self.root.parent(), name) {
            (Some(parent), Some(path)) if wanted && self.path.is_root() => {
                Self { root: parent.to_owned(), path, directory: self.directory }
            }
            _ => self,
        }
    }
}

/// What has this path, a link itself, as a directory that is there, canonical, and a path below it; makes and reads nothing.
pub(crate) fn in_directory(path: &Path) -> Result<(PathBuf, RelPath), ClientError> {
    let (parent, name) = split(path)?;
    let root = parent.canonicalize().map_err(ClientError::file("find", path))?;
    Ok((root, rel_path(&name, path)?))
}

/// Two of them below one directory. Where the second ends in a `/` it takes the first one by its name.
pub(crate) fn in_one_directory(from: &Path, to: &Path) -> Result<(PathBuf, RelPath, RelPath), ClientError> {
    let (from_root, from_path) = in_directory(from)?;
    let inside = is_contents(to).then(|| to.join(std::ffi::OsStr::from_bytes(from_path.as_bytes())));
    let to = inside.as_deref().unwrap_or(to);
    let (to_root, to_path) = in_directory(to)?;
    let root = from_root.ancestors().find(|above| to_root.starts_with(above)).unwrap_or(Path::new("/")).to_owned();
    let below = |at: &Path, name: &RelPath, shown: &Path| {
        let at = at.strip_prefix(&root).unwrap_or(at).join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let path = Shown::path(shown).to_string();
        RelPath::new(at.as_os_str().as_bytes()).map_err(|cause| UsageError::Path { path, cause })
    };
    let (from_path, to_path) = (below(&from_root, &from_path, from)?, below(&to_root, &to_path, to)?);
    Ok((root, from_path, to_path))
}

/// The directory of a path and the name in it.
fn split(path: &Path) -> Result<(PathBuf, Name), ClientError> {
    let invalid = |cause| UsageError::Path { path: Shown::path(path).to_string(), cause };
    let name = Name::new(path.file_name().unwrap_or_default().as_bytes()).map_err(invalid)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent.to_owned(), name))
}

fn rel_path(name: &Name, path: &Path) -> Result<RelPath, UsageError> {
    let invalid = |cause| UsageError::Path { path: Shown::path(path).to_string(), cause };
    RelPath::ROOT.join(name).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path).expect("valid")
    }

    fn usage(result: Result<impl std::fmt::Debug, ClientError>) -> UsageError {
        match result {
            Err(ClientError::Usage(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_is_found_through_links_and_keeps_its_name() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let base = dir.path().canonicalize().expect("there");
        fs::create_dir(base.join("real")).expect("new");
        fs::write(base.join("real/file"), b"x").expect("new");
        symlink("real/file", base.join("link")).expect("new");
        let found = LocalSource::find(&base.join("link")).expect("a link to a file");
        let name = Name::new("link").expect("valid");
        assert_eq!(found, LocalSource { root: base.join("real"), path: rel("file"), name });
    }

    #[test]
    fn a_directory_has_a_name_unless_its_contents_are_meant() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let base = dir.path().canonicalize().expect("there");
        fs::create_dir_all(base.join("tree/sub")).expect("new");
        symlink("tree", base.join("link")).expect("new");
        let found = |path: &str| match LocalFound::find(&base.join(path)).expect("a directory") {
            LocalFound::Tree(LocalTree { root, name }) => (root, name.map(|name| name.as_bytes().to_vec())),
            LocalFound::File(file) => panic!("{file:?}"),
        };
        assert_eq!(found("tree"), (base.join("tree"), Some(b"tree".to_vec())));
        assert_eq!(found("link"), (base.join("tree"), Some(b"link".to_vec())));
        for path in ["tree/", "tree/.", "link/", "tree/sub/.."] {
            assert_eq!(found(path), (base.join("tree"), None), "{path}");
        }
    }

    #[test]
    fn what_is_no_file_is_no_source() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let shown = Shown::path(dir.path()).to_string();
        assert_eq!(usage(LocalSource::find(dir.path())), UsageError::SourceDirectory(shown));
        assert_eq!(usage(LocalFound::find("/dev/null".as_ref())), UsageError::NotASource("/dev/null".into()));
        let missing = LocalSource::find(&dir.path().join("missing")).expect_err("not there");
        assert!(matches!(missing, ClientError::File { doing: "read", .. }), "{missing:?}");
    }

    #[test]
    fn a_target_is_a_file_a_directory_or_becomes_one() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let base = dir.path().canonicalize().expect("there");
        fs::create_dir(base.join("sub")).expect("new");
        fs::write(base.join("file"), b"x").expect("new");
        symlink("sub", base.join("to-sub")).expect("new");
        symlink("file", base.join("to-file")).expect("new");
        symlink("nowhere", base.join("dangling")).expect("new");
        let find = |path: &str, directory| LocalTarget::find(&base.join(path), directory);
        let sub = LocalTarget { root: base.join("sub"), path: RelPath::ROOT, directory: true };
        for path in ["sub", "sub/", "sub/.", "to-sub", "to-sub/", "sub/../sub"] {
            assert_eq!(find(path, false).expect("a directory"), sub, "{path}");
        }
        let at = |path, directory| LocalTarget { root: base.clone(), path: rel(path), directory };
        assert_eq!(find("file", false).expect("a file"), at("file", false));
        assert_eq!(find("to-file", false).expect("a file"), at("file", false));
        assert_eq!(find("new", false).expect("to be made"), at("new", false));
        assert_eq!(find("new/", false).expect("to be made"), at("new", true));
        assert_eq!(find("new", true).expect("to be made"), at("new", true));

        let shown = |path: &str| Shown::path(&base.join(path)).to_string();
        assert_eq!(usage(find("file", true)), UsageError::NotADirectory(shown("file")));
        assert_eq!(usage(find("file/", false)), UsageError::NotADirectory(shown("file/")));
        assert_eq!(usage(find("dangling", false)), UsageError::DanglingLink(shown("dangling")));
        assert!(matches!(find("missing/new", false), Err(ClientError::File { doing: "write to", .. })));
    }
}
