//! What is kept of the bytes of a file: a copy that shares its blocks, a packed one, or the sums of its blocks.
//!
//! A copy makes the smaller delta and sums take the smaller part of the quota, so small files get copies, and large ones
//! and long ones that do not pack get sums. A copy that shares its blocks takes disk only where the file changes later, at
//! most its whole length, so that is what counts. A packed copy is given up as soon as it passes its share.
//!
//! The sums of a file from [`SUMMED_AT_ONCE`] on are made while it is described ([`Summing`]), which saves a second pass
//! over it. For all else it is read again, and what is read is hashed beside, since a file that was changed through a
//! mapping may look as it did; in a long file on another core, in large pieces.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use deltasync_core::{Algorithm, ChunkList, Cutter, FineKey, FineShape, FineSummer, Hasher, Offset, is_dense};

use super::KeepForm;
use super::blobs::{Draft, Part};
use super::packed::Packer;
use super::record::{Check, Form};
use crate::disk::{AnyFile, DiskFile};
use crate::source::{Looks, Original, PIECE, with_buffer};

/// From this length on a piece is worth a thread that hashes it, in bytes.
const LARGE: usize = 1 << 20;

/// From this length on, in bytes, a file is summed while it is described: a shorter one is read again in a few milliseconds.
pub(crate) const SUMMED_AT_ONCE: u64 = 8 << 20;

/// A file that does not pack is not copied from this length on, in bytes: that takes longer than to describe it.
const DENSE: u64 = 16 << 20;

/// What each form may take.
struct Shares {
    form: KeepForm,
    /// In bytes: all there is, or when the form is for us to choose, less for what others might need too.
    shared: u64,
    raw: u64,
    packed: u64,
    sums: u64,
}

impl Shares {
    /// Of `room` bytes.
    fn new(form: KeepForm, room: u64) -> Self {
        let [shared, raw, packed, sums] = match form {
            KeepForm::Auto => [room / 2, room / 4, room / 8, room / 4],
            KeepForm::Copy => [room, u64::MAX, room, 0],
            KeepForm::Sums => [0, 0, 0, room],
        };
        Self { form, shared, raw, packed, sums }
    }

    /// True when a file of this length is to be shared, if that can be.
    fn may_share(&self, len: u64) -> bool {
        self.form != KeepForm::Sums && len <= self.shared
    }

    /// True when a file of this length, that cannot be shared, is to be packed.
    fn may_pack(&self, source: &dyn Original, len: u64) -> bool {
        let dense = || self.form == KeepForm::Auto && len >= DENSE && is_dense_throughout(source, len);
        self.form != KeepForm::Sums && len <= self.raw && !dense()
    }

    /// True when the sums of a file of this length may be kept.
    fn may_sum(&self, len: u64) -> bool {
        self.form != KeepForm::Copy && bytes_of_sums(len) <= self.sums
    }
}

fn bytes_of_sums(len: u64) -> u64 {
    FineShape::KEPT.sums_of(len).saturating_mul(SUM)
}

/// The bytes of a sum; the shape has 32 bits.
const SUM: u64 = 4;

/// The sums of a file in the making, while it is described. What cannot be written is missing at the end.
#[derive(Debug)]
pub(crate) struct Summing {
    draft: Draft,
    out: File,
    secret: [u8; 32],
    /// As it is before the first block.
    summer: FineSummer,
    /// How many bytes were written.
    written: AtomicU64,
}

