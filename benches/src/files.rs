//! Pairs of an old and a new file, made of random bytes, zeros and patterns from a seed.
//!
//! The floor of a pair is what no exchange goes below without luck: the content of the new file that the old one has not,
//! as it is where it is random, and [`PLACE`] bytes for each place where the two part. Twenty places in 100 MiB are
//! log2(100 MiB / 20) = 22 bits each, twice for a length, with less for lengths that are short: four bytes. What a
//! protocol adds (greetings, roots, the answer that it is done) is not in it.
//!
//! Most of what a push costs is the content of its edits, and that is chance: 20 edits of up to 2,000 bytes insert 13,000
//! bytes, or 10,000, or 17,000. So that one bound holds for every seed, edits are drawn again until they insert as much as
//! those of the pair for which the bound was set, give or take two in a hundred.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;
use deltasync_testkit::Rng;

const MIB: usize = 1 << 20;

/// What one place costs at least, in bytes: where it is and how long.
pub const PLACE: u64 = 4;

/// An old file, a new one, and what the way from one to the other costs at least.
#[derive(Clone, Debug)]
pub struct Files {
    /// The old bytes.
    pub old: Bytes,
    /// The new bytes.
    pub new: Bytes,
    /// The fewest bytes that tell the new ones to who has the old ones; each maker says how they are counted.
    pub floor: u64,
}

/// Why a pair could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// A program could not be started, or its files not be read.
    #[error("cannot run {program}: {source}")]
    Io {
        /// Its name.
        program: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {message}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// The last line that it wrote.
        message: String,
    },
}

type Made = Result<Files, MakeError>;

impl Files {
    /// A pair that differs in so many places by so many bytes of content.
    pub(crate) fn new(old: impl Into<Bytes>, new: impl Into<Bytes>, places: u64, content: u64) -> Self {
        Self { old: old.into(), new: new.into(), floor: content + PLACE * places }
    }
}

/// One place, 4,096 bytes.
pub(crate) fn one_block_replaced(seed: u64) -> Made {
    const BLOCK: usize = 4096;
    let mut rng = Rng::new(seed);
    let old = rng.bytes(10 * MIB);
    let mut new = old.clone();
    let block = rng.below(old.len() / BLOCK);
    new[block * BLOCK..][..BLOCK].copy_from_slice(&rng.bytes(BLOCK));
    Ok(Files::new(old, new, 1, BLOCK as u64))
}

/// One place, one byte.
pub(crate) fn one_byte_changed(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let old = rng.bytes(10 * MIB);
    let mut new = old.clone();
    let at = rng.below(new.len());
    new[at] ^= 0x55;
    Ok(Files::new(old, new, 1, 1))
}

/// One place, one byte.
pub(crate) fn one_byte_inserted(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let new = Bytes::from(rng.bytes(10 * MIB + 1));
    Ok(Files::new(new.slice(1..), new, 1, 1))
}

/// Twenty places and what is inserted and written over there.
pub(crate) fn twenty_edits(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let old = rng.bytes(100 * MIB);
    let edits = Edit::draw(&mut rng, old.len(), 20, 1..=2000, 16_019);
    let (new, content) = apply(&old, &edits, &mut rng);
    Ok(Files::new(old, new, 20, content))
}

/// Two hundred places of 100 bytes.
pub(crate) fn overwrites(seed: u64) -> Made {
    const PLACES: usize = 200;
    const LEN: usize = 100;
    let mut rng = Rng::new(seed);
    let old = rng.bytes(1024 * MIB);
    let mut new = old.clone();
    for at in places(&mut rng, new.len() - LEN, PLACES) {
        new[at..at + LEN].copy_from_slice(&rng.bytes(LEN));
    }
    Ok(Files::new(old, new, PLACES as u64, (PLACES * LEN) as u64))
}

/// Nothing.
pub(crate) fn unchanged(seed: u64) -> Made {
    let old = Bytes::from(Rng::new(seed).bytes(100 * MIB));
    Ok(Files::new(old.clone(), old, 0, 0))
}

/// One place, 1 MiB.
pub(crate) fn appended(seed: u64) -> Made {
    let new = Bytes::from(Rng::new(seed).bytes(101 * MIB));
    Ok(Files::new(new.slice(..100 * MIB), new, 1, MIB as u64))
}

/// One place where the halves meet, ten more and what is inserted and written over there.
pub(crate) fn halves_swapped(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let old = rng.bytes(20 * MIB);
    let mut swapped = old.clone();
    swapped.rotate_left(old.len() / 2);
    let edits = Edit::draw(&mut rng, old.len(), 10, 1..=500, 2_443);
    let (new, content) = apply(&swapped, &edits, &mut rng);
    Ok(Files::new(old, new, 11, content))
}

/// All of it.
pub(crate) fn unrelated(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let (old, new) = (rng.bytes(100 * MIB), rng.bytes(100 * MIB));
    let content = new.len() as u64;
    Ok(Files::new(old, new, 0, content))
}

/// Twenty places of one byte.
pub(crate) fn zeros_edited(seed: u64) -> Made {
    const PLACES: usize = 20;
    let mut rng = Rng::new(seed);
    let old = vec![0; 100 * MIB];
    let mut new = old.clone();
    for at in places(&mut rng, new.len(), PLACES) {
        new[at] = 1 + rng.below(255) as u8;
    }
    Ok(Files::new(old, new, PLACES as u64, PLACES as u64))
}

