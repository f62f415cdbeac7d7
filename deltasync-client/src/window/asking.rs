//! The dialogs: what is asked before something begins.
//!
//! A path can be typed or chosen by the dialog of the system, which runs on a thread of its own and brings back what was
//! chosen. Where the system has no such dialog, typing is left.

use std::path::PathBuf;
use std::sync::mpsc::Sender;

use deltasync_core::Name;
use eframe::egui::{Context, Frame, Id, Key, Modal, RichText, TextEdit, Ui, vec2};
use rfd::AsyncFileDialog;

use super::parts::{Kind, button};
use super::theme::Palette;
use crate::{Desk, DeskAction, Shown};

/// A dialog that is open.
#[derive(Debug)]
pub(super) struct Asking {
    what: What,
    text: String,
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Push,
    Pull,
    Verify,
    Watch,
    NewFolder,
    Rename,
    Remove,
    ForgetHistory,
}

/// What the dialog of the system brings.
#[derive(Debug)]
pub(super) struct Picked {
    what: What,
    paths: Vec<PathBuf>,
}

impl Picked {
    /// What that begins; nothing when nothing was chosen.
    pub(super) fn action(self) -> Option<DeskAction> {
        let first = self.paths.first().cloned()?;
        match self.what {
            What::Push => Some(DeskAction::Push(self.paths)),
            What::Pull => Some(DeskAction::Pull(first)),
            What::Verify => Some(DeskAction::Verify(first)),
            What::Watch => Some(DeskAction::Watch(first)),
            What::NewFolder | What::Rename | What::Remove | What::ForgetHistory => None,
        }
    }
}

impl Asking {
    fn new(what: What) -> Self {
        Self { what, text: String::new(), begun: false }
    }

    pub(super) fn push() -> Self {
        Self::new(What::Push)
    }

    pub(super) fn pull() -> Self {
        let home = std::env::var("HOME").unwrap_or_default();
        Self { text: home, ..Self::new(What::Pull) }
    }

    pub(super) fn verify() -> Self {
        Self::new(What::Verify)
    }

    pub(super) fn watch() -> Self {
        Self::new(What::Watch)
    }

    pub(super) fn new_folder() -> Self {
        Self::new(What::NewFolder)
    }

    /// Another name for this one; one that is no text has to be written anew.
    pub(super) fn rename(name: &Name) -> Self {
        Self { text: String::from_utf8(name.as_bytes().to_owned()).unwrap_or_default(), ..Self::new(What::Rename) }
    }

    pub(super) fn remove() -> Self {
        Self::new(What::Remove)
    }

    pub(super) fn forget_history() -> Self {
        Self::new(What::ForgetHistory)
    }

    /// Draws it; true when it is over.
    pub(super) fn draw(
        &mut self,
        ctx: &Context,
        desk: &Desk,
        picked: &Sender<Picked>,
        actions: &mut Vec<DeskAction>,
    ) -> bool {
        let frame = Frame::popup(&ctx.global_style()).inner_margin(22);
        let modal = Modal::new(Id::unique("asking")).frame(frame).show(ctx, |ui| {
            ui.set_width(460.0);
            ui.label(RichText::new(self.title(desk)).heading());
            let colour = Palette::of(ui.visuals()).soft;
            ui.label(RichText::new(self.explanation()).color(colour));
            ui.add_space(8.0);
            self.body(ui, desk, picked, actions)
        });
        modal.inner || modal.should_close()
    }

    fn title(&self, desk: &Desk) -> String {
        let browser = desk.browser();
        let place = browser.map(|browser| browser.place.to_string()).unwrap_or_default();
        let selected = || match browser.map(|browser| (browser.single(), browser.selected.len())) {
            Some((Some(entry), _)) => Shown(entry.name.as_bytes()).to_string(),
            Some((None, several)) => format!("{several} entries"),
            None => String::new(),
        };
        match self.what {
            What::Push => format!("Push to {place}"),
            What::Pull => format!("Pull {}", selected()),
            What::Verify => format!("Verify {}", selected()),
            What::Watch => "Watch a folder".to_owned(),
            What::NewFolder => "New folder".to_owned(),
            What::Rename => format!("Rename {}", selected()),
            What::Remove => format!("Delete {}?", selected()),
            What::ForgetHistory => "Forget the whole history?".to_owned(),
        }
    }

