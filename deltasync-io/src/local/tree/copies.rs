//! The copy of a tree beside it, in which another one is made that takes its place as one change.
//!
//! It stands in the directory that holds the tree, under a hidden name that the tree's own name gives, so that a transfer
//! that was cut is gone on with also by another process: every directory made anew, every file and what else there is
//! linked, every symbolic link made again. What has a name in both is never changed in place: who wants to change it
//! replaces it, or [takes a copy](super::own_copy) of its bytes.
//!
//! What an earlier attempt has left in a copy is only ever a basis. Before the copy takes the tree's place it is made
//! exactly what this attempt wants, out of what came, what the tree has, and nothing else (`exchange`).
//!
//! Who works with a copy has its directory locked (flock), and of the transfers of one process only one makes a tree in it.
//!
//! # Security
//!
//! Others may write in the directory that holds the tree. A copy is a directory of this user's own, which nobody else may
//! enter before it is the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use deltasync_core::{Algorithm, LimitExceeded, Name, RelPath, TreeList};
use deltasync_proto::{FaultKind, Place, RootId, StorageFault};

use super::{below, own};
use crate::disk::{AnyFile, DiskKind, DiskStat};
use crate::fault::{fault, system_fault};
use crate::local::root::{Dir, Root, is_staged, staged_name};
use crate::lock::lock;

pub(in crate::local) mod abandoned;
mod exchange;
pub(super) use exchange::Wanted;

/// How often and after how long a copy that others use is looked at again.
const PATIENCE: (u32, Duration) = (200, Duration::from_millis(5));

/// The copies that are in use, by the trees that they are of.
#[derive(Debug, Default)]
pub(in crate::local) struct Copies {
    used: Mutex<BTreeMap<(RootId, RelPath), Weak<TreeCopy>>>,
    changing: Arc<Changing>,
}

/// The trees that are being changed file by file, by handles of directories that an exchange would take away.
#[derive(Debug, Default)]
struct Changing(Mutex<Vec<Place>>);

/// One of them, as long as this is held.
#[derive(Debug)]
pub(in crate::local) struct Changed {
    all: Arc<Changing>,
    place: Place,
}

/// A copy of a tree, locked.
#[derive(Debug)]
pub(in crate::local) struct TreeCopy {
    /// The tree, in the root itself.
    place: Place,
    live: Arc<Root>,
    /// What holds both, and their names there.
    parent: Dir,
    name: Name,
    hidden: Name,
    /// Where the path of the tree leads into the copy.
    root: Root,
    state: Mutex<State>,
    /// Held, and with it the lock.
    _lock: AnyFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// A tree is being made in it.
    Taken,
    /// It is the tree, and what that was is being removed under its name.
    Exchanged,
    /// It is the tree.
    Gone,
}

/// The copy of a tree in which another one is made; nobody else makes one there meanwhile.
#[derive(Debug)]
pub(in crate::local) struct Taken {
    copy: Arc<TreeCopy>,
    changing: Arc<Changing>,
    /// What the tree was; `None` when it is known to be something else now.
    before: Mutex<Option<Listing>>,
    /// How many entries there may be.
    most: usize,
}

/// What paths lead into: a root, or a copy of a tree of it.
#[derive(Debug)]
pub(in crate::local) enum Way {
    Root(Arc<Root>),
    Copy(Arc<TreeCopy>),
}

impl Deref for Way {
    type Target = Root;
    fn deref(&self) -> &Root {
        match self {
            Self::Root(root) => root,
            Self::Copy(copy) => &copy.root,
        }
    }
}

/// All that is below a directory, itself included, but for names that are ours.
type Listing = BTreeMap<RelPath, DiskStat>;

/// What is where a copy may be.
enum Found {
    Nothing,
    /// Others work with it.
    Busy,
    Copy(Arc<TreeCopy>),
}

impl Copies {
    /// The copy of the deepest tree that has one and holds this place, or is it.
    ///
    /// # Errors
    ///
    /// A fault when another process works with it, and what the system says.
    pub(in crate::local) fn find(
        &self,
        root: &Arc<Root>,
        place: &Place,
    ) -> Result<Option<Arc<TreeCopy>>, StorageFault> {
        patiently(&place.path, || {
            let mut at = place.path.clone();
            while let Some((above, _)) = at.split_last() {
                match self.open(root, &Place { root: place.root.itself(), path: at }, false)? {
                    Found::Nothing => at = above,
                    found => return Ok(found),
                }
            }
            Ok(Found::Nothing)
        })
    }

    /// The copy of this very tree, if there is one.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and when no copy can stand beside it.
    pub(super) fn of(&self, root: &Arc<Root>, place: &Place) -> Result<Option<Arc<TreeCopy>>, StorageFault> {
        let tree = copied_place(place)?;
        patiently(&place.path, || self.open(root, &tree, false))
    }

