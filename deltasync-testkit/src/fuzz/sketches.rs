//! Sketches of sets that the input describes, their cells damaged or all made up.

use deltasync_core::{Differences, Limits, Reader, Sketch, SketchKey, Tag, Undecided};

use super::take::Take;
use crate::{Rng, Seed};

const CELLS_MAX: usize = 512;

fn key() -> SketchKey {
    SketchKey::new(&[7; 16], 1)
}

/// Flags (1: the cells are made up, 2: tags repeat), cells, where they are split, common tags, ours, theirs; then the
/// cells, or damage to them.
pub(super) fn sketch(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = take.byte();
    let cells = take.short() % CELLS_MAX;
    let split = take.short() % (cells + 1);
    let [common, ours, theirs] = [(); 3].map(|()| usize::from(take.byte()));
    let mut rng = Rng::new(1);
    let mut tag = || {
        let mut tag: [u8; Tag::LEN] = rng.bytes(Tag::LEN).try_into().expect("so many");
        if flags & 2 != 0 {
            tag[1..].fill(0);
        }
        Tag::from_bytes(tag)
    };
    let mut tags = |len: usize| -> Vec<Tag> { (0..len).map(|_| tag()).collect() };
    let (common, own, other) = (tags(common), tags(ours), tags(theirs));
    let ours = [&common[..], &own].concat();
    if flags & 1 != 0 {
        if let Some(theirs) = decode(take.rest(), cells, cells, (common.len() + other.len()) as u64) {
            let _ = check_told(&ours, &theirs);
        }
        return;
    }

    let theirs = [&other[..], &common].concat();
    let made = |cells| Sketch::of(key(), cells, theirs.iter().copied());
    let mut whole = made(0..split);
    whole.append(made(split..cells));
    assert_eq!(whole, made(0..cells), "any split gives the same cells");
    let mut wire = Vec::new();
    whole.encode(&mut wire);
    assert_eq!(decode(&wire, cells, split, theirs.len() as u64).as_ref(), Some(&whole));
    if take.is_empty() {
        let repeats = flags & 2 != 0;
        match (check_told(&ours, &whole), repeats) {
            (Ok(differences), false) => {
                let sorted = |mut tags: Vec<Tag>| {
                    tags.sort();
                    tags
                };
                assert_eq!((differences.ours(), differences.theirs()), (&sorted(own)[..], &sorted(other)[..]));
            }
            (Err(Undecided::Repeated), false) => panic!("no tag is there twice"),
            _ => {}
        }
        return;
    }
    while !take.is_empty() && !wire.is_empty() {
        let at = take.short() % wire.len();
        wire[at] ^= take.byte();
    }
    if let Some(damaged) = decode(&wire, cells, split, theirs.len() as u64) {
        let _ = check_told(&ours, &damaged);
    }
}

/// Decodes the cells in two parts; what decodes has the bytes that were read.
fn decode(wire: &[u8], cells: usize, split: usize, elements: u64) -> Option<Sketch> {
    let mut reader = Reader::new(wire);
    let limits = Limits::default().chunks(CELLS_MAX);
    let mut part = |cells| Sketch::decode(key(), cells, elements, &mut reader, &limits).ok();
    let mut sketch = part(0..split)?;
    sketch.append(part(split..cells)?);
    assert_eq!((sketch.range(), u64::from(sketch.elements())), (0..cells, elements));
    let mut again = Vec::new();
    sketch.encode(&mut again);
    assert_eq!(wire[..wire.len() - reader.rest().len()], again, "a cell has one form");
    Some(sketch)
}

/// Differences that are told make their cells of our set, if it can have them.
fn check_told(ours: &[Tag], theirs: &Sketch) -> Result<Differences, Undecided> {
    let cells = theirs.range();
    let told = Differences::between(&Sketch::of(key(), cells.clone(), ours.iter().copied()), theirs);
    match &told {
        Ok(differences) => {
            assert!(differences.len() <= cells.len(), "a cell gives one element at most");
            let mut made = ours.to_vec();
            let has_all = differences.ours().iter().all(|tag| {
                let place = made.iter().position(|other| other == tag);
                place.map(|place| made.swap_remove(place)).is_some()
            });
            made.extend(differences.theirs());
            assert!(!has_all || Sketch::of(key(), cells, made) == *theirs, "ours and the differences make theirs");
        }
        Err(Undecided::TooFew(estimate)) => {
            assert!(estimate.cells > cells.len() && estimate.cells <= Sketch::CELLS_MAX);
            assert!(estimate.differences <= ours.len() as u64 + u64::from(theirs.elements()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    told
}

pub(super) fn sketch_seeds() -> Vec<Seed> {
    let recipe = |flags: u8, cells: u16, split: u16, sets: [u8; 3], rest: &[u8]| {
        [&[flags][..], &cells.to_le_bytes(), &split.to_le_bytes(), &sets, rest].concat()
    };
    let wire = |elements: u64, cells| {
        let tags = (0..elements).map(|i| Tag::from_bytes([i as u8, 1, 2, 3, 4, 5]));
        let mut wire = Vec::new();
        Sketch::of(key(), 0..cells, tags).encode(&mut wire);
        wire
    };
    let lone = {
        // An element in the first of its cells only.
        let empty = wire(0, 40);
        [&wire(1, 1)[..], &empty[10..]].concat()
    };
    vec![
        Seed::new("nothing", recipe(0, 0, 0, [0, 0, 0], &[])),
        Seed::new("same", recipe(0, 32, 7, [200, 0, 0], &[])),
        Seed::new("few", recipe(0, 32, 32, [200, 3, 4], &[])),
        Seed::new("many", recipe(0, 500, 32, [20, 150, 140], &[])),
        Seed::new("too-few", recipe(0, 64, 0, [100, 200, 10], &[])),
        Seed::new("one-cell", recipe(0, 1, 1, [100, 1, 0], &[])),
        Seed::new("repeated", recipe(2, 300, 5, [60, 10, 10], &[])),
        Seed::new("damaged", recipe(0, 64, 9, [50, 5, 5], &[9, 1, 4])),
        Seed::new("damaged-count", recipe(0, 64, 9, [50, 5, 5], &[19, 0, 2, 10, 0, 1])),
        Seed::new("made-up", recipe(1, 32, 0, [5, 0, 5], &wire(10, 32))),
        Seed::new("alone-in-one-cell", recipe(1, 40, 0, [0, 0, 1], &lone)),
        Seed::new("cut", recipe(1, 32, 0, [5, 0, 5], &wire(10, 31))),
        Seed::new("zeros", recipe(1, 20, 0, [0, 9, 0], &[0; 200])),
    ]
}
