//! Pushes and pulls where the sender remembers what the receiver has, or the server has the content elsewhere.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Ends, content, meddling, put, random};
use deltasync_core::{Algorithm, RelPath};
use deltasync_io::{BlockingStorage, KeepForm};
use deltasync_proto::{Answer, Ask, Config, FaultKind, FileHandle, Kept, Remembered, StorageFault};
use deltasync_testkit::{Link, Ran, Shape, file, pull, push};

const FORMS: [KeepForm; 2] = [KeepForm::Copy, KeepForm::Sums];

fn old() -> Vec<u8> {
    random(1, 400_000)
}

/// The old file with a few places changed.
fn new() -> Vec<u8> {
    let mut new = old();
    new.splice(100_000..100_050, random(2, 300));
    new.splice(300_000..300_000, random(3, 20));
    new
}

/// What somebody else makes of the old file.
fn others() -> Vec<u8> {
    let mut others = old();
    others[200_000..200_100].fill(7);
    others
}

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).expect("a plain name")
}

/// Both ends have the old file, and the client remembers it.
fn knowing(seed: u64, form: KeepForm) -> Ends {
    let mut ends = Ends::remembering(seed, form);
    ends.push(&old());
    ends
}

#[track_caller]
fn check_arrived(ends: &Ends, ran: &Ran, bytes: &[u8]) {
    assert_eq!(ran.outcome().root, Algorithm::Blake3.digest(bytes));
    assert!(content(&ends.remote).as_deref() == Some(bytes), "the server has something else");
}

#[test]
fn a_push_over_what_is_remembered_takes_one_round_trip() {
    for form in FORMS {
        let mut ends = knowing(10, form);
        let ran = ends.push(&new());
        assert_eq!((ran.round_trips(), ran.outcome().repairs), (1, 0), "{form:?}");
        assert!(ran.wire() < 900, "{} bytes for 320 new ones ({form:?})", ran.wire());
        // And the version that this made is remembered in turn.
        let ran = ends.push(&old());
        assert_eq!(ran.round_trips(), 1);
        let same = ends.push(&old());
        assert_eq!((same.round_trips(), same.outcome().generation), (1, None));
        assert!(same.wire() < 150, "{} bytes for nothing", same.wire());
    }
}

#[test]
fn a_delta_that_leaves_before_the_hello_of_the_server_is_packed_too() {
    let text: Vec<u8> = (0..20_000).flat_map(|row: u32| format!("row {row} of a table\n").into_bytes()).collect();
    let cost = |link: Link| {
        let mut ends = knowing(15, KeepForm::Copy);
        let ran = ends.pair().link(link).target([&old()[..], &text].concat()).run_to_end();
        check_arrived(&ends, &ran, &[&old()[..], &text].concat());
        (ran.wire(), ran.outcome().repairs)
    };
    let (near, far) = (cost(Link::perfect()), cost(Link::perfect().delay(Duration::from_millis(50))));
    assert_eq!((near.1, far.1), (0, 0));
    assert!(near.0.abs_diff(far.0) < 100 && far.0 < text.len() as u64 / 3, "{near:?}, {far:?} of {}", text.len());
}

#[test]
fn nothing_is_remembered_where_it_is_not_wanted() {
    let mut ends = Ends::forgetful(20);
    ends.push(&old());
    assert_eq!(ends.push(&new()).round_trips(), 2);
}

#[test]
fn what_somebody_else_has_changed_is_found_out_and_costs_two_round_trips_more() {
    for form in FORMS {
        for seed in 0..20 {
            let mut ends = knowing(100 * seed, form);
            put(&ends.remote, &file(), &others());
            let ran = ends.push(&new());
            // Stale, then the set, of which more may be asked for, then the delta.
            assert!((3..=4).contains(&ran.round_trips()), "{form:?}: {}", ran.round_trips());
            assert_eq!(ran.outcome().repairs, 0);
            assert!(ran.wire() < 3_000, "{}", ran.wire());
            assert_eq!(ends.push(&old()).round_trips(), 1, "the new version is remembered");
        }
    }
}

#[test]
fn what_somebody_else_has_removed_is_sent_whole() {
    for form in FORMS {
        let mut ends = knowing(30, form);
        // There is no file any more, as far as the server is concerned.
        ends.remote = Arc::default();
        let ran = ends.push(&new());
        assert_eq!(ran.round_trips(), 3);
        assert_eq!(ran.outcome().progress.copied.get(), 0);
        ends.remote = Arc::default();
        assert_eq!(ends.push(&new()).round_trips(), 3, "also when only the name is offered");
    }
}

#[test]
fn what_somebody_else_has_pushed_already_is_not_published_again() {
    for form in FORMS {
        for seed in 0..20 {
            let mut ends = knowing(100 * seed, form);
            put(&ends.remote, &file(), &new());
            let ran = ends.push(&new());
            assert_eq!((ran.round_trips(), ran.outcome().generation), (1, None));
        }
    }
}

