//! What a session asks of a tree: the same as of a file, by the handles that were given out for it.

use deltasync_core::{Algorithm, ByteLen, Digest};
use deltasync_proto::{
    Answer, Ask, Cutting, EntryKind, FaultKind, FileHandle, Filter, OpenedFile, Place, StageHandle, StorageFault,
};

use super::making::make_durable;
use super::{Making, Tree, walk};
use crate::LocalStorage;
use crate::local::opened::absent;
use crate::local::root::entry_kind;

impl LocalStorage {
    /// The answer to what is asked of a tree; `None` when it is asked of something else.
    pub(in crate::local) fn answer_of_tree(&self, ask: &Ask) -> Option<Result<Answer, StorageFault>> {
        match ask {
            Ask::Describe { place, cutting, algorithm, .. } if self.is_tree(place, cutting) => {
                let tree = self.tree(place, *algorithm, &cutting.filter());
                Some(tree.and_then(|tree| tree.map(Answer::Described).ok_or_else(|| absent(place))))
            }
            Ask::Basis { destination, cutting: Cutting::Tree(filter), algorithm, wanted } => {
                Some(self.basis_of_tree(destination.place.clone(), *algorithm, filter, *wanted))
            }
            Ask::Read { file, ranges } => {
                let tree = file.downcast_ref::<Tree>()?;
                Some(self.root(&tree.place).and_then(|root| tree.read(root, ranges)).map(Answer::Read))
            }
            // Each file of a tree was looked at when it was read.
            Ask::Recheck { file } => file.downcast_ref::<Tree>().map(|_| Ok(Answer::Rechecked { unchanged: true })),
            Ask::StageTree { place, len, algorithm, basis, extra } => {
                let begin = || {
                    let there = basis.as_ref().map(of_ours).transpose()?;
                    let target = (*len, *algorithm);
                    Making::begin(self.root(place)?, place.clone(), target, there, *extra, &self.limits)
                };
                Some(begin().map(|making| Answer::Staged(StageHandle::new(making))))
            }
            Ask::Apply { stage, basis, plan, literals } => {
                let making = stage.downcast_ref::<Making>()?;
                let apply = || {
                    let basis = basis.as_ref().map(of_ours).transpose()?;
                    making.apply(self.root(making.place())?, basis, plan, literals)
                };
                Some(apply().map(|()| Answer::Applied))
            }
            Ask::Seal { stage } => Some(stage.downcast_ref::<Making>()?.seal().map(Answer::Sealed)),
            Ask::Reopen { stage } => {
                let made = stage.downcast_ref::<Making>()?.reopen();
                Some(made.map(|tree| Answer::Reopened(FileHandle::new(tree))))
            }
            Ask::Commit { stage, .. } => {
                let making = stage.downcast_ref::<Making>()?;
                Some(self.root(making.place()).and_then(|root| making.commit(root)).map(Answer::Committed))
            }
            _ => None,
        }
    }

    /// What is there already is told so, and has to last then.
    fn basis_of_tree(
        &self,
        place: Place,
        algorithm: Algorithm,
        filter: &Filter,
        wanted: Option<(Digest, ByteLen)>,
    ) -> Result<Answer, StorageFault> {
        let file = self.tree(&place, algorithm, filter)?;
        if let Some(tree) = &file
            && wanted == Some((tree.chunks.root(), tree.chunks.len()))
        {
            make_durable(self.root(&place)?, &place, &of_ours(&tree.file)?.list)?;
        }
        Ok(Answer::Basis { place, file, twin: None, partial: None })
    }

    fn tree(&self, place: &Place, algorithm: Algorithm, filter: &Filter) -> Result<Option<OpenedFile>, StorageFault> {
        Ok(walk(self.root(place)?, place, filter, algorithm, &self.limits)?.map(Tree::described))
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

fn of_ours(tree: &FileHandle) -> Result<&Tree, StorageFault> {
    tree.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "no tree of this storage"))
}