    /// Takes the copy of a tree, of which `there` was listed, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of), and when somebody else has taken it or not all can be copied.
    pub(super) fn take(
        &self,
        root: &Arc<Root>,
        place: &Place,
        there: Option<&TreeList>,
        most: usize,
    ) -> Result<Taken, StorageFault> {
        let tree = copied_place(place)?;
        let copy = patiently(&place.path, || {
            let found = self.open(root, &tree, true)?;
            if let Found::Copy(copy) = &found {
                let mut state = lock(&copy.state);
                if *state != State::Free {
                    return Ok(Found::Busy);
                }
                *state = State::Taken;
            }
            Ok(found)
        })?;
        let (copy, changing) = (copy.ok_or_else(|| busy(&place.path))?, Arc::clone(&self.changing));
        let taken = Taken { copy, changing, before: Mutex::default(), most };
        taken.begin(there)?;
        Ok(taken)
    }

    /// Notes that a tree is changed file by file: nothing that it lies in or that lies in it is exchanged meanwhile.
    pub(in crate::local) fn change(&self, place: &Place) -> Changed {
        lock(&self.changing.0).push(place.clone());
        Changed { all: Arc::clone(&self.changing), place: place.clone() }
    }

    /// Does something while no tree at or below a place is being replaced, and none that overlaps it is being changed file by
    /// file, nor begins to be.
    pub(in crate::local) fn while_still<T>(
        &self,
        place: &Place,
        f: impl FnOnce() -> Result<T, StorageFault>,
    ) -> Result<T, StorageFault> {
        let copies = lock(&self.used);
        let is_in_it = |path: &RelPath| *path == place.path || place.path.holds(path);
        if copies.iter().any(|((root, path), copy)| copy.strong_count() > 0 && *root == place.root && is_in_it(path)) {
            return Err(busy(&place.path));
        }
        self.changing.while_none(place, f)
    }

    fn open(&self, root: &Arc<Root>, place: &Place, make: bool) -> Result<Found, StorageFault> {
        let key = (place.root, place.path.clone());
        let mut copies = lock(&self.used);
        copies.retain(|_, copy| copy.strong_count() > 0);
        if let Some(copy) = copies.get(&key).and_then(Weak::upgrade) {
            let state = *lock(&copy.state);
            match state {
                State::Free | State::Taken => return Ok(Found::Copy(copy)),
                State::Exchanged => return Ok(Found::Busy),
                State::Gone => {}
            }
        }
        let found = TreeCopy::open(root, place, make)?;
        if let Found::Copy(copy) = &found {
            copies.insert(key, Arc::downgrade(copy));
        }
        Ok(found)
    }
}

/// The place of a tree that a copy can stand beside.
fn copied_place(place: &Place) -> Result<Place, StorageFault> {
    if place.path.is_root() {
        let why = "the whole directory cannot be replaced as one change, only one that is in it";
        return Err(fault(FaultKind::Denied, &place.path, why));
    }
    Ok(Place { root: place.root.itself(), path: place.path.clone() })
}

fn busy(path: &RelPath) -> StorageFault {
    fault(FaultKind::Denied, path, "another transfer is replacing it as one change: try again when that has ended")
}

/// Looks again for a while where others work with a copy.
fn patiently(
    path: &RelPath,
    look: impl Fn() -> Result<Found, StorageFault>,
) -> Result<Option<Arc<TreeCopy>>, StorageFault> {
    let (times, pause) = PATIENCE;
    for _ in 0..times {
        match look()? {
            Found::Nothing => return Ok(None),
            Found::Copy(copy) => return Ok(Some(copy)),
            Found::Busy => thread::sleep(pause),
        }
    }
    Err(busy(path))
}

impl TreeCopy {
    fn open(live: &Arc<Root>, place: &Place, make: bool) -> Result<Found, StorageFault> {
        let Some((above, name)) = place.path.split_last() else { return Ok(Found::Nothing) };
        let system = |error: io::Error| system_fault(&place.path, &error);
        let parent = match live.directory(&above) {
            Ok(parent) => parent,
            Err(_) if !make => return Ok(Found::Nothing),
            Err(_) => live.make_directory(&above).map_err(|trouble| trouble.at(&above))?.0,
        };
        let hidden = hidden_name(&name);
        let is_new = make && parent.make_dir_for_now(&hidden, 0o700).map_err(system)?;
        let stranger = || {
            let why = "what stands where its copy should be is no directory of this user's";
            fault(FaultKind::Denied, &place.path, why)
        };
        let file = match parent.stat(&hidden).map_err(system)? {
            Some(is) if is.kind == DiskKind::Directory => parent.open_file(&hidden).map_err(system)?,
            Some(_) | None if !make => return Ok(Found::Nothing),
            Some(_) | None => return Err(stranger()),
        };
        if !file.is_ours().map_err(system)? {
            return Err(stranger());
        }
        if !file.lock(false).map_err(system)? {
            return Ok(Found::Busy);
        }
        // It may have become the tree meanwhile.
        let directory = parent.open_dir(&hidden).map_err(system)?;
        let is = file.stat().map_err(system)?;
        if directory.identity().map_err(system)? != (is.device, is.inode) {
            return Ok(Found::Busy);
        }
        // Or have been it, and be it again after a power cut, if whoever exchanged it has not come to the sync.
        if !is_new {
            parent.sync().inspect_err(|_| live.doubt()).map_err(system)?;
        }
        let root = live.with_in_place(place.path.clone(), directory);
        let (place, live, state) = (place.clone(), Arc::clone(live), Mutex::new(State::Free));
        Ok(Found::Copy(Arc::new(Self { place, live, parent, name, hidden, root, state, _lock: file })))
    }

