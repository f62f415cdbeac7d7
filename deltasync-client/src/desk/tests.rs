//! Stories of somebody at a window, without a window and without a server.

use std::path::PathBuf;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn entry(text: &str, kind: EntryKind) -> Entry {
    Entry { name: name(text), kind, len: ByteLen::new(7), modified: 0 }
}

fn rows() -> Vec<Entry> {
    vec![entry("dir", EntryKind::Directory), entry("file", EntryKind::File), entry("other", EntryKind::File)]
}

fn ticket(effects: &[DeskEffect]) -> u64 {
    match effects {
        [DeskEffect::List { ticket, .. }] => *ticket,
        _ => panic!("{effects:?}"),
    }
}

/// A desk that looks at these rows of server `h`.
fn connected() -> Desk {
    let mut desk = Desk::default();
    let ticket = ticket(&desk.act(DeskAction::Connect("h".into())));
    desk.told(0, DeskTold::Listed(ticket, Ok((rows(), false))));
    desk
}

fn states(desk: &Desk) -> Vec<&'static str> {
    desk.jobs().iter().map(|job| job.state.word()).collect()
}

fn push(desk: &mut Desk, names: &[&str]) -> Vec<DeskEffect> {
    desk.act(DeskAction::Push(names.iter().map(PathBuf::from).collect()))
}

fn id(desk: &Desk, at: usize) -> JobId {
    desk.jobs()[at].id
}

fn done() -> Result<Report, Trouble> {
    Ok(Report::Moved(Moved::default()))
}

fn failed() -> Result<Report, Trouble> {
    Err(Trouble::new("it broke", "mend it"))
}

#[test]
fn a_server_that_answers_is_first_in_the_book_and_one_that_does_not_is_not() {
    let mut desk = Desk::default();
    let first = ticket(&desk.act(DeskAction::Connect("a".into())));
    assert_eq!(desk.browser().map(|browser| &browser.listing), Some(&Listing::Loading));
    let effects = desk.told(0, DeskTold::Listed(first, Ok((rows(), false))));
    assert!(matches!(&effects[..], [DeskEffect::Keep(KeptText::Addresses(text))] if text.contains("deltasync://a/")));
    let second = ticket(&desk.act(DeskAction::Connect("b:1/photos".into())));
    assert_eq!(desk.told(0, DeskTold::Listed(second, Err(Trouble::new("no", "")))), []);
    assert!(matches!(desk.browser().map(|browser| &browser.listing), Some(Listing::Failed(_))));
    let again = ticket(&desk.act(DeskAction::Refresh));
    assert_eq!(desk.told(0, DeskTold::Listed(again, Ok((rows(), false)))).len(), 1);
    let book: Vec<String> = desk.book().places().iter().map(ToString::to_string).collect();
    assert_eq!(book, ["deltasync://b:1/", "deltasync://a/"]);
    desk.act(DeskAction::Forget(desk.book().places()[0].clone()));
    assert_eq!(desk.book().places().len(), 1);
}

#[test]
fn an_address_that_is_none_is_said_and_changes_nothing() {
    let mut desk = connected();
    assert_eq!(desk.act(DeskAction::Connect("http://x".into())), []);
    assert!(desk.trouble().is_some_and(|trouble| !trouble.todo.is_empty()));
    assert_eq!(desk.browser().map(|browser| browser.rows().len()), Some(3));
    desk.act(DeskAction::DismissTrouble);
    assert_eq!(desk.trouble(), None);
}

#[test]
fn a_listing_that_comes_late_is_not_shown() {
    let mut desk = connected();
    let late = ticket(&desk.act(DeskAction::Open(name("dir"))));
    let up = ticket(&desk.act(DeskAction::Up));
    desk.told(0, DeskTold::Listed(late, Ok((vec![], false))));
    assert_eq!(desk.browser().map(|browser| &browser.listing), Some(&Listing::Loading));
    desk.told(0, DeskTold::Listed(up, Ok((rows(), false))));
    assert_eq!(desk.browser().map(|browser| browser.rows().len()), Some(3));
    let left = ticket(&desk.act(DeskAction::Refresh));
    desk.act(DeskAction::Leave);
    assert_eq!(desk.told(0, DeskTold::Listed(left, Ok((rows(), false)))), []);
    assert!(desk.browser().is_none());
}

