//! What a client remembers of files that a server has too, so that the next push can begin with a delta.
//!
//! For each server and name the newest version of a file, or of a tree's archive, is kept: its generation and chunk list,
//! and either a base copy of its bytes or, where that would cost too much disk, the sums of its small blocks. A base copy
//! shares its blocks with the file where the file system can do that (a reflink) and is packed in frames elsewhere, as
//! that of an archive always is; of the next version only what is new is packed, in a layer over that. All lies in a
//! directory of the user's own: an index (redb) and some blobs for each file.
//!
//! It is only ever a help. The index is opened for one step at a time and closed again; when another process has it, when
//! anything is damaged or missing, when the disk is full, then nothing is remembered, and no transfer fails or waits. The
//! directory may be deleted at any time. What was kept is checked when it is recalled, by digests or, for a copy that
//! shares its blocks, by how it looks, and that of a frame when it is read; what fails is removed.
//!
//! Cost: to remember reads a small file or an archive once more (not for a reflink, and of a later version only what is new),
//! or nothing where its sums were made while it was described, and syncs the index once; to recall reads sums once, at the
//! speed of BLAKE3, and of a copy what is needed. Memory is
//! that of the chunk list.
//!
//! Invariant: all files together stay within the quota, but for the index itself and for the sums of files that are being
//! transferred; what was used longest ago goes first.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use deltasync_core::{ByteLen, ChunkList, Digest, Generation, Limits, write_varint};
use deltasync_proto::Known;

use crate::disk::AnyFile;
use crate::source::{Looks, Original, Source, read_blob};

#[expect(clippy::disallowed_methods, reason = "names of our own, in a directory of the user's own")]
mod blobs;
mod keep;
mod layered;
#[expect(clippy::disallowed_methods, reason = "names of our own, in a directory of the user's own")]
mod ledger;
mod packed;
mod record;

pub(crate) use keep::{SUMMED_AT_ONCE, Summing};
pub(crate) use layered::LayeredFile;
pub(crate) use packed::PackedFile;

use blobs::{Blobs, Draft, Part};
use keep::{check_of, keep};
use layered::write_layer;
use ledger::Ledger;
use packed::{Holder, damaged};
use record::{Form, Record};

/// In which form the bytes of a file are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepForm {
    /// A base copy where the file system shares its blocks, or where it is short or packs well, within the quota; else
    /// sums.
    #[default]
    Auto,
    /// A base copy, as long as the quota holds it.
    Copy,
    /// The sums of its blocks, a 24th of the file: for little disk. They make larger deltas than a copy.
    Sums,
}

/// The directory in which a client remembers files for one server; see [`LocalOptions::known`](crate::LocalOptions).
///
/// # Security
///
/// It holds what the files held, readable by the user alone.
#[derive(Clone, Debug)]
pub struct KnownFiles {
    blobs: Blobs,
    ledger: Ledger,
    server: Vec<u8>,
    quota: ByteLen,
    form: KeepForm,
    /// The ids of copies of which a part turned out damaged when it was read.
    damaged: Arc<Mutex<BTreeSet<u64>>>,
    /// Held while the index is open, so that transfers of one process do not take it from each other.
    open: Arc<Mutex<()>>,
}

/// What was remembered.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) generation: Generation,
    pub(crate) chunks: Arc<ChunkList>,
    /// The base copy, or the sums.
    pub(crate) bytes: Source,
    /// The secret of the sums; `None` for a base copy.
    pub(crate) secret: Option<[u8; 32]>,
}

impl KnownFiles {
    /// The default quota: 1 GiB.
    pub const QUOTA: ByteLen = ByteLen::new(1 << 30);

    /// Remembers in this directory, for the server of this name, which is whatever the caller knows it by. Nothing is
    /// opened or made before there is something to remember, or a large file that may be. Clones share the directory;
    /// two that were made by `new` keep each other out for a step, as two processes do.
    pub fn new(directory: impl Into<PathBuf>, server: impl Into<Vec<u8>>) -> Self {
        let directory = directory.into();
        Self {
            ledger: Ledger::at(directory.join("known.redb")),
            blobs: Blobs::below(directory),
            server: server.into(),
            quota: Self::QUOTA,
            form: KeepForm::Auto,
            damaged: Arc::default(),
            open: Arc::default(),
        }
    }

    /// Sets how many bytes all files in the directory may take, for all servers (default 1 GiB).
    #[must_use]
    pub fn quota(mut self, quota: ByteLen) -> Self {
        self.quota = quota;
        self
    }

    /// Sets the form in which bytes are remembered from now on.
    #[must_use]
    pub fn form(mut self, form: KeepForm) -> Self {
        self.form = form;
        self
    }

