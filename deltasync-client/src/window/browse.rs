//! The tree of the server: where one is, what is there, and what can be done with it.

use std::cell::Cell;

use deltasync_core::Name;
use deltasync_proto::{Entry, EntryKind};
use eframe::egui::{
    Align, Button, CornerRadius, Frame, Key, Layout, Modifiers, Rect, Response, RichText, Role, ScrollArea, Sense,
    Stroke, StrokeKind, TextStyle, TextWrapMode, Ui, WidgetInfo, WidgetText, pos2, vec2,
};

use super::asking::Asking;
use super::icon::{self, Icon};
use super::parts::{self, Kind, button, card, empty, soft};
use super::theme::Palette;
use crate::{Browser, Desk, DeskAction, Listing, RootState, Shown, SortBy};

const ROW: f32 = 28.0;
/// The widths of the columns behind the name.
const SIZE: f32 = 90.0;
const MODIFIED: f32 = 130.0;

pub(super) fn draw(ui: &mut Ui, desk: &Desk, asking: &mut Option<Asking>, actions: &mut Vec<DeskAction>) {
    let Some(browser) = desk.browser() else { return welcome(ui, desk, actions) };
    crumbs(ui, browser, actions);
    tools(ui, browser, asking, actions);
    ui.add_space(2.0);
    let details = browser.single().map_or(0.0, |_| 86.0);
    let height = ui.available_height() - details;
    let frame = Frame { inner_margin: 6.into(), ..card(ui) };
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.set_height((height - 14.0).max(60.0));
        if let Listing::Failed(trouble) = &browser.listing {
            ui.add_space(8.0);
            ui.horizontal(|ui| {
                ui.add_space(8.0);
                ui.vertical(|ui| {
                    parts::trouble(ui, trouble);
                    if button(ui, "Try again", "List the folder again", Kind::Plain).clicked() {
                        actions.push(DeskAction::Refresh);
                    }
                });
            });
            if browser.rows().is_empty() {
                return;
            }
        }
        heads(ui, browser, actions);
        rows(ui, browser, actions);
    });
    if let Some(entry) = browser.single() {
        details_of(ui, browser, entry, actions);
    }
}

/// Nobody is connected to yet: the servers that were used.
fn welcome(ui: &mut Ui, desk: &Desk, actions: &mut Vec<DeskAction>) {
    let places = desk.book().places();
    if places.is_empty() {
        let text = "Write the address of a deltasync server above and press Enter.";
        return empty(ui, "Connect to a server", text);
    }
    ui.label(RichText::new("Servers").heading());
    soft(ui, "The last used first");
    ui.add_space(6.0);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        for place in places {
            card(ui).show(ui, |ui| {
                ui.set_width(ui.available_width());
                ui.horizontal(|ui| {
                    ui.label(RichText::new(place.server.to_string()).strong());
                    ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                        let forget = format!("Take {} off this list", place.server);
                        if button(ui, "Forget", &forget, Kind::Quiet).clicked() {
                            actions.push(DeskAction::Forget(place.clone()));
                        }
                        if button(ui, "Open", &format!("Look at {}", place.server), Kind::Plain).clicked() {
                            actions.push(DeskAction::Connect(place.to_string()));
                        }
                    });
                });
            });
        }
    });
}

fn crumbs(ui: &mut Ui, browser: &Browser, actions: &mut Vec<DeskAction>) {
    let palette = Palette::of(ui.visuals());
    let crumbs = browser.crumbs();
    ScrollArea::horizontal().id_salt("crumbs").stick_to_right(true).auto_shrink([false, true]).show(ui, |ui| {
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            let last = crumbs.len() - 1;
            for (number, (name, path)) in crumbs.into_iter().enumerate() {
                if number > 0 {
                    ui.label(RichText::new("/").color(palette.soft));
                }
                let text = RichText::new(&name).size(16.0);
                let text = if number == last { text.strong() } else { text.color(palette.accent) };
                if ui.add(Button::new(text).frame(false)).clicked() && number != last {
                    actions.push(DeskAction::GoTo(path));
                }
            }
            if browser.listing == Listing::Loading {
                ui.add_space(8.0);
                ui.spinner();
            }
        });
    });
}

