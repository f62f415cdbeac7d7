//! The history, the newest first.

use eframe::egui::{Align, Layout, RichText, ScrollArea, TextWrapMode, Ui};

use super::icon::{Icon, icon};
use super::parts::{empty, soft};
use super::theme::Palette;
use crate::shown::Moment;
use crate::{History, HistoryEnd, HistoryEntry};

const ROW: f32 = 46.0;

pub(super) fn draw(ui: &mut Ui, history: &History) {
    let entries = history.entries();
    if entries.is_empty() {
        return empty(ui, "Nothing yet", "What you push, pull and verify is listed here, also after a restart.");
    }
    ScrollArea::vertical().auto_shrink(false).show_rows(ui, ROW, entries.len(), |ui, rows| {
        for entry in &entries[rows] {
            row(ui, entry);
        }
    });
}

fn row(ui: &mut Ui, entry: &HistoryEntry) {
    let palette = Palette::of(ui.visuals());
    let (colour, mark) = match entry.ended {
        HistoryEnd::Done => (palette.good, Icon::Check),
        HistoryEnd::Failed => (palette.bad, Icon::Cross),
        HistoryEnd::Cancelled => (palette.soft, Icon::Dash),
    };
    ui.allocate_ui(eframe::egui::vec2(ui.available_width(), ROW), |ui| {
        ui.style_mut().wrap_mode = Some(TextWrapMode::Truncate);
        ui.set_min_height(ROW);
        ui.spacing_mut().item_spacing.y = 2.0;
        ui.horizontal(|ui| {
            icon(ui, mark, colour);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                soft(ui, Moment(entry.at).to_string() + " UTC");
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    ui.label(RichText::new(format!("{} {}", entry.what, entry.name)).color(palette.text))
                        .on_hover_text(format!("{} {} to {}", entry.what, entry.name, entry.to));
                });
            });
        });
        soft(ui, &entry.line).on_hover_text(&entry.line);
        ui.separator();
    });
}