    fn explanation(&self) -> &'static str {
        match self.what {
            What::Push => "Choose files or a folder, or write a path. Only what the server lacks is sent.",
            What::Pull => "Choose the folder of this machine that it goes into. Only what is missing there is fetched.",
            What::Verify => "Choose the file of this machine to compare it with. Both ends hash, nothing is moved.",
            What::Watch => "It is pushed here now, and again whenever something in it changes.",
            What::NewFolder => "It is made in the folder that is listed.",
            What::Rename => "It stays in this folder.",
            What::Remove => "It is removed at the server, a folder with all that is in it. This cannot be undone.",
            What::ForgetHistory => "Files are not touched. This cannot be undone.",
        }
    }

    const fn word(&self) -> &'static str {
        match self.what {
            What::Push => "Push",
            What::Pull => "Pull",
            What::Verify => "Verify",
            What::Watch => "Watch",
            What::NewFolder => "Make",
            What::Rename => "Rename",
            What::Remove => "Delete",
            What::ForgetHistory => "Forget all",
        }
    }

    /// What can be typed and pressed; true when it is over.
    fn body(&mut self, ui: &mut Ui, desk: &Desk, picked: &Sender<Picked>, actions: &mut Vec<DeskAction>) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        if matches!(self.what, What::Remove | What::ForgetHistory) {
            return self.question(ui, first, actions);
        }
        let is_name = matches!(self.what, What::NewFolder | What::Rename);
        let soft = Palette::of(ui.visuals()).soft;
        let label = if is_name { "Name" } else { "Path on this machine" };
        let label = ui.label(RichText::new(label).color(soft));
        let field = TextEdit::singleline(&mut self.text).desired_width(f32::INFINITY).margin(vec2(8.0, 6.0));
        let field = ui.add(field).labelled_by(label.id);
        if first {
            field.request_focus();
        }
        let entered = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        ui.add_space(8.0);
        let mut over = false;
        ui.horizontal(|ui| {
            let go = |ui: &mut Ui| button(ui, self.word(), "Begin (Enter)", Kind::Primary);
            let named = !self.text.trim().is_empty();
            if (ui.add_enabled_ui(named, go).inner.clicked() || entered) && named {
                actions.extend(self.action(desk));
                over = true;
            }
            let choices = match self.what {
                What::Push => &[("Choose files…", false), ("Choose a folder…", true)][..],
                What::Verify => &[("Choose a file…", false)],
                What::Pull | What::Watch => &[("Choose a folder…", true)],
                _ => &[],
            };
            for (text, folder) in choices {
                if button(ui, text, "By the dialog of the system", Kind::Plain).clicked() {
                    self.pick(ui.ctx(), picked, *folder);
                    over = true;
                }
            }
            over |= button(ui, "Cancel", "Close without doing anything (Esc)", Kind::Quiet).clicked();
        });
        over
    }

    /// A question that is answered by yes or no.
    fn question(&self, ui: &mut Ui, first: bool, actions: &mut Vec<DeskAction>) -> bool {
        ui.horizontal(|ui| {
            let yes = button(ui, self.word(), "This cannot be undone", Kind::Danger).clicked();
            if yes {
                actions.push(if self.what == What::Remove { DeskAction::Remove } else { DeskAction::ClearHistory });
            }
            let keep = button(ui, "Keep", "Close this question (Esc)", Kind::Plain);
            // What cannot be undone is not what Enter does.
            if first {
                keep.request_focus();
            }
            yes || keep.clicked()
        })
        .inner
    }

    /// What begins with the text that was typed.
    fn action(&self, desk: &Desk) -> Option<DeskAction> {
        match self.what {
            What::NewFolder => Some(DeskAction::MakeDirectory(self.text.clone())),
            What::Rename => {
                let name = desk.browser()?.single()?.name.clone();
                Some(DeskAction::Rename { name, to: self.text.clone() })
            }
            _ => Picked { what: self.what, paths: vec![expand(self.text.trim())] }.action(),
        }
    }

    /// Opens the dialog of the system.
    fn pick(&self, ctx: &Context, picked: &Sender<Picked>, folder: bool) {
        let (what, picked, ctx) = (self.what, picked.clone(), ctx.clone());
        let title = self.explanation();
        let waiting = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
            let dialog = AsyncFileDialog::new().set_title(title);
            let chosen = runtime.block_on(async {
                match (folder, what) {
                    (true, _) => dialog.pick_folder().await.map(|folder| vec![folder]),
                    (false, What::Push) => dialog.pick_files().await,
                    (false, _) => dialog.pick_file().await.map(|file| vec![file]),
                }
            });
            let paths = chosen.into_iter().flatten().map(|handle| handle.path().to_owned()).collect();
            // The window may be gone.
            let _ = picked.send(Picked { what, paths });
            ctx.request_repaint();
        };
        // Without a thread there is no dialog, and a path can still be typed.
        let _ = std::thread::Builder::new().name("dialog".into()).spawn(waiting);
    }
}

/// A path as it was typed, with the home directory for a `~` at its beginning.
fn expand(text: &str) -> PathBuf {
    match (text.strip_prefix('~'), std::env::home_dir()) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(text),
    }
}
