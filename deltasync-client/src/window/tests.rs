//! What somebody sees and does, by the labels that a screen reader reads.

use std::cell::RefCell;
use std::rc::Rc;

use deltasync_core::{ByteLen, Name};
use deltasync_proto::{Entry, EntryKind};
use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable as _;

use super::*;
use crate::{Alteration, JobId, Moved, Report, Task, Trouble};

type Effects = Rc<RefCell<Vec<DeskEffect>>>;

/// A window of this size and scale, and what it wants done.
fn window(size: [f32; 2], scale: f32) -> (Harness<'static, Window>, Effects) {
    let effects = Effects::default();
    let wanted = effects.clone();
    let window = Window::new(Desk::default(), move |effect| wanted.borrow_mut().push(effect));
    let harness = Harness::builder().with_size(size).with_pixels_per_point(scale).build_ui_state(
        |ui, window: &mut Window| {
            theme::apply(ui.ctx());
            window.draw(ui);
        },
        window,
    );
    (harness, effects)
}

fn entry(text: &str, kind: EntryKind, len: u64) -> Entry {
    Entry { name: Name::new(text).expect("a name"), kind, len: ByteLen::new(len), modified: 0 }
}

const FOLDER: &str = "photos, folder, modified 1970-01-01 00:00";
const FILE: &str = "report.bin, 2.0 KiB, modified 1970-01-01 00:00";

/// A window of 1280x720 that looks at a folder and a file.
fn connected() -> (Harness<'static, Window>, Effects) {
    connected_at([1280.0, 720.0], 1.0)
}

fn connected_at(size: [f32; 2], scale: f32) -> (Harness<'static, Window>, Effects) {
    let (mut harness, effects) = window(size, scale);
    harness.run_steps(2);
    harness.get_by_role_and_label(Role::TextInput, "Server").type_text("backup.example");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(2);
    let ticket = match &effects.borrow()[..] {
        [DeskEffect::List { ticket, place }] if place.to_string() == "deltasync://backup.example/" => *ticket,
        other => panic!("{other:?}"),
    };
    let rows = vec![entry("report.bin", EntryKind::File, 2048), entry("photos", EntryKind::Directory, 0)];
    harness.state_mut().told(DeskTold::Listed(ticket, Ok((rows, false))));
    harness.run_steps(3);
    effects.borrow_mut().clear();
    (harness, effects)
}

fn click(harness: &mut Harness<'static, Window>, label: &str) {
    harness.get_by_label(label).click();
    harness.run_steps(3);
}

/// The job that was begun last.
fn started(effects: &Effects) -> (JobId, Task) {
    let effects = effects.borrow();
    let started = effects.iter().rev().find_map(|effect| match effect {
        DeskEffect::Start(id, task) => Some((*id, task.clone())),
        _ => None,
    });
    started.unwrap_or_else(|| panic!("{effects:?}"))
}

/// A push of `/tmp/report.bin`, which runs.
fn pushing() -> (Harness<'static, Window>, Effects, JobId) {
    let (mut harness, effects) = connected();
    click(&mut harness, "Push…");
    harness.get_by_role_and_label(Role::TextInput, "Path on this machine").type_text("/tmp/report.bin");
    harness.run_steps(2);
    click(&mut harness, "Push");
    let (id, task) = started(&effects);
    assert!(matches!(task, Task::Push { source, .. } if source.as_os_str() == "/tmp/report.bin"));
    (harness, effects, id)
}

#[test]
fn the_address_has_the_keyboard_at_the_start_and_enter_connects() {
    let (harness, _) = connected();
    assert!(harness.query_by_label(FOLDER).is_some());
    assert!(harness.query_by_label(FILE).is_some());
}

#[test]
fn an_address_that_is_none_is_told_until_it_is_closed() {
    let (mut harness, effects) = window([1280.0, 720.0], 1.0);
    harness.run_steps(2);
    click(&mut harness, "Connect");
    assert!(harness.query_by_label("No address").is_some());
    click(&mut harness, "Close");
    assert!(harness.query_by_label("No address").is_none());
    assert!(effects.borrow().is_empty());
}

#[test]
fn a_server_that_does_not_answer_says_what_to_do() {
    let (mut harness, effects) = connected();
    click(&mut harness, "Refresh");
    let DeskEffect::List { ticket, .. } = effects.borrow()[0] else { panic!("{effects:?}") };
    let trouble = Trouble::new("no connection", "Check that the server runs");
    harness.state_mut().told(DeskTold::Listed(ticket, Err(trouble)));
    harness.run_steps(3);
    assert!(harness.query_by_label("No connection").is_some());
    assert!(harness.query_by_label("Check that the server runs.").is_some());
    click(&mut harness, "Try again");
    assert!(matches!(effects.borrow().last(), Some(DeskEffect::List { .. })));
}

#[test]
fn a_folder_is_opened_and_left_with_the_keyboard() {
    let (mut harness, effects) = connected();
    harness.get_by_label(FOLDER).focus();
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::ALT, Key::ArrowUp);
    harness.run_steps(2);
    let places: Vec<String> = effects
        .borrow()
        .iter()
        .map(|effect| match effect {
            DeskEffect::List { place, .. } => place.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, ["deltasync://backup.example/photos/", "deltasync://backup.example/"]);
}

