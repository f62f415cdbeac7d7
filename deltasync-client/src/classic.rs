//! The three classic verbs on files: sign a basis, find the delta from a signature to a target, patch a basis.
//!
//! Files are read in pieces of 256 KiB and handed to the machines of `deltasync-core`; memory follows the number of
//! blocks of the basis, never the length of a file. The root of a target is computed on a thread of its own, since it costs
//! as much as the search. Every output is staged: it appears whole, and of a patch only when
//! the root of the result is the one the delta announces. `-` is the standard input or output where the length of what
//! is read need not be known beforehand, and for all outputs.
//!
//! These functions block; each looks for its token once for every piece.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use deltasync_core::{
    Algorithm, ByteLen, DeltaHeader, DeltaSummary, DeltaWriter, Differ, Digest, Limits, PatchError, PatchRequest,
    Patcher, Signature, SignatureIndex,
};
use tokio_util::sync::CancellationToken;

use crate::staged::Staged;
use crate::{ClientError, Shown, UsageError};

/// How much is read at once, in bytes.
const PIECE: usize = 256 << 10;
/// How many pieces may wait to be hashed.
const AHEAD: usize = 2;

/// Writes the signature of `basis` to `out`.
///
/// # Errors
///
/// [`ClientError`] by cause; `out` is untouched then.
pub fn signature(
    basis: &Path,
    out: &Path,
    algorithm: Algorithm,
    block_len: Option<usize>,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Result<(), ClientError> {
    let (mut file, len) = open(basis)?;
    let mut builder = Signature::builder(len).algorithm(algorithm);
    if let Some(block_len) = block_len {
        builder = builder.block_len(block_len);
    }
    let mut signer = builder.build(limits)?;
    let mut staged = Staged::create(out).map_err(ClientError::file("write to", out))?;
    for_each_piece(&mut file, basis, cancel, |piece| {
        signer.push(piece);
        Ok(())
    })?;
    let mut bytes = Vec::new();
    signer.finish()?.encode(&mut bytes);
    staged.write_all(&bytes).and_then(|()| staged.publish()).map_err(ClientError::file("write to", out))
}

/// Writes to `out` the delta that makes `target` from the basis behind `signature`.
///
/// # Errors
///
/// [`ClientError`] by cause; `out` is untouched then.
pub fn delta(
    signature: &Path,
    target: &Path,
    out: &Path,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Result<DeltaSummary, ClientError> {
    let signature = read_signature(signature, limits)?;
    let (mut file, len) = open(target)?;
    let mut staged = Staged::create(out).map_err(ClientError::file("write to", out))?;
    let header = DeltaHeader { algorithm: signature.algorithm(), basis: signature.basis(), target: len };
    let mut bytes = Vec::new();
    let mut writer = DeltaWriter::new(header, &mut bytes);
    let algorithm = signature.algorithm();
    let mut differ = Differ::new(SignatureIndex::new(signature), limits);
    let root = thread::scope(|scope| {
        let (pieces, received) = sync_channel(AHEAD);
        let root = scope.spawn(move || root_of(algorithm, &received));
        for_each_shared_piece(&mut file, target, cancel, &pieces, |piece| {
            differ.push(piece);
            while let Some(piece) = differ.next_piece() {
                writer.piece(&piece, &mut bytes);
                staged.write_all(&bytes).map_err(ClientError::file("write to", out))?;
                bytes.clear();
            }
            Ok(())
        })?;
        drop(pieces);
        Ok::<_, ClientError>(root.join().expect("hashing does not panic"))
    })?;
    let (pieces, summary) = differ.finish(root);
    pieces.iter().for_each(|piece| writer.piece(piece, &mut bytes));
    writer.finish(summary.root, &mut bytes)?;
    staged.write_all(&bytes).and_then(|()| staged.publish()).map_err(ClientError::file("write to", out))?;
    Ok(summary)
}

/// Writes to `out` what `delta` makes of `basis`, once it is verified; `out` may be the basis itself.
///
/// # Errors
///
/// [`ClientError`] by cause; `out` is untouched then.
///
/// # Security
///
/// The delta may come from anyone: it reads nothing outside the basis and writes nothing but `out`.
pub fn patch(
    basis: &Path,
    delta: &Path,
    out: &Path,
    limits: &Limits,
    cancel: &CancellationToken,
) -> Result<DeltaSummary, ClientError> {
    let (file, len) = open(basis)?;
    let mut input = open_input(delta)?;
    let mut staged = Staged::create(out).map_err(ClientError::file("write to", out))?;
    let failed = |source: PatchError| ClientError::Patch {
        basis: Shown::path(basis).to_string(),
        delta: Shown::path(delta).to_string(),
        source,
    };
    let mut patcher = Patcher::new(len, limits);
    let mut piece = vec![0; PIECE];
    loop {
        if cancel.is_cancelled() {
            return Err(ClientError::Interrupted);
        }
        match patcher.poll().map_err(failed)? {
            PatchRequest::Delta | PatchRequest::Done => match read(&mut input, &mut piece, delta)? {
                0 => break,
                got => patcher.push(&piece[..got]),
            },
            PatchRequest::Write(bytes) => staged.write_all(bytes).map_err(ClientError::file("write to", out))?,
            PatchRequest::Copy { from, len } => {
                let most = len.min(piece.len());
                let got = file.read_at(&mut piece[..most], from.get()).map_err(ClientError::file("read", basis))?;
                patcher.copied(&piece[..got]).map_err(failed)?;
                staged.write_all(&piece[..got]).map_err(ClientError::file("write to", out))?;
            }
        }
    }
    let summary = patcher.finish().map_err(failed)?;
    staged.publish().map_err(ClientError::file("write to", out))?;
    Ok(summary)
}

fn read_signature(path: &Path, limits: &Limits) -> Result<Signature, ClientError> {
    // One byte more than may be: then decoding says what is wrong.
    let most = Signature::longest(limits).get().saturating_add(1);
    let mut bytes = Vec::new();
    open_input(path)?.take(most).read_to_end(&mut bytes).map_err(ClientError::file("read", path))?;
    let invalid = |source| ClientError::Signature { path: Shown::path(path).to_string(), source };
    Signature::decode(&bytes, limits).map_err(invalid)
}

/// Opens a regular file, and says how long it is now.
fn open(path: &Path) -> Result<(File, ByteLen), ClientError> {
    let meta = fs::metadata(path).map_err(ClientError::file("read", path))?;
    if !meta.is_file() {
        return Err(UsageError::NotAFile(Shown::path(path).to_string()).into());
    }
    let file = File::open(path).map_err(ClientError::file("read", path))?;
    let len = file.metadata().map_err(ClientError::file("read", path))?.len();
    Ok((file, ByteLen::new(len)))
}

/// Opens whatever can be read to its end; `-` is the standard input.
fn open_input(path: &Path) -> Result<Box<dyn Read>, ClientError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(path).map_err(ClientError::file("read", path))?))
}