impl Summing {
    /// Begins in a draft; `None` when a file of this length is to be kept in another form within `room` bytes.
    pub(super) fn begin(
        source: &dyn Original,
        len: u64,
        form: KeepForm,
        room: u64,
        draft: Draft,
    ) -> io::Result<Option<Self>> {
        let shares = Shares::new(form, room);
        if !shares.may_sum(len) || shares.may_pack(source, len) {
            return Ok(None);
        }
        let out = draft.create(Part::Bytes)?;
        if shares.may_share(len) && share(source, &out) {
            // It will be when it is remembered.
            return Ok(None);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let summer = FineSummer::new(FineKey::kept(&secret), FineShape::KEPT);
        Ok(Some(Self { draft, out, secret, summer, written: AtomicU64::new(0) }))
    }

    /// What [`add`](Self::add) takes, for one thread.
    pub(crate) fn summer(&self) -> FineSummer {
        self.summer.clone()
    }

    /// Adds the sums of blocks that start at an offset; from any thread, and in any order.
    pub(crate) fn add(&self, (start, blocks): (Offset, &[u8]), summer: &mut FineSummer) {
        summer.push(blocks);
        let sums = encode(summer.take());
        let at = bytes_of_sums(start.get());
        if self.out.write_all_at(&sums, at).is_ok() {
            self.written.fetch_add(sums.len() as u64, Ordering::AcqRel);
        }
    }

    /// The blob and what it is, once a whole file of this length was added; `None` when it was not, or does not fit.
    pub(super) fn finish(self, len: u64, form: KeepForm, room: u64) -> io::Result<Option<(Draft, Form, u64)>> {
        let bytes = self.written.into_inner();
        if bytes != bytes_of_sums(len) || !Shares::new(form, room).may_sum(len) {
            return Ok(None);
        }
        let check = check_of(&self.out.into())?;
        Ok(Some((self.draft, Form::Sums { check, secret: self.secret }, bytes)))
    }
}

/// The bytes of sums, one after the other.
fn encode(sums: Vec<u64>) -> Vec<u8> {
    sums.into_iter().flat_map(|sum| (sum as u32).to_le_bytes()).collect()
}

/// True when a file looks in many places as if nothing could pack it.
fn is_dense_throughout(source: &dyn Original, len: u64) -> bool {
    with_buffer(|buffer| {
        let part = PIECE / 16;
        let mut parts = (0..).zip(buffer.chunks_exact_mut(part));
        let step = len.saturating_sub(part as u64) / 15;
        parts.all(|(n, piece)| source.read_exact_at(piece, n * step).is_ok_and(|()| is_dense(piece)))
    })
}

/// Keeps a file in `out`, which is empty, within `room` bytes; returns how, and the bytes it takes. `None` when it does
/// not fit, or when the bytes are not those that were described.
pub(super) fn keep(
    source: &dyn Original,
    chunks: &ChunkList,
    form: KeepForm,
    room: u64,
    out: &File,
) -> io::Result<Option<(Form, u64)>> {
    let len = chunks.len().get();
    let shares = Shares::new(form, room);
    if shares.may_share(len) && share(source, out) {
        // It is yet to get its name.
        return Ok(Some((Form::Shared(Looks::of_stat(&out.stat()?).under_any_name()), len)));
    }
    if shares.may_pack(source, len)
        && let Some(check) = pack(source, chunks, shares.packed, out)?
    {
        return Ok(Some((Form::Packed { check }, out.metadata()?.len())));
    }
    if !shares.may_sum(len) {
        return Ok(None);
    }
    // A copy that was given up may stand there.
    out.set_len(0)?;
    (&*out).rewind()?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let Some(check) = sum(source, chunks, &secret, out)? else { return Ok(None) };
    Ok(Some((Form::Sums { check, secret }, out.metadata()?.len())))
}

/// The check of a blob.
pub(super) fn check_of(file: &AnyFile) -> io::Result<Check> {
    let mut hasher = Algorithm::Blake3.hasher();
    with_buffer(|buffer| {
        let mut at = 0;
        loop {
            match file.read_at(buffer, at)? {
                0 => return Ok(first(hasher)),
                len => {
                    hasher.update(&buffer[..len]);
                    at += len as u64;
                }
            }
        }
    })
}

/// Copies a file by sharing its blocks; false where the file system cannot.
fn share(source: &dyn Original, out: &File) -> bool {
    #[cfg(target_os = "linux")]
    return source.as_file().is_some_and(|file| rustix::fs::ioctl_ficlone(out, file).is_ok());
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (source.as_file(), out);
        false
    }
}

/// Packs a file within `most` bytes.
fn pack(source: &dyn Original, chunks: &ChunkList, most: u64, out: &File) -> io::Result<Option<Check>> {
    let mut packer = Packer::new(out);
    let root = read_through(source, chunks, usize::MAX, |piece| {
        packer.push(piece)?;
        Ok(packer.packed() <= most)
    })?;
    let (out, check) = packer.finish()?;
    Ok((root && out.metadata()?.len() <= most).then_some(check))
}

/// Sums a file.
fn sum(source: &dyn Original, chunks: &ChunkList, secret: &[u8; 32], out: &File) -> io::Result<Option<Check>> {
    let mut summer = FineSummer::new(FineKey::kept(secret), FineShape::KEPT);
    let mut out = Checked::new(out);
    let root = read_through(source, chunks, FineShape::KEPT.block(), |piece| {
        summer.push(piece);
        out.write_all(&encode(summer.take()))?;
        Ok(true)
    })?;
    Ok(root.then(|| first(out.hasher)))
}

/// Reads a file from its start in pieces, all but the last a multiple of `unit` bytes where that is less than the
/// buffer, as long as `take` wants more; true when all of it was read and has the root. That of a tree is not one of its
/// bytes: each of its files is looked at when it is read.
fn read_through(
    source: &dyn Original,
    chunks: &ChunkList,
    unit: usize,
    mut take: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut root = (chunks.cutter() != Cutter::Entries).then(|| chunks.algorithm().hasher());
    let len = chunks.len().get();
    let read = |buffer: &mut [u8]| {
        let most = if unit < buffer.len() { buffer.len() / unit * unit } else { buffer.len() };
        let mut at = 0;
        while at < len {
            let piece = &mut buffer[..usize::try_from(len - at).map_or(most, |rest| rest.min(most))];
            source.read_exact_at(piece, at)?;
            let go_on = match &mut root {
                None => take(piece)?,
                Some(root) if piece.len() < LARGE => {
                    root.update(piece);
                    take(piece)?
                }
                Some(root) => thread::scope(|scope| {
                    let hash = || root.update(piece);
                    let beside = thread::Builder::new().spawn_scoped(scope, hash);
                    beside.and_then(|_| take(piece))
                })?,
            };
            if !go_on {
                return Ok(false);
            }
            at += piece.len() as u64;
        }
        Ok(root.is_none_or(|root| root.finish() == chunks.root()))
    };
    if len < 2 * LARGE as u64 { with_buffer(read) } else { read(&mut vec![0; 2 * LARGE]) }
}

/// Takes the check of what is written through it.
struct Checked<'a> {
    out: &'a File,
    hasher: Hasher,
}

impl<'a> Checked<'a> {
    fn new(out: &'a File) -> Self {
        Self { out, hasher: Algorithm::Blake3.hasher() }
    }
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&mut &*self.out).write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn first(hasher: Hasher) -> Check {
    *hasher.finish().as_bytes().first_chunk().expect("a digest is longer")
}
