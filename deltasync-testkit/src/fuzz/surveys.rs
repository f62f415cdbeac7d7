//! What a receiver says of its basis, and the script a sender makes of it.

use deltasync_core::{
    Algorithm, Break, ByteLen, ChunkList, Cutter, Differences, Elements, FineIndex, FineKey, FineShape, FineSummer,
    Limits, OldContent, Op, Ops, Part, Script, Shared, Sketch, SketchKey, Survey, TagKey, neighbours, old_pieces,
    read_tags,
};

use super::fine::check_ops;
use super::take::{Recipe, Take};
use crate::{Rng, Seed};

/// No file of a run is longer, in bytes.
const LEN_MAX: usize = 1 << 14;
/// The bits of tags and sums that do not deceive.
const HONEST_BITS: u32 = 48;

/// The survey is made up, else it is the receiver's.
const MADE_UP: u8 = 1;
/// The order is told by breaks that are made up.
const BREAKS: u8 = 2;
/// Some bytes of the receiver's survey are damaged.
const DAMAGED: u8 = 4;
/// Tags are cut to some bits.
const SHORT: u8 = 8;

fn limits() -> Limits {
    Limits::default().file(ByteLen::new(1 << 30)).chunks(1 << 12)
}

fn edge_key() -> SketchKey {
    SketchKey::of_edges(&[1; 16], 1)
}

fn fine_key() -> FineKey {
    FineKey::new(&[1; 16], &[2; 16], 3)
}

/// The two ends of a comparison.
struct Ends {
    basis: ChunkList,
    target: ChunkList,
    ours: Elements,
    theirs: Elements,
    key: TagKey,
}

/// Flags, average, bits; the basis, how often it is repeated, the target as a recipe; breaks; then a survey, or damage to
/// the receiver's.
pub(super) fn survey(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = take.byte();
    let cutter = Cutter::MinCdc { average: 32 << (take.byte() % 4) };
    let bits = 1 + u32::from(take.byte()) % HONEST_BITS;
    let bits = if flags & SHORT == 0 { HONEST_BITS } else { bits };
    let (len, times) = (take.short(), 1 + usize::from(take.byte()));
    let once = take.bytes(len);
    let basis: Vec<u8> = once.iter().copied().cycle().take((once.len() * times).min(LEN_MAX)).collect();
    let recipe = take.short();
    let target = Take::new(take.bytes(recipe)).derived(&basis, LEN_MAX);
    let key = TagKey::new(&[7; 16], 1).with_bits(bits);
    let [list, of_target] = [&basis, &target].map(|file| ChunkList::of(file, cutter, Algorithm::Blake3));
    let (ours, theirs) = (Elements::of(&list, &key), Elements::of(&of_target, &key));
    let ends = Ends { basis: list, target: of_target, ours, theirs, key };

    let between = Script::between(&ends.basis, &ends.target);
    check_script(&between, &ends.target, ends.basis.len());
    for block in [16, FineShape::KEPT.block() as u64] {
        check_script(&between.clone().widened(block, ends.basis.len()), &ends.target, ends.basis.len());
    }

    let mut breaks = None;
    if flags & BREAKS != 0 {
        let rank = |short: usize| short.checked_sub(1).map(|rank| rank as u32);
        let many = take.byte();
        breaks = Some((0..many).map(|_| Break { left: rank(take.short()), right: rank(take.short()) }).collect());
    }
    if flags & MADE_UP != 0 {
        return lay_hostile(&ends, take.rest(), breaks);
    }
    let (survey, shared) = receiver_says(&ends, &basis);
    let elements = ends.theirs.len() as u64;
    let mut wire = Vec::new();
    survey.encode(elements, &mut wire);
    assert_eq!(
        Survey::decode(&wire, elements, edge_key(), &limits()).as_ref(),
        Ok(&survey),
        "what was encoded is decoded"
    );
    if flags & DAMAGED != 0 {
        while !take.is_empty() && !wire.is_empty() {
            let at = take.short() % wire.len();
            wire[at] ^= take.byte();
        }
        return lay_hostile(&ends, &wire, breaks);
    }
    if breaks.is_some() {
        return lay_hostile(&ends, &wire, breaks);
    }
    lay_honest(&ends, &survey, &shared, &basis, &target, bits);
}