    /// Makes what is at a path of the copy what it is in the tree.
    fn carry(&self, path: &RelPath, is: &DiskStat) -> Result<(), StorageFault> {
        let Some((above, name)) = path.split_last() else { return Ok(()) };
        let at = below(&self.place.path, &above)?;
        let open = |root: &Root| root.directory(&at).map_err(|trouble| trouble.at(&at));
        let (from, into) = (open(&self.live)?, open(&self.root)?);
        let carry = || {
            match into.stat(&name)? {
                Some(there) if there.kind == DiskKind::Directory && is.kind == DiskKind::Directory => return Ok(()),
                Some(there) if (there.device, there.inode) == (is.device, is.inode) => return Ok(()),
                Some(_) => remove_all(&into, &name)?,
                None => {}
            }
            match is.kind {
                DiskKind::Directory => into.make_dir_for_now(&name, 0o700).map(drop),
                DiskKind::Symlink => {
                    into.make_symlink(&name, &from.read_symlink(&name)?)?;
                    let nanoseconds = u32::try_from(is.modified.1).map_err(io::Error::other)?;
                    into.set_symlink_modified(&name, (is.modified.0, nanoseconds))
                }
                DiskKind::File => match from.link(&name, &into, &name) {
                    // Others' files may not be linked everywhere, nor any as often as one likes.
                    Err(error) if may_be_copied(&error) => copy(&from, &name, &into, &name).map(drop),
                    done => done,
                },
                DiskKind::Other => from.link(&name, &into, &name),
            }
        };
        carry().map_err(|error| system_fault(&below(&self.place.path, path).unwrap_or_default(), &error))
    }

    /// Lets everything be made in the directories of the copy, whatever an earlier attempt has set.
    fn unlock_directories(&self, listed: &Listing) -> Result<(), StorageFault> {
        let locked = |is: &DiskStat| is.kind == DiskKind::Directory && is.mode & 0o700 != 0o700;
        for (path, is) in listed.iter().filter(|(_, is)| locked(is)) {
            let at = below(&self.place.path, path)?;
            let dir = self.root.directory(&at).map_err(|trouble| trouble.at(&at))?;
            dir.set_mode(is.mode | 0o700).map_err(|error| system_fault(&at, &error))?;
        }
        Ok(())
    }
}

impl Taken {
    /// Where the path of the tree leads into the copy.
    pub(super) fn root(&self) -> &Root {
        &self.copy.root
    }

    /// Makes a directory of the copy, and those on the way, in place of what an earlier attempt has left there.
    pub(super) fn make_directory(&self, path: &RelPath) -> Result<Dir, StorageFault> {
        let place = &self.copy.place.path;
        let mut dir = self.copy.root.directory(place).map_err(|trouble| trouble.at(place))?;
        for name in path.components() {
            let next = || {
                if dir.stat(&name)?.is_some_and(|is| is.kind != DiskKind::Directory) {
                    dir.remove(&name)?;
                }
                dir.make_dir_for_now(&name, 0o700)?;
                dir.open_dir(&name)
            };
            let next =
                next().map_err(|error: io::Error| system_fault(&below(place, path).unwrap_or_default(), &error))?;
            dir = next;
        }
        Ok(dir)
    }