fn tools(ui: &mut Ui, browser: &Browser, asking: &mut Option<Asking>, actions: &mut Vec<DeskAction>) {
    let some = !browser.selected.is_empty();
    let file = browser.single().is_some_and(|entry| entry.kind == EntryKind::File);
    ui.horizontal_wrapped(|ui| {
        if button(ui, "Push…", "Bring files or a folder of this machine here (Ctrl+U)", Kind::Primary).clicked() {
            *asking = Some(Asking::push());
        }
        let one = |ui: &mut Ui, enabled: bool, text: &str, hint: &str, then: &mut dyn FnMut()| {
            let drawn = ui.add_enabled_ui(enabled, |ui| button(ui, text, hint, Kind::Plain)).inner;
            if drawn.on_disabled_hover_text(hint).clicked() {
                then();
            }
        };
        let asking = Cell::from_mut(asking);
        one(ui, some, "Pull…", "Bring what is selected to this machine (Ctrl+D)", &mut || {
            asking.set(Some(Asking::pull()))
        });
        one(ui, file, "Verify…", "Compare the selected file with one here", &mut || {
            asking.set(Some(Asking::verify()));
        });
        one(ui, true, "Watch…", "Push a folder whenever something in it changes", &mut || {
            asking.set(Some(Asking::watch()));
        });
        one(ui, true, "New folder…", "Make a folder in this one (Ctrl+N)", &mut || {
            asking.set(Some(Asking::new_folder()));
        });
        one(ui, browser.single().is_some(), "Rename…", "Give what is selected another name (F2)", &mut || {
            asking.set(browser.single().map(|entry| Asking::rename(&entry.name)));
        });
        one(ui, some, "Delete…", "Remove what is selected, after a question (Del)", &mut || {
            asking.set(Some(Asking::remove()));
        });
        one(ui, true, "Refresh", "List this folder again (F5)", &mut || actions.push(DeskAction::Refresh));
    });
}

/// The keys of the list: see `docs/GUI.md`.
pub(super) fn keys(ui: &Ui, browser: &Browser, asking: &mut Option<Asking>, actions: &mut Vec<DeskAction>) {
    let pressed = |modifiers, key| ui.input_mut(|input| input.consume_key(modifiers, key));
    if pressed(Modifiers::NONE, Key::F5) {
        actions.push(DeskAction::Refresh);
    }
    if pressed(Modifiers::ALT, Key::ArrowUp) || pressed(Modifiers::NONE, Key::Backspace) {
        actions.push(DeskAction::Up);
    }
    if pressed(Modifiers::COMMAND, Key::U) {
        *asking = Some(Asking::push());
    }
    if pressed(Modifiers::COMMAND, Key::N) {
        *asking = Some(Asking::new_folder());
    }
    if let Some(entry) = browser.single()
        && pressed(Modifiers::NONE, Key::F2)
    {
        *asking = Some(Asking::rename(&entry.name));
    }
    if !browser.selected.is_empty() && pressed(Modifiers::NONE, Key::Delete) {
        *asking = Some(Asking::remove());
    }
    if !browser.selected.is_empty() && pressed(Modifiers::COMMAND, Key::D) {
        *asking = Some(Asking::pull());
    }
}

/// Where the columns are in a row.
fn columns(rect: Rect) -> [Rect; 3] {
    let (size, modified) = (rect.right() - MODIFIED - SIZE, rect.right() - MODIFIED);
    let part = |from: f32, to: f32| Rect::from_x_y_ranges(from..=to, rect.y_range());
    [part(rect.left() + 10.0, size - 12.0), part(size, modified - 16.0), part(modified, rect.right() - 10.0)]
}

fn heads(ui: &mut Ui, browser: &Browser, actions: &mut Vec<DeskAction>) {
    let palette = Palette::of(ui.visuals());
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 24.0), Sense::hover());
    let names = [("Name", SortBy::Name), ("Size", SortBy::Size), ("Modified (UTC)", SortBy::Modified)];
    for ((name, by), column) in names.into_iter().zip(columns(rect)) {
        let response = ui.interact(column, ui.scope_id().with(name), Sense::click());
        response.widget_info(|| WidgetInfo::labeled(Role::Button, true, format!("Sort by {name}")));
        let colour = if response.hovered() || response.has_focus() { palette.accent } else { palette.soft };
        let right = by == SortBy::Size;
        let width = text(ui, column, name, TextStyle::Small, colour, right);
        if browser.sort.0 == by {
            let x = if right { column.right() - width - 9.0 } else { column.left() + width + 9.0 };
            let at = Rect::from_center_size(pos2(x, column.center().y), vec2(10.0, 10.0));
            icon::paint(ui.painter(), at, if browser.sort.1 { Icon::Falling } else { Icon::Rising }, colour);
        }
        if response.clicked() {
            actions.push(DeskAction::Sort(by));
        }
    }
    ui.painter().hline(rect.x_range(), rect.bottom() + 1.0, Stroke::new(1.0, palette.line));
}

fn rows(ui: &mut Ui, browser: &Browser, actions: &mut Vec<DeskAction>) {
    let entries = browser.rows();
    if entries.is_empty() && browser.listing == Listing::Ready {
        return empty(ui, "This folder is empty", "Drop files onto the window to push them here.");
    }
    ui.spacing_mut().item_spacing.y = 0.0;
    ScrollArea::vertical().auto_shrink(false).show_rows(ui, ROW, entries.len(), |ui, shown| {
        for entry in &entries[shown] {
            row(ui, browser, entry, actions);
        }
    });
    if browser.cut {
        soft(ui, format!("The first {} entries; there are more", Browser::ROWS_MAX));
    }
}

