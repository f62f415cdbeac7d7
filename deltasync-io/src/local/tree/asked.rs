//! What a session asks of a tree: the same as of a file, by the handles that were given out for it.

use std::io;

use deltasync_core::{Algorithm, ByteLen, Digest, Generation, Offset};
use deltasync_proto::{
    Answer, Ask, Cutting, EntryKind, FaultKind, FileHandle, Omitted, OpenedFile, Place, Scope, StageHandle,
    StorageFault,
};

use super::making::make_durable;
use super::{Listing, Making, Tree, abandoned, below, twins, walk};
use crate::LocalStorage;
use crate::fault::{fault, system_fault};
use crate::local::opened::absent;
use crate::local::root::{Root, entry_kind};
use crate::source::{Looks, Original};

impl LocalStorage {
    /// The answer to what is asked of a tree; `None` when it is asked of something else.
    pub(in crate::local) fn answer_of_tree(&self, ask: &Ask) -> Option<Result<Answer, StorageFault>> {
        match ask {
            Ask::Describe { place, cutting, algorithm, .. } if self.is_tree(place, cutting) => {
                let tree = self.tree(place, *algorithm, &cutting.scope(), true);
                Some(tree.and_then(|tree| tree.map(Answer::Described).ok_or_else(|| absent(place))))
            }
            Ask::Basis { destination, cutting: Cutting::Tree(scope), algorithm, wanted } => {
                Some(self.basis_of_tree(&destination.place, *algorithm, scope, *wanted))
            }
            Ask::Read { file, ranges } => {
                let tree = file.downcast_ref::<Tree>()?;
                Some(self.root(&tree.place).and_then(|root| tree.read(&root, ranges)).map(Answer::Read))
            }
            Ask::Refine { file, ops } => {
                let tree = file.downcast_ref::<Tree>()?;
                Some(self.root(&tree.place).map(|root| Answer::Refined(twins::refine(tree, &root, ops))))
            }
            // Each file of a tree was looked at when it was read.
            Ask::Recheck { file } => file.downcast_ref::<Tree>().map(|_| Ok(Answer::Rechecked { unchanged: true })),
            Ask::StageTree { len, algorithm, basis, options, .. } if options.scope.headers_only => {
                let begin = || {
                    let there = basis.as_ref().map(of_ours).transpose()?;
                    Listing::begin(*len, *algorithm, there, &self.limits)
                };
                Some(begin().map(|listing| Answer::Staged(StageHandle::new(listing))))
            }
            ask if listing_of(ask).is_some() => self.answer_of_listing(ask),
            Ask::StageTree { place, len, algorithm, basis, options } => {
                let begin = || {
                    let there = basis.as_ref().map(of_ours).transpose()?;
                    let target = (*len, *algorithm);
                    let (place, limits) = (place.clone(), &self.limits);
                    if !place.root.is_beside() {
                        let (root, changed) = (self.root(&place)?, self.copies.change(&place));
                        let making = Making::begin(&root, place, target, there, options, limits)?;
                        return Ok(making.sweeping(&root, there).holding(changed));
                    }
                    let root = self.root_itself(&place)?;
                    let list = there.map(|there| &*there.list);
                    let copy = self.copies.take(root, &place, list, limits.chunks)?;
                    if let Some(served) = &self.served {
                        let _ = abandoned::note(&served.private, &place.path);
                    }
                    Making::begin_in(copy, place, target, there, options, limits)
                };
                Some(begin().map(|making| Answer::Staged(StageHandle::new(making))))
            }
            Ask::Apply { stage, basis, plan, literals } => {
                let making = stage.downcast_ref::<Making>()?;
                let apply = || {
                    let basis = basis.as_ref().map(of_ours).transpose()?;
                    match making.made_in() {
                        Some(copy) => making.apply(copy.root(), basis, plan, literals),
                        None => making.apply(&*self.root(making.place())?, basis, plan, literals),
                    }
                };
                Some(apply().map(|()| Answer::Applied))
            }
            Ask::Seal { stage } => {
                let making = stage.downcast_ref::<Making>()?;
                let sealed = |root| Answer::Sealed { root, members: making.waits_for_members() };
                Some(making.seal().map(sealed))
            }
            Ask::Reopen { stage } => {
                let made = stage.downcast_ref::<Making>()?.reopen();
                Some(made.map(|tree| Answer::Reopened(FileHandle::new(tree))))
            }
            Ask::Commit { stage, .. } => {
                let making = stage.downcast_ref::<Making>()?;
                Some(self.commit_tree(making).map(Answer::Committed))
            }
            Ask::Remember { key, generation, file } => {
                let tree = file.file.downcast_ref::<Tree>()?;
                let remember = || {
                    let archive = Archive { tree, root: &*self.root(&tree.place)? };
                    match &self.known {
                        // The other end has more than that, or may have.
                        Some(known) if *generation == Generation::ZERO => known.forget(key),
                        Some(known) => {
                            known.remember(key, *generation, &archive, &archive.as_always(), &file.chunks, None);
                        }
                        None => {}
                    }
                    Ok(Answer::Remembered)
                };
                Some(remember())
            }
            _ => None,
        }
    }

