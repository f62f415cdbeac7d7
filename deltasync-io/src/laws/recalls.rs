//! What holds of storages that remember: of a client's, and of one that keeps what commits replace.

use deltasync_core::{FineKey, FineShape, FineSummer};
use deltasync_proto::{Kept, Known, Remembered};

use super::*;
use crate::KeepForm;

pub(crate) fn known(at: &str) -> Known {
    Known { path: path(at), name: None }
}

pub(crate) fn remember(storage: &dyn BlockingStorage, key: Known, generation: u64, file: OpenedFile) {
    let ask = Ask::Remember { key, generation: Generation::new(generation), file };
    assert!(matches!(storage.answer(ask), Ok(Answer::Remembered)));
}

pub(crate) fn recall(storage: &dyn BlockingStorage, key: Known, root: Option<Digest>) -> Option<Remembered> {
    match storage.answer(Ask::Recall { key, root }) {
        Ok(Answer::Recalled(found)) => found,
        other => panic!("asked to recall, got {other:?}"),
    }
}

pub(crate) fn reopen(storage: &dyn BlockingStorage, stage: &StageHandle) -> FileHandle {
    match storage.answer(Ask::Reopen { stage: stage.clone() }) {
        Ok(Answer::Reopened(file)) => file,
        other => panic!("asked to reopen, got {other:?}"),
    }
}

/// A basis for a file of this content, and the twin that was found.
pub(crate) fn twin(storage: &dyn BlockingStorage, at: &str, wanted: &[u8]) -> Option<FileHandle> {
    let destination = Destination { place: place(at), name: name("source"), directory: false };
    let wanted = Some((Algorithm::Blake3.digest(wanted), ByteLen::of(wanted)));
    let ask = Ask::Basis { destination, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, wanted };
    match storage.answer(ask) {
        Ok(Answer::Basis { twin, .. }) => twin,
        other => panic!("asked for a basis, got {other:?}"),
    }
}

/// The sums of bytes by their definition.
pub(crate) fn sums_of(bytes: &[u8], secret: &[u8; 32]) -> Vec<u8> {
    let mut summer = FineSummer::new(FineKey::kept(secret), FineShape::KEPT);
    summer.push(bytes);
    summer.finish().into_iter().flat_map(|sum| u32::try_from(sum).expect("32 bits").to_le_bytes()).collect()
}

/// What was remembered is this content, whatever form it has.
#[track_caller]
pub(crate) fn assert_kept(storage: &dyn BlockingStorage, found: &Remembered, bytes: &[u8]) {
    let cutter = Cutter::for_len(ByteLen::of(bytes));
    assert!(*found.chunks == ChunkList::of(bytes, cutter, Algorithm::Blake3), "{} bytes", bytes.len());
    assert_kept_of(storage, found, bytes);
}

/// What is kept is this content, in whatever form.
#[track_caller]
pub(crate) fn assert_kept_of(storage: &dyn BlockingStorage, found: &Remembered, bytes: &[u8]) {
    let (file, kept) = match &found.kept {
        Kept::Copy(file) => (file, bytes.to_vec()),
        Kept::Sums { file, secret } => (file, sums_of(bytes, secret)),
    };
    let len = kept.len() as u64;
    assert!(read(storage, file, &[(0, len)]).expect("all") == kept);
    let (middle, last) = (len / 2, len.saturating_sub(1));
    let parts = read(storage, file, &[(last, len - last), (middle, len - middle), (0, middle)]).expect("parts");
    let wanted = [&kept[last as usize..], &kept[middle as usize..], &kept[..middle as usize]].concat();
    assert!(parts == wanted);
    assert_fault(read(storage, file, &[(0, len + 1)]), FaultKind::Changed, "");
    assert!(is_unchanged(storage, file));
}