    /// What is remembered of a file, if it has this root.
    pub(crate) fn recall(&self, key: &Known, root: Option<Digest>, limits: &Limits) -> Option<Found> {
        let key = self.key(key);
        let (record, kept) = self.kept(&key, root)?;
        match kept.open(&record, limits, self.quota, &self.damaged) {
            Ok((chunks, bytes)) => {
                self.blobs.touch(record.id);
                let secret = match record.form {
                    Form::Sums { secret, .. } => Some(secret),
                    Form::Shared(_) | Form::Packed { .. } | Form::Layered { .. } => None,
                };
                Some(Found { generation: record.generation, chunks: Arc::new(chunks), bytes, secret })
            }
            Err(_) => {
                let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                self.ledger.remove(&key, &record, &self.blobs);
                None
            }
        }
    }

    /// The record of a file, if it has this root, with its blobs.
    fn kept(&self, key: &[u8], root: Option<Digest>) -> Option<(Record, Kept)> {
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.ledger.get(key, &self.blobs)?;
        if root.is_some_and(|root| root != record.root) {
            return None;
        }
        let open = |part| self.blobs.open(record.id, part);
        // Once they are open they stay for us, whatever goes.
        let base = matches!(record.form, Form::Layered { .. }).then(|| open(Part::Base));
        Some((record, Kept { chunks: open(Part::Chunks), bytes: open(Part::Bytes), base }))
    }

    /// Begins the sums of a file that is to be described and may be remembered then, where they are what will be kept of
    /// it. `None` where it is not, or looks as it did when it was remembered.
    pub(crate) fn begin(&self, key: &Known, source: &Source, looks: &Looks) -> Option<Summing> {
        if looks.len < SUMMED_AT_ONCE {
            return None;
        }
        let record = {
            let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            self.ledger.get(&self.key(key), &self.blobs)
        };
        if record.is_some_and(|record| record.looks == *looks && self.suits(&record)) {
            return None;
        }
        let begin = || {
            self.blobs.prepare()?;
            Summing::begin(source, looks.len, self.form, self.quota.get(), self.blobs.draft()?)
        };
        begin().ok().flatten()
    }

    /// Remembers a file that looked like `looks` when it was cut into `chunks` and its `sums` were made; does nothing where
    /// that cannot be done.
    pub(crate) fn remember(
        &self,
        key: &Known,
        generation: Generation,
        source: &dyn Original,
        looks: &Looks,
        chunks: &ChunkList,
        sums: Option<Summing>,
    ) {
        let name = self.key(key);
        // There is nobody to tell: what cannot be remembered costs the next push a round trip.
        self.forget_damaged(&name);
        let remembered = self.renew(&name, generation, looks, chunks)
            || self.try_remember(&name, generation, source, looks, chunks, sums).unwrap_or(false);
        if !remembered {
            // What was remembered before is no longer what both ends have.
            self.forget(key);
        }
    }

    /// Forgets a file if its copy turned out damaged while it was used.
    fn forget_damaged(&self, key: &[u8]) {
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if !damaged.is_empty()
            && let Some(record) = self.ledger.get(key, &self.blobs)
            && damaged.remove(&record.id)
        {
            self.ledger.remove(key, &record, &self.blobs);
        }
    }

    /// Forgets a file.
    pub(crate) fn forget(&self, key: &Known) {
        let key = self.key(key);
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = self.ledger.get(&key, &self.blobs) {
            self.ledger.remove(&key, &record, &self.blobs);
        }
    }