    /// The answer to what is asked of a list that comes.
    fn answer_of_listing(&self, ask: &Ask) -> Option<Result<Answer, StorageFault>> {
        let listing = listing_of(ask)?;
        Some(match ask {
            Ask::Apply { basis, plan, literals, .. } => {
                let tree = basis.as_ref().map(of_ours).transpose();
                let apply = |tree: Option<&Tree>| match tree {
                    Some(tree) => listing.apply(Some((tree, &*self.root(&tree.place)?)), plan, literals),
                    None => listing.apply(None, plan, literals),
                };
                tree.and_then(apply).map(|()| Answer::Applied)
            }
            Ask::Seal { .. } => listing.seal().map(|root| Answer::Sealed { root, members: None }),
            Ask::Reopen { .. } => listing.reopen().map(|tree| Answer::Reopened(FileHandle::new(tree))),
            Ask::Commit { .. } => Ok(Answer::Committed(Generation::ZERO)),
            _ => return None,
        })
    }

    /// Lists a tree; one of which files are to be read without those that may not be.
    fn tree(
        &self,
        place: &Place,
        algorithm: Algorithm,
        scope: &Scope,
        reads: bool,
    ) -> Result<Option<OpenedFile>, StorageFault> {
        let count = self.walks.as_ref().map(|walks| walks.begin(place));
        Ok(walk(&*self.root(place)?, place, scope, algorithm, &self.limits, count, reads)?.map(Tree::described))
    }

    /// What the transfer of a tree finds there. Of one that is to be replaced as one change, what an earlier transfer has
    /// made in its copy is a part.
    fn basis_of_tree(
        &self,
        place: &Place,
        algorithm: Algorithm,
        scope: &Scope,
        wanted: Option<(Digest, ByteLen)>,
    ) -> Result<Answer, StorageFault> {
        let itself = Place { root: place.root.itself(), ..place.clone() };
        let file = self.basis_tree(&itself, algorithm, scope, wanted)?;
        let mut partial = None;
        if place.root.is_beside() && self.copies.of(self.root_itself(place)?, place)?.is_some() {
            partial = self.tree(place, algorithm, scope, false)?;
        }
        let equal = |partial: &OpenedFile| {
            file.as_ref().is_some_and(|file| {
                let root = file.chunks.root();
                partial.chunks.root() == root || wanted.is_some_and(|(wanted, _)| wanted == root)
            })
        };
        let partial = partial.filter(|partial| !equal(partial));
        Ok(Answer::Basis { place: place.clone(), file, twin: None, partial })
    }

