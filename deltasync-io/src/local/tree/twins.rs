//! Files of a tree that are copies of others in it: what the receiver has of those need not be sent.
//!
//! Sums tell what of the old gaps is still there, and a file that was copied is in none. So of the files that would be sent,
//! those of equal length and equal name, or equal time, among the ones that the receiver has are compared with them: copies are
//! made with one or the other.
//!
//! Cost: a pass over the list, and each of these files is read once, at most [`TRIES`] for each name and time.

use std::collections::{HashMap, HashSet};

use deltasync_core::{ByteLen, Offset, Op, Ops, TreeEntry, TreeKind};

use super::{CHECK, Tree};
use crate::local::root::Root;

/// With how many files of one name or time others are compared: what was made in one go has one time.
const TRIES: usize = 64;

/// A shorter file is as short as what tells of a copy.
const LEAST: u64 = 32;

/// What copies have in common: the length, and the name or the time.
#[derive(PartialEq, Eq, Hash)]
enum Common {
    Name(u64, Vec<u8>),
    Time(u64, (i64, u32)),
}

/// A range of the archive.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

/// The operations that make a tree, with copies of what they copy in place of files that they send.
pub(super) fn refine(tree: &Tree, root: &Root, ops: &Ops) -> Ops {
    let (copies, literals) = parts(ops);
    let sent = files_in(tree, &literals);
    let wanted: HashSet<Common> = sent.iter().flat_map(|index| common(&tree.list.entry(*index))).flatten().collect();
    let mut there: HashMap<Common, Vec<(usize, u64)>> = HashMap::new();
    if !wanted.is_empty() {
        for index in 0..tree.list.len() {
            let Some(content) = content_of(tree, index) else { continue };
            let Some(from) = copied_from(&copies, content) else { continue };
            for common in common(&tree.list.entry(index)).into_iter().flatten().filter(|common| wanted.contains(common))
            {
                let found = there.entry(common).or_default();
                if found.len() < TRIES {
                    found.push((index, from));
                }
            }
        }
    }
    let (mut twins, mut checks) = (Vec::new(), HashMap::<usize, Option<Vec<u8>>>::new());
    for index in sent {
        let entry = tree.list.entry(index);
        let found = common(&entry).into_iter().flatten().filter_map(|common| there.get(&common)).flatten();
        // What cannot be read is found out when it is to be sent.
        let Ok(content) = tree.content(root, index) else { continue };
        let mut same = |other: usize| {
            let its = checks.entry(other).or_insert_with(|| Some(tree.content(root, other).ok()?[..CHECK].to_vec()));
            its.as_deref() == Some(&content[..CHECK]) && tree.content(root, other).is_ok_and(|other| other == content)
        };
        if let Some((_, from)) = found.into_iter().find(|(other, _)| same(*other))
            && let Some(range) = content_of(tree, index)
        {
            twins.push((range, *from));
        }
    }
    with_twins(ops, &twins)
}

/// What a file is looked for by.
fn common(entry: &TreeEntry) -> [Option<Common>; 2] {
    let (TreeKind::File { .. }, Some(len)) = (&entry.kind, entry.inline()) else { return [None, None] };
    let len = len.get();
    if len < LEAST {
        return [None, None];
    }
    let name = entry.path.split_last().map(|(_, name)| Common::Name(len, name.as_bytes().to_vec()));
    [name, Some(Common::Time(len, entry.attributes.modified()))]
}

/// Where the content of an entry is, if it has one. The check before it is sent: the receiver finds out by that when its own
/// file is not what its list says.
fn content_of(tree: &Tree, index: usize) -> Option<Range> {
    let (start, len) = tree.list.span(index);
    let before = (tree.list.header(index).len() + CHECK) as u64;
    (len.get() > before).then(|| Range { start: start.get() + before, end: start.get() + len.get() })
}

/// The copies, as ranges of the target with where they are from, and the literals; each in order.
fn parts(ops: &Ops) -> (Vec<(Range, u64)>, Vec<Range>) {
    let (mut copies, mut literals, mut start) = (Vec::new(), Vec::new(), 0);
    for op in ops.as_slice() {
        match *op {
            Op::Copy { from, len } => {
                copies.push((Range { start, end: start + len.get() }, from.get()));
                start += len.get();
            }
            Op::Literal { len } => {
                literals.push(Range { start, end: start + len.get() });
                start += len.get();
            }
        }
    }
    (copies, literals)
}