#[test]
fn a_transfer_is_paused_resumed_and_cancelled_by_its_buttons() {
    let (mut harness, effects, id) = pushing();
    click(&mut harness, "Pause");
    assert!(effects.borrow().contains(&DeskEffect::Stop(id)));
    harness.state_mut().told(DeskTold::Ended(id, Err(Trouble::new("interrupted", ""))));
    harness.run_steps(2);
    assert!(harness.query_by_label("Paused").is_some());
    effects.borrow_mut().clear();
    click(&mut harness, "Resume");
    assert_eq!(started(&effects).0, id);
    click(&mut harness, "Cancel");
    assert!(effects.borrow().contains(&DeskEffect::Stop(id)));
    harness.state_mut().told(DeskTold::Ended(id, Err(Trouble::new("interrupted", ""))));
    harness.run_steps(2);
    assert!(harness.query_by_label("Cancelled").is_some());
    click(&mut harness, "Clear");
    assert!(harness.query_by_label("Cancelled").is_none());
}

#[test]
fn what_is_done_says_what_it_saved_and_is_in_the_history() {
    let (mut harness, _, id) = pushing();
    let moved = Moved::default();
    let line = moved.line();
    harness.state_mut().told(DeskTold::Ended(id, Ok(Report::Moved(moved))));
    harness.run_steps(2);
    assert!(harness.query_by_label(&line).is_some());
    click(&mut harness, "History");
    assert!(harness.query_by_label("Push report.bin").is_some());
    click(&mut harness, "Forget all");
    assert!(harness.query_by_label("Forget the whole history?").is_some());
    click(&mut harness, "Keep");
    assert_eq!(harness.state().desk.history().entries().len(), 1);
}

#[test]
fn what_failed_says_what_to_do_and_is_tried_again() {
    let (mut harness, effects, id) = pushing();
    harness.state_mut().told(DeskTold::Ended(id, Err(Trouble::new("the disk is full", "Free some space"))));
    harness.run_steps(2);
    assert!(harness.query_by_label("The disk is full").is_some());
    assert!(harness.query_by_label("Free some space.").is_some());
    effects.borrow_mut().clear();
    click(&mut harness, "Retry");
    assert_eq!(started(&effects).0, id);
}

#[test]
fn nothing_is_deleted_without_a_question_and_enter_does_not_answer_it() {
    let (mut harness, effects) = connected();
    click(&mut harness, FILE);
    harness.key_press(Key::Delete);
    harness.run_steps(3);
    assert!(harness.query_by_label("Delete report.bin?").is_some());
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert!(harness.query_by_label("Delete report.bin?").is_none());
    assert!(effects.borrow().is_empty(), "{effects:?}");
    click(&mut harness, "Delete…");
    click(&mut harness, "Delete");
    assert!(
        matches!(&effects.borrow()[..], [DeskEffect::Alter(Alteration::Remove(place))] if place.to_string().ends_with("/report.bin"))
    );
}

#[test]
fn a_folder_is_made_and_a_file_renamed() {
    let (mut harness, effects) = connected();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::N);
    harness.run_steps(3);
    harness.get_by_role_and_label(Role::TextInput, "Name").type_text("new");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert!(
        matches!(&effects.borrow()[..], [DeskEffect::Alter(Alteration::Make(place))] if place.to_string().ends_with("/new"))
    );
    effects.borrow_mut().clear();
    click(&mut harness, FILE);
    click(&mut harness, "Rename…");
    let field = harness.get_by_role_and_label(Role::TextInput, "Name");
    assert_eq!(field.value().as_deref(), Some("report.bin"));
    field.type_text("2");
    harness.run_steps(2);
    click(&mut harness, "Rename");
    assert!(
        matches!(&effects.borrow()[..], [DeskEffect::Alter(Alteration::Rename { to, .. })] if to.to_string().contains('2'))
    );
}

#[test]
fn a_watch_is_switched_off_and_on() {
    let (mut harness, effects) = connected();
    click(&mut harness, "Watch…");
    harness.get_by_role_and_label(Role::TextInput, "Path on this machine").type_text("/tmp/photos");
    harness.run_steps(2);
    click(&mut harness, "Watch");
    let (id, task) = started(&effects);
    assert!(task.is_watch());
    harness.get_by_role_and_label(Role::CheckBox, "Watch").click();
    harness.run_steps(3);
    assert!(effects.borrow().contains(&DeskEffect::Stop(id)));
}

#[test]
fn everything_is_in_the_window_at_720_lines_at_twice_the_scale_and_when_small() {
    for (size, scale) in [([1280.0, 720.0], 1.0), ([1280.0, 720.0], 2.0), ([760.0, 480.0], 1.0)] {
        let (mut harness, _) = connected_at(size, scale);
        click(&mut harness, FILE);
        for label in
            ["Connect", "Push…", "Pull…", "Verify…", "Watch…", "Delete…", "Refresh", "Transfers", "History", FILE]
        {
            let rect = harness.get_by_label(label).rect();
            let inside = rect.left() >= 0.0 && rect.top() >= 0.0 && rect.right() <= size[0] && rect.bottom() <= size[1];
            assert!(inside && rect.width() > 8.0, "{label} at {size:?} x {scale}: {rect:?}");
        }
    }
}

#[test]
fn both_looks_can_be_had() {
    let (mut harness, _) = connected();
    let dark = harness.ctx.theme() == eframe::egui::Theme::Dark;
    click(&mut harness, if dark { "Light" } else { "Dark" });
    assert_ne!(harness.ctx.theme() == eframe::egui::Theme::Dark, dark);
}
