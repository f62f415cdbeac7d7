//! A packed copy and a layer over it: the bytes of a newer version, of which most are where they were.
//!
//! The layer is a packed copy of its own. It holds the bytes that are new, and behind them which piece of the version lies
//! where: so a small change of a large tree costs what has changed, and not the reading and packing of all of it. A layer
//! never lies over another one: what is still needed of the last is taken over. It is given up for a new copy once it has
//! more than an eighth of the whole.
//!
//! | field of what is packed | bytes | |
//! |---|---|---|
//! | fresh | | one piece after the other |
//! | pieces | varints | for each its length, and its start less the end of the one before, with its sign: at 0 begins the copy, and behind it the fresh bytes |
//! | length | 8 | of the pieces in bytes, the least significant first |
//!
//! Invariant: no piece lies in both, and all that is read lies in one of them.

use std::fs::File;
use std::io;

use deltasync_core::{ChunkList, ChunkRun, Cutter, Digest, Hasher, Malformed, Reader, write_signed, write_varint};

use super::packed::{PackedFile, Packer, damaged};
use super::record::Check;
use crate::source::{Original, Source, with_buffer};

/// The layer may hold so much of the whole, or [`LEAST`] bytes.
const SHARE: u64 = 8;
const LEAST: u64 = 64 << 10;

/// The most pieces; each takes 24 bytes of memory.
const PIECES: usize = 1 << 18;

/// The bytes behind the pieces.
const END: u64 = 8;

/// A packed copy and a layer over it, open for reading.
#[derive(Debug)]
pub(crate) struct LayeredFile {
    base: PackedFile,
    layer: PackedFile,
    pieces: Vec<Piece>,
    len: u64,
}

/// Bytes of the version that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Where they begin in the version.
    at: u64,
    /// Where they lie: at 0 begins the copy, and behind it the layer.
    from: u64,
    len: u64,
}

impl LayeredFile {
    /// Opens a copy with its layer.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] when the layer is none, or not one of this copy.
    pub(super) fn open(base: PackedFile, layer: PackedFile) -> io::Result<Self> {
        let at_end = layer.len().checked_sub(END).ok_or_else(damaged)?;
        let mut end = [0; END as usize];
        layer.read_exact_at(&mut end, at_end)?;
        let len = u64::from_le_bytes(end);
        let fresh = at_end.checked_sub(len).ok_or_else(damaged)?;
        // No more than the file has, of which the packing is checked.
        let mut encoded = vec![0; usize::try_from(len).map_err(|_| damaged())?];
        layer.read_exact_at(&mut encoded, fresh)?;
        let pieces = decode(&encoded, base.len(), fresh).map_err(|_| damaged())?;
        let len = pieces.last().map_or(0, |last| last.at + last.len);
        Ok(Self { base, layer, pieces, len })
    }

    /// The number of bytes of the version.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The copy, which is the older file.
    pub(crate) fn base(&self) -> &PackedFile {
        &self.base
    }

    /// Fills `piece` with the bytes of the version from offset `at` on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] when it has fewer; [`io::ErrorKind::InvalidData`] when a frame is damaged.
    pub(crate) fn read_exact_at(&self, mut piece: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(piece.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        for Piece { from, len, .. } in self.pieces_in(at, end) {
            let (now, later) = piece.split_at_mut(usize::try_from(len).expect("no longer than the piece"));
            match from.checked_sub(self.base.len()) {
                None => self.base.read_exact_at(now, from)?,
                Some(fresh) => self.layer.read_exact_at(now, fresh)?,
            }
            piece = later;
        }
        Ok(())
    }

    /// The pieces of a range that lies within the version, cut to it.
    fn pieces_in(&self, start: u64, end: u64) -> impl Iterator<Item = Piece> + '_ {
        let index = self.pieces.partition_point(|piece| piece.at + piece.len <= start);
        let pieces = self.pieces[index..].iter().take_while(move |piece| piece.at < end);
        pieces.map(move |piece| {
            let at = piece.at.max(start);
            let skipped = at - piece.at;
            Piece { at, from: piece.from + skipped, len: (piece.len - skipped).min(end - at) }
        })
    }
}