/// Where a range is copied from, when it is copied in one piece.
fn copied_from(copies: &[(Range, u64)], range: Range) -> Option<u64> {
    let index = copies.partition_point(|(copy, _)| copy.end <= range.start);
    let (copy, from) = copies.get(index).filter(|(copy, _)| copy.start <= range.start && range.end <= copy.end)?;
    Some(from + (range.start - copy.start))
}

/// The entries whose content is sent for the most part.
fn files_in(tree: &Tree, literals: &[Range]) -> Vec<usize> {
    let (mut files, mut next) = (Vec::new(), 0);
    for (number, literal) in literals.iter().enumerate() {
        next = tree.list.index_at(Offset::new(literal.start)).max(next);
        while next < tree.list.len() && tree.list.span(next).0.get() < literal.end {
            if let Some(content) = content_of(tree, next) {
                let within = literals[number..].iter().take_while(|literal| literal.start < content.end);
                let sent: u64 = within
                    .map(|literal| literal.end.min(content.end).saturating_sub(literal.start.max(content.start)))
                    .sum();
                if sent > (content.end - content.start) / 2 {
                    files.push(next);
                }
            }
            next += 1;
        }
    }
    files
}

/// Puts copies in the places of these ranges, which are in order.
fn with_twins(ops: &Ops, twins: &[(Range, u64)]) -> Ops {
    let (mut refined, mut start, mut twins) = (Ops::default(), 0, twins.iter().peekable());
    let put = |refined: &mut Ops, op: &Op, start: u64, range: Range| {
        let len = ByteLen::new(range.end - range.start);
        refined.push(match op {
            Op::Copy { from, .. } => Op::Copy { from: *from + ByteLen::new(range.start - start), len },
            Op::Literal { .. } => Op::Literal { len },
        });
    };
    for op in ops.as_slice() {
        let end = start + op.len().get();
        let mut at = start;
        while at < end {
            // Those that end before this have been put.
            while twins.next_if(|(twin, _)| twin.end <= at).is_some() {}
            match twins.peek() {
                Some((twin, from)) if twin.start <= at => {
                    let stop = twin.end.min(end);
                    let from = Offset::new(from + (at - twin.start));
                    refined.push(Op::Copy { from, len: ByteLen::new(stop - at) });
                    at = stop;
                }
                next => {
                    let stop = next.map_or(end, |(twin, _)| twin.start.min(end));
                    put(&mut refined, op, start, Range { start: at, end: stop });
                    at = stop;
                }
            }
        }
        start = end;
    }
    refined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What operations make of a basis of numbers, literals being the bytes of a target.
    fn made(ops: &Ops, basis: &[u8], target: &[u8]) -> Vec<u8> {
        let mut made = Vec::new();
        for op in ops.as_slice() {
            match *op {
                Op::Copy { from, len } => made.extend(&basis[from.get() as usize..][..len.get() as usize]),
                Op::Literal { len } => made.extend(&target[made.len()..][..len.get() as usize]),
            }
        }
        made
    }

    #[test]
    fn twins_may_lie_anywhere_in_the_operations() {
        let basis: Vec<u8> = (0..=255).collect();
        let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
        let literal = |len| Op::Literal { len: ByteLen::new(len) };
        let ops: Ops = [copy(10, 20), literal(30), copy(100, 10), literal(15), literal(5)].into_iter().collect();
        let range = |start, end| Range { start, end };
        for twins in [
            &[][..],
            &[(range(20, 50), 5)],
            &[(range(25, 40), 5)],
            &[(range(25, 65), 5)],
            &[(range(0, 80), 100)],
            &[(range(20, 30), 0), (range(30, 31), 7), (range(75, 80), 9)],
        ] {
            // The target is such that the twins are right.
            let mut target: Vec<u8> = vec![0; 80];
            target[..20].copy_from_slice(&basis[10..30]);
            target[50..60].copy_from_slice(&basis[100..110]);
            for (twin, from) in twins {
                let len = (twin.end - twin.start) as usize;
                target[twin.start as usize..][..len].copy_from_slice(&basis[*from as usize..][..len]);
            }
            let refined = with_twins(&ops, twins);
            assert_eq!(made(&refined, &basis, &target), target);
            let sent: u64 = refined.literal_len().get();
            let spared: u64 = (0..80u64)
                .filter(|at| twins.iter().any(|(twin, _)| (twin.start..twin.end).contains(at)))
                .filter(|at| (20..50).contains(at) || (60..80).contains(at))
                .count() as u64;
            assert_eq!(sent, 50 - spared);
        }
    }
}
