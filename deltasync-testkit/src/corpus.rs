//! Old and new files with the shapes users have, made from a seed.
//!
//! Tests take them to ask whether a result is right, benches to ask what it costs, both by the same names. A basis has
//! exactly the length that was asked for, also where its shape has a grain (rows, patterns, archive members): it is then
//! cut off within one.
//!
//! Invariant: one shape, seed and length give the same bytes on every machine.

use std::fmt::Write as _;

use crate::Rng;

/// How a target came from its basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// The target is the basis.
    Identical,
    /// One byte in the middle is another.
    OneByteChanged,
    /// One block of 4096 bytes, a third of the way in, is another.
    OneBlockReplaced,
    /// Every 200 kB, and at least in three places, a hundred bytes are others, or gone, or new, in turn.
    ScatteredEdits,
    /// One byte more at the front.
    InsertionAtTheFront,
    /// A tenth is gone from the middle.
    Deletion,
    /// A tenth is new at the end.
    Appended,
    /// The halves have changed places.
    MovedHalves,
    /// Eight regions in another order.
    MovedRegions,
    /// Nothing in common.
    Unrelated,
    /// Zeros, in which three places are not zero any more.
    ZerosEdited,
    /// One pattern of 1000 bytes over and over, in which three repetitions differ by a byte.
    PatternEdited,
    /// Rows of text, of which one in a hundred has another value and one in a thousand is gone.
    RowsEdited,
    /// An archive of small files with a header each; all headers have another time, one file is another.
    ArchiveWithNewHeaders,
}

/// A basis and a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// How the one came from the other.
    pub shape: Shape,
    /// The old bytes.
    pub basis: Vec<u8>,
    /// The new bytes.
    pub target: Vec<u8>,
}

/// Where edits are far apart, how far, in bytes.
const EVERY: usize = 200_000;
/// How long an edit is, in bytes.
const EDIT: usize = 100;
/// The header of an archive's member, and what its content is padded to, in bytes.
const HEADER: usize = 512;

impl Shape {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Identical,
        Self::OneByteChanged,
        Self::OneBlockReplaced,
        Self::ScatteredEdits,
        Self::InsertionAtTheFront,
        Self::Deletion,
        Self::Appended,
        Self::MovedHalves,
        Self::MovedRegions,
        Self::Unrelated,
        Self::ZerosEdited,
        Self::PatternEdited,
        Self::RowsEdited,
        Self::ArchiveWithNewHeaders,
    ];

    /// The name in messages and in the names of benches.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::OneByteChanged => "one byte changed",
            Self::OneBlockReplaced => "one block replaced",
            Self::ScatteredEdits => "scattered edits",
            Self::InsertionAtTheFront => "insertion at the front",
            Self::Deletion => "deletion",
            Self::Appended => "appended",
            Self::MovedHalves => "moved halves",
            Self::MovedRegions => "moved regions",
            Self::Unrelated => "unrelated",
            Self::ZerosEdited => "zeros edited",
            Self::PatternEdited => "pattern edited",
            Self::RowsEdited => "rows edited",
            Self::ArchiveWithNewHeaders => "archive with new headers",
        }
    }

    /// The case of this shape whose basis has `len` bytes.
    pub fn case(self, seed: u64, len: usize) -> Case {
        let mut rng = Rng::new(seed);
        let (basis, target) = match self {
            Self::ZerosEdited => three_edited(vec![0; len], len / 3),
            Self::PatternEdited => {
                let pattern = rng.bytes(1000);
                three_edited(pattern.into_iter().cycle().take(len).collect(), len / 3)
            }
            Self::RowsEdited => rows(&mut rng, len),
            Self::ArchiveWithNewHeaders => archive(&mut rng, len),
            _ => {
                let basis = rng.bytes(len);
                let target = self.edit(&basis, &mut rng);
                (basis, target)
            }
        };
        Case { shape: self, basis, target }
    }

    /// The target of the shapes whose basis is random bytes.
    fn edit(self, basis: &[u8], rng: &mut Rng) -> Vec<u8> {
        let len = basis.len();
        match self {
            Self::OneByteChanged => {
                let mut target = basis.to_vec();
                target.iter_mut().skip(len / 2).take(1).for_each(|byte| *byte ^= 1);
                target
            }
            Self::OneBlockReplaced => {
                let mut target = basis.to_vec();
                let block = rng.bytes(4096);
                target.iter_mut().skip(len / 3).zip(block).for_each(|(byte, new)| *byte = new);
                target
            }
            Self::ScatteredEdits => scattered_edits(basis, rng),
            Self::InsertionAtTheFront => [&[0x5a], basis].concat(),
            Self::Deletion => [&basis[..len / 2], &basis[len / 2 + len / 10..]].concat(),
            Self::Appended => [basis, &rng.bytes(len / 10)].concat(),
            Self::MovedHalves => [&basis[len / 2..], &basis[..len / 2]].concat(),
            Self::MovedRegions => {
                let regions: Vec<_> = basis.chunks(len.div_ceil(8).max(1)).collect();
                let order = [3, 0, 6, 1, 7, 2, 5, 4];
                order.into_iter().filter_map(|region| regions.get(region)).copied().collect::<Vec<_>>().concat()
            }
            Self::Unrelated => rng.bytes(len),
            Self::Identical | Self::ZerosEdited | Self::PatternEdited => basis.to_vec(),
            Self::RowsEdited | Self::ArchiveWithNewHeaders => basis.to_vec(),
        }
    }
}

impl Case {
    /// One case of each shape.
    pub fn all(seed: u64, len: usize) -> impl Iterator<Item = Self> {
        Shape::ALL.into_iter().map(move |shape| shape.case(seed, len))
    }
}