    /// Copies what the copy lacks, so that a tree can be made of it.
    fn begin(&self, there: Option<&TreeList>) -> Result<(), StorageFault> {
        let copy = &self.copy;
        let live = list(&copy.live, &copy.place.path, self.most)?;
        let copied = list(&copy.root, &copy.place.path, self.most)?;
        copy.unlock_directories(&copied)?;
        let mut directories: BTreeSet<&RelPath> = BTreeSet::new();
        for (path, is) in &live {
            let above = path.split_last().map_or(RelPath::ROOT, |(above, _)| above);
            // What an earlier attempt has made of a directory stays until it is known what is to be there.
            let goes_in = path.is_root() || directories.contains(&above);
            if goes_in && !copied.contains_key(path) {
                copy.carry(path, is)?;
            }
            let is = copied.get(path).unwrap_or(is);
            if goes_in && is.kind == DiskKind::Directory {
                directories.insert(path);
            }
        }
        let as_listed = |there: &TreeList| {
            let mut entries = there.entries();
            entries.all(|entry| live.get(&entry.path).is_some_and(|is| super::looks_like(is, &entry)))
        };
        let same = there.map_or(live.is_empty(), as_listed);
        *lock(&self.before) = same.then_some(live);
        Ok(())
    }
}

impl Changing {
    /// Does something while none of them overlaps a place, nor begins.
    fn while_none<T>(&self, place: &Place, f: impl FnOnce() -> Result<T, StorageFault>) -> Result<T, StorageFault> {
        let all = lock(&self.0);
        let overlaps = |path: &RelPath| *path == place.path || path.holds(&place.path) || place.path.holds(path);
        if all.iter().any(|other| other.root == place.root && overlaps(&other.path)) {
            let why = "another transfer is changing it file by file: try again when that has ended";
            return Err(fault(FaultKind::Denied, &place.path, why));
        }
        f()
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let mut all = lock(&self.all.0);
        if let Some(at) = all.iter().position(|place| *place == self.place) {
            all.swap_remove(at);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = lock(&self.copy.state);
        if *state == State::Taken {
            *state = State::Free;
        }
    }
}

/// Lists all that is below a directory; nothing when that is not there.
fn list(root: &Root, place: &RelPath, most: usize) -> Result<Listing, StorageFault> {
    let mut listed = Listing::new();
    let Some(top) = root.stat(place).map_err(|trouble| trouble.at(place))? else { return Ok(listed) };
    if top.kind != DiskKind::Directory {
        return Err(fault(FaultKind::WrongKind, place, "not a directory"));
    }
    listed.insert(RelPath::ROOT, top);
    let mut directories = vec![RelPath::ROOT];
    while let Some(path) = directories.pop() {
        let at = below(place, &path)?;
        let dir = root.directory(&at).map_err(|trouble| trouble.at(&at))?;
        let system = |error: io::Error| system_fault(&at, &error);
        for name in dir.names().map_err(system)? {
            let name = name.map_err(system)?;
            if is_staged(name.as_bytes()) {
                continue;
            }
            // It may have gone since its name was read.
            let Some(is) = dir.stat(&name).map_err(system)? else { continue };
            let path = path.join(&name).map_err(|error| fault(FaultKind::Other, &at, error))?;
            if is.device != top.device {
                return Err(fault(FaultKind::Other, &at, format!("{name}: another file system cannot be replaced")));
            }
            if is.kind == DiskKind::Directory {
                directories.push(path.clone());
            }
            listed.insert(path, is);
            LimitExceeded::check("entries of a tree", listed.len() as u64, most as u64)
                .map_err(|error| fault(FaultKind::TooLarge, place, error))?;
        }
    }
    Ok(listed)
}

/// Copies a file, durably.
fn copy(from: &Dir, name: &Name, into: &Dir, to: &Name) -> io::Result<AnyFile> {
    let source = from.open_file(name)?;
    let is = source.stat()?;
    if is.kind != DiskKind::File {
        return Err(io::Error::other("it is no file any more"));
    }
    let file = into.create(to, 0o600)?;
    own::copy(&source, &file).inspect_err(|_| drop(into.remove(to)))?;
    Ok(file)
}

/// True for what a system says where a file may be read and not linked.
fn may_be_copied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::TooManyLinks | ErrorKind::Unsupported | ErrorKind::CrossesDevices
    )
}

/// Removes what has a name, with all that is in it.
pub(super) fn remove_all(dir: &Dir, name: &Name) -> io::Result<()> {
    match dir.stat(name)? {
        None => Ok(()),
        Some(is) if is.kind == DiskKind::Directory => {
            let inner = dir.open_dir(name)?;
            if is.mode & 0o700 != 0o700 {
                inner.set_mode(0o700)?;
            }
            let names = inner.names()?.collect::<io::Result<Vec<_>>>()?;
            names.iter().try_for_each(|name| remove_all(&inner, name))?;
            dir.remove_dir(name)
        }
        Some(_) => dir.remove(name),
    }
}

/// The name of the copy of a tree of this name.
fn hidden_name(name: &Name) -> Name {
    let hash = Algorithm::Blake3.digest(&[b"deltasync tree beside ", name.as_bytes()].concat());
    let (start, _) = hash.as_bytes().split_first_chunk().expect("4 of 32 bytes");
    staged_name(name, u32::from_be_bytes(*start))
}
