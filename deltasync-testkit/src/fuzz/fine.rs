//! The fine matcher: what copies it finds by short sums, whoever made those.

use deltasync_core::{ByteLen, FineIndex, FineKey, FineShape, FineSummer, Offset, OldStretch, Op, Ops, Pairing};

use super::take::{Recipe, Split, Take};
use crate::{Rng, Seed};

/// No file of a run is longer, in bytes.
const LEN_MAX: usize = 1 << 14;
/// The bits of sums that do not deceive.
const HONEST_BITS: u32 = 48;

/// The sums are made up, else they are those of the old bytes.
const MADE_UP: u8 = 1;
/// The gap has a pair.
const PAIRED: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;
/// The sums of one block more or less than there are.
const MISCOUNTED: u8 = 16;

fn key() -> FineKey {
    FineKey::new(&[1; 16], &[2; 16], 3)
}

/// Flags, split, block, bits, pair; stretches as how many bytes are left out before each and how long it is; the old
/// bytes; the target as a recipe; where sums are made up, they come between, one a byte.
pub(super) fn fine(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = take.byte();
    let split = take.split();
    let block = FineShape::SHORTEST + u32::from(take.byte());
    let bits = 1 + u32::from(take.byte()) % FineShape::BITS_MAX;
    let bits = if flags & MADE_UP == 0 { HONEST_BITS } else { bits };
    let shape = FineShape::new(block, bits).expect("in range");
    let pair = Pairing { stretch: usize::from(take.byte()), left: flags & LEFT != 0, right: flags & RIGHT != 0 };
    let pair = (flags & PAIRED != 0).then_some(pair);
    let gaps: Vec<(usize, usize)> = (0..take.byte() % 8).map(|_| (take.short(), take.short())).collect();
    let (len, times) = (take.short(), 1 + usize::from(take.byte()));
    let once = take.bytes(len);
    let old: Vec<u8> = once.iter().copied().cycle().take((once.len() * times).min(LEN_MAX)).collect();
    if flags & MADE_UP == 0 {
        let target = take.derived(&old, LEN_MAX);
        check_honest(&old, &gaps, &target, shape, pair, split);
    } else {
        let count = take.short();
        let chosen = take.bytes(count).to_vec();
        let target = take.derived(&old, LEN_MAX);
        check_made_up(&gaps, &chosen, &target, shape, pair, flags & MISCOUNTED != 0);
    }
}

/// The sums are of the old bytes: what is made is the target.
fn check_honest(
    old: &[u8],
    gaps: &[(usize, usize)],
    target: &[u8],
    shape: FineShape,
    pair: Option<Pairing>,
    split: Split,
) {
    let mut at = 0;
    let mut ranges = Vec::new();
    for (skipped, len) in gaps {
        let start = old.len().min(at + skipped);
        at = old.len().min(start + len);
        ranges.push(start..at);
    }
    let sum = |split: Split| {
        let mut summer = FineSummer::new(key(), shape);
        for range in &ranges {
            split.pieces(&old[range.clone()]).for_each(|piece| summer.push(piece));
            summer.end();
        }
        summer.finish()
    };
    let sums = sum(split);
    assert_eq!(sums, sum(Split::WHOLE), "any split gives the same sums");
    let stretch = |range: &std::ops::Range<usize>| OldStretch {
        from: Offset::new(range.start as u64),
        len: ByteLen::new(range.len() as u64),
    };
    let stretches: Vec<_> = ranges.iter().map(stretch).collect();
    let index = FineIndex::new(key(), shape, stretches.clone(), sums).expect("sums of these stretches");
    let ops = index.find(target, pair);
    check_ops(&ops, &stretches, target.len());
    let mut made = Vec::new();
    for op in ops.as_slice() {
        match *op {
            Op::Literal { len } => made.extend_from_slice(&target[made.len()..][..len.get() as usize]),
            Op::Copy { from, len } => made.extend_from_slice(&old[from.get() as usize..][..len.get() as usize]),
        }
    }
    assert!(made == target, "the operations make the target");
}

/// The sums are some of the target's own, wherever they stand: the search ends and keeps to its stretches.
fn check_made_up(
    gaps: &[(usize, usize)],
    chosen: &[u8],
    target: &[u8],
    shape: FineShape,
    pair: Option<Pairing>,
    miscounted: bool,
) {
    // They may lie anywhere, over each other and far away.
    let stretch = |(from, len): &(usize, usize)| OldStretch {
        from: Offset::new(if *from == 0xffff { u64::MAX - 40_000 } else { *from as u64 }),
        len: ByteLen::new(*len as u64),
    };
    let stretches: Vec<_> = gaps.iter().map(stretch).collect();
    let mut known = vec![0];
    for start in 0..target.len().min(4) {
        let mut summer = FineSummer::new(key(), shape);
        summer.push(&target[start..]);
        known.extend(summer.finish());
    }
    let blocks = stretches.iter().map(|stretch| shape.sums_of(stretch.len.get())).sum::<u64>() as usize;
    let sum = |choice: &u8| known[usize::from(*choice) % known.len()];
    let mut sums: Vec<u64> = chosen.iter().map(sum).chain(known.iter().copied().cycle()).take(blocks).collect();
    if miscounted {
        sums.push(0);
    }
    let far = stretches.iter().any(|stretch| stretch.from.checked_add(stretch.len).is_none());
    match FineIndex::new(key(), shape, stretches.clone(), sums) {
        Ok(index) => {
            assert!(!miscounted && !far);
            check_ops(&index.find(target, pair), &stretches, target.len());
        }
        Err(error) => assert!((miscounted || far) && !error.to_string().is_empty()),
    }
}

