//! The stream of packed literals: hostile bytes, honest ones, and honest ones that were damaged.

use deltasync_core::{ByteLen, LiteralPacker, LiteralUnpacker};

use super::take::{Recipe, Take};
use crate::{Rng, Seed};

/// No stream of a run makes more, in bytes.
const LEN_MAX: usize = 1 << 14;
const LEVELS: [i32; 4] = [1, 3, 9, 19];

/// The bytes are a stream, else what is packed.
const HOSTILE: u8 = 1;
/// The prefix begins as a trained dictionary does.
const DICTIONARY: u8 = 2;
/// The two ends have other prefixes.
const OTHER_PREFIX: u8 = 4;
/// Some packed bytes are damaged.
const DAMAGED: u8 = 8;

/// Flags, level, the prefix; then pieces: of a stream, each with the length it says, or of what is packed.
pub(super) fn stream(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = take.byte();
    let level = LEVELS[usize::from(take.byte()) % LEVELS.len()];
    let len = take.short();
    let mut prefix = take.bytes(len).to_vec();
    if flags & DICTIONARY != 0 {
        prefix.splice(0..0, [0x37, 0xa4, 0x30, 0xec]);
    }
    if flags & HOSTILE != 0 {
        return check_hostile(&prefix, &mut take);
    }
    let damage = if flags & DAMAGED != 0 { Some((take.short(), take.byte())) } else { None };
    let pieces = take.byte();
    let lens: Vec<usize> = (0..pieces).map(|_| take.short()).collect();
    let raw = take.derived(&prefix, LEN_MAX);
    check_packed(&prefix, &raw, &lens, level, flags & OTHER_PREFIX != 0, damage);
}

/// What unpacks has the length that was said; after an error nothing does.
fn check_hostile(prefix: &[u8], take: &mut Take<'_>) {
    let mut unpacker = LiteralUnpacker::new(prefix).expect("a prefix may be anything");
    let mut failed = false;
    while !take.is_empty() {
        let (len, raw_len) = (take.short(), take.short());
        let packed = take.bytes(len);
        match unpacker.push(packed, raw_len) {
            Ok(raw) => {
                assert_eq!(raw.len(), raw_len, "as long as was said");
                assert!(!failed || packed.is_empty(), "nothing unpacks behind an error");
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                failed = true;
            }
        }
    }
}

/// What was packed in any pieces unpacks in these pieces.
fn check_packed(
    prefix: &[u8],
    raw: &[u8],
    lens: &[usize],
    level: i32,
    other_prefix: bool,
    damage: Option<(usize, u8)>,
) {
    let mut pieces = Vec::new();
    let mut rest = raw;
    for len in lens {
        let (piece, behind) = rest.split_at(rest.len().min(*len));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    let mut packer = LiteralPacker::new(prefix, ByteLen::of(raw), level).expect("the library works");
    let last = pieces.len() - 1;
    let pack = |(i, piece): (usize, &&[u8])| packer.push(piece, i == last).expect("the library works");
    let mut packed: Vec<Vec<u8>> = pieces.iter().enumerate().map(pack).collect();
    assert_eq!(packer.push(b"more", true), None, "the frame has ended");
    let mut sound = !other_prefix;
    let len: usize = packed.iter().map(Vec::len).sum();
    if let Some((at, change)) = damage
        && let Some(byte) = packed.iter_mut().flatten().nth(at % len.max(1))
    {
        *byte ^= change;
        sound &= change == 0;
    }
    let behind = if other_prefix { b"something else that is here".as_slice() } else { prefix };
    let mut unpacker = LiteralUnpacker::new(behind).expect("a prefix may be anything");
    for (packed, piece) in packed.iter().zip(&pieces) {
        match unpacker.push(packed, piece.len()) {
            Ok(made) if sound => assert!(made == *piece, "what was packed comes out"),
            Ok(made) => assert_eq!(made.len(), piece.len()),
            Err(error) if sound => panic!("our own stream: {error}"),
            Err(_) => return,
        }
    }
    if sound {
        assert!(unpacker.push(&[0], 0).is_err(), "nothing follows the end");
    }
}

pub(super) fn stream_seeds() -> Vec<Seed> {
    let prefix = Rng::new(2).bytes(300);
    let head = |flags: u8, level: u8, prefix: &[u8]| {
        [&[flags, level][..], &(prefix.len() as u16).to_le_bytes(), prefix].concat()
    };
    let seed = |name: &str, flags: u8, level: u8, prefix: &[u8], more: &[u8], lens: &[u16], recipe: Recipe| {
        let lens: Vec<u8> = lens.iter().flat_map(|len| len.to_le_bytes()).collect();
        let count = [(lens.len() / 2) as u8];
        Seed::new(name, [&head(flags, level, prefix), more, &count, &lens, &recipe.0].concat())
    };
    let text =
        || Recipe::default().literal(&b"text that packs ".repeat(8)).copy(0, 300).literal(b"an end").copy(3, 200);
    let hostile = |name: &str, flags: u8, prefix: &[u8], pieces: &[(&[u8], u16)]| {
        let piece = |(bytes, raw_len): &(&[u8], u16)| {
            [&(bytes.len() as u16).to_le_bytes()[..], &raw_len.to_le_bytes(), bytes].concat()
        };
        let pieces: Vec<u8> = pieces.iter().flat_map(piece).collect();
        Seed::new(name, [head(flags | HOSTILE, 0, prefix), pieces].concat())
    };
    let mut packer = LiteralPacker::new(&prefix, ByteLen::new(1000), 9).expect("the library works");
    let mut pack = |raw: &[u8], last| packer.push(raw, last).expect("the library works");
    let (first, second, third) = (pack(&b"row,".repeat(50), false), pack(&prefix[9..200], false), pack(b"end", true));
    let bomb = {
        let zeros = [0; LEN_MAX];
        let packer = LiteralPacker::new(&[], ByteLen::of(&zeros), 9);
        packer.and_then(|mut packer| packer.push(&zeros, true)).expect("the library works")
    };
    vec![
        seed("nothing", 0, 0, b"", &[], &[], Recipe::default()),
        seed("whole", 0, 1, b"", &[], &[], text()),
        seed("pieces", 0, 2, &prefix, &[], &[0, 1, 50, 0, 200], text()),
        seed("best", 0, 3, &prefix, &[], &[100], text()),
        seed("dictionary", DICTIONARY, 1, &prefix, &[], &[100], text()),
        seed("short-prefix", 0, 1, b"seven b", &[], &[20], text()),
        seed("other-prefix", OTHER_PREFIX, 1, &prefix, &[], &[100], text()),
        seed("damaged", DAMAGED, 1, &prefix, &[9, 0, 4], &[100], text()),
        seed("damaged-window", DAMAGED, 1, b"", &[1, 0, 0xf0], &[], text()),
        hostile("real", 0, &prefix, &[(&first, 200), (&second, 191), (&third, 3)]),
        hostile("cut-between", 0, &prefix, &[(&first[..9], 0), (&first[9..], 200)]),
        hostile("too-long", 0, &prefix, &[(&first, 199)]),
        hostile("too-short", 0, &prefix, &[(&first, 201), (&second, 191)]),
        hostile("behind-the-end", 0, &prefix, &[(&first, 200), (&second, 191), (&third, 3), (&third, 3)]),
        hostile("bomb", 0, b"", &[(&bomb, 100)]),
        hostile("largest-window", 0, b"", &[(&[0, 0xff, 1, 0, 0], 0)]),
    ]
}