/// What a receiver says, and what it knows to be shared.
fn receiver_says(ends: &Ends, basis: &[u8]) -> (Survey, Shared) {
    let Ends { basis: list, ours, theirs, key, .. } = ends;
    // The whole set travels, in two parts.
    let half = theirs.len() / 2;
    let mut tags = Vec::new();
    for part in [0..half, half..theirs.len()] {
        let (mut wire, count) = (Vec::new(), part.len());
        theirs.encode(part, &mut wire);
        read_tags(&wire, count, theirs.len(), &mut tags).expect("our own tags");
    }
    assert!(tags.iter().copied().eq(theirs.tags()), "the tags arrive");
    let differences = Differences::of_sorted(ours.tags(), tags.into_iter());
    let shared = Shared::all_but(ours, differences.ours());
    let missing = shared.ranks_of(differences.theirs());
    let pieces = old_pieces(list, &shared, key, missing.len() as u64);
    let summed = pieces.iter().filter_map(|(piece, at)| match piece.content {
        OldContent::Summed(len) => Some(at.get() as usize..(at.get() + len.get()) as usize),
        _ => None,
    });
    let summed: Vec<_> = summed.collect();
    let bytes = summed.iter().map(|range| range.len() as u64).sum();
    let shape = (!summed.is_empty()).then(|| FineShape::for_gaps(summed.len() as u64, bytes, 1024));
    let shape = shape.map(|shape| FineShape::new(shape.block() as u32, HONEST_BITS).expect("in range"));
    let mut sums = Vec::new();
    if let Some(shape) = shape {
        let mut summer = FineSummer::new(fine_key(), shape);
        for range in summed {
            summer.push(&basis[range]);
            summer.end();
        }
        sums = summer.finish();
    }
    let pieces = pieces.into_iter().map(|(piece, _)| piece).collect();
    let edges = Some(Sketch::of(edge_key(), 0..60, shared.edges(ours, key).0.tags()));
    (Survey { basis: list.len(), order: shared.order(ours, key), missing, pieces, shape, sums, edges }, shared)
}

/// What the sender makes of an honest survey, with the order told where that differs, makes the target.
fn lay_honest(ends: &Ends, survey: &Survey, theirs_shared: &Shared, basis: &[u8], target: &[u8], bits: u32) {
    let Ends { target: list, ours, theirs, key, .. } = ends;
    let shared = Shared::all_but_ranks(theirs, &survey.missing);
    assert_eq!(shared.len(), theirs_shared.len(), "both ends share as much");
    let mut order = Some(shared.runs().to_vec());
    if shared.order(theirs, key) != survey.order {
        let (sender, _) = shared.edges(theirs, key);
        let (receiver, _) = theirs_shared.edges(ours, key);
        let missing = Differences::of_sorted(receiver.tags(), sender.tags());
        order = shared.walk(&theirs_shared.breaks(ours, key, missing.ours()));
    }
    let Some(script) = order.and_then(|order| Script::of_survey(list, &shared, &order, survey, key)) else {
        assert!(bits < HONEST_BITS, "tags that do not collide tell the order");
        return;
    };
    check_script(&script, list, ByteLen::of(basis));
    let shape = survey.shape.unwrap_or(FineShape::KEPT);
    let Ok(index) = FineIndex::new(fine_key(), shape, script.stretches().to_vec(), survey.sums.clone()) else {
        panic!("the sums of these stretches")
    };
    let find = |gap: deltasync_core::Gap| -> Ops {
        let range = gap.at.get() as usize..(gap.at.get() + gap.len.get()) as usize;
        let ops = index.find(&target[range.clone()], gap.pair);
        check_ops(&ops, script.stretches(), range.len());
        ops
    };
    let ops = script.ops(script.gaps().map(find));
    let mut made: Vec<u8> = Vec::new();
    for op in ops.as_slice() {
        match *op {
            Op::Literal { len } => made.extend_from_slice(&target[made.len()..][..len.get() as usize]),
            Op::Copy { from, len } => made.extend_from_slice(&basis[from.get() as usize..][..len.get() as usize]),
        }
    }
    assert_eq!(made.len(), target.len());
    assert!(made == target || bits < HONEST_BITS, "the operations make the target");
}

/// Any survey and any breaks: whatever the sender makes of them keeps within the basis.
fn lay_hostile(ends: &Ends, wire: &[u8], breaks: Option<Vec<Break>>) {
    let Ends { target: list, theirs, key, .. } = ends;
    let Ok(survey) = Survey::decode(wire, theirs.len() as u64, edge_key(), &limits()) else { return };
    let shared = Shared::all_but_ranks(theirs, &survey.missing);
    assert_eq!(shared.len(), theirs.len() - survey.missing.len());
    let order = match breaks {
        Some(breaks) => shared.walk(&breaks),
        None => match survey.edges.as_ref().and_then(|edges| shared.breaks_from(theirs, key, edges)) {
            Some(breaks) => shared.walk(&breaks),
            None => Some(shared.runs().to_vec()),
        },
    };
    let Some(order) = order else { return };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, shared.runs(), "an order has each shared element once");
    let places = survey.pieces.iter().map(|piece| piece.before);
    let beside = neighbours(list, &order, places, ByteLen::new(999));
    assert!(beside.iter().all(|(start, len)| start.checked_add(*len).is_some_and(|end| end.to_len() <= list.len())));
    assert!(beside.iter().map(|(_, len)| *len).sum::<ByteLen>() <= ByteLen::new(999));
    let Some(script) = Script::of_survey(list, &shared, &order, &survey, key) else { return };
    check_script(&script, list, survey.basis);
}

