//! What is kept of the bytes of a file: a copy that shares its blocks, a packed one, or the sums of its blocks.
//!
//! A copy makes the smaller delta and sums take the smaller part of the quota, so small files get copies and large ones
//! sums. A copy that shares its blocks takes disk only where the file changes later, at most its whole length, so that is
//! what counts. A packed copy is given up as soon as it passes its share.
//!
//! What is read is hashed beside, since a file that was changed through a mapping may look as it did; in a long file on
//! another core, in large pieces.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::thread;

use deltasync_core::{Algorithm, ChunkList, FineKey, FineShape, FineSummer, Hasher};

use super::packed::Packer;
use super::record::{Check, Form};
use super::{KeepForm, Source};
use crate::disk::{AnyFile, DiskFile};
use crate::source::{Looks, with_buffer};

/// From this length on a piece is worth a thread that hashes it, in bytes.
const LARGE: usize = 1 << 20;

/// Keeps a file in `out`, which is empty, within `room` bytes; returns how, and the bytes it takes. `None` when it does
/// not fit, or when the bytes are not those that were described.
pub(super) fn keep(
    source: &Source,
    chunks: &ChunkList,
    form: KeepForm,
    room: u64,
    out: &File,
) -> io::Result<Option<(Form, u64)>> {
    let len = chunks.len().get();
    // What each form may take: the whole, or when it is for us to choose, less for what others might need too.
    let [shared, raw, packed, sums] = match form {
        KeepForm::Auto => [room / 2, room / 4, room / 8, room / 4],
        KeepForm::Copy => [room, u64::MAX, room, 0],
        KeepForm::Sums => [0, 0, 0, room],
    };
    if form != KeepForm::Sums {
        if len <= shared && share(source, out) {
            // It is yet to get its name.
            return Ok(Some((Form::Shared(Looks::of_stat(&out.stat()?).under_any_name()), len)));
        }
        if len <= raw
            && let Some(check) = pack(source, chunks, packed, out)?
        {
            return Ok(Some((Form::Packed { check }, out.metadata()?.len())));
        }
    }
    if FineShape::KEPT.sums_of(len).saturating_mul(4) > sums || form == KeepForm::Copy {
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
fn share(source: &Source, out: &File) -> bool {
    #[cfg(target_os = "linux")]
    return source.as_file().is_some_and(|file| rustix::fs::ioctl_ficlone(out, file).is_ok());
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (source.as_file(), out);
        false
    }
}

/// Packs a file within `most` bytes.
fn pack(source: &Source, chunks: &ChunkList, most: u64, out: &File) -> io::Result<Option<Check>> {
    let mut packer = Packer::new(Checked::new(out));
    let root = read_through(source, chunks, usize::MAX, |piece| {
        packer.push(piece)?;
        Ok(packer.packed() <= most)
    })?;
    let Checked { out, hasher } = packer.finish()?;
    Ok((root && out.metadata()?.len() <= most).then(|| first(hasher)))
}

/// Sums a file.
fn sum(source: &Source, chunks: &ChunkList, secret: &[u8; 32], out: &File) -> io::Result<Option<Check>> {
    let mut summer = FineSummer::new(FineKey::kept(secret), FineShape::KEPT);
    let mut out = Checked::new(out);
    let root = read_through(source, chunks, FineShape::KEPT.block(), |piece| {
        summer.push(piece);
        // The shape has 32 bits.
        let sums: Vec<u8> = summer.take().into_iter().flat_map(|sum| (sum as u32).to_le_bytes()).collect();
        out.write_all(&sums)?;
        Ok(true)
    })?;
    Ok(root.then(|| first(out.hasher)))
}

/// Reads a file from its start in pieces, all but the last a multiple of `unit` bytes where that is less than the
/// buffer, as long as `take` wants more; true when all of it was read and has the root.
fn read_through(
    source: &Source,
    chunks: &ChunkList,
    unit: usize,
    mut take: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut root = chunks.algorithm().hasher();
    let len = chunks.len().get();
    let read = |buffer: &mut [u8]| {
        let most = if unit < buffer.len() { buffer.len() / unit * unit } else { buffer.len() };
        let mut at = 0;
        while at < len {
            let piece = &mut buffer[..usize::try_from(len - at).map_or(most, |rest| rest.min(most))];
            source.read_exact_at(piece, at)?;
            let go_on = if piece.len() < LARGE {
                root.update(piece);
                take(piece)?
            } else {
                thread::scope(|scope| {
                    let hash = || root.update(piece);
                    let beside = thread::Builder::new().spawn_scoped(scope, hash);
                    beside.and_then(|_| take(piece))
                })?
            };
            if !go_on {
                return Ok(false);
            }
            at += piece.len() as u64;
        }
        Ok(root.finish() == chunks.root())
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
