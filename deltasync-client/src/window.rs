//! The window of the desktop client: it draws a [`Desk`] and turns what somebody does into actions.
//!
//! It is drawn anew from the desk whenever something has changed, and holds nothing that matters: half-typed text, which
//! dialog is open, which tab is in front. What takes time goes to `run`, which is [`DeskExecutor::run`] in the program and a
//! list in the tests.

mod asking;
mod browse;
mod icon;
mod parts;
mod past;
mod queue;
mod strip;
mod theme;

#[cfg(all(test, feature = "gui-tests"))]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use deltasync_io::Bandwidth;
use eframe::egui::text::CCursorRange;
use eframe::egui::{
    self, Align, CentralPanel, Context, Frame, Key, KeyboardShortcut, Layout, Margin, Modifiers, Panel, RichText,
    Stroke, TextEdit, ThemePreference, Ui, ViewportBuilder,
};

use self::asking::{Asking, Picked};
use self::parts::{Kind, button};
use self::theme::Palette;
use crate::{Desk, DeskAction, DeskEffect, DeskExecutor, DeskFiles, DeskTold, Options, State};

/// How the desktop client is called.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(name = "deltasync-gui", version, about = "The desktop client of deltasync.")]
pub struct WindowArgs {
    /// A server to look at: HOST, HOST:PORT or deltasync://HOST/FOLDER
    server: Option<String>,
    /// Move at most so many KiB a second in each transfer, or bytes with a suffix K, M or G; 32K at least
    #[arg(long, value_name = "RATE", value_parser = crate::args::bandwidth)]
    bwlimit: Option<Bandwidth>,
}

/// Opens the window and returns when it is closed.
///
/// # Errors
///
/// What the system says when there can be no window, in words.
pub fn run_window(args: WindowArgs) -> Result<(), String> {
    let viewport = ViewportBuilder::default()
        .with_title("deltasync")
        .with_app_id("deltasync-gui")
        .with_inner_size([1280.0, 720.0])
        .with_min_inner_size([760.0, 480.0]);
    let native = eframe::NativeOptions { viewport, ..eframe::NativeOptions::default() };
    let opened = eframe::run_native(
        "deltasync",
        native,
        Box::new(move |creation| {
            let wake = creation.egui_ctx.clone();
            let options = Options { state: State::of_user(), bandwidth: args.bwlimit, ..Options::default() };
            let executor = DeskExecutor::start(DeskFiles::of_user(), options, move || wake.request_repaint())?;
            theme::apply(&creation.egui_ctx);
            Ok(Box::new(Program::new(executor, args.server)))
        }),
    );
    opened.map_err(|error| format!("cannot open a window: {error}"))
}

/// The window and what carries out its effects.
struct Program {
    window: Window,
    executor: Arc<DeskExecutor>,
}

impl Program {
    fn new(executor: DeskExecutor, server: Option<String>) -> Self {
        let executor = Arc::new(executor);
        let running = executor.clone();
        let mut window = Window::new(Desk::default(), move |effect| running.run(effect));
        if let Some(server) = server {
            window.address.clone_from(&server);
            window.act(DeskAction::Connect(server));
        }
        Self { window, executor }
    }
}

impl eframe::App for Program {
    fn logic(&mut self, _: &Context, _: &mut eframe::Frame) {
        for told in self.executor.take() {
            self.window.told(told);
        }
    }

    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        self.window.draw(ui);
    }
}

/// What the window draws and what of it is not on the desk.
struct Window {
    desk: Desk,
    run: Box<dyn FnMut(DeskEffect)>,
    address: String,
    focus_address: bool,
    asking: Option<Asking>,
    tab: Tab,
    /// What native dialogs bring.
    picked: (Sender<Picked>, Receiver<Picked>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tab {
    Transfers,
    History,
}

const ADDRESS: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::L);
const THEME: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::T);
const HISTORY: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::H);

