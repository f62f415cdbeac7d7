//! Small signs, drawn: the fonts that come along have none for them.

use eframe::egui::{Color32, CornerRadius, Painter, Rect, Response, Sense, Shape, Stroke, StrokeKind, Ui, pos2, vec2};

/// A small sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icon {
    Folder,
    File,
    Up,
    Down,
    Check,
    Cross,
    Dash,
    Eye,
    /// Rows are in this order: the least first.
    Rising,
    Falling,
}

const SIDE: f32 = 16.0;

/// Draws it among other things.
pub(super) fn icon(ui: &mut Ui, icon: Icon, colour: Color32) -> Response {
    let (rect, response) = ui.allocate_exact_size(vec2(SIDE, SIDE), Sense::hover());
    paint(ui.painter(), rect, icon, colour);
    response
}

/// Draws it into a square in the middle of `rect`.
pub(super) fn paint(painter: &Painter, rect: Rect, icon: Icon, colour: Color32) {
    let square = Rect::from_center_size(rect.center(), vec2(SIDE, SIDE));
    let at = |x: f32, y: f32| pos2(square.left() + x, square.top() + y);
    let stroke = Stroke::new(1.8, colour);
    let line = |points: &[(f32, f32)]| {
        painter.add(Shape::line(points.iter().map(|(x, y)| at(*x, *y)).collect(), stroke));
    };
    let filled = |points: &[(f32, f32)]| {
        let points = points.iter().map(|(x, y)| at(*x, *y)).collect();
        painter.add(Shape::convex_polygon(points, colour, Stroke::NONE));
    };
    match icon {
        Icon::Folder => {
            painter.rect_filled(Rect::from_min_max(at(1.0, 2.5), at(8.0, 7.0)), CornerRadius::same(2), colour);
            painter.rect_filled(Rect::from_min_max(at(1.0, 4.5), at(15.0, 13.5)), CornerRadius::same(2), colour);
        }
        Icon::File => {
            let thin = Stroke::new(1.2, colour);
            let page = Rect::from_min_max(at(3.0, 1.5), at(13.0, 14.5));
            painter.rect_stroke(page, CornerRadius::same(2), thin, StrokeKind::Inside);
            for y in [5.5, 8.0, 10.5] {
                painter.line_segment([at(5.5, y), at(10.5, y)], thin);
            }
        }
        Icon::Up => {
            line(&[(8.0, 14.0), (8.0, 4.0)]);
            filled(&[(8.0, 1.5), (13.0, 7.5), (3.0, 7.5)]);
        }
        Icon::Down => {
            line(&[(8.0, 2.0), (8.0, 12.0)]);
            filled(&[(8.0, 14.5), (3.0, 8.5), (13.0, 8.5)]);
        }
        Icon::Check => line(&[(2.5, 8.5), (6.5, 12.5), (13.5, 4.0)]),
        Icon::Cross => {
            line(&[(3.5, 3.5), (12.5, 12.5)]);
            line(&[(12.5, 3.5), (3.5, 12.5)]);
        }
        Icon::Dash => line(&[(3.5, 8.0), (12.5, 8.0)]),
        Icon::Eye => {
            line(&[
                (1.0, 8.0),
                (4.5, 4.5),
                (8.0, 3.5),
                (11.5, 4.5),
                (15.0, 8.0),
                (11.5, 11.5),
                (8.0, 12.5),
                (4.5, 11.5),
                (1.0, 8.0),
            ]);
            painter.circle_filled(at(8.0, 8.0), 2.4, colour);
        }
        Icon::Rising => filled(&[(8.0, 5.0), (11.5, 10.5), (4.5, 10.5)]),
        Icon::Falling => filled(&[(8.0, 11.0), (4.5, 5.5), (11.5, 5.5)]),
    }
}