fn for_each_piece(
    file: &mut File,
    path: &Path,
    cancel: &CancellationToken,
    mut each: impl FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let mut piece = vec![0; PIECE];
    loop {
        if cancel.is_cancelled() {
            return Err(ClientError::Interrupted);
        }
        match read(file, &mut piece, path)? {
            0 => return Ok(()),
            got => each(&piece[..got])?,
        }
    }
}

/// A buffer, and how many bytes of it count.
type Piece = (Arc<[u8]>, usize);

/// The digest of the pieces that come.
fn root_of(algorithm: Algorithm, pieces: &Receiver<Piece>) -> Digest {
    let mut hasher = algorithm.hasher();
    pieces.iter().for_each(|(buffer, len)| hasher.update(&buffer[..len]));
    hasher.finish()
}

/// As [`for_each_piece`], and sends each piece on before.
fn for_each_shared_piece(
    file: &mut File,
    path: &Path,
    cancel: &CancellationToken,
    pieces: &SyncSender<Piece>,
    mut each: impl FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    // As many as may wait, one that is hashed, and one that is read.
    let mut buffers: Vec<Arc<[u8]>> = (0..AHEAD + 2).map(|_| vec![0; PIECE].into()).collect();
    loop {
        if cancel.is_cancelled() {
            return Err(ClientError::Interrupted);
        }
        buffers.rotate_left(1);
        let free = Arc::get_mut(&mut buffers[0]).expect("the other thread has done with the oldest");
        let got = read(file, free, path)?;
        if got == 0 {
            return Ok(());
        }
        pieces.send((Arc::clone(&buffers[0]), got)).expect("the other thread takes pieces until no more come");
        each(&buffers[0][..got])?;
    }
}

fn read(input: &mut impl Read, piece: &mut [u8], path: &Path) -> Result<usize, ClientError> {
    loop {
        match input.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(ClientError::file("read", path)),
        }
    }
}
