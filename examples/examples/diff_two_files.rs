//! The classic three verbs on two files: sign the basis, diff the target against the signature, patch the basis.
//!
//! `cargo run --release --example diff_two_files -- OLD NEW` prints what a delta from OLD to NEW takes, rebuilds NEW from
//! OLD and the delta in memory, and verifies it. In real use the three steps run in three places, and what goes from one
//! to the next is the bytes of the signature and of the delta.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use deltasync_core::{ByteLen, DeltaHeader, DeltaSummary, DeltaWriter, Differ, Limits, PatchRequest, Patcher};
use deltasync_core::{Signature, SignatureIndex};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Calls `each` with the bytes of `file`, 256 KiB at a time.
fn for_each_part(file: &mut File, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            len => each(&buffer[..len])?,
        }
    }
}

/// The signature of `basis`, as bytes.
fn sign(mut basis: File) -> Result<Vec<u8>> {
    let len = ByteLen::new(basis.metadata()?.len());
    let mut signer = Signature::builder(len).build(&Limits::default())?;
    for_each_part(&mut basis, |part| {
        signer.push(part);
        Ok(())
    })?;
    let mut out = Vec::new();
    signer.finish()?.encode(&mut out);
    Ok(out)
}

/// Writes the delta from the basis behind `signature` to `target`.
fn diff(signature: &[u8], mut target: File, out: &mut impl Write) -> Result<DeltaSummary> {
    let limits = Limits::default();
    let signature = Signature::decode(signature, &limits)?;
    let (algorithm, basis) = (signature.algorithm(), signature.basis());
    let header = DeltaHeader { algorithm, basis, target: ByteLen::new(target.metadata()?.len()) };
    let mut buffer = Vec::new();
    let mut writer = DeltaWriter::new(header, &mut buffer);
    let mut differ = Differ::new(SignatureIndex::new(signature), &limits);
    let mut root = algorithm.hasher();
    for_each_part(&mut target, |part| {
        root.update(part);
        differ.push(part);
        while let Some(piece) = differ.next_piece() {
            writer.piece(&piece, &mut buffer);
        }
        out.write_all(&buffer)?;
        buffer.clear();
        Ok(())
    })?;
    let (pieces, summary) = differ.finish(root.finish());
    pieces.iter().for_each(|piece| writer.piece(piece, &mut buffer));
    writer.finish(summary.root, &mut buffer)?;
    out.write_all(&buffer)?;
    Ok(summary)
}

/// Makes the target from `basis` and the bytes of a delta.
fn patch(mut basis: File, mut delta: impl Read, out: &mut impl Write) -> Result<DeltaSummary> {
    let mut patcher = Patcher::new(ByteLen::new(basis.metadata()?.len()), &Limits::default());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match patcher.poll()? {
            PatchRequest::Write(bytes) => out.write_all(bytes)?,
            PatchRequest::Copy { from, len } => {
                basis.seek(SeekFrom::Start(from.get()))?;
                let read = basis.read(&mut buffer[..len])?;
                out.write_all(&buffer[..read])?;
                patcher.copied(&buffer[..read])?;
            }
            // Done, too: what stands behind the end of a delta is an error.
            PatchRequest::Delta | PatchRequest::Done => match delta.read(&mut buffer)? {
                0 => return Ok(patcher.finish()?),
                len => patcher.push(&buffer[..len]),
            },
        }
    }
}

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [old, new] = &args[..] else { return Err("usage: diff_two_files OLD NEW".into()) };
    let open = |path| File::open(path);
    let signature = sign(open(old)?)?;
    let mut delta = Vec::new();
    let found = diff(&signature, open(new)?, &mut delta)?;
    let (signature, delta_len) = (signature.len(), delta.len());
    println!("signature {signature} bytes, delta {delta_len}: {} copied, {} literal", found.copied, found.literal);
    let made = patch(open(old)?, &delta[..], &mut std::io::sink())?;
    println!("rebuilt {} bytes, root {}", made.target(), made.root);
    Ok(())
}
