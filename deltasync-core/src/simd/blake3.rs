//! BLAKE3 of many pieces at once: one compression in each lane.
//!
//! BLAKE3 hashes 1 KiB leaves, each block by block, and joins them in a tree. A single piece of a few leaves leaves most
//! lanes empty, so here the leaves of all pieces of a batch are laid into the lanes together, the longest first, so that
//! those that share a vector end at about the same time; then each level of all trees, node by node. A lane has its own
//! counter, block length and flags, so pieces may have any length. An odd node of a level moves up as it is, which makes
//! the very tree of BLAKE3, whose left subtrees are powers of two. The lanes read from 16 places at once, which no
//! processor foresees, so each vector of full leaves has the next one fetched: half as fast again where the bytes are not
//! in the cache.
//!
//! Cost: 7 rounds a block for 8 or 16 blocks at once. Memory: 32 bytes a leaf of the batch.
//!
//! Invariant: the digests are those of `blake3::hash`, byte for byte.
//!
//! Source: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), sections 2.1 to 2.5.
#![allow(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::Lanes;

const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Which message word each round takes where.
const SCHEDULE: [[usize; 16]; 7] = schedule();

const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

/// The length of a block and of a leaf, in bytes.
const BLOCK: usize = 64;
const LEAF: usize = 1024;

/// A chaining value, or a digest, as words.
type Words = [u32; 8];

const fn schedule() -> [[usize; 16]; 7] {
    const STEP: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut rounds = [[0; 16]; 7];
    let mut i = 0;
    while i < 16 {
        rounds[0][i] = i;
        i += 1;
    }
    let mut round = 1;
    while round < 7 {
        let mut i = 0;
        while i < 16 {
            rounds[round][i] = rounds[round - 1][STEP[i]];
            i += 1;
        }
        round += 1;
    }
    rounds
}

/// What goes into the compressions of one step, a column a lane.
struct Step<'a, const N: usize> {
    blocks: [&'a [u8; BLOCK]; N],
    counters: [u64; N],
    lens: [u32; N],
    flags: [u32; N],
}

impl<const N: usize> Step<'_, N> {
    const fn new() -> Self {
        Self { blocks: [&[0; BLOCK]; N], counters: [0; N], lens: [0; N], flags: [0; N] }
    }
}

/// Chaining values, `[word][lane]`.
type Values<const N: usize> = [[u32; N]; 8];

/// Compresses one block in each lane.
trait Compress<const N: usize> {
    fn compress(values: &mut Values<N>, step: &Step<'_, N>);
}

/// A piece that is longer, in bytes, fills the lanes by itself.
const LONG: usize = 32 << 10;

/// Hands the digests of all pieces to `each`, in their order, and fetches `ahead` into the cache meanwhile. False without
/// lanes: then nothing has been done.
pub(crate) fn digests(lanes: Lanes, pieces: &[&[u8]], ahead: &[u8], each: impl FnMut([u8; 32])) -> bool {
    match lanes {
        Lanes::Portable => return false,
        Lanes::Avx2 => digests_in::<8, Avx2>(pieces, ahead, each),
        Lanes::Avx512 => digests_in::<16, Avx512>(pieces, ahead, each),
    }
    true
}

/// Where the nodes of a piece stand, those of its current level.
#[derive(Clone, Copy)]
struct Nodes {
    start: usize,
    /// None for a piece that is hashed by itself.
    count: usize,
}

fn digests_in<const N: usize, C: Compress<N>>(pieces: &[&[u8]], ahead: &[u8], mut each: impl FnMut([u8; 32])) {
    // One that leaves half of the lanes empty.
    if let [piece] = pieces
        && piece.len() <= N / 2 * LEAF
    {
        each(*::blake3::hash(piece).as_bytes());
        return;
    }
    let mut total = 0;
    let mut nodes: Vec<Nodes> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let count = if piece.len() > LONG { 0 } else { piece.len().div_ceil(LEAF).max(1) };
        nodes.push(Nodes { start: total, count });
        total += count;
    }
    let mut values = vec![Words::default(); total];
    hash_leaves::<N, C>(pieces, &nodes, ahead, &mut values);
    while nodes.iter().any(|nodes| nodes.count > 1) {
        hash_parents::<N, C>(&mut nodes, &mut values);
    }
    for (piece, nodes) in pieces.iter().zip(nodes) {
        each(match nodes.count {
            0 => *::blake3::hash(piece).as_bytes(),
            _ => to_bytes(&values[nodes.start..][..1]),
        });
    }
}