    /// True when it is remembered.
    fn try_remember(
        &self,
        key: &[u8],
        generation: Generation,
        source: &dyn Original,
        looks: &Looks,
        chunks: &ChunkList,
        sums: Option<Summing>,
    ) -> io::Result<bool> {
        let encoded = || {
            let mut list = Vec::new();
            chunks.encode(&mut list);
            list
        };
        // Not held meanwhile: that of a large tree takes as much as the rest.
        let room = self.quota.get().saturating_sub(encoded().len() as u64);
        let made = sums.map(|sums| sums.finish(chunks.len().get(), self.form, room)).transpose()?.flatten();
        let kept = match made {
            Some(made) => Some(made),
            None => match self.layer(key, source, looks, chunks, room).ok().flatten() {
                Some(layer) => Some(layer),
                None => self.keep(source, looks, chunks, room)?,
            },
        };
        let Some((draft, form, bytes)) = kept else { return Ok(false) };
        let list = encoded();
        draft.write(Part::Chunks, &list)?;
        let record = Record {
            id: draft.id(),
            generation,
            root: chunks.root(),
            looks: *looks,
            len: chunks.len(),
            bytes: list.len() as u64 + bytes,
            form,
        };
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.ledger.put(key, &record, self.quota.get(), &self.blobs, || draft.publish()))
    }

    /// Keeps what is new in a file over what is kept of an older version of it; `None` when it is to be kept another way, or
    /// is not what was described.
    fn layer(
        &self,
        key: &[u8],
        source: &dyn Original,
        looks: &Looks,
        chunks: &ChunkList,
        room: u64,
    ) -> io::Result<Option<(Draft, Form, u64)>> {
        let Some((record, kept)) = self.kept(key, None) else { return Ok(None) };
        let base = match record.form {
            Form::Packed { check } => check,
            Form::Layered { base, .. } => base,
            Form::Shared(_) | Form::Sums { .. } => return Ok(None),
        };
        if !self.suits(&record) || !looks.still(&source.looks()?) {
            return Ok(None);
        }
        let (older_chunks, older) = kept.open(&record, &Limits::default(), self.quota, &self.damaged)?;
        let base_len = match &older {
            Source::Packed(copy) => copy.file().len()?,
            Source::Layered(layered) => layered.base().file().len()?,
            Source::File(_) | Source::Joined(_) => return Ok(None),
        };
        self.blobs.prepare()?;
        let draft = self.blobs.draft()?;
        let out = draft.create(Part::Bytes)?;
        let Some(check) = write_layer(source, chunks, (&older_chunks, &older), &out)? else { return Ok(None) };
        draft.take_base(record.id)?;
        let bytes = base_len + out.metadata()?.len();
        let same = looks.still(&source.looks()?) && bytes <= room;
        Ok(same.then_some((draft, Form::Layered { check, base }, bytes)))
    }

    /// Reads a file again to keep it; `None` when it cannot be kept, or is not what was described.
    fn keep(
        &self,
        source: &dyn Original,
        looks: &Looks,
        chunks: &ChunkList,
        room: u64,
    ) -> io::Result<Option<(Draft, Form, u64)>> {
        if !looks.still(&source.looks()?) {
            return Ok(None);
        }
        self.blobs.prepare()?;
        let draft = self.blobs.draft()?;
        let kept = keep(source, chunks, self.form, room, &draft.create(Part::Bytes)?)?;
        // What was read is what was described, and both ends have that.
        let same = looks.still(&source.looks()?);
        Ok(kept.filter(|_| same).map(|(form, bytes)| (draft, form, bytes)))
    }

    /// Of a file that is remembered already only the generation and its looks can be others: somebody has brought it back.
    fn renew(&self, key: &[u8], generation: Generation, looks: &Looks, chunks: &ChunkList) -> bool {
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = self.ledger.get(key, &self.blobs) else { return false };
        let same = (record.root, record.len) == (chunks.root(), chunks.len());
        let renewed = Record { generation, looks: *looks, ..record };
        same && self.suits(&record) && self.ledger.renew(key, &record, &renewed, &self.blobs)
    }

    /// True when what is kept has the form that is wanted now.
    fn suits(&self, record: &Record) -> bool {
        match self.form {
            KeepForm::Auto => true,
            KeepForm::Copy => !matches!(record.form, Form::Sums { .. }),
            KeepForm::Sums => matches!(record.form, Form::Sums { .. }),
        }
    }

    fn key(&self, key: &Known) -> Vec<u8> {
        let mut bytes = Vec::new();
        let name = key.name.as_ref().map_or(&[][..], |name| name.as_bytes());
        for part in [&self.server, key.path.as_bytes(), name] {
            write_varint(&mut bytes, part.len() as u64);
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// The blobs of a record, as far as they could be opened.
struct Kept {
    chunks: io::Result<AnyFile>,
    bytes: io::Result<AnyFile>,
    /// The copy below a layer.
    base: Option<io::Result<AnyFile>>,
}

impl Kept {
    /// The chunk list and the bytes.
    ///
    /// # Errors
    ///
    /// When anything is missing, or is not what was kept. The frames of a packed copy are checked when they are read; one of
    /// which any is damaged is added to the others.
    fn open(
        self,
        record: &Record,
        limits: &Limits,
        quota: ByteLen,
        damaged_ones: &Arc<Mutex<BTreeSet<u64>>>,
    ) -> io::Result<(ChunkList, Source)> {
        let longest = ChunkList::longest_encoding(limits).min(quota);
        let chunks = ChunkList::decode(&read_blob(&self.chunks?, longest)?, limits).map_err(io::Error::other)?;
        if (chunks.root(), chunks.len()) != (record.root, record.len) {
            return Err(io::Error::other("the chunks of another file"));
        }
        let packed = |file, check| {
            let holder = Holder { id: record.id, damaged: Arc::clone(damaged_ones) };
            PackedFile::open(file, check, Some(holder))
        };
        let bytes = self.bytes?;
        let bytes = match record.form {
            Form::Shared(looks) if looks.still(&Looks::of(&bytes)?) && looks.len == record.len.get() => {
                Source::File(bytes)
            }
            Form::Shared(_) => return Err(damaged()),
            Form::Packed { check } => Source::Packed(packed(bytes, check)?),
            Form::Layered { check, base: check_of_base } => {
                let base = packed(self.base.ok_or_else(damaged)??, check_of_base)?;
                Source::Layered(LayeredFile::open(base, packed(bytes, check)?)?)
            }
            Form::Sums { check, .. } if check_of(&bytes)? == check => Source::File(bytes),
            Form::Sums { .. } => return Err(damaged()),
        };
        Ok((chunks, bytes))
    }
}

#[cfg(test)]
mod tests;
