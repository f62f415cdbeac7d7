//! The bytes that are compared over, from a seed but for the archive, which is of the toolchain that built this.

use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use deltasync_testkit::{Rng, scattered_edits};

/// Bytes that can be changed together without a change of the weak sum.
const WORD: usize = 128;
/// The block length for [`colliding`], in bytes.
pub(crate) const COLLIDING_BLOCK: usize = 256;

/// A basis and a target.
pub(crate) struct Pair {
    pub(crate) basis: Vec<u8>,
    pub(crate) target: Vec<u8>,
}

/// A tar of the Rust toolchain, `len` bytes of it, and the same with a hundred bytes replaced, deleted or inserted every
/// 200 kB. Where there is no rustc, no tar or not as much in it, random bytes stand behind, with a line that says so.
pub(crate) fn edited_tar(len: usize, seed: u64) -> Pair {
    let mut basis = toolchain_tar(len).unwrap_or_else(|error| {
        eprintln!("no tar of the toolchain: {error}");
        Vec::new()
    });
    let mut rng = Rng::new(seed);
    if basis.len() < len {
        eprintln!("the tar has {} bytes, the rest is random", basis.len());
        basis.extend(rng.bytes(len - basis.len()));
    }
    let target = scattered_edits(&basis, &mut rng);
    Pair { basis, target }
}

fn toolchain_tar(len: usize) -> io::Result<Vec<u8>> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output()?.stdout;
    let sysroot = String::from_utf8_lossy(&sysroot).trim().to_owned();
    let mut tar = Command::new("tar")
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf", "-", "-C", &sysroot])
        .args(["lib", "bin", "share"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut bytes = Vec::with_capacity(len);
    let out = tar.stdout.take().expect("it is piped");
    let read = out.take(len as u64).read_to_end(&mut bytes);
    // Its pipe is closed; most often it ends by that.
    let _ = tar.kill();
    tar.wait()?;
    read.map(|_| bytes)
}

/// Rows of text of which one in a hundred has another value.
pub(crate) fn text(len: usize, seed: u64) -> Pair {
    let case = deltasync_testkit::Shape::RowsEdited.case(seed, len);
    Pair { basis: case.basis, target: case.target }
}

/// Blocks of [`COLLIDING_BLOCK`] bytes that all have one weak sum, by ours as by the others' two sums, and of which hardly
/// two are equal: words whose bytes are as much more or less than 100 as one random number of theirs says, more where the
/// bits of the place are even in number. That is nothing in the sum of 128 bytes times the powers of any number that is 5
/// modulo 8, modulo 2^32 (E. Prouhet, 1851).
pub(crate) fn colliding(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(len + WORD);
    while bytes.len() < len {
        for random in rng.next_u64().to_le_bytes() {
            let (more, less) = (random % 201, 200 - random % 201);
            bytes.extend((0..WORD).map(|place| if place.count_ones() % 2 == 0 { more } else { less }));
        }
    }
    bytes.truncate(len);
    bytes
}

/// A file of `len` random bytes.
pub(crate) fn write_random(file: &mut std::fs::File, len: u64, seed: u64) -> io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut rng = Rng::new(seed);
    let mut left = len;
    while left > 0 {
        let piece = left.min(PIECE);
        file.write_all(&rng.bytes(piece as usize))?;
        left -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use deltasync_core::RollingSum;

    use super::*;

    #[test]
    fn colliding_blocks_share_their_weak_sum_and_are_different() {
        let bytes = colliding(1000 * COLLIDING_BLOCK, 1);
        let blocks: BTreeSet<_> = bytes.chunks(COLLIDING_BLOCK).collect();
        let sums: BTreeSet<_> = blocks.iter().map(|block| RollingSum::of(block).value()).collect();
        assert!(blocks.len() > 950, "{} of 1000 are different", blocks.len());
        assert_eq!(sums.len(), 1);
        assert!(sums.contains(&RollingSum::of(&[100; COLLIDING_BLOCK]).value()));
    }
}