fn decode(encoded: &[u8], base: u64, fresh: u64) -> Result<Vec<Piece>, Malformed> {
    let wrong = || Malformed::Value("a piece lies where there is nothing");
    let all = base.checked_add(fresh).ok_or_else(wrong)?;
    let (mut pieces, mut at, mut last) = (Vec::new(), 0u64, 0u64);
    let mut reader = Reader::new(encoded);
    while !reader.is_empty() {
        let len = reader.varint()?;
        let from = last.checked_add_signed(reader.signed()?).ok_or_else(wrong)?;
        last = from.checked_add(len).filter(|end| len > 0 && *end <= all).ok_or_else(wrong)?;
        if from < base && last > base || pieces.len() == PIECES {
            return Err(wrong());
        }
        pieces.push(Piece { at, from, len });
        at = at.checked_add(len).ok_or_else(wrong)?;
    }
    Ok(pieces)
}

/// The pieces of a version in the making.
#[derive(Debug, Default)]
struct Layout {
    pieces: Vec<Piece>,
    /// How many fresh bytes there are.
    fresh: u64,
    len: u64,
}

impl Layout {
    /// Adds a piece, which becomes one with the last where it continues that.
    fn add(&mut self, from: u64, len: u64, base: u64) {
        let at = self.len;
        self.len += len;
        match self.pieces.last_mut() {
            Some(last) if last.from + last.len == from && from != base => last.len += len,
            _ => self.pieces.push(Piece { at, from, len }),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), 0u64);
        for piece in &self.pieces {
            write_varint(&mut out, piece.len);
            write_signed(&mut out, piece.from.wrapping_sub(last).cast_signed());
            last = piece.from + piece.len;
        }
        let len = out.len() as u64;
        out.extend_from_slice(&len.to_le_bytes());
        out
    }
}

/// Writes to `out`, which is empty, the layer that makes of what is kept of an older version what is to be kept of
/// `source`; `None` when that would be too much, or what is kept is no copy in frames, or the bytes are not those that were
/// described. Chunks of both are equal where their digests are, as the two ends take them to be.
pub(super) fn write_layer(
    source: &dyn Original,
    chunks: &ChunkList,
    (older_chunks, older): (&ChunkList, &Source),
    out: &File,
) -> io::Result<Option<Check>> {
    let kind = |chunks: &ChunkList| (chunks.cutter(), chunks.algorithm());
    let base = match older {
        Source::Packed(base) => base.len(),
        Source::Layered(layered) => layered.base.len(),
        Source::File(_) | Source::Joined(_) => return Ok(None),
    };
    if kind(older_chunks) != kind(chunks) {
        return Ok(None);
    }
    let mut places = Places::of(older_chunks);
    let mut layer = Layer { layout: Layout::default(), packer: Packer::new(out), base };
    let most = (chunks.len().get() / SHARE).max(LEAST);
    let mut at = 0;
    for run in chunks.runs() {
        let (len, place) = (u64::from(run.len), places.find(&run.digest));
        for _ in 0..run.count {
            let is_well = match place {
                Some(from) => layer.copy(older, from, len).map(|()| true)?,
                None => layer.add(source, (at, len), check_of_chunk(chunks, run))?,
            };
            at += len;
            if !is_well || layer.layout.fresh > most || layer.layout.pieces.len() > PIECES {
                return Ok(None);
            }
        }
    }
    let Layer { layout, mut packer, .. } = layer;
    packer.push(&layout.encode())?;
    Ok(Some(packer.finish()?.1))
}

/// Where the chunks of an older version begin in it, without a table of all digests: the next chunk of a version is mostly the
/// next one of the older, or the one behind that. Only where it is not the older ones are sorted, once.
struct Places<'a> {
    runs: &'a [ChunkRun],
    starts: Vec<u64>,
    /// Indices of the runs, by their digests; empty while none was looked for.
    sorted: Vec<u32>,
    next: usize,
}

impl<'a> Places<'a> {
    fn of(chunks: &'a ChunkList) -> Self {
        let mut at = 0;
        let start = |run: &ChunkRun| {
            at += run.bytes().get();
            at - run.bytes().get()
        };
        let runs = chunks.runs();
        Self { runs, starts: runs.iter().map(start).collect(), sorted: Vec::new(), next: 0 }
    }