pub(crate) fn what_is_remembered_is_recalled(fixture: &dyn Fixture, form: KeepForm) {
    let storage = fixture.storage();
    for len in [0, 1, 95, 96, 97, 5000, 300_000, 700_003] {
        // Half of it compresses.
        let mut bytes = noise(len, len as u64);
        bytes.iter_mut().take(len / 2).for_each(|byte| *byte &= 3);
        fixture.put("file", &bytes);
        let described = describe(storage, "file").expect("it is there");
        let root = described.chunks.root();
        remember(storage, known("there"), 7, described);
        let found = recall(storage, known("there"), None).expect("it was remembered");
        assert_eq!(found.generation, Generation::new(7));
        assert_eq!(matches!(found.kept, Kept::Sums { .. }), form == KeepForm::Sums, "{len} bytes");
        assert_kept(storage, &found, &bytes);
        assert!(recall(storage, known("there"), Some(root)).is_some());
        // The file itself is free to change.
        fixture.put("file", &noise(len + 1, 1));
        let found = recall(storage, known("there"), Some(root)).expect("it was remembered");
        assert_kept(storage, &found, &bytes);
    }
}

pub(crate) fn what_was_not_remembered_is_not_recalled(fixture: &dyn Fixture, _: KeepForm) {
    let storage = fixture.storage();
    fixture.put("file", b"content");
    assert!(recall(storage, known("file"), None).is_none());
    let file = describe(storage, "file").expect("it is there");
    let key = Known { name: Some(name("file")), ..known("dir") };
    remember(storage, key.clone(), 1, file);
    assert!(recall(storage, known("dir"), None).is_none());
    assert!(recall(storage, known("dir/file"), None).is_none());
    assert!(recall(storage, Known { name: Some(name("other")), ..known("dir") }, None).is_none());
    assert!(recall(storage, key.clone(), Some(Algorithm::Blake3.digest(b"other"))).is_none());
    assert!(recall(storage, key, Some(Algorithm::Blake3.digest(b"content"))).is_some());
}

pub(crate) fn the_newest_is_recalled(fixture: &dyn Fixture, _: KeepForm) {
    let storage = fixture.storage();
    for n in 1..=9u8 {
        fixture.put("file", &[n; 1000]);
        remember(storage, known("file"), n.into(), describe(storage, "file").expect("it is there"));
        let found = recall(storage, known("file"), None).expect("it was remembered");
        assert_eq!(found.generation, Generation::new(n.into()));
        assert_kept(storage, &found, &[n; 1000]);
    }
}

pub(crate) fn what_was_recalled_stays_when_it_is_replaced(fixture: &dyn Fixture, _: KeepForm) {
    let storage = fixture.storage();
    let old = noise(300_000, 1);
    fixture.put("file", &old);
    remember(storage, known("file"), 1, describe(storage, "file").expect("it is there"));
    let found = recall(storage, known("file"), None).expect("it was remembered");
    fixture.put("file", b"new");
    remember(storage, known("file"), 2, describe(storage, "file").expect("it is there"));
    assert_kept(storage, &found, &old);
}

pub(crate) fn a_stage_is_read_and_remembered(fixture: &dyn Fixture, _: KeepForm) {
    let storage = fixture.storage();
    let bytes = noise(300_000, 3);
    let staged = stage(storage, "new", 300_000).expect("there is room");
    append(storage, &staged, &bytes).expect("applied");
    let file = reopen(storage, &staged);
    let cutter = Cutter::for_len(ByteLen::of(&bytes));
    let chunks = std::sync::Arc::new(ChunkList::of(&bytes, cutter, Algorithm::Blake3));
    commit(storage, &staged).expect("published");
    let (generation, omitted) = (Generation::ZERO, std::sync::Arc::default());
    remember(storage, known("new"), 4, OpenedFile { file, chunks, generation, omitted });
    assert_kept(storage, &recall(storage, known("new"), None).expect("it was remembered"), &bytes);
}

