//! Small things that the window is made of.

use eframe::egui::{Button, Color32, CornerRadius, Frame, Margin, Response, RichText, Stroke, Ui};

use super::theme::Palette;
use crate::Trouble;

/// How much a button asks for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is most likely wanted.
    Primary,
    /// What is there too.
    Plain,
    /// What stays in the background.
    Quiet,
    /// What takes something away.
    Danger,
}

/// A button, and what it does in a tooltip.
pub(super) fn button(ui: &mut Ui, text: &str, hint: &str, kind: Kind) -> Response {
    let palette = Palette::of(ui.visuals());
    let button = match kind {
        Kind::Primary => Button::new(RichText::new(text).color(palette.on_accent)).fill(palette.accent),
        Kind::Plain => Button::new(text),
        Kind::Quiet => Button::new(RichText::new(text).color(palette.soft)).fill(Color32::TRANSPARENT),
        Kind::Danger => Button::new(RichText::new(text).color(palette.bad)).stroke(Stroke::new(1.0, palette.bad)),
    };
    ui.add(button).on_hover_text(hint)
}

/// What things lie on.
pub(super) fn card(ui: &Ui) -> Frame {
    let palette = Palette::of(ui.visuals());
    Frame::new()
        .fill(palette.card)
        .stroke(Stroke::new(1.0, palette.line))
        .corner_radius(CornerRadius::same(8))
        .inner_margin(Margin::symmetric(14, 10))
}

/// Text that can wait.
pub(super) fn soft(ui: &mut Ui, text: impl Into<String>) -> Response {
    let colour = Palette::of(ui.visuals()).soft;
    ui.label(RichText::new(text).small().color(colour))
}

/// What went wrong and what to do.
pub(super) fn trouble(ui: &mut Ui, trouble: &Trouble) {
    let palette = Palette::of(ui.visuals());
    ui.label(RichText::new(&trouble.what).color(palette.bad));
    if !trouble.todo.is_empty() {
        ui.label(RichText::new(format!("{}.", trouble.todo)).color(palette.text));
    }
}

/// Words in the middle of an empty place.
pub(super) fn empty(ui: &mut Ui, title: &str, text: &str) {
    let palette = Palette::of(ui.visuals());
    ui.add_space((ui.available_height() * 0.28).max(12.0));
    ui.vertical_centered(|ui| {
        ui.label(RichText::new(title).heading().color(palette.text));
        ui.add_space(2.0);
        ui.label(RichText::new(text).color(palette.soft));
    });
}