    /// The tree that is to be replaced, with its generation; one that is `wanted` as it is gets one, and has to last then.
    fn basis_tree(
        &self,
        place: &Place,
        algorithm: Algorithm,
        scope: &Scope,
        wanted: Option<(Digest, ByteLen)>,
    ) -> Result<Option<OpenedFile>, StorageFault> {
        // Before the first entry is looked at: what is published from then on makes it look another way.
        let root = self.root(place)?;
        let looks = root.stat(&place.path).ok().flatten().map(|is| Looks::of_stat(&is));
        let Some(tree) = self.tree(place, algorithm, scope, false)? else { return Ok(None) };
        // It could not become equal, or be found to be.
        let unlisted = tree.omitted.iter().find(|omitted| omitted.is_unlisted());
        if let Some(Omitted { path, why }) = unlisted.filter(|_| !scope.headers_only) {
            return Err(fault(FaultKind::Denied, &below(&place.path, path)?, why));
        }
        let is_wanted = wanted == Some((tree.chunks.root(), tree.chunks.len()));
        if is_wanted {
            make_durable(&root, place, &of_ours(&tree.file)?.list, &[])?;
            // Whoever put it there as one change may not have come to that.
            if let Some((above, _)) = place.path.split_last() {
                let parent = root.directory(&above).map_err(|trouble| trouble.at(&above))?;
                parent.sync().inspect_err(|_| root.doubt()).map_err(|error| system_fault(&above, &error))?;
            }
        }
        let (Some(served), Some(looks)) = (&self.served, looks) else { return Ok(Some(tree)) };
        let generation = served.generation_of_tree(&place.path, &tree.chunks, looks, is_wanted);
        Ok(Some(OpenedFile { generation, ..tree }))
    }

    fn commit_tree(&self, making: &Making) -> Result<Generation, StorageFault> {
        let place = making.place();
        let root = self.root_itself(place)?;
        let turn = self.served.as_ref().map_or(&self.replacing, |served| &served.commits);
        let done = match making.made_in() {
            Some(copy) => making.commit_as_one(copy, turn).inspect(|_| {
                if let Some(served) = &self.served {
                    let _ = abandoned::forget(&served.private, &place.path);
                }
            }),
            None => making.commit(root),
        };
        let Some(served) = &self.served else { return done.map(|_| Generation::ZERO) };
        // Also when not all could be made.
        served.index.forget_trees_around(&place.path);
        Ok(done?.map_or(Generation::ZERO, |made| served.publish_tree(root, &place.path, made.chunks())))
    }

    /// True when a description is one of a tree.
    fn is_tree(&self, place: &Place, cutting: &Cutting) -> bool {
        let is = || self.root(place).ok()?.stat(&place.path).ok()?;
        match cutting {
            Cutting::Tree(_) => true,
            Cutting::ByKind(_) => is().is_some_and(|is| entry_kind(&is) == EntryKind::Directory),
            Cutting::ByContent | Cutting::Exactly(_) | Cutting::Like(_) => false,
        }
    }
}

/// The archive of a tree, to be kept.
struct Archive<'a> {
    tree: &'a Tree,
    root: &'a Root,
}

impl Archive<'_> {
    /// A tree has no looks of its own: each of its files is looked at when it is read.
    fn as_always(&self) -> Looks {
        let len = self.tree.list.chunks().len().get();
        Looks { device: 0, inode: 0, len, modified: (0, 0), changed: None }
    }
}

impl Original for Archive<'_> {
    fn read_exact_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        let range = (Offset::new(at), ByteLen::of(piece));
        let bytes = self.tree.read(self.root, &[range]).map_err(|fault| io::Error::other(fault.message))?;
        piece.copy_from_slice(&bytes);
        Ok(())
    }

    fn looks(&self) -> io::Result<Looks> {
        Ok(self.as_always())
    }
}

/// The list that something is asked of.
fn listing_of(ask: &Ask) -> Option<&Listing> {
    match ask {
        Ask::Apply { stage, .. } | Ask::Seal { stage } | Ask::Reopen { stage } | Ask::Commit { stage, .. } => {
            stage.downcast_ref()
        }
        _ => None,
    }
}

fn of_ours(tree: &FileHandle) -> Result<&Tree, StorageFault> {
    tree.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "no tree of this storage"))
}