pub(crate) fn a_reopened_stage_is_a_file(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let staged = stage(storage, "new", 6).expect("there is room");
    append(storage, &staged, b"old new"[..6].as_ref()).expect("applied");
    let file = reopen(storage, &staged);
    assert_eq!(read(storage, &file, &[(4, 2), (0, 3)]).expect("within"), b"neold"[..]);
    assert_fault(read(storage, &file, &[(0, 7)]), FaultKind::Changed, "new: ");
    let other = stage(storage, "other", 3).expect("there is room");
    let copy = Op::Copy { from: Offset::new(1), len: ByteLen::new(3) };
    apply(storage, &other, Some(&file), plan(6, &[copy]), b"").expect("a stage can be a basis");
    assert!(is_unchanged(storage, &file));
    commit(storage, &staged).expect("published");
    assert!(is_unchanged(storage, &file), "to get its name is no change");
    commit(storage, &other).expect("published");
    assert_eq!(fixture.get("other").as_deref(), Some(&b"ld "[..]));
    let spent = storage.answer(Ask::Reopen { stage: staged });
    assert_fault(spent.map(drop), FaultKind::Other, "new: ");
}

pub(crate) fn a_twin_is_found_elsewhere(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let bytes = noise(10_000, 4);
    publish(storage, "dir/one", &bytes).expect("published");
    publish(storage, "two", b"old").expect("published");
    for at in ["two", "three"] {
        let found = twin(storage, at, &bytes).expect("it lies at dir/one");
        assert_eq!(read(storage, &found, &[(0, 10_000)]).expect("all"), bytes);
    }
    assert!(twin(storage, "two", &bytes[1..]).is_none());
    publish(storage, "dir/one", b"changed").expect("published");
    publish(storage, "dir/one", b"and again").expect("published");
    let replaced = twin(storage, "two", b"changed");
    // A storage may know of what was replaced, too: then it is that.
    if let Some(found) = replaced {
        assert_eq!(read(storage, &found, &[(0, 7)]).expect("all"), b"changed"[..]);
    }
}

pub(crate) fn what_a_commit_replaced_is_recalled_by_its_root(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let versions = [noise(300_000, 1), noise(200_000, 2), noise(250_000, 3)];
    for version in &versions {
        // As a session does: it looks at the basis before it stages.
        basis(storage, "dir/file", false).expect("it can go there");
        publish(storage, "dir/file", version).expect("published");
    }
    for (n, version) in versions[..2].iter().enumerate() {
        let root = Algorithm::Blake3.digest(version);
        let found = recall(storage, known("dir/file"), Some(root)).expect("it was replaced");
        assert_eq!(found.generation, fixture.generation(n as u64 + 1));
        assert_kept(storage, &found, version);
        assert!(recall(storage, known("file"), Some(root)).is_none(), "another path");
        let named = Known { name: Some(name("file")), ..known("dir/file") };
        assert!(recall(storage, named, Some(root)).is_none(), "another name");
    }
    assert!(recall(storage, known("dir/file"), Some(Algorithm::Blake3.digest(b"never there"))).is_none());
    assert_eq!(fixture.get("dir/file").as_ref(), Some(&versions[2]));
    assert_eq!(fixture.leftovers(), ["dir"]);
}

/// Calls every law of a storage that remembers; `$fixture` takes the form.
macro_rules! remembering_laws {
    ($fixture:expr) => {
        crate::laws::recalls::remembering_laws! { $fixture;
            what_is_remembered_is_recalled
            what_was_not_remembered_is_not_recalled
            the_newest_is_recalled
            what_was_recalled_stays_when_it_is_replaced
            a_stage_is_read_and_remembered
        }
    };
    ($fixture:expr; $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                for form in [crate::KeepForm::Copy, crate::KeepForm::Sums] {
                    crate::laws::recalls::$law(&$fixture(form), form);
                }
            }
        )*
    };
}
pub(crate) use remembering_laws;

/// Calls every law of a storage that peers write to; `$fixture` takes the limits.
macro_rules! replacing_laws {
    ($fixture:expr) => {
        crate::laws::recalls::replacing_laws! { $fixture;
            a_reopened_stage_is_a_file
            a_twin_is_found_elsewhere
            what_a_commit_replaced_is_recalled_by_its_root
        }
    };
    ($fixture:expr; $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                crate::laws::recalls::$law(&$fixture(deltasync_core::Limits::default()));
            }
        )*
    };
}
pub(crate) use replacing_laws;