#[test]
fn a_stale_version_that_is_pushed_again_goes_over_what_is_there() {
    for form in FORMS {
        let mut ends = knowing(40, form);
        put(&ends.remote, &file(), &others());
        let ran = ends.push(&old());
        assert!((3..=4).contains(&ran.round_trips()), "the root, then the set, then the delta: {}", ran.round_trips());
        assert!(ran.wire() < 2_000, "{}", ran.wire());
    }
}

#[test]
fn a_large_delta_waits_until_the_basis_is_known_to_be_there() {
    for form in FORMS {
        let large = [&new()[..], &random(5, 300_000)].concat();
        let mut ends = knowing(50, form);
        let ran = ends.push(&large);
        assert_eq!(ran.round_trips(), 2, "the offer, then the delta");
        assert!(ran.wire() < 303_000, "{}", ran.wire());
        let mut ends = knowing(60, form);
        put(&ends.remote, &file(), &others());
        let ran = ends.push(&large);
        assert!((3..=4).contains(&ran.round_trips()), "{}", ran.round_trips());
        assert!(ran.wire() < 306_000, "nothing large was sent twice: {}", ran.wire());
    }
}

/// More operations than a receiver holds at once, while their literals are still on their way.
#[test]
fn more_operations_than_a_receiver_holds_arrive() {
    let mut rng = deltasync_testkit::Rng::new(7);
    let old = rng.bytes(160_000 * 48);
    let new: Vec<u8> = old.chunks(48).flat_map(|kept| [&rng.bytes(30)[..], kept].concat()).collect();
    let mut ends = Ends::remembering(70, KeepForm::Copy);
    ends.config.piece = 4000;
    ends.push(&old);
    let ran = ends.push(&new);
    assert!(ran.outcome().progress.copied.get() > old.len() as u64 * 9 / 10, "{:?}", ran.outcome());
}

#[test]
fn a_pull_from_a_server_that_has_our_version_takes_one_round_trip() {
    let mut ends = Ends::forgetful(80);
    put(&ends.remote, &file(), &old());
    ends.pull();
    let mut other = Ends::forgetful(90);
    other.remote = ends.remote.clone();
    other.push(&new());
    let ran = ends.pull();
    assert_eq!((ran.round_trips(), ran.outcome().repairs), (1, 0));
    assert!(ran.wire() < 900, "{}", ran.wire());
    // Of what it never had it knows nothing.
    put(&ends.local, &file(), &others());
    assert_eq!(ends.pull().round_trips(), 2);
}

#[test]
fn the_name_a_directory_gives_is_remembered_as_it_was_named() {
    let mut ends = Ends::remembering(95, KeepForm::Copy);
    ends.remote.make_directory(deltasync_proto::RootId::new(0), path("dir"));
    for (bytes, round_trips) in [(old(), 2), (new(), 1)] {
        put(&ends.local, &file(), &bytes);
        let ran = ends.pair().command(push(file(), path("dir"))).run_to_end();
        ran.outcome();
        assert_eq!(ran.round_trips(), round_trips);
        let there = ends.remote.get(deltasync_proto::RootId::new(0), &path("dir/file"));
        assert!(there.as_deref() == Some(&bytes[..]));
    }
}

#[test]
fn content_that_the_server_has_under_another_name_is_not_sent() {
    for seed in 0..20 {
        for basis in [None, Some(others())] {
            let mut ends = Ends::forgetful(100 * seed);
            put(&ends.remote, &path("elsewhere"), &new());
            if let Some(basis) = &basis {
                put(&ends.remote, &file(), basis);
            }
            let ran = ends.push(&new());
            // What replaces another file is confirmed.
            assert_eq!(ran.round_trips(), 1 + u32::from(basis.is_some()));
            assert_eq!(ran.outcome().progress.literal.get(), 0);
            assert!(ran.outcome().generation.is_some(), "it was published");
            assert!(ran.wire() < 900, "{}", ran.wire());
        }
    }
}

/// A server whose other files are not what it thinks they are.
fn lying(ends: &Ends, lie: Vec<u8>) -> Arc<dyn BlockingStorage> {
    put(&ends.remote, &path("lie"), &lie);
    meddling(&ends.remote, |memory, ask| {
        let wanted = matches!(&ask, Ask::Basis { wanted: Some(_), .. });
        let mut answer = memory.answer(ask);
        if let (true, Ok(Answer::Basis { twin, .. })) = (wanted, &mut answer) {
            let place = deltasync_proto::Place { root: deltasync_proto::RootId::new(0), path: path("lie") };
            let (cutting, algorithm) = (deltasync_proto::Cutting::ByContent, Algorithm::Blake3);
            let Ok(Answer::Described(lie)) = memory.answer(Ask::Describe { place, cutting, algorithm, remember: None })
            else {
                panic!("the lie is there");
            };
            *twin = Some(lie.file);
        }
        answer
    })
}

#[test]
fn content_elsewhere_that_is_not_what_was_promised_is_no_harm() {
    for seed in 0..20 {
        for basis in [None, Some(old())] {
            let mut ends = Ends::forgetful(100 * seed);
            if let Some(basis) = &basis {
                put(&ends.remote, &file(), basis);
            }
            let remote = lying(&ends, random(8, new().len()));
            let ran = ends.pair().storages(ends.local.clone(), remote).target(new()).run_to_end();
            check_arrived(&ends, &ran, &new());
            let copied = ran.outcome().progress.copied.get();
            assert_eq!(copied > 0, basis.is_some(), "what was at the place itself still serves");
            assert_eq!(ran.outcome().repairs, 0, "it was no delta that went wrong");
        }
    }
}