/// The bytes, and the same with the first byte after each `step` another.
fn three_edited(basis: Vec<u8>, step: usize) -> (Vec<u8>, Vec<u8>) {
    let mut target = basis.clone();
    for at in (1..=3).map(|edit| (edit * step).saturating_sub(1)) {
        if let Some(byte) = target.get_mut(at) {
            *byte ^= 0x80;
        }
    }
    (basis, target)
}

/// The target of [`Shape::ScatteredEdits`], of any basis.
pub fn scattered_edits(basis: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut target = Vec::with_capacity(basis.len() + basis.len() / 1000);
    let every = EVERY.min(basis.len() / 3).max(1);
    for (i, stretch) in basis.chunks(every).enumerate() {
        let (before, rest) = stretch.split_at(stretch.len() / 2);
        let edit = EDIT.min(rest.len());
        target.extend_from_slice(before);
        if i % 3 != 1 {
            target.extend_from_slice(&rng.bytes(edit));
        }
        target.extend_from_slice(if i % 3 == 2 { rest } else { &rest[edit..] });
    }
    target
}

/// Rows as a program exports them: a number, a name, a value.
fn rows(rng: &mut Rng, len: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut basis, mut target) = (String::new(), String::new());
    for number in 0.. {
        if basis.len() >= len {
            break;
        }
        let (name, value) = (rng.below(5000), rng.below(1_000_000));
        let changed = number % 100 == 50;
        let row = |text: &mut String, value: usize| {
            writeln!(text, "{number},customer-{name:04},{value}.00,open").expect("a string takes all");
        };
        row(&mut basis, value);
        if number % 1000 != 500 {
            row(&mut target, value + usize::from(changed));
        }
    }
    let cut = |text: String| text.into_bytes().into_iter().take(len).collect();
    (cut(basis), cut(target))
}

/// Members of up to 16 KiB, each behind a header with its name, length and time, as tar lays them out.
fn archive(rng: &mut Rng, len: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut basis, mut target) = (Vec::new(), Vec::new());
    for member in 0.. {
        if basis.len() >= len {
            break;
        }
        let body = rng.below(16 << 10);
        let content = rng.bytes(body);
        let other = if member == 1 { rng.bytes(body) } else { content.clone() };
        for (out, content, time) in [(&mut basis, &content, 0o14_000_000_000), (&mut target, &other, 0o14_700_000_000)]
        {
            let start = out.len();
            let header =
                format!("package/file-{member:05}\0 0000644\0{:011o}\0{:011o}\0", content.len(), time + member);
            out.extend_from_slice(header.as_bytes());
            out.resize(start + HEADER, 0);
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(HEADER), 0);
        }
    }
    basis.truncate(len);
    target.truncate(len);
    (basis, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 300_001;

    fn case(shape: Shape) -> Case {
        shape.case(1, LEN)
    }

    fn differing(case: &Case) -> usize {
        case.basis.iter().zip(&case.target).filter(|(old, new)| old != new).count()
    }

    #[test]
    fn a_case_is_its_shape_seed_and_length() {
        for shape in Shape::ALL {
            for len in [0, 1, 2, 3, 9, 99, 511, 512, 4095, 50_000] {
                let case = shape.case(7, len);
                assert_eq!(case, shape.case(7, len));
                assert_eq!(case.basis.len(), len, "{}", shape.name());
            }
        }
        assert_ne!(case(Shape::Identical).basis, Shape::Identical.case(2, LEN).basis);
    }

    #[test]
    fn cases_are_what_their_names_say() {
        let same = case(Shape::Identical);
        assert_eq!(same.basis, same.target);
        assert_eq!(differing(&case(Shape::OneByteChanged)), 1);
        assert!((4000..=4096).contains(&differing(&case(Shape::OneBlockReplaced))));
        let inserted = case(Shape::InsertionAtTheFront);
        assert_eq!(inserted.target[1..], inserted.basis);
        assert_eq!(case(Shape::Deletion).target.len(), LEN - LEN / 10);
        let appended = case(Shape::Appended);
        assert!(appended.target.starts_with(&appended.basis) && appended.target.len() == LEN + LEN / 10);
        assert_eq!(case(Shape::MovedHalves).target.len(), LEN);
        assert_eq!(case(Shape::MovedRegions).target.len(), LEN);
        assert!(differing(&case(Shape::Unrelated)) > LEN / 2);
        assert_eq!(differing(&case(Shape::ZerosEdited)), 3);
        assert_eq!(differing(&case(Shape::PatternEdited)), 3);
        let scattered = case(Shape::ScatteredEdits);
        assert_eq!(scattered.target.len(), LEN, "one gone, one new");
        assert_ne!(scattered.target, scattered.basis);
    }

    #[test]
    fn rows_and_archives_keep_most_of_what_they_had() {
        let case = case(Shape::RowsEdited);
        let old: std::collections::BTreeSet<_> = case.basis.split(|byte| *byte == b'\n').collect();
        let (kept, new): (Vec<_>, Vec<_>) = case.target.split(|byte| *byte == b'\n').partition(|row| old.contains(row));
        assert!(new.len() * 50 < kept.len() && new.len() * 200 > kept.len(), "{} of {}", new.len(), kept.len());
        let case = Shape::ArchiveWithNewHeaders.case(1, 1 << 20);
        let members = case.basis.chunks(HEADER).filter(|block| block.starts_with(b"package/")).count();
        assert!(members > 64);
        assert!(differing(&case) < (16 << 10) + 12 * members);
    }
}