/// The operations make exactly the target's length, and every byte of a copy lies in a stretch.
pub(super) fn check_ops(ops: &Ops, stretches: &[OldStretch], target: usize) {
    assert_eq!(ops.as_slice().iter().map(|op| op.len().get()).sum::<u64>(), target as u64, "exactly the target");
    for op in ops.as_slice() {
        let Op::Copy { from, len } = op else { continue };
        let (mut at, end) = (from.get(), from.get().checked_add(len.get()).expect("within 64 bits"));
        // Copies from stretches that touch are joined.
        while at < end {
            let holds = stretches.iter().filter(|stretch| stretch.from.get() <= at);
            let next = holds.map(|stretch| stretch.from.get() + stretch.len.get()).max();
            let next = next.filter(|next| *next > at);
            at = next.unwrap_or_else(|| panic!("a copy of {at} to {end} leaves the stretches {stretches:?}"));
        }
    }
}

pub(super) fn fine_seeds() -> Vec<Seed> {
    let seed = |name: &str, flags: u8, block: u8, bits: u8, gaps: &[(u16, u16)], middle: &[u8], recipe: Recipe| {
        let gaps: Vec<u8> =
            gaps.iter().flat_map(|(skip, len)| [skip.to_le_bytes(), len.to_le_bytes()].concat()).collect();
        let head = [flags, 20, block, bits, 0, (gaps.len() / 4) as u8];
        Seed::new(name, [&head[..], &gaps, middle, &recipe.0].concat())
    };
    let file = |bytes: &[u8], times: u8| [&(bytes.len() as u16).to_le_bytes()[..], &[times - 1], bytes].concat();
    let random = file(&Rng::new(8).bytes(900), 1);
    let text = file(b"a row of a table,", 50);
    let edges = PAIRED | LEFT | RIGHT;
    let edited = || Recipe::default().copy(0, 300).literal(b"other").copy(305, 595);
    let moved = || Recipe::default().copy(500, 400).copy(0, 500);
    let made_up = |sums: &[u8], old: &[u8]| [old, &(sums.len() as u16).to_le_bytes(), sums].concat();
    let in_order: Vec<u8> = (1..57).collect();
    vec![
        seed("nothing", 0, 0, 0, &[], &file(b"", 1), Recipe::default()),
        seed("edited", edges, 0, 0, &[(0, 900)], &random, edited()),
        seed("edited-without-a-pair", 0, 0, 0, &[(0, 900)], &random, edited()),
        seed(
            "inserted-at-the-left",
            PAIRED | RIGHT,
            16,
            0,
            &[(0, 900)],
            &random,
            Recipe::default().literal(b"x").copy(0, 900),
        ),
        seed("moved", edges, 8, 0, &[(0, 900)], &random, moved()),
        seed("three-stretches", edges, 0, 0, &[(10, 200), (0, 300), (50, 300)], &random, moved()),
        seed("of-a-stretch-that-is-not", edges, 0, 0, &[], &random, edited()),
        seed("rows", edges, 16, 0, &[(0, 850)], &text, Recipe::default().copy(17, 400).literal(b"!").copy(100, 500)),
        seed("zeros", edges, 16, 0, &[(0, 250)], &file(&[0], 250), Recipe::default().copy(0, 250).copy(0, 200)),
        seed("shorter-than-a-block", edges, 200, 0, &[(0, 100), (0, 30)], &random, Recipe::default().copy(0, 100)),
        seed("made-up", MADE_UP | edges, 0, 30, &[(7, 900)], &made_up(&in_order, &random), edited()),
        seed("made-up-short", MADE_UP | edges, 0, 2, &[(7, 300), (9, 300)], &made_up(&in_order, &random), moved()),
        seed("made-up-equal", MADE_UP | PAIRED | LEFT, 0, 8, &[(0, 2000)], &made_up(&[3; 125], &text), edited()),
        seed("made-up-far-away", MADE_UP | edges, 0, 8, &[(0xffff, 9000)], &made_up(&in_order, &random), moved()),
        seed("made-up-past-the-end", MADE_UP | edges, 0, 8, &[(0xffff, 0xffff)], &made_up(&[], &random), moved()),
        seed("miscounted", MADE_UP | MISCOUNTED, 0, 8, &[(0, 100)], &made_up(&[], &random), moved()),
    ]
}