/// What is kept of a file, to be read through [`forgetful`].
struct KeptFile(FileHandle);

/// A client whose memory of the server's file does `damage` to what is kept of it.
fn forgetful(ends: &Ends, damage: fn(Bytes) -> Result<Bytes, StorageFault>) -> Arc<dyn BlockingStorage> {
    meddling(&ends.local, move |memory, ask| {
        if let Ask::Read { file, ranges } = &ask
            && let Some(KeptFile(kept)) = file.downcast_ref()
        {
            let Answer::Read(bytes) = memory.answer(Ask::Read { file: kept.clone(), ranges: ranges.clone() })? else {
                panic!("a read is read");
            };
            return damage(bytes).map(Answer::Read);
        }
        let mut answer = memory.answer(ask);
        if let Ok(Answer::Recalled(Some(Remembered { kept, .. }))) = &mut answer {
            let (Kept::Copy(file) | Kept::Sums { file, .. }) = kept;
            *file = FileHandle::new(KeptFile(file.clone()));
        }
        answer
    })
}

#[test]
fn a_memory_that_cannot_be_read_is_none() {
    for form in FORMS {
        let mut ends = knowing(300, form);
        let fails = |_| Err(StorageFault::new(FaultKind::Other, "the disk is broken"));
        let local = forgetful(&ends, fails);
        let remote = ends.remote.clone();
        let ran = ends.pair().storages(local, remote).target(new()).run_to_end();
        check_arrived(&ends, &ran, &new());
        assert_eq!((ran.round_trips(), ran.outcome().repairs), (2, 0), "as if nothing were remembered");
    }
}

#[test]
fn a_memory_of_other_bytes_finds_less_and_does_no_harm() {
    for form in FORMS {
        let mut ends = knowing(500, form);
        let local = forgetful(&ends, |bytes| Ok(bytes.iter().map(|byte| byte ^ 0x55).collect()));
        let remote = ends.remote.clone();
        let ran = ends.pair().storages(local, remote).target(new()).run_to_end();
        check_arrived(&ends, &ran, &new());
        assert!(ran.wire() < 12_000, "{}", ran.wire());
        let ran = ends.push(&old());
        assert_eq!((ran.outcome().repairs, ran.round_trips()), (0, 1), "the new memory is sound");
    }
}

#[test]
fn a_memory_in_which_the_edit_is_already_made_costs_a_range() {
    let mut edited = old();
    edited[200_000..200_064].fill(b'!');
    for seed in 0..5 {
        let mut ends = knowing(600 + seed, KeepForm::Copy);
        let local = forgetful(&ends, |bytes| {
            let (was, mut bytes) = (&old()[200_000..200_064], bytes.to_vec());
            let at = bytes.windows(64).position(|window| window == was).expect("the gap is read");
            bytes[at..at + 64].fill(b'!');
            Ok(bytes.into())
        });
        let remote = ends.remote.clone();
        let ran = ends.pair().storages(local, remote).target(edited.clone()).run_to_end();
        check_arrived(&ends, &ran, &edited);
        assert_eq!(ran.outcome().repairs, 1);
        // A hundred sums, and a range of 4 KiB.
        assert!(ran.wire() < 6_000, "{}", ran.wire());
    }
}

#[test]
fn literals_behind_a_damaged_memory_are_repaired() {
    let mut repairs = 0;
    for seed in 0..10 {
        let case = Shape::RowsEdited.case(seed, 100_000);
        let mut ends = Ends::remembering(700 + 10 * seed, KeepForm::Copy);
        ends.push(&case.basis);
        let local = forgetful(&ends, |bytes| Ok(bytes.iter().map(|byte| byte ^ 1).collect()));
        let remote = ends.remote.clone();
        let ran = ends.pair().storages(local, remote).target(case.target.clone()).run_to_end();
        check_arrived(&ends, &ran, &case.target);
        repairs += ran.outcome().repairs;
    }
    println!("{repairs} repairs of 10");
    assert!(repairs > 0);
}

#[test]
fn what_a_client_remembers_is_of_no_use_in_another_hash() {
    let mut ends = knowing(400, KeepForm::Copy);
    ends.config = Config::default().remember(true).algorithm(Algorithm::Sha256);
    assert_eq!(ends.push(&new()).round_trips(), 2);
    assert_eq!(ends.push(&old()).round_trips(), 1);
}

#[test]
fn a_pull_takes_another_name_and_remembers_nothing() {
    let mut ends = Ends::remembering(410, KeepForm::Copy);
    put(&ends.remote, &file(), &old());
    let ran = ends.pair().command(pull(file(), path("mine"))).run_to_end();
    ran.outcome();
    assert_eq!(ends.push(&new()).round_trips(), 2, "a pull has published nothing at the server");
}