/// The parts make the target in order, copies and stretches lie within the basis, and pairs exist.
fn check_script(script: &Script, target: &ChunkList, basis: ByteLen) {
    let mut at = 0;
    for part in script.parts() {
        match part {
            Part::Copy { from, len } => {
                assert!(from.checked_add(*len).is_some_and(|end| end.to_len() <= basis), "a copy leaves the basis");
                assert!(*len > ByteLen::ZERO);
                at += len.get();
            }
            Part::Gap(gap) => {
                assert_eq!(gap.at.get(), at, "a gap is where it says");
                assert!(gap.pair.is_none_or(|pair| pair.stretch < script.stretches().len()), "a pair exists");
                at += gap.len.get();
            }
        }
    }
    assert_eq!(at, target.len().get(), "the parts make the target");
    for stretch in script.stretches() {
        assert!(stretch.from.checked_add(stretch.len).is_some_and(|end| end.to_len() <= basis));
    }
}

pub(super) fn survey_seeds() -> Vec<Seed> {
    let seed = |name: &str, flags: u8, bits: u8, basis: &[u8], times: u8, recipe: Recipe, more: &[u8]| {
        let short = |len: usize| (len as u16).to_le_bytes();
        let head = [flags, 1, bits - 1];
        let files = [&short(basis.len())[..], &[times - 1], basis, &short(recipe.0.len()), &recipe.0].concat();
        Seed::new(name, [&head[..], &files, more].concat())
    };
    let random = Rng::new(3).bytes(1500);
    let edited = || Recipe::default().copy(0, 300).literal(b"other").copy(305, 1195);
    let moved = || Recipe::default().copy(700, 800).copy(0, 700);
    let swapped = || Recipe::default().copy(0, 400).copy(800, 400).copy(400, 400).copy(1200, 300);
    let breaks = |list: &[(u16, u16)]| {
        let list: Vec<u8> =
            list.iter().flat_map(|(left, right)| [left.to_le_bytes(), right.to_le_bytes()].concat()).collect();
        [&[(list.len() / 4) as u8][..], &list].concat()
    };
    let made_up = {
        // No matter the set: nothing is missing, one old gap at the start.
        let mut wire = Vec::new();
        let piece = deltasync_core::OldPiece { before: 0, content: OldContent::Bytes(ByteLen::new(70)) };
        let order = deltasync_core::Tag::from_bytes([0; 6]);
        let basis = ByteLen::new(1570);
        let survey = Survey {
            basis,
            order,
            missing: Vec::new(),
            pieces: vec![piece],
            shape: None,
            sums: Vec::new(),
            edges: None,
        };
        survey.encode(20, &mut wire);
        wire
    };
    let rows = b"1,2,3,4,5\n";
    vec![
        seed("nothing", 0, 48, b"", 1, Recipe::default(), &[]),
        seed("no-target", 0, 48, &random, 1, Recipe::default(), &[]),
        seed("no-basis", 0, 48, b"", 1, edited().literal(b"new"), &[]),
        seed("same", 0, 48, &random, 1, Recipe::default().copy(0, 1500), &[]),
        seed("edited", 0, 48, &random, 1, edited(), &[]),
        seed("moved", 0, 48, &random, 1, moved(), &[]),
        seed("swapped", 0, 48, &random, 1, swapped().literal(b"end"), &[]),
        seed("zeros", 0, 48, &[0; 9], 255, Recipe::default().copy(0, 1000).literal(b"x").copy(0, 2000), &[]),
        seed(
            "runs-repeated",
            0,
            48,
            &[&random[..200], &[0; 600], &random[200..]].concat(),
            1,
            moved().copy(300, 400),
            &[],
        ),
        seed("rows", 0, 48, rows, 120, Recipe::default().copy(0, 500).literal(b"7").copy(501, 600), &[]),
        seed("collide", SHORT, 4, &random, 1, edited(), &[]),
        seed("collide-moved", SHORT, 6, &random, 1, swapped(), &[]),
        seed("damaged", DAMAGED, 48, &random, 1, edited(), &[12, 0, 1, 20, 0, 64]),
        seed("damaged-length", DAMAGED, 48, &random, 1, moved(), &[0, 0, 1]),
        seed("breaks", BREAKS, 48, &random, 1, swapped(), &breaks(&[(0, 3), (5, 1), (2, 0)])),
        seed("no-breaks", BREAKS, 48, &random, 1, moved(), &breaks(&[])),
        seed("breaks-in-a-circle", BREAKS, 48, &random, 1, edited(), &breaks(&[(1, 2), (2, 1)])),
        seed("made-up", MADE_UP, 48, &random, 1, Recipe::default().copy(0, 1500), &made_up),
    ]
}