    /// Where a chunk of this digest begins, if there is one.
    fn find(&mut self, digest: &Digest) -> Option<u64> {
        let is_it = |index: &usize| self.runs.get(*index).is_some_and(|run| run.digest == *digest);
        let index = match [self.next, self.next + 1].into_iter().find(is_it) {
            Some(index) => index,
            None => self.look_for(digest)?,
        };
        self.next = index + 1;
        Some(self.starts[index])
    }

    fn look_for(&mut self, digest: &Digest) -> Option<usize> {
        let runs = self.runs;
        let digest_of = |index: u32| runs[index as usize].digest;
        if self.sorted.is_empty() {
            self.sorted = (0..u32::try_from(runs.len()).ok()?).collect();
            self.sorted.sort_unstable_by_key(|index| digest_of(*index));
        }
        let found = self.sorted.binary_search_by_key(digest, |index| digest_of(*index)).ok()?;
        Some(self.sorted[found] as usize)
    }
}

/// What a chunk is checked by when it is read again: one of a tree's archive has a digest of something else, and each file of
/// that is looked at when it is read.
fn check_of_chunk(chunks: &ChunkList, run: &ChunkRun) -> Option<(Hasher, Digest)> {
    (chunks.cutter() != Cutter::Entries).then(|| (chunks.algorithm().hasher(), run.digest))
}

/// A layer in the making.
struct Layer<'a> {
    layout: Layout,
    packer: Packer<&'a File>,
    /// The length of the copy.
    base: u64,
}

