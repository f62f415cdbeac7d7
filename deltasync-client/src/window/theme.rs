//! How the window looks: two calm palettes, one scale of type, room between things.
//!
//! The three origins of bytes have colours that keep apart for eyes that see no red or no green, and each has a pattern of
//! its own beside.

use eframe::egui::style::WidgetVisuals;
use eframe::egui::{
    Color32, Context, CornerRadius, FontFamily, FontId, Margin, Stroke, Style, TextStyle, Theme, Visuals, vec2,
};

/// What egui has no place for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    /// Behind everything.
    pub back: Color32,
    /// What things lie on.
    pub card: Color32,
    /// Lines between things.
    pub line: Color32,
    pub text: Color32,
    /// Text that can wait.
    pub soft: Color32,
    /// What is chosen or to be pressed.
    pub accent: Color32,
    pub on_accent: Color32,
    pub good: Color32,
    pub bad: Color32,
    pub bad_back: Color32,
    pub copied: Color32,
    pub sent: Color32,
    pub missing: Color32,
    /// The pattern on `missing`.
    pub missing_dots: Color32,
}

const LIGHT: Palette = Palette {
    back: Color32::from_rgb(0xf3, 0xf5, 0xf7),
    card: Color32::WHITE,
    line: Color32::from_rgb(0xd9, 0xdf, 0xe5),
    text: Color32::from_rgb(0x1d, 0x26, 0x30),
    soft: Color32::from_rgb(0x54, 0x62, 0x70),
    accent: Color32::from_rgb(0x1f, 0x66, 0x9e),
    on_accent: Color32::WHITE,
    good: Color32::from_rgb(0x1d, 0x73, 0x55),
    bad: Color32::from_rgb(0xa8, 0x32, 0x2a),
    bad_back: Color32::from_rgb(0xfc, 0xee, 0xec),
    copied: Color32::from_rgb(0x2f, 0x86, 0xa8),
    sent: Color32::from_rgb(0xe2, 0x96, 0x2c),
    missing: Color32::from_rgb(0xe6, 0xea, 0xee),
    missing_dots: Color32::from_rgb(0xae, 0xb8, 0xc2),
};

const DARK: Palette = Palette {
    back: Color32::from_rgb(0x15, 0x19, 0x1e),
    card: Color32::from_rgb(0x1e, 0x24, 0x2b),
    line: Color32::from_rgb(0x34, 0x3d, 0x47),
    text: Color32::from_rgb(0xe4, 0xe9, 0xee),
    soft: Color32::from_rgb(0x9f, 0xad, 0xba),
    accent: Color32::from_rgb(0x6c, 0xb2, 0xe8),
    on_accent: Color32::from_rgb(0x0e, 0x1a, 0x24),
    good: Color32::from_rgb(0x6c, 0xc9, 0xa1),
    bad: Color32::from_rgb(0xf0, 0x8f, 0x84),
    bad_back: Color32::from_rgb(0x38, 0x22, 0x22),
    copied: Color32::from_rgb(0x3f, 0x98, 0xbd),
    sent: Color32::from_rgb(0xe5, 0xa4, 0x48),
    missing: Color32::from_rgb(0x2b, 0x33, 0x3c),
    missing_dots: Color32::from_rgb(0x5a, 0x67, 0x75),
};

impl Palette {
    pub(super) fn of(visuals: &Visuals) -> &'static Self {
        if visuals.dark_mode { &DARK } else { &LIGHT }
    }
}

/// Sets both looks.
pub(super) fn apply(ctx: &Context) {
    // Where the system does not say which it likes.
    ctx.options_mut(|options| options.fallback_theme = Theme::Light);
    for (theme, palette) in [(Theme::Light, &LIGHT), (Theme::Dark, &DARK)] {
        ctx.style_mut_of(theme, |style| dress(style, palette));
    }
}

fn dress(style: &mut Style, palette: &Palette) {
    let sizes =
        [(TextStyle::Small, 12.0), (TextStyle::Body, 14.0), (TextStyle::Button, 14.0), (TextStyle::Heading, 19.0)];
    for (text, size) in sizes {
        style.text_styles.insert(text, FontId::new(size, FontFamily::Proportional));
    }
    style.text_styles.insert(TextStyle::Monospace, FontId::new(13.0, FontFamily::Monospace));
    style.spacing.item_spacing = vec2(8.0, 6.0);
    style.spacing.button_padding = vec2(10.0, 5.0);
    style.spacing.interact_size.y = 28.0;
    style.spacing.window_margin = Margin::same(20);
    style.spacing.tooltip_width = 420.0;
    let visuals = &mut style.visuals;
    visuals.panel_fill = palette.back;
    visuals.window_fill = palette.card;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CornerRadius::same(10);
    visuals.extreme_bg_color = palette.card;
    visuals.faint_bg_color = palette.back;
    visuals.weak_text_color = Some(palette.soft);
    visuals.hyperlink_color = palette.accent;
    visuals.error_fg_color = palette.bad;
    visuals.selection.bg_fill = palette.accent.gamma_multiply(if visuals.dark_mode { 0.35 } else { 0.22 });
    visuals.selection.stroke = Stroke::new(1.5, palette.accent);
    let widgets = &mut visuals.widgets;
    for (widget, stroke) in [
        (&mut widgets.noninteractive, palette.line),
        (&mut widgets.inactive, palette.line),
        (&mut widgets.hovered, palette.accent),
        (&mut widgets.active, palette.accent),
        (&mut widgets.open, palette.accent),
    ] {
        let WidgetVisuals { bg_fill, weak_bg_fill, bg_stroke, corner_radius, fg_stroke, expansion } = widget;
        (*bg_fill, *weak_bg_fill) = (palette.card, palette.card);
        *bg_stroke = Stroke::new(1.0, stroke);
        *corner_radius = CornerRadius::same(6);
        *fg_stroke = Stroke::new(1.0, palette.text);
        *expansion = 0.0;
    }
    let pressed = palette.accent.gamma_multiply(0.16);
    (widgets.active.bg_fill, widgets.active.weak_bg_fill) = (pressed, pressed);
    // The ring around what has the keyboard.
    widgets.active.bg_stroke = Stroke::new(2.0, palette.accent);
}
