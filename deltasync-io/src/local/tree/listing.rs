//! A tree of which only the list comes: its entries are read and listed, and nothing is made of them.

use std::sync::{Arc, Mutex};

use deltasync_core::{
    Algorithm, ArchiveReader, ByteLen, Digest, InvalidTree, LimitExceeded, Limits, Offset, Plan, RelPath, Step,
    TreeList, TreeLister,
};
use deltasync_proto::{FaultKind, StorageFault};

use super::Tree;
use crate::fault::fault;
use crate::local::root::Root;
use crate::lock::lock;

/// How many bytes of the archive are copied at once.
const PIECE: u64 = 256 << 10;

/// What a [`StageHandle`](deltasync_proto::StageHandle) of ours holds for a list.
#[derive(Debug)]
pub(super) struct Listing {
    len: u64,
    /// What is there.
    there: Option<Arc<TreeList>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reader: ArchiveReader,
    /// What came; `None` once it was made a list.
    lister: Option<TreeLister>,
    made: Option<Arc<TreeList>>,
    written: u64,
}

impl Listing {
    /// Begins to read an archive of `len` bytes, which holds headers only.
    pub(super) fn begin(
        len: ByteLen,
        algorithm: Algorithm,
        there: Option<&Tree>,
        limits: &Limits,
    ) -> Result<Self, StorageFault> {
        LimitExceeded::check("archive of a tree", len.get(), limits.file.get())
            .map_err(|error| fault(FaultKind::TooLarge, &RelPath::ROOT, error))?;
        let state = State {
            reader: ArchiveReader::default().headers_only(true),
            lister: Some(TreeLister::new(algorithm, limits).headers_only(true)),
            made: None,
            written: 0,
        };
        Ok(Self { len: len.get(), there: there.map(|tree| Arc::clone(&tree.list)), state: Mutex::new(state) })
    }

    /// Appends the steps of a plan.
    pub(super) fn apply(
        &self,
        basis: Option<(&Tree, &Root)>,
        plan: &Plan,
        literals: &[u8],
    ) -> Result<(), StorageFault> {
        let mut state = lock(&self.state);
        for step in plan.steps() {
            let len = step.len().get();
            match *step {
                Step::Literal { start, len } => {
                    let part = start.checked_add(len).and_then(|end| literals.get(start..end));
                    let part = part.ok_or_else(|| wrong("fewer literals than the plan has"))?;
                    state.take(part)?;
                }
                Step::Copy { from, .. } => {
                    let (tree, root) = basis.ok_or_else(|| wrong("there is nothing to copy from"))?;
                    let mut done = 0;
                    while done < len {
                        let piece = PIECE.min(len - done);
                        let range = (Offset::new(from.get() + done), ByteLen::new(piece));
                        state.take(&tree.read(root, &[range])?)?;
                        done += piece;
                    }
                }
            }
        }
        Ok(())
    }

    /// The digest of the list that came.
    pub(super) fn seal(&self) -> Result<Digest, StorageFault> {
        let mut state = lock(&self.state);
        if state.written != self.len || !state.reader.is_between() {
            return Err(wrong("a part of it is missing"));
        }
        Ok(state.made().chunks().root())
    }

    /// What came, to be read.
    pub(super) fn reopen(&self) -> Result<Tree, StorageFault> {
        let place = deltasync_proto::Place { root: deltasync_proto::RootId::new(0), path: RelPath::ROOT };
        Ok(Tree::new(place, lock(&self.state).made()))
    }

    /// What is there and what came, once that is whole.
    pub(super) fn lists(&self) -> Option<(Option<Arc<TreeList>>, Arc<TreeList>)> {
        Some((self.there.clone(), lock(&self.state).made.clone()?))
    }
}

impl State {
    fn take(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        let damaged = |error: InvalidTree| {
            let kind = if matches!(error, InvalidTree::Limit(_)) { FaultKind::TooLarge } else { FaultKind::Other };
            fault(kind, &RelPath::ROOT, error)
        };
        self.written += bytes.len() as u64;
        self.reader.push(bytes);
        let lister = self.lister.as_mut().ok_or_else(|| wrong("it was listed before"))?;
        while let Some(read) = self.reader.next().map_err(damaged)? {
            lister.push(&read.entry).map_err(damaged)?;
        }
        Ok(())
    }

    fn made(&mut self) -> Arc<TreeList> {
        if let Some(lister) = self.lister.take() {
            self.made = Some(Arc::new(lister.finish()));
        }
        self.made.clone().expect("there is either a lister or its list")
    }
}

fn wrong(what: &str) -> StorageFault {
    fault(FaultKind::Other, &RelPath::ROOT, what)
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Attributes, Op, Ops, Planner, TreeEntry, TreeKind};

    use super::*;

    fn list() -> TreeList {
        let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default()).headers_only(true);
        let attributes = Attributes::new(0o644, 1, 2).expect("in range");
        let file = TreeKind::File { len: ByteLen::new(100), root: None };
        for (path, kind) in [("", TreeKind::Directory), ("a", file)] {
            let path = RelPath::new(path).expect("valid");
            lister.push(&TreeEntry::new(path, kind, attributes)).expect("in order");
        }
        lister.finish()
    }

    fn archive(list: &TreeList) -> Vec<u8> {
        (0..list.len()).flat_map(|index| list.header(index).to_vec()).collect()
    }

    fn take(listing: &Listing, bytes: &[u8]) -> Result<(), StorageFault> {
        let len = ByteLen::of(bytes);
        let mut planner = Planner::new(ByteLen::ZERO, len, &Limits::default()).expect("short");
        let ops: Ops = [Op::Literal { len }].into_iter().collect();
        listing.apply(None, &planner.plan(&ops, len).expect("it fits"), bytes)
    }

    #[test]
    fn a_list_that_came_whole_is_the_list() {
        let (list, archive) = (list(), archive(&list()));
        let listing =
            Listing::begin(ByteLen::of(&archive), Algorithm::Blake3, None, &Limits::default()).expect("short");
        take(&listing, &archive[..7]).expect("the start");
        assert!(listing.seal().is_err(), "a part is missing");
        take(&listing, &archive[7..]).expect("the rest");
        assert!(listing.lists().is_none(), "it may not be right");
        assert_eq!(listing.seal(), Ok(list.chunks().root()));
        let (there, came) = listing.lists().expect("it was sealed");
        assert!(there.is_none());
        assert_eq!(came.entries().collect::<Vec<_>>(), list.entries().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let limits = Limits::default();
        let begin = |len| Listing::begin(ByteLen::new(len), Algorithm::Blake3, None, &limits);
        assert_eq!(begin(u64::MAX).expect_err("too long").kind, FaultKind::TooLarge);
        let listing = begin(9).expect("short");
        assert!(take(&listing, b"\x09\0\0\0\0\0\0\0\0").is_err(), "no kind is 9");
        let mut twice = archive(&list());
        twice.extend(archive(&list()));
        assert!(take(&begin(twice.len() as u64).expect("short"), &twice).is_err());
    }
}