/// Twenty places and what is inserted and written over there.
pub(crate) fn pattern_edited(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let pattern = rng.bytes(1000);
    let mut old = pattern.repeat(100 * MIB / pattern.len() + 1);
    old.truncate(100 * MIB);
    let edits = Edit::draw(&mut rng, old.len(), 20, 1..=100, 554);
    let (new, content) = apply(&old, &edits, &mut rng);
    Ok(Files::new(old, new, 20, content))
}

/// `count` different numbers below `bound`, in their order.
pub(crate) fn places(rng: &mut Rng, bound: usize, count: usize) -> BTreeSet<usize> {
    let mut places = BTreeSet::new();
    while places.len() < count {
        places.insert(rng.below(bound));
    }
    places
}

/// A change at one place.
#[derive(Clone, Copy, Debug)]
struct Edit {
    at: usize,
    len: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Insert,
    Delete,
    Overwrite,
}

impl Edit {
    /// Random edits whose content is about `content` bytes, in the order of their places.
    fn draw(rng: &mut Rng, basis: usize, count: usize, lens: RangeInclusive<usize>, content: usize) -> Vec<Self> {
        let spread = lens.end() - lens.start() + 1;
        loop {
            let edits: Vec<_> = places(rng, basis - lens.end(), count)
                .into_iter()
                .map(|at| {
                    let kind = [Kind::Insert, Kind::Delete, Kind::Overwrite][rng.below(3)];
                    Self { at, len: lens.start() + rng.below(spread), kind }
                })
                .collect();
            let drawn: usize = edits.iter().filter(|edit| edit.kind != Kind::Delete).map(|edit| edit.len).sum();
            if drawn.abs_diff(content) * 50 <= content {
                return edits;
            }
        }
    }
}

/// The bytes after edits, and how many bytes of content those brought. Where an edit reaches into the next, it ends there.
fn apply(old: &[u8], edits: &[Edit], rng: &mut Rng) -> (Vec<u8>, u64) {
    let mut new = Vec::with_capacity(old.len() + old.len() / 1000);
    let (mut done, mut content) = (0, 0);
    for edit in edits {
        let at = edit.at.max(done);
        new.extend_from_slice(&old[done..at]);
        if edit.kind != Kind::Delete {
            new.extend_from_slice(&rng.bytes(edit.len));
            content += edit.len as u64;
        }
        done = at + if edit.kind == Kind::Insert { 0 } else { edit.len };
    }
    new.extend_from_slice(&old[done..]);
    (new, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the files differ, place by place.
    fn differing(files: &Files) -> usize {
        assert_eq!(files.old.len(), files.new.len());
        files.old.iter().zip(&files.new).filter(|(old, new)| old != new).count()
    }

    #[test]
    fn pairs_are_what_their_workloads_say() {
        let made = |make: fn(u64) -> Made| make(1).expect("needs no program");
        let block = made(one_block_replaced);
        assert!((4000..=4096).contains(&differing(&block)));
        assert_eq!(block.floor, 4100);
        assert_eq!(differing(&made(one_byte_changed)), 1);
        let inserted = made(one_byte_inserted);
        assert_eq!((inserted.old.len(), &inserted.new[1..]), (10 * MIB, &inserted.old[..]));
        let zeros = made(zeros_edited);
        assert_eq!((differing(&zeros), zeros.floor), (20, 100));
        let appended = made(appended);
        assert!(appended.new.starts_with(&appended.old) && appended.new.len() == appended.old.len() + MIB);
        let pattern = made(pattern_edited);
        assert!(pattern.old[..pattern.old.len() - 1000] == pattern.old[1000..], "no pattern");
        assert!((540 + 80..=566 + 80).contains(&pattern.floor), "{}", pattern.floor);
    }

    #[test]
    fn one_seed_is_one_pair() {
        let made = |seed| halves_swapped(seed).expect("needs no program");
        let (one, two) = (made(1), made(2));
        assert!(one.new == made(1).new && one.old == made(1).old);
        assert!(one.new != two.new && one.old != two.old);
    }

    #[test]
    fn edits_bring_as_much_content_as_was_asked_for() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let old = rng.bytes(100_000);
            let edits = Edit::draw(&mut rng, old.len(), 20, 1..=2000, 16_019);
            let (new, content) = apply(&old, &edits, &mut rng);
            assert!(content.abs_diff(16_019) <= 320, "{content}");
            let gone: usize = edits.iter().filter(|edit| edit.kind != Kind::Insert).map(|edit| edit.len).sum();
            assert!(new.len() + gone == old.len() + content as usize, "{edits:?}");
        }
    }

    #[test]
    fn an_edit_leaves_what_is_not_its_own() {
        let old: Vec<u8> = (0..100).collect();
        let edit = |at, len, kind| Edit { at, len, kind };
        let edits = [edit(0, 2, Kind::Insert), edit(10, 5, Kind::Delete), edit(12, 2, Kind::Overwrite)];
        let (new, content) = apply(&old, &edits, &mut Rng::new(1));
        assert_eq!(content, 4);
        assert_eq!((&new[2..12], &new[14..]), (&old[..10], &old[17..]));
    }
}