#[test]
fn only_directories_are_opened_and_the_served_one_has_none_above() {
    let mut desk = connected();
    assert_eq!(desk.act(DeskAction::Open(name("file"))), []);
    assert_eq!(desk.act(DeskAction::Open(name("nobody"))), []);
    assert_eq!(desk.act(DeskAction::Up), []);
    let effects = desk.act(DeskAction::Open(name("dir")));
    let [DeskEffect::List { place, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(place.to_string(), "deltasync://h/dir/");
}

#[test]
fn a_root_is_asked_for_and_shown_where_it_belongs() {
    let mut desk = connected();
    assert_eq!(desk.act(DeskAction::AskRoot(name("dir"))), [], "a directory has none");
    let effects = desk.act(DeskAction::AskRoot(name("file")));
    let [DeskEffect::Root(place)] = &effects[..] else { panic!("{effects:?}") };
    let (place, root) = (place.clone(), (ByteLen::new(7), Digest::default()));
    let of = |desk: &Desk| desk.browser().and_then(|browser| browser.root(&name("file"))).cloned();
    assert_eq!(of(&desk), Some(RootState::Asked));
    let elsewhere = RemotePlace { path: RelPath::new("dir/file").expect("a path"), ..place.clone() };
    desk.told(0, DeskTold::Root(elsewhere, Ok(root)));
    assert_eq!(of(&desk), Some(RootState::Asked));
    desk.told(0, DeskTold::Root(place, Ok(root)));
    assert_eq!(of(&desk), Some(RootState::Known(root.0, root.1)));
}

#[test]
fn three_run_at_once_and_the_others_follow_in_order() {
    let mut desk = connected();
    assert_eq!(push(&mut desk, &["a", "b", "c", "d", "e"]).len(), Desk::RUNNING_MAX);
    assert_eq!(states(&desk), ["Running", "Running", "Running", "Queued", "Queued"]);
    let effects = desk.told(5, DeskTold::Ended(id(&desk, 1), done()));
    assert!(matches!(&effects[0], DeskEffect::Start(started, _) if *started == id(&desk, 3)), "{effects:?}");
    assert_eq!(states(&desk), ["Running", "Done", "Running", "Running", "Queued"]);
    assert_eq!(desk.history().entries().len(), 1);
    assert_eq!(push(&mut desk, &["a", "e"]), [], "they are in the queue already");
    assert_eq!(push(&mut desk, &["b"]), [], "what is done may be done again, when it is its turn");
    assert_eq!(desk.jobs().len(), 6);
}

#[test]
fn a_watch_takes_no_turn_of_a_transfer() {
    let mut desk = connected();
    push(&mut desk, &["a", "b", "c"]);
    let effects = desk.act(DeskAction::Watch("w".into()));
    assert!(matches!(&effects[..], [DeskEffect::Start(_, Task::Watch { .. })]), "{effects:?}");
    let watch = id(&desk, 3);
    let effects = desk.told(1, DeskTold::Pushed(watch, Ok(Moved::default())));
    assert!(
        effects.iter().any(|effect| matches!(effect, DeskEffect::List { .. })),
        "what is shown changed: {effects:?}"
    );
    assert_eq!(desk.jobs()[3].pushes.0, 1);
    // The switch: off, and on again.
    assert_eq!(desk.act(DeskAction::Pause(watch)), [DeskEffect::Stop(watch)]);
    desk.told(2, DeskTold::Ended(watch, Ok(Report::Watched("compared 2 times".into()))));
    assert_eq!(states(&desk)[3], "Paused");
    assert!(matches!(&desk.act(DeskAction::Resume(watch))[..], [DeskEffect::Start(..)]));
}

#[test]
fn what_is_paused_goes_on_when_it_is_resumed() {
    let mut desk = connected();
    push(&mut desk, &["a", "b", "c", "d"]);
    let (first, last) = (id(&desk, 0), id(&desk, 3));
    assert_eq!(desk.act(DeskAction::Pause(first)), [DeskEffect::Stop(first)]);
    assert_eq!(desk.act(DeskAction::Pause(last)), [], "it does not run");
    assert_eq!(states(&desk), ["Pausing", "Running", "Running", "Paused"]);
    assert_eq!(desk.told(0, DeskTold::Ended(first, failed())), [], "the last one is paused");
    assert_eq!(states(&desk)[0], "Paused");
    assert!(desk.history().entries().is_empty(), "nothing has ended");
    assert!(matches!(&desk.act(DeskAction::Resume(last))[..], [DeskEffect::Start(id, _)] if *id == last));
    assert_eq!(desk.act(DeskAction::Resume(first)), [], "three run");
    assert_eq!(states(&desk), ["Queued", "Running", "Running", "Running"]);
    assert_eq!(desk.act(DeskAction::Resume(first)), [], "it is on its way");
}

#[test]
fn what_is_done_before_it_is_paused_is_done() {
    let mut desk = connected();
    push(&mut desk, &["a"]);
    let job = id(&desk, 0);
    desk.act(DeskAction::Pause(job));
    desk.told(0, DeskTold::Ended(job, done()));
    assert_eq!(states(&desk), ["Done"]);
    assert_eq!(desk.told(0, DeskTold::Ended(job, failed())), [], "it ends once");
    assert_eq!(states(&desk), ["Done"]);
}

#[test]
fn what_is_cancelled_can_be_begun_again_or_put_away() {
    let mut desk = connected();
    push(&mut desk, &["a", "b", "c", "d"]);
    let (first, last) = (id(&desk, 0), id(&desk, 3));
    desk.act(DeskAction::Cancel(last));
    desk.act(DeskAction::Pause(first));
    assert_eq!(desk.act(DeskAction::Cancel(first)), [], "it is being ended already");
    desk.told(9, DeskTold::Ended(first, failed()));
    assert_eq!(states(&desk), ["Cancelled", "Running", "Running", "Cancelled"]);
    assert_eq!(desk.history().entries()[0].ended, HistoryEnd::Cancelled);
    assert_eq!(desk.act(DeskAction::Cancel(first)), []);
    assert!(matches!(&desk.act(DeskAction::Retry(first))[..], [DeskEffect::Start(..)]));
    desk.act(DeskAction::Dismiss(first));
    assert_eq!(desk.jobs().len(), 4, "it runs");
    desk.act(DeskAction::DismissEnded);
    assert_eq!(desk.jobs().len(), 3);
}

#[test]
fn a_failure_says_what_to_do_and_goes_into_the_history() {
    let mut desk = connected();
    push(&mut desk, &["dir/a"]);
    let job = id(&desk, 0);
    let effects = desk.told(77, DeskTold::Ended(job, failed()));
    assert!(effects.iter().any(|effect| matches!(effect, DeskEffect::Keep(KeptText::History(_)))), "{effects:?}");
    assert!(matches!(&desk.jobs()[0].state, JobState::Failed(trouble) if trouble.todo == "mend it"));
    let entry = &desk.history().entries()[0];
    assert_eq!((entry.at, entry.name.as_str(), entry.to.as_str()), (77, "a", "deltasync://h/"));
    assert_eq!((entry.ended, entry.line.as_str()), (HistoryEnd::Failed, "It broke"));
    assert!(
        matches!(&desk.act(DeskAction::ClearHistory)[..], [DeskEffect::Keep(KeptText::History(text))] if text.is_empty())
    );
}

#[test]
fn what_is_selected_is_pulled_and_a_single_file_is_verified() {
    let mut desk = connected();
    assert_eq!(desk.act(DeskAction::Pull("/tmp".into())), [], "nothing is selected");
    desk.act(DeskAction::Select { name: name("dir"), add: false });
    desk.act(DeskAction::Select { name: name("file"), add: true });
    assert_eq!(desk.act(DeskAction::Verify("/f".into())), [], "two are selected");
    assert_eq!(desk.act(DeskAction::Pull("/tmp".into())).len(), 2);
    desk.act(DeskAction::Select { name: name("file"), add: false });
    let effects = desk.act(DeskAction::Verify("/f".into()));
    let [DeskEffect::Start(id, Task::Verify { place, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(place.to_string(), "deltasync://h/file");
    let (here, there) = ((ByteLen::new(1), Digest::default()), (ByteLen::new(2), Digest::default()));
    desk.told(0, DeskTold::Ended(*id, Ok(Report::Differ(here, there))));
    assert_eq!(desk.history().entries()[0].ended, HistoryEnd::Failed);
}

#[test]
fn a_directory_is_changed_and_listed_again() {
    let mut desk = connected();
    let effects = desk.act(DeskAction::MakeDirectory(" new ".into()));
    let [DeskEffect::Alter(make @ Alteration::Make(place))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(place.to_string(), "deltasync://h/new");
    let effects = desk.told(1, DeskTold::Altered(make.clone(), Ok(())));
    assert!(matches!(effects[..], [DeskEffect::Keep(_), DeskEffect::List { .. }]), "{effects:?}");
    let entry = &desk.history().entries()[0];
    assert_eq!((entry.what.as_str(), entry.name.as_str(), entry.ended), ("New folder", "new", HistoryEnd::Done));

    let effects = desk.act(DeskAction::Rename { name: name("file"), to: "renamed".into() });
    let [DeskEffect::Alter(rename @ Alteration::Rename { to, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(to.to_string(), "deltasync://h/renamed");
    let taken = Trouble::new("taken", "choose another");
    let effects = desk.told(2, DeskTold::Altered(rename.clone(), Err(taken.clone())));
    assert!(matches!(effects[..], [DeskEffect::Keep(_), DeskEffect::List { .. }]), "{effects:?}");
    assert_eq!(desk.trouble(), Some(&taken));

    assert_eq!(desk.act(DeskAction::Remove), [], "nothing is selected");
    desk.act(DeskAction::Select { name: name("file"), add: false });
    desk.act(DeskAction::Select { name: name("dir"), add: true });
    let effects = desk.act(DeskAction::Remove);
    assert_eq!(effects.len(), 2);
    desk.act(DeskAction::Open(name("dir")));
    let [DeskEffect::Alter(remove), _] = &effects[..] else { panic!("{effects:?}") };
    let effects = desk.told(3, DeskTold::Altered(remove.clone(), Ok(())));
    assert!(matches!(effects[..], [DeskEffect::Keep(_)]), "another directory is looked at: {effects:?}");
}

#[test]
fn a_name_that_cannot_be_is_said() {
    for text in ["", "..", "a/b"] {
        let mut desk = connected();
        assert_eq!(desk.act(DeskAction::MakeDirectory(text.into())), [], "{text}");
        assert!(desk.trouble().is_some_and(|trouble| trouble.todo.contains("name")), "{text}");
    }
}

#[test]
fn without_a_server_nothing_is_moved() {
    let mut desk = Desk::default();
    for action in [
        DeskAction::Push(vec!["a".into()]),
        DeskAction::Pull("a".into()),
        DeskAction::Watch("a".into()),
        DeskAction::Verify("a".into()),
        DeskAction::MakeDirectory("a".into()),
        DeskAction::Remove,
        DeskAction::Refresh,
        DeskAction::Up,
        DeskAction::Pause(JobId(7)),
        DeskAction::Retry(JobId(7)),
    ] {
        assert_eq!(desk.act(action.clone()), [], "{action:?}");
    }
    assert!(desk.jobs().is_empty());
}

#[test]
fn what_was_kept_is_there_again() {
    let mut before = connected();
    push(&mut before, &["a"]);
    let job = id(&before, 0);
    let mut kept = before.told(3, DeskTold::Ended(job, done()));
    kept.push(before.keep_book());
    let mut desk = Desk::default();
    for effect in kept {
        if let DeskEffect::Keep(text) = effect {
            desk.told(0, DeskTold::Kept(text));
        }
    }
    assert_eq!((desk.book(), desk.history()), (before.book(), before.history()));
    assert_eq!(desk.history().entries().len(), 1);
}
