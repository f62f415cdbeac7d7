//! A signature is a file that anyone can write: a million blocks under a few weak sums, or under one anchor, against a target
//! that is nothing but candidates. Index and search take some times what random data takes, not its square.
//!
//! The time is that of the thread, in the same run as the random data's, so neither machine nor build matters much.

use deltasync_core::{DeltaSummary, Differ, RollingSum, Signature, SignatureIndex};

use super::costs::thread_time;
use super::counting::peak;
use super::*;

const BLOCKS: usize = 1 << 20;
/// Long, so that a sum in vain is dear, and there are many places for an anchor.
const BLOCK: usize = 64 << 10;
/// Longer than the periods that the differ skips: every window of the target is looked up.
const PERIOD: usize = 17;
const TARGET: usize = 1 << 20;
const STRONG: usize = 8;
/// How long the fields of a signature of one block are that stand before its sums.
const HEAD: usize = 7 + 3 + 3;

/// The index may take so many bytes a block, the signature itself counted.
const INDEX_MAX: usize = 96;
/// The search may hold so many bytes: windows, and the pieces of one push.
const SEARCH_MAX: usize = 4 << 20;
/// How many times as long as that of random blocks an index may take.
const INDEX_TIMES: u32 = 100;
/// How many times as long as in random data a search may take that rolls over every byte: one that took the strong sum of
/// every candidate would take over a thousand.
const ROLLING_TIMES: u32 = 50;
/// The same where only anchors are looked at, which costs next to nothing in random data.
const ANCHORED_TIMES: u32 = 1000;

/// What a block claims: its weak sum, and where its anchor stands under which key, if it has one.
type Claim = (u32, Option<(u16, u32)>);

/// A signature of these blocks, with strong sums that are all different, as a file.
fn forged(claim: impl Fn(usize) -> Claim) -> Vec<u8> {
    let claims: Vec<Claim> = (0..BLOCKS).map(claim).collect();
    let anchored = claims[0].1.is_some();
    let mut bytes = vec![0xd5, b's', b'i', b'g', if anchored { 2 } else { 1 }, 0, STRONG as u8];
    write_varint(&mut bytes, (BLOCKS * BLOCK) as u64);
    write_varint(&mut bytes, BLOCK as u64);
    claims.iter().for_each(|(weak, _)| bytes.extend_from_slice(&weak.to_le_bytes()));
    (0..BLOCKS as u64).for_each(|block| bytes.extend_from_slice(&block.to_be_bytes()));
    let anchors = || claims.iter().filter_map(|(_, anchor)| *anchor);
    anchors().for_each(|(at, _)| bytes.extend_from_slice(&at.to_le_bytes()));
    anchors().for_each(|(_, key)| bytes.extend_from_slice(&key.to_le_bytes()));
    bytes
}

/// What is done with such a file, and what it took.
struct Cost {
    index: Duration,
    search: Duration,
}

fn cost(name: &str, file: &[u8], target: &[u8]) -> Cost {
    let begin = thread_time();
    let (index, held) = peak(|| {
        let signature = Signature::decode(file, &Limits::default()).expect("it is well formed");
        Arc::new(SignatureIndex::new(signature))
    });
    let indexed = thread_time();
    let search = || -> DeltaSummary {
        let mut differ = Differ::new(Arc::clone(&index), &Limits::default());
        for part in target.chunks(100_000) {
            differ.push(part);
            while differ.next_piece().is_some() {}
        }
        differ.finish(Digest::default()).1
    };
    let (summary, searched) = peak(search);
    let cost = Cost { index: indexed - begin, search: thread_time() - indexed };
    assert_eq!(summary.literal, ByteLen::of(target), "{name}: nothing is copied that is not there");
    assert!(held <= BLOCKS * INDEX_MAX, "{name}: an index of {held} bytes");
    assert!(searched <= SEARCH_MAX, "{name}: {searched} bytes to search");
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "| {name} | {:.1} ms | {} MiB | {:.1} ms | {} KiB |",
        ms(cost.index),
        held >> 20,
        ms(cost.search),
        searched >> 10
    );
    cost
}