impl Window {
    fn new(desk: Desk, run: impl FnMut(DeskEffect) + 'static) -> Self {
        Self {
            desk,
            run: Box::new(run),
            address: String::new(),
            focus_address: true,
            asking: None,
            tab: Tab::Transfers,
            picked: channel(),
        }
    }

    fn act(&mut self, action: DeskAction) {
        self.desk.act(action).into_iter().for_each(&mut self.run);
    }

    fn told(&mut self, told: DeskTold) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.desk.told(now, told).into_iter().for_each(&mut self.run);
    }

    fn draw(&mut self, ui: &mut Ui) {
        let mut actions = Vec::new();
        while let Ok(picked) = self.picked.1.try_recv() {
            actions.extend(picked.action());
        }
        actions.extend(self.dropped(ui));
        self.keys(ui, &mut actions);
        let palette = Palette::of(ui.visuals());
        let bar = Frame::new().fill(palette.card).inner_margin(Margin::symmetric(16, 10));
        Panel::top("bar").frame(bar).show(ui, |ui| self.bar(ui, &mut actions));
        if let Some(trouble) = self.desk.trouble() {
            let frame = Frame::new().fill(palette.bad_back).inner_margin(Margin::symmetric(16, 8));
            Panel::top("trouble").frame(frame).show(ui, |ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if button(ui, "Close", "Close this message", Kind::Quiet).clicked() {
                        actions.push(DeskAction::DismissTrouble);
                    }
                    ui.with_layout(Layout::top_down(Align::Min), |ui| parts::trouble(ui, trouble));
                });
            });
        }
        let side = Frame::new().fill(palette.back).inner_margin(Margin { left: 14, right: 16, top: 12, bottom: 10 });
        let width = ui.available_width();
        Panel::right("side")
            .frame(side)
            .default_size(width * 0.46)
            .size_range(320.0..=width * 0.6)
            .show(ui, |ui| self.side(ui, &mut actions));
        let main = Frame::new().fill(palette.back).inner_margin(Margin { left: 16, right: 14, top: 12, bottom: 10 });
        CentralPanel::default().frame(main).show(ui, |ui| {
            browse::draw(ui, &self.desk, &mut self.asking, &mut actions);
        });
        if let Some(asking) = &mut self.asking
            && asking.draw(ui.ctx(), &self.desk, &self.picked.0, &mut actions)
        {
            self.asking = None;
        }
        self.drop_zone(ui);
        actions.into_iter().for_each(|action| self.act(action));
    }

    fn bar(&mut self, ui: &mut Ui, actions: &mut Vec<DeskAction>) {
        let palette = Palette::of(ui.visuals());
        ui.horizontal(|ui| {
            ui.label(RichText::new("deltasync").heading().strong().color(palette.accent));
            ui.add_space(10.0);
            let label = ui.label(RichText::new("Server").color(palette.soft));
            let field = TextEdit::singleline(&mut self.address)
                .hint_text("backup.example or host:port")
                .desired_width(300.0)
                .margin(Margin::symmetric(8, 6));
            let field = ui.add(field).labelled_by(label.id);
            if std::mem::take(&mut self.focus_address) {
                field.request_focus();
                // What is typed now is another address.
                let mut state = TextEdit::load_state(ui.ctx(), field.id).unwrap_or_default();
                state.cursor.set_char_range(Some(CCursorRange::select_all_str(&self.address)));
                TextEdit::store_state(ui.ctx(), field.id, state);
            }
            let entered = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if button(ui, "Connect", "Look at this server", Kind::Primary).clicked() || entered {
                actions.push(DeskAction::Connect(self.address.clone()));
            }
            if self.desk.browser().is_some() && button(ui, "Leave", "Look away from this server", Kind::Quiet).clicked()
            {
                self.focus_address = true;
                actions.push(DeskAction::Leave);
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let dark = ui.visuals().dark_mode;
                let (name, theme) =
                    if dark { ("Light", ThemePreference::Light) } else { ("Dark", ThemePreference::Dark) };
                let hint = format!("{name} colours ({})", ui.ctx().format_shortcut(&THEME));
                if button(ui, name, &hint, Kind::Quiet).clicked() {
                    ui.ctx().set_theme(theme);
                }
            });
        });
    }

    /// Transfers and history.
    fn side(&mut self, ui: &mut Ui, actions: &mut Vec<DeskAction>) {
        ui.horizontal(|ui| {
            let waiting = self.desk.jobs().iter().filter(|job| !job.state.has_ended()).count();
            let transfers = if waiting > 0 { format!("Transfers ({waiting})") } else { "Transfers".to_owned() };
            ui.selectable_value(&mut self.tab, Tab::Transfers, transfers);
            ui.selectable_value(&mut self.tab, Tab::History, "History");
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| match self.tab {
                Tab::Transfers => {
                    // Where the cards end, beside the scroll bar.
                    ui.add_space(8.0);
                    let any = self.desk.jobs().iter().any(|job| job.state.has_ended());
                    let clear =
                        |ui: &mut Ui| button(ui, "Clear ended", "Take all that has ended off the list", Kind::Quiet);
                    if ui.add_enabled_ui(any, clear).inner.clicked() {
                        actions.push(DeskAction::DismissEnded);
                    }
                }
                Tab::History => {
                    let any = !self.desk.history().entries().is_empty();
                    let clear = |ui: &mut Ui| button(ui, "Forget all", "Empty the history", Kind::Quiet);
                    if ui.add_enabled_ui(any, clear).inner.clicked() {
                        self.asking = Some(Asking::forget_history());
                    }
                }
            });
        });
        ui.add_space(4.0);
        match self.tab {
            Tab::Transfers => queue::draw(ui, &self.desk, actions),
            Tab::History => past::draw(ui, self.desk.history()),
        }
    }

    /// What can be done with the keyboard wherever it is.
    fn keys(&mut self, ui: &mut Ui, actions: &mut Vec<DeskAction>) {
        if self.asking.is_some() {
            return;
        }
        let pressed = |shortcut: &KeyboardShortcut| ui.input_mut(|input| input.consume_shortcut(shortcut));
        if pressed(&ADDRESS) {
            self.focus_address = true;
        }
        if pressed(&HISTORY) {
            self.tab = if self.tab == Tab::History { Tab::Transfers } else { Tab::History };
        }
        if pressed(&THEME) {
            let theme = if ui.visuals().dark_mode { ThemePreference::Light } else { ThemePreference::Dark };
            ui.ctx().set_theme(theme);
        }
        let typing = ui.ctx().text_edit_focused();
        if let (false, Some(browser)) = (typing, self.desk.browser()) {
            browse::keys(ui, browser, &mut self.asking, actions);
        }
    }

    /// Files that were dropped onto the window.
    fn dropped(&self, ui: &Ui) -> Option<DeskAction> {
        let files = ui.input(|input| input.raw.dropped_files.clone());
        let paths: Vec<PathBuf> = files.iter().map(|file| file.path().to_owned()).collect();
        (!paths.is_empty() && self.desk.browser().is_some()).then_some(DeskAction::Push(paths))
    }

    /// What would happen if files were dropped now.
    fn drop_zone(&self, ui: &Ui) {
        if ui.input(|input| input.raw.hovered_files.is_empty()) {
            return;
        }
        let text = match self.desk.browser() {
            Some(browser) => format!("Drop to push into {}", browser.place),
            None => "Connect to a server first, then drop files to push them".to_owned(),
        };
        let layer = egui::LayerId::new(egui::Order::Foreground, egui::Id::unique("drop"));
        let palette = Palette::of(ui.visuals());
        let (painter, rect) = (ui.ctx().layer_painter(layer), ui.ctx().content_rect().shrink(8.0));
        painter.rect_filled(rect, 10.0, palette.back.gamma_multiply(0.92));
        painter.rect_stroke(rect, 10.0, Stroke::new(2.0, palette.accent), egui::StrokeKind::Inside);
        let font = egui::TextStyle::Heading.resolve(ui.style());
        painter.text(rect.center(), egui::Align2::CENTER_CENTER, text, font, palette.text);
    }
}
