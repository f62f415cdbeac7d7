//! The block map of a file as a strip: which ranges were copied, sent, or are missing yet.
//!
//! Each origin has a colour and a pattern: copied is plain, sent is hatched, missing is dotted, and where copied and sent
//! bytes lie too close together for the strip, the hatching stands on the colour of copied. A tooltip names the range.

use deltasync_core::{BlockRun, ByteLen, Origin};
use eframe::egui::{
    CornerRadius, Painter, Rect, Response, Role, Sense, Stroke, StrokeKind, TextStyle, Ui, WidgetInfo, pos2, vec2,
};

use super::theme::Palette;
use crate::shown::{Grouped, Size};

const HEIGHT: f32 = 18.0;

/// Draws the map of a file of `len` bytes.
pub(super) fn strip(ui: &mut Ui, name: &str, len: ByteLen, runs: &[BlockRun]) -> Response {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::hover());
    let palette = Palette::of(ui.visuals());
    let label = format!("Block map of {name}: {}", shares(len, runs));
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &label));
    if ui.is_rect_visible(rect) {
        for run in runs {
            fill(ui.painter(), part(rect, len, run), run.origin, palette);
        }
        ui.painter().rect_stroke(rect, CornerRadius::same(3), Stroke::new(1.0, palette.line), StrokeKind::Outside);
    }
    let at = ui.input(|input| input.pointer.hover_pos()).filter(|pos| rect.contains(*pos));
    let run = at.and_then(|pos| runs.iter().find(|run| part(rect, len, run).x_range().contains(pos.x)));
    match run {
        Some(run) => response.on_hover_text_at_pointer(range(run)),
        None => response,
    }
}

/// What the patterns mean.
pub(super) fn legend(ui: &mut Ui) {
    for origin in [Origin::Copied, Origin::Sent, Origin::Mixed, Origin::Missing] {
        let palette = Palette::of(ui.visuals());
        let (rect, _) = ui.allocate_exact_size(vec2(22.0, 12.0), Sense::hover());
        fill(ui.painter(), rect, origin, palette);
        ui.painter().rect_stroke(rect, CornerRadius::same(2), Stroke::new(1.0, palette.line), StrokeKind::Outside);
        ui.label(eframe::egui::RichText::new(word(origin)).text_style(TextStyle::Small).color(palette.soft));
        ui.add_space(6.0);
    }
}

fn part(rect: Rect, len: ByteLen, run: &BlockRun) -> Rect {
    let at = |bytes: u64| rect.left() + rect.width() * (bytes as f64 / len.get().max(1) as f64) as f32;
    let (from, to) = (run.at.get(), run.at.get().saturating_add(run.len.get()));
    Rect::from_x_y_ranges(at(from)..=at(to).min(rect.right()), rect.y_range())
}

fn fill(painter: &Painter, rect: Rect, origin: Origin, palette: &Palette) {
    let painter = painter.with_clip_rect(rect.intersect(painter.clip_rect()));
    let plain = |colour| painter.rect_filled(rect, CornerRadius::ZERO, colour);
    match origin {
        Origin::Copied => {
            plain(palette.copied);
        }
        Origin::Sent => {
            plain(palette.sent);
            hatch(&painter, rect, Stroke::new(1.5, palette.text.gamma_multiply(0.55)));
        }
        Origin::Mixed => {
            plain(palette.copied);
            hatch(&painter, rect, Stroke::new(2.0, palette.sent));
        }
        Origin::Missing => {
            plain(palette.missing);
            dots(&painter, rect, palette);
        }
    }
}

/// Lines from below to above, at the same places whatever the range is.
fn hatch(painter: &Painter, rect: Rect, stroke: Stroke) {
    const STEP: f32 = 6.0;
    let height = rect.height();
    let mut x = ((rect.left() - height) / STEP).floor() * STEP;
    while x < rect.right() {
        painter.line_segment([pos2(x, rect.bottom()), pos2(x + height, rect.top())], stroke);
        x += STEP;
    }
}

fn dots(painter: &Painter, rect: Rect, palette: &Palette) {
    const STEP: f32 = 6.0;
    let mut x = (rect.left() / STEP).ceil() * STEP;
    while x < rect.right() {
        painter.circle_filled(pos2(x, rect.center().y), 1.0, palette.missing_dots);
        x += STEP;
    }
}

fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::Copied => "copied",
        Origin::Sent => "sent",
        Origin::Mixed => "both, close together",
        Origin::Missing => "still missing",
    }
}

/// Such as `Sent: 4.0 MiB at 12.0 MiB (bytes 12,582,912 to 16,777,215)`.
fn range(run: &BlockRun) -> String {
    let (at, len) = (run.at.get(), run.len.get());
    let mut what = word(run.origin).to_owned();
    what[..1].make_ascii_uppercase();
    let last = at.saturating_add(len).saturating_sub(1);
    format!("{what}: {} at {} (bytes {} to {})", Size(len), Size(at), Grouped(at), Grouped(last))
}

/// The map for those who cannot see it.
fn shares(len: ByteLen, runs: &[BlockRun]) -> String {
    let share = |origin| {
        let bytes: u64 = runs.iter().filter(|run| run.origin == origin).map(|run| run.len.get()).sum();
        (bytes as f64 * 100.0 / len.get().max(1) as f64).round()
    };
    let parts =
        [Origin::Copied, Origin::Sent, Origin::Mixed, Origin::Missing].map(|origin| (share(origin), word(origin)));
    let said: Vec<String> =
        parts.iter().filter(|(share, _)| *share > 0.0).map(|(share, word)| format!("{share} % {word}")).collect();
    format!("{} in all, {}", Size(len.get()), said.join(", "))
}

#[cfg(test)]
mod tests {
    use deltasync_core::Offset;

    use super::*;

    fn run(at: u64, len: u64, origin: Origin) -> BlockRun {
        BlockRun { at: Offset::new(at), len: ByteLen::new(len), origin }
    }

    #[test]
    fn a_range_is_named_by_where_it_came_from_and_where_it_is() {
        assert_eq!(range(&run(2048, 1024, Origin::Sent)), "Sent: 1.0 KiB at 2.0 KiB (bytes 2,048 to 3,071)");
        assert_eq!(range(&run(0, 0, Origin::Missing)), "Still missing: 0 B at 0 B (bytes 0 to 0)");
    }

    #[test]
    fn the_map_is_told_to_those_who_cannot_see_it() {
        let runs = [run(0, 750, Origin::Copied), run(750, 250, Origin::Missing)];
        assert_eq!(shares(ByteLen::new(1000), &runs), "1000 B in all, 75 % copied, 25 % still missing");
    }

    #[test]
    fn ranges_lie_side_by_side_whatever_the_length() {
        let rect = Rect::from_min_size(pos2(10.0, 0.0), vec2(100.0, 10.0));
        let half = part(rect, ByteLen::new(u64::MAX), &run(0, u64::MAX / 2, Origin::Sent));
        assert!((half.right() - 60.0).abs() < 0.01, "{half:?}");
        assert!(part(rect, ByteLen::ZERO, &run(0, 0, Origin::Missing)).width().abs() < 0.01);
    }
}