fn check_bounded(name: &str, hostile: &Cost, random: &Cost, times: u32) {
    assert!(hostile.index <= random.index * INDEX_TIMES, "{name}: {:?} to index, {:?}", hostile.index, random.index);
    assert!(hostile.search <= random.search * times, "{name}: {:?} to search, {:?}", hostile.search, random.search);
}

/// The sum of the window of `pattern`, over and over, that begins at a phase of it.
fn sums_of(pattern: &[u8]) -> Vec<u32> {
    let bytes = pattern.repeat(BLOCK / pattern.len() + 2);
    (0..pattern.len()).map(|phase| RollingSum::of(&bytes[phase..][..BLOCK]).value()).collect()
}

#[test]
fn a_million_equal_weak_sums() {
    let mut rng = Rng::new(8);
    let unrelated = rng.bytes(TARGET);
    let sums: Vec<u32> = rng.bytes(4 * BLOCKS).as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
    let random = cost("random data", &forged(|block| (sums[block], None)), &unrelated);

    let constant = vec![100; TARGET];
    let sum = RollingSum::of(&constant[..BLOCK]).value();
    let one = cost("one weak sum, at every byte", &forged(|_| (sum, None)), &constant);
    check_bounded("one weak sum", &one, &random, ROLLING_TIMES);

    let pattern = rng.bytes(PERIOD);
    let sums = sums_of(&pattern);
    let target = pattern.repeat(TARGET / PERIOD);
    let few = cost("17 weak sums, one at every byte", &forged(|block| (sums[block % PERIOD], None)), &target);
    check_bounded("17 weak sums", &few, &random, ROLLING_TIMES);
}

/// A pattern whose windows have an anchor, where in the pattern that stands, and its key.
fn anchored_pattern(rng: &mut Rng) -> (Vec<u8>, usize, u32) {
    loop {
        let pattern = rng.bytes(PERIOD);
        let basis = &pattern.repeat(BLOCK)[..BLOCK];
        let mut signer =
            Signature::builder(ByteLen::of(basis)).block_len(BLOCK).build(&Limits::default()).expect("a shape");
        signer.push(basis);
        let (signature, mut bytes) = (signer.finish().expect("as long as announced"), Vec::new());
        signature.encode(&mut bytes);
        // The one anchor ends the file, its key behind its position.
        let [.., a, b, c, d, e, f] = bytes[..] else { continue };
        let at = usize::from(u16::from_le_bytes([a, b]));
        // Without an anchor it ends with the position.
        if bytes.len() == HEAD + 4 + signature.strong_len() + 6 {
            return (pattern, at % PERIOD, u32::from_le_bytes([c, d, e, f]));
        }
    }
}

#[test]
fn a_million_blocks_under_one_anchor() {
    let mut rng = Rng::new(9);
    let unrelated = rng.bytes(TARGET);
    let keys: Vec<u32> = rng.bytes(4 * BLOCKS).as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
    // As many places as an anchor can have in a block.
    let place = |block: usize| (block % (BLOCK - 31)) as u16;
    let random = forged(|block| (keys[block].rotate_left(9), Some((place(block), keys[block]))));
    let random = cost("random anchors", &random, &unrelated);

    let (pattern, at, key) = anchored_pattern(&mut rng);
    let sums = sums_of(&pattern);
    let target = pattern.repeat(TARGET / PERIOD);
    // A block whose anchor stands at `place` begins so much before it.
    let phase = |place: u16| (at + BLOCK * PERIOD - usize::from(place)) % PERIOD;
    let sound = forged(|block| (sums[phase(place(block))], Some((place(block), key))));
    let sound = cost("one anchor, and the weak sums there", &sound, &target);
    check_bounded("one anchor, and the weak sums there", &sound, &random, ANCHORED_TIMES);
    let other = forged(|block| (block as u32, Some((place(block), key))));
    let other = cost("one anchor, and no weak sum there", &other, &target);
    check_bounded("one anchor, and no weak sum there", &other, &random, ANCHORED_TIMES);
}
