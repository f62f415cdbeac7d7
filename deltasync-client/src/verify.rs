//! Verify: are a file here and a file elsewhere the same, without moving either?
//!
//! Both ends hash their own file at the same time; what travels is one digest.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use deltasync_core::{Algorithm, ByteLen, Digest};
use tokio_util::sync::CancellationToken;

use crate::list::root_at;
use crate::local::LocalSource;
use crate::{ClientError, Options, Place, Update};

/// The roots of both files, in the algorithm they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which digest the roots are.
    pub algorithm: Algorithm,
    /// Length and root of the file here.
    pub local: (ByteLen, Digest),
    /// Length and root of the other.
    pub remote: (ByteLen, Digest),
}

impl Verified {
    /// True when both files have the same content.
    pub fn equal(&self) -> bool {
        self.local == self.remote
    }
}

/// Compares `file` on this machine with the file at `place`; `report` hears how it goes with the other, as file 0.
///
/// # Errors
///
/// [`ClientError`] when one of the roots cannot be had. Files that differ are no error here, see [`Verified::equal`].
pub async fn verify(
    file: &Path,
    place: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Verified, ClientError> {
    LocalSource::find(file)?;
    let algorithm = options.config.algorithm;
    let (path, token) = (file.to_owned(), cancel.clone());
    let local = tokio::task::spawn_blocking(move || root_of(&path, algorithm, &token));
    let remote = root_at(place, options, cancel, report).await?;
    let local = local.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    Ok(Verified { algorithm, local, remote })
}

/// The length and root of a file here; looks for `cancel` once for each piece of 1 MiB.
pub(crate) fn root_of(
    path: &Path,
    algorithm: Algorithm,
    cancel: &CancellationToken,
) -> Result<(ByteLen, Digest), ClientError> {
    let mut file = File::open(path).map_err(ClientError::file("read", path))?;
    let mut hasher = algorithm.hasher();
    let mut len = ByteLen::ZERO;
    let mut piece = vec![0; 1 << 20];
    loop {
        if cancel.is_cancelled() {
            return Err(ClientError::Interrupted);
        }
        let got = file.read(&mut piece).map_err(ClientError::file("read", path))?;
        if got == 0 {
            return Ok((len, hasher.finish()));
        }
        hasher.update(&piece[..got]);
        len += ByteLen::new(got as u64);
    }
}