fn row(ui: &mut Ui, browser: &Browser, entry: &Entry, actions: &mut Vec<DeskAction>) {
    let palette = Palette::of(ui.visuals());
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::click());
    let (size, modified) = (Browser::size_of(entry), Browser::modified_of(entry));
    let name = Shown(entry.name.as_bytes()).to_string();
    let selected = browser.selected.contains(&entry.name);
    response.widget_info(|| {
        WidgetInfo::selected(Role::ListBoxOption, true, selected, format!("{name}, {size}, modified {modified}"))
    });
    if ui.is_rect_visible(rect) {
        let painter = ui.painter();
        let (inner, corner) = (rect.shrink2(vec2(2.0, 1.0)), CornerRadius::same(5));
        if selected {
            painter.rect_filled(inner, corner, ui.visuals().selection.bg_fill);
        } else if response.hovered() {
            painter.rect_filled(inner, corner, palette.back);
        }
        if response.has_focus() {
            painter.rect_stroke(inner, corner, Stroke::new(2.0, palette.accent), StrokeKind::Inside);
        }
        let [at, size_at, modified_at] = columns(rect);
        let is_directory = entry.kind == EntryKind::Directory;
        let square = Rect::from_min_max(at.min, pos2(at.left() + 20.0, at.bottom()));
        let colour = if is_directory { palette.accent } else { palette.soft };
        icon::paint(ui.painter(), square, if is_directory { Icon::Folder } else { Icon::File }, colour);
        text(ui, at.with_min_x(at.left() + 26.0), &name, TextStyle::Body, palette.text, false);
        text(ui, size_at, &size, TextStyle::Body, palette.soft, true);
        text(ui, modified_at, &modified, TextStyle::Body, palette.soft, false);
    }
    act_on(ui, &response, &entry.name, entry.kind == EntryKind::Directory, actions);
}

/// A click selects, a second one and Enter open.
fn act_on(ui: &Ui, response: &Response, name: &Name, opens: bool, actions: &mut Vec<DeskAction>) {
    let enter = response.has_focus() && ui.input(|input| input.key_pressed(Key::Enter));
    if opens && (response.double_clicked() || enter) {
        actions.push(DeskAction::Open(name.clone()));
    } else if response.clicked() {
        response.request_focus();
        let add = ui.input(|input| input.modifiers.command || input.modifiers.shift);
        actions.push(DeskAction::Select { name: name.clone(), add });
    }
}

/// Text in a rectangle, cut where it ends; the width it takes.
fn text(ui: &Ui, rect: Rect, text: &str, style: TextStyle, colour: eframe::egui::Color32, right: bool) -> f32 {
    let text = WidgetText::from(RichText::new(text).color(colour));
    let galley = text.into_galley(ui, Some(TextWrapMode::Truncate), rect.width(), style);
    let x = if right { rect.right() - galley.size().x } else { rect.left() };
    let size = galley.size();
    ui.painter().galley(pos2(x, rect.center().y - size.y / 2.0), galley, colour);
    size.x
}

/// What is known of the selected entry.
fn details_of(ui: &mut Ui, browser: &Browser, entry: &Entry, actions: &mut Vec<DeskAction>) {
    ui.add_space(4.0);
    card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.style_mut().wrap_mode = Some(TextWrapMode::Truncate);
        ui.label(RichText::new(Shown(entry.name.as_bytes()).to_string()).strong());
        ui.horizontal(|ui| {
            let size = Browser::size_of(entry);
            match browser.root(&entry.name) {
                _ if entry.kind != EntryKind::File => {
                    soft(ui, format!("{size}, changed {} UTC", Browser::modified_of(entry)));
                }
                None => {
                    soft(ui, size);
                    if button(ui, "Ask for its root", "Have the server hash it", Kind::Quiet).clicked() {
                        actions.push(DeskAction::AskRoot(entry.name.clone()));
                    }
                }
                Some(RootState::Asked) => {
                    soft(ui, format!("{size}, the server hashes it"));
                    ui.spinner();
                }
                Some(RootState::Known(_, root)) => {
                    let root = root.to_string();
                    if button(ui, "Copy root", "Put the root into the clipboard", Kind::Quiet).clicked() {
                        ui.ctx().copy_text(root.clone());
                    }
                    ui.label(RichText::new(&root).monospace()).on_hover_text(&root);
                }
                Some(RootState::Failed(trouble)) => parts::trouble(ui, trouble),
            }
        });
    });
}