/// Words as bytes, in little-endian order.
fn to_bytes<const LEN: usize>(values: &[Words]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(values.as_flattened()) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

/// A leaf of a piece.
struct Leaf<'a> {
    bytes: &'a [u8],
    /// Which leaf of its piece it is.
    counter: u64,
    /// Where its value goes.
    node: usize,
    /// [`ROOT`] for the only leaf of a piece.
    root: u32,
}

impl Leaf<'_> {
    /// How many blocks stand before the last one.
    fn last(&self) -> usize {
        self.bytes.len().saturating_sub(1) / BLOCK
    }

    /// The blocks of a full leaf.
    fn blocks(&self) -> &[[u8; BLOCK]; LEAF / BLOCK] {
        self.bytes.as_chunks().0.first_chunk().expect("it is full")
    }
}

fn hash_leaves<const N: usize, C: Compress<N>>(
    pieces: &[&[u8]],
    nodes: &[Nodes],
    mut ahead: &[u8],
    values: &mut [Words],
) {
    let (mut full, mut short) = (Vec::with_capacity(values.len()), Vec::with_capacity(pieces.len()));
    for (piece, nodes) in pieces.iter().zip(nodes) {
        for i in 0..nodes.count {
            let bytes = &piece[i * LEAF..piece.len().min((i + 1) * LEAF)];
            let root = if nodes.count == 1 { ROOT } else { 0 };
            let leaf = Leaf { bytes, counter: i as u64, node: nodes.start + i, root };
            if bytes.len() == LEAF { full.push(leaf) } else { short.push(leaf) }
        }
    }
    let (groups, rest) = full.as_chunks::<N>();
    for (i, group) in groups.iter().enumerate() {
        hash_full::<N, C>(group, groups.get(i + 1), &mut ahead, values);
    }
    // The longest first, so that those in a vector end at about the same time.
    short.sort_unstable_by_key(|leaf: &Leaf<'_>| core::cmp::Reverse(leaf.bytes.len()));
    let mixed: Vec<&Leaf<'_>> = rest.iter().chain(&short).collect();
    mixed.chunks(N).for_each(|group| hash_group::<N, C>(group, &mut ahead, values));
}

/// Hashes as many full leaves as there are lanes, while those of the group behind them are fetched.
fn hash_full<const N: usize, C: Compress<N>>(
    group: &[Leaf<'_>; N],
    next: Option<&[Leaf<'_>; N]>,
    ahead: &mut &[u8],
    values: &mut [Words],
) {
    const LAST: usize = LEAF / BLOCK - 1;
    let mut state = initial();
    let mut step = Step::<N>::new();
    step.lens = [BLOCK as u32; N];
    for (counter, leaf) in step.counters.iter_mut().zip(group) {
        *counter = leaf.counter;
    }
    let leaves: [_; N] = core::array::from_fn(|lane| group[lane].blocks());
    let next: Option<[_; N]> = next.map(|next| core::array::from_fn(|lane| next[lane].blocks()));
    step.flags = [CHUNK_START; N];
    for block in 0..=LAST {
        match block {
            1 => step.flags = [0; N],
            LAST => step.flags = core::array::from_fn(|lane| CHUNK_END | group[lane].root),
            _ => {}
        }
        step.blocks = leaves.map(|blocks| &blocks[block]);
        if let Some(next) = &next {
            next.iter().for_each(|blocks| super::fetch_line(&blocks[block]));
        }
        super::fetch(ahead, N * BLOCK);
        C::compress(&mut state, &step);
    }
    for (lane, leaf) in group.iter().enumerate() {
        values[leaf.node] = state.map(|word| word[lane]);
    }
}

/// Hashes at most as many leaves as there are lanes, of which the first is the longest.
fn hash_group<const N: usize, C: Compress<N>>(group: &[&Leaf<'_>], ahead: &mut &[u8], values: &mut [Words]) {
    let mut state = initial();
    let mut step = Step::<N>::new();
    // The last blocks, with zeros behind their bytes.
    let mut ends = [[0; BLOCK]; N];
    for (lane, leaf) in group.iter().enumerate() {
        step.counters[lane] = leaf.counter;
        let end = &leaf.bytes[leaf.last() * BLOCK..];
        ends[lane][..end.len()].copy_from_slice(end);
    }
    for block in 0..=group[0].last() {
        let start = if block == 0 { CHUNK_START } else { 0 };
        for (lane, leaf) in group.iter().enumerate() {
            if block < leaf.last() {
                step.blocks[lane] = &leaf.bytes.as_chunks().0[block];
                (step.lens[lane], step.flags[lane]) = (BLOCK as u32, start);
            } else if block == leaf.last() {
                step.blocks[lane] = &ends[lane];
                step.lens[lane] = (leaf.bytes.len() - block * BLOCK) as u32;
                step.flags[lane] = start | CHUNK_END | leaf.root;
            }
        }
        super::fetch(ahead, N * BLOCK);
        C::compress(&mut state, &step);
        // A lane that has ended goes on with what does not matter: its value is taken now.
        for (lane, leaf) in group.iter().enumerate().filter(|(_, leaf)| leaf.last() == block) {
            values[leaf.node] = state.map(|word| word[lane]);
        }
    }
}

/// Joins the nodes of every piece two by two.
fn hash_parents<const N: usize, C: Compress<N>>(nodes: &mut [Nodes], values: &mut [Words]) {
    let mut pairs = Vec::with_capacity(values.len() / 2);
    for Nodes { start, count } in nodes.iter() {
        let flags = if *count == 2 { PARENT | ROOT } else { PARENT };
        pairs.extend((0..count / 2).map(|i| (start + 2 * i, start + i, flags)));
    }
    for group in pairs.chunks(N) {
        let mut children = [[0; BLOCK]; N];
        for (block, (from, ..)) in children.iter_mut().zip(group) {
            *block = to_bytes(&values[*from..][..2]);
        }
        let mut step = Step { blocks: children.each_ref(), ..Step::<N>::new() };
        for (lane, (.., flags)) in group.iter().enumerate() {
            (step.lens[lane], step.flags[lane]) = (BLOCK as u32, *flags);
        }
        let mut state = initial();
        C::compress(&mut state, &step);
        // In place: a parent stands no further back than the first of its children, which has been read.
        for (lane, (_, to, _)) in group.iter().enumerate() {
            values[*to] = state.map(|word| word[lane]);
        }
    }
    for Nodes { start, count } in nodes.iter_mut().filter(|nodes| nodes.count > 1) {
        if *count % 2 == 1 {
            values[*start + *count / 2] = values[*start + *count - 1];
        }
        *count = count.div_ceil(2);
    }
}

fn initial<const N: usize>() -> Values<N> {
    IV.map(|word| [word; N])
}

/// The rounds, in terms of the vectors of one instruction set.
macro_rules! compress {
    ($values:ident, $step:ident, $n:literal, $load:ident, $store:ident, $set:ident, $add:ident, $xor:ident, $r16:path,
     $r12:path, $r8:path, $r7:path, $transpose:path) => {{
        let message = $transpose(&$step.blocks);
        let mut v = [$set(0); 16];
        for i in 0..8 {
            v[i] = $load($values[i].as_ptr().cast());
        }
        for i in 0..4 {
            v[8 + i] = $set(IV[i] as i32);
        }
        let low: [u32; $n] = core::array::from_fn(|lane| $step.counters[lane] as u32);
        let high: [u32; $n] = core::array::from_fn(|lane| ($step.counters[lane] >> 32) as u32);
        v[12] = $load(low.as_ptr().cast());
        v[13] = $load(high.as_ptr().cast());
        v[14] = $load($step.lens.as_ptr().cast());
        v[15] = $load($step.flags.as_ptr().cast());
        macro_rules! mix {
            ($a:literal, $b:literal, $c:literal, $d:literal, $x:expr, $y:expr) => {
                v[$a] = $add($add(v[$a], v[$b]), message[$x]);
                v[$d] = $r16($xor(v[$d], v[$a]));
                v[$c] = $add(v[$c], v[$d]);
                v[$b] = $r12($xor(v[$b], v[$c]));
                v[$a] = $add($add(v[$a], v[$b]), message[$y]);
                v[$d] = $r8($xor(v[$d], v[$a]));
                v[$c] = $add(v[$c], v[$d]);
                v[$b] = $r7($xor(v[$b], v[$c]));
            };
        }
        macro_rules! round {
            ($r:literal) => {
                mix!(0, 4, 8, 12, SCHEDULE[$r][0], SCHEDULE[$r][1]);
                mix!(1, 5, 9, 13, SCHEDULE[$r][2], SCHEDULE[$r][3]);
                mix!(2, 6, 10, 14, SCHEDULE[$r][4], SCHEDULE[$r][5]);
                mix!(3, 7, 11, 15, SCHEDULE[$r][6], SCHEDULE[$r][7]);
                mix!(0, 5, 10, 15, SCHEDULE[$r][8], SCHEDULE[$r][9]);
                mix!(1, 6, 11, 12, SCHEDULE[$r][10], SCHEDULE[$r][11]);
                mix!(2, 7, 8, 13, SCHEDULE[$r][12], SCHEDULE[$r][13]);
                mix!(3, 4, 9, 14, SCHEDULE[$r][14], SCHEDULE[$r][15]);
            };
        }
        round!(0);
        round!(1);
        round!(2);
        round!(3);
        round!(4);
        round!(5);
        round!(6);
        for i in 0..8 {
            $store($values[i].as_mut_ptr().cast(), $xor(v[i], v[8 + i]));
        }
    }};
}

struct Avx512;

impl Compress<16> for Avx512 {
    fn compress(values: &mut Values<16>, step: &Step<'_, 16>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn inner(values: &mut Values<16>, step: &Step<'_, 16>) {
            // SAFETY: every load and store is of 64 bytes of an array of 16 words.
            unsafe {
                compress!(
                    values,
                    step,
                    16,
                    _mm512_loadu_si512,
                    _mm512_storeu_si512,
                    _mm512_set1_epi32,
                    _mm512_add_epi32,
                    _mm512_xor_si512,
                    _mm512_ror_epi32::<16>,
                    _mm512_ror_epi32::<12>,
                    _mm512_ror_epi32::<8>,
                    _mm512_ror_epi32::<7>,
                    transpose16
                );
            }
        }
        // SAFETY: `digests` is called with these lanes only where the processor has them.
        unsafe { inner(values, step) }
    }
}

/// Word `i` of all blocks in vector `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn transpose16(blocks: &[&[u8; BLOCK]; 16]) -> [__m512i; 16] {
    // SAFETY: a block is as long as a vector.
    let rows: [__m512i; 16] = core::array::from_fn(|i| unsafe { _mm512_loadu_si512(blocks[i].as_ptr().cast()) });
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // Now vector 4 k + j holds, for blocks 4 k to 4 k + 3, word j of each 128-bit part.
    let mut message = fours;
    for j in 0..4 {
        let low01 = _mm512_shuffle_i32x4::<0b01_00_01_00>(fours[j], fours[4 + j]);
        let high01 = _mm512_shuffle_i32x4::<0b11_10_11_10>(fours[j], fours[4 + j]);
        let low23 = _mm512_shuffle_i32x4::<0b01_00_01_00>(fours[8 + j], fours[12 + j]);
        let high23 = _mm512_shuffle_i32x4::<0b11_10_11_10>(fours[8 + j], fours[12 + j]);
        message[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low01, low23);
        message[4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low01, low23);
        message[8 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high01, high23);
        message[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high01, high23);
    }
    message
}

struct Avx2;

impl Compress<8> for Avx2 {
    fn compress(values: &mut Values<8>, step: &Step<'_, 8>) {
        #[target_feature(enable = "avx2")]
        fn inner(values: &mut Values<8>, step: &Step<'_, 8>) {
            // SAFETY: every load and store is of 32 bytes of an array of 8 words.
            unsafe {
                compress!(
                    values,
                    step,
                    8,
                    _mm256_loadu_si256,
                    _mm256_storeu_si256,
                    _mm256_set1_epi32,
                    _mm256_add_epi32,
                    _mm256_xor_si256,
                    rotate16,
                    rotate12,
                    rotate8,
                    rotate7,
                    transpose8
                );
            }
        }
        // SAFETY: `digests` is called with these lanes only where the processor has them.
        unsafe { inner(values, step) }
    }
}

#[target_feature(enable = "avx2")]
fn rotate16(x: __m256i) -> __m256i {
    let order = _mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2);
    _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(order))
}