impl Layer<'_> {
    /// Goes on with bytes of the older version.
    fn copy(&mut self, older: &Source, from: u64, len: u64) -> io::Result<()> {
        let Source::Layered(layered) = older else {
            self.layout.add(from, len, self.base);
            return Ok(());
        };
        for piece in layered.pieces_in(from, from + len) {
            if piece.from < self.base {
                self.layout.add(piece.from, piece.len, self.base);
            } else {
                self.push(piece.len, None, |bytes, skipped| layered.read_exact_at(bytes, piece.at + skipped))?;
            }
        }
        Ok(())
    }

    /// Goes on with bytes of the newer version; false when they are not those that were described.
    fn add(
        &mut self,
        source: &dyn Original,
        (at, len): (u64, u64),
        check: Option<(Hasher, Digest)>,
    ) -> io::Result<bool> {
        self.push(len, check, |bytes, skipped| source.read_exact_at(bytes, at + skipped))
    }

    fn push(
        &mut self,
        len: u64,
        mut check: Option<(Hasher, Digest)>,
        read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<bool> {
        with_buffer(|buffer| {
            let mut done = 0;
            while done < len {
                let piece = buffer.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
                read(&mut buffer[..piece], done)?;
                check.iter_mut().for_each(|(hasher, _)| hasher.update(&buffer[..piece]));
                self.packer.push(&buffer[..piece])?;
                done += piece as u64;
            }
            io::Result::Ok(())
        })?;
        self.layout.add(self.base + self.layout.fresh, len, self.base);
        self.layout.fresh += len;
        Ok(check.is_none_or(|(hasher, digest)| hasher.finish() == digest))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use deltasync_core::Algorithm;

    use super::*;
    use crate::disk::AnyFile;
    use crate::laws::noise;

    /// Chunks of an older version are found wherever they stand, also those that are met in another order, and no others.
    #[test]
    fn places_of_chunks_are_found_in_any_order() {
        let bytes = noise(200 << 10, 11);
        let chunks = ChunkList::of(&bytes, Cutter::Fixed { size: 1024 }, Algorithm::Blake3);
        let digest = |index: usize| Algorithm::Blake3.digest(&bytes[1024 * index..1024 * (index + 1)]);
        let mut places = Places::of(&chunks);
        for index in [0, 1, 3, 4, 2, 2, 199, 0, 120, 121, 123] {
            assert_eq!(places.find(&digest(index)), Some(1024 * index as u64), "{index}");
            assert_eq!(places.find(&Algorithm::Blake3.digest(b"another")), None);
        }
    }

    fn file(bytes: &[u8]) -> AnyFile {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file.into()
    }

    fn packed(bytes: &[u8]) -> PackedFile {
        let mut packer = Packer::new(Vec::new());
        packer.push(bytes).expect("memory takes it");
        let (bytes, check) = packer.finish().expect("memory takes it");
        PackedFile::open(file(&bytes), check, None).expect("it is whole")
    }

    fn list(bytes: &[u8]) -> ChunkList {
        ChunkList::of(bytes, Cutter::for_file(deltasync_core::ByteLen::of(bytes), b""), Algorithm::Blake3)
    }

    /// What is kept of `newer` over what is kept of `older`.
    fn layer(newer: &[u8], (older, kept): (&[u8], &Source), copy: &[u8]) -> Option<Source> {
        let out = tempfile::tempfile().expect("a temporary file");
        let source = Source::File(file(newer));
        let check = write_layer(&source, &list(newer), (&list(older), kept), &out).expect("all can be read")?;
        let layer = PackedFile::open(out.into(), check, None).expect("it is whole");
        Some(Source::Layered(LayeredFile::open(packed(copy), layer).expect("it is whole")))
    }

    #[track_caller]
    fn check_reads(kept: &Source, bytes: &[u8]) {
        assert_eq!(kept.len().expect("known"), bytes.len() as u64);
        let mut at = 0;
        for step in [1, 3000, 77_777, 300_000].into_iter().cycle() {
            let end = bytes.len().min(at + step);
            let mut piece = vec![0; end - at];
            kept.read_exact_at(&mut piece, at as u64).expect("it is there");
            assert!(piece == bytes[at..end], "{at}..{end}");
            at = end;
            if at == bytes.len() {
                break;
            }
        }
        let error = kept.read_exact_at(&mut [0; 2], bytes.len() as u64 - 1).expect_err("past its end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn each_version_over_the_one_before_reads_as_it_is() {
        let copy = noise(3 << 20, 1);
        let (mut version, mut kept) = (copy.clone(), Source::Packed(packed(&copy)));
        for number in 2..12u64 {
            let mut next = version.clone();
            let at = (number as usize * 1_234_567) % next.len();
            match number % 3 {
                0 => drop(next.splice(at..at, noise(5000, number))),
                1 => drop(next.drain(at..(at + 9000).min(version.len()))),
                _ => next[at..].iter_mut().take(100).for_each(|byte| *byte ^= 1),
            }
            kept = layer(&next, (&version, &kept), &copy).expect("little is new");
            check_reads(&kept, &next);
            version = next;
        }
        // And back again: nothing is new.
        let kept = layer(&copy, (&version, &kept), &copy).expect("little is new");
        check_reads(&kept, &copy);
    }

    #[test]
    fn what_is_largely_new_is_no_layer_and_neither_is_what_is_not_what_was_described() {
        let copy = noise(20 << 20, 1);
        let kept = Source::Packed(packed(&copy));
        let mut newer = copy.clone();
        newer[..3 << 20].copy_from_slice(&noise(3 << 20, 2));
        assert!(layer(&newer, (&copy, &kept), &copy).is_none());
        newer[1 << 20..].copy_from_slice(&copy[1 << 20..]);
        let (source, out) = (Source::File(file(&copy)), tempfile::tempfile().expect("a temporary file"));
        let written = write_layer(&source, &list(&newer), (&list(&copy), &kept), &out).expect("all can be read");
        assert_eq!(written, None, "the file is still the older one");
    }

    #[test]
    fn pieces_that_lie_nowhere_are_refused() {
        let encode = |pieces: &[(u64, i64)]| {
            let mut out = Vec::new();
            for (len, skip) in pieces {
                write_varint(&mut out, *len);
                write_signed(&mut out, *skip);
            }
            out
        };
        assert_eq!(decode(&encode(&[(5, 0), (5, 5), (5, -15)]), 10, 5).map(|pieces| pieces.len()), Ok(3));
        for pieces in [
            &[(0, 0)][..],
            &[(5, -1)],
            &[(11, 0)],
            &[(5, 11)],
            &[(16, 0)],
            &[(5, 0), (u64::MAX, 0)],
            &[(1, i64::MAX), (1, i64::MAX)],
        ] {
            assert!(decode(&encode(pieces), 10, 5).is_err(), "{pieces:?}");
        }
        assert!(decode(&[5], 10, 5).is_err(), "cut");
    }
}