#[target_feature(enable = "avx2")]
fn rotate12(x: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi32::<12>(x), _mm256_slli_epi32::<20>(x))
}

#[target_feature(enable = "avx2")]
fn rotate8(x: __m256i) -> __m256i {
    let order = _mm_set_epi8(12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1);
    _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(order))
}

#[target_feature(enable = "avx2")]
fn rotate7(x: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_srli_epi32::<7>(x), _mm256_slli_epi32::<25>(x))
}

/// Word `i` of all blocks in vector `i`.
#[target_feature(enable = "avx2")]
fn transpose8(blocks: &[&[u8; BLOCK]; 8]) -> [__m256i; 16] {
    let mut message = [_mm256_setzero_si256(); 16];
    for half in 0..2 {
        // SAFETY: half of a block is as long as a vector.
        let rows: [__m256i; 8] =
            core::array::from_fn(|i| unsafe { _mm256_loadu_si256(blocks[i][half * 32..].as_ptr().cast()) });
        let mut pairs = rows;
        for i in (0..8).step_by(2) {
            pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        let mut fours = pairs;
        for i in (0..8).step_by(4) {
            fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
            fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
        }
        for j in 0..4 {
            message[half * 8 + j] = _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]);
            message[half * 8 + 4 + j] = _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::random;

    fn check_digests_are_those_of_blake3(pieces: &[&[u8]]) {
        let expected: Vec<[u8; 32]> = pieces.iter().map(|piece| *::blake3::hash(piece).as_bytes()).collect();
        for lanes in Lanes::all() {
            let mut found = Vec::new();
            if digests(lanes, pieces, pieces.last().unwrap_or(&&[][..]), |digest| found.push(digest)) {
                assert_eq!(found, expected, "{lanes:?}, {} pieces", pieces.len());
            } else {
                assert_eq!((lanes, found.len()), (Lanes::Portable, 0));
            }
        }
    }

    #[test]
    fn every_length_around_a_block_a_leaf_and_a_tree() {
        let bytes = random(1, 70_000);
        let around = |len: usize| len.saturating_sub(2)..=len + 2;
        let lens: Vec<usize> = [0, 64, 128, 960, 1024, 1088, 2048, 3072, 4096, 5120, 7168, 8192, 16_384, LONG, 65_536]
            .into_iter()
            .flat_map(around)
            .collect();
        let pieces: Vec<&[u8]> = lens.iter().map(|len| &bytes[70_000 - len..]).collect();
        check_digests_are_those_of_blake3(&pieces);
        pieces.iter().for_each(|piece| check_digests_are_those_of_blake3(&[piece]));
    }

    #[test]
    fn every_number_of_pieces_around_the_lanes() {
        let bytes = random(2, 40 * 3000);
        let pieces: Vec<&[u8]> = bytes.chunks(3000).collect();
        (0..=pieces.len()).for_each(|count| check_digests_are_those_of_blake3(&pieces[..count]));
    }

    proptest! {
        #[test]
        fn any_pieces(seed: u64, lens in prop::collection::vec(0usize..40_000, 0..40)) {
            let bytes = random(seed, 40_000);
            let pieces: Vec<&[u8]> = lens.iter().map(|len| &bytes[..*len]).collect();
            check_digests_are_those_of_blake3(&pieces);
        }
    }
}
