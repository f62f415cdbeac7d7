//! The queue: a card for each transfer, the newest first.

use eframe::egui::{Align, Layout, ProgressBar, RichText, ScrollArea, TextWrapMode, Ui};

use super::icon::{Icon, icon};
use super::parts::{self, Kind, button, card, empty, soft};
use super::strip;
use super::theme::Palette;
use crate::{Desk, DeskAction, Job, JobState, Moved, Report, Task};

/// How many cards are drawn at most.
const CARDS_MAX: usize = 200;

pub(super) fn draw(ui: &mut Ui, desk: &Desk, actions: &mut Vec<DeskAction>) {
    let jobs = desk.jobs();
    if jobs.is_empty() {
        let text = "Drop files onto the window, or choose Push or Pull. Three transfers run at once.";
        return empty(ui, "No transfers", text);
    }
    ui.horizontal(strip::legend);
    ui.add_space(2.0);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        for job in jobs.iter().rev().take(CARDS_MAX) {
            ui.push_id(job.id, |ui| {
                card(ui).show(ui, |ui| {
                    // Beside the scroll bar.
                    ui.set_width(ui.available_width() - 8.0);
                    draw_job(ui, job, actions);
                });
            });
        }
        if let Some(more) = jobs.len().checked_sub(CARDS_MAX).filter(|more| *more > 0) {
            soft(ui, format!("and {more} older ones"));
        }
    });
}

fn draw_job(ui: &mut Ui, job: &Job, actions: &mut Vec<DeskAction>) {
    let palette = Palette::of(ui.visuals());
    let name = job.task.name();
    ui.style_mut().wrap_mode = Some(TextWrapMode::Truncate);
    ui.horizontal(|ui| {
        icon(ui, mark(&job.task), palette.accent).on_hover_text(job.task.word());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            buttons(ui, job, &name, actions);
            let colour = match &job.state {
                JobState::Done(Report::Differ(..)) | JobState::Failed(_) => palette.bad,
                JobState::Done(_) => palette.good,
                JobState::Running => palette.accent,
                _ => palette.soft,
            };
            ui.label(RichText::new(word(job)).small().color(colour));
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.label(RichText::new(&name).strong().color(palette.text)).on_hover_text(source(&job.task));
            });
        });
    });
    soft(ui, format!("{} {}", preposition(&job.task), job.task.to())).on_hover_text(job.task.to());
    if let Some((member, len, runs)) = job.live.strip() {
        ui.add_space(2.0);
        strip::strip(ui, member.as_deref().unwrap_or(&name), len, &runs);
        if let Some(member) = member.filter(|_| job.state.is_active()) {
            soft(ui, member);
        }
    } else if job.state.is_active() && job.live.share().is_none() {
        ui.add(ProgressBar::new(0.0).animate(true).desired_height(6.0));
    }
    ui.style_mut().wrap_mode = Some(TextWrapMode::Wrap);
    match &job.state {
        JobState::Running | JobState::Pausing | JobState::Cancelling => running(ui, job),
        JobState::Done(Report::Moved(moved)) => done(ui, moved),
        JobState::Done(report) => {
            ui.label(report.line());
        }
        JobState::Failed(trouble) => parts::trouble(ui, trouble),
        JobState::Paused if job.task.is_watch() => {
            soft(ui, "Off: changes stay here until it is switched on again");
        }
        JobState::Paused => {
            soft(ui, "What has arrived is kept, and is not sent again");
        }
        JobState::Queued | JobState::Cancelled => {}
    }
}

fn running(ui: &mut Ui, job: &Job) {
    let palette = Palette::of(ui.visuals());
    if job.task.is_watch() && job.pushes.0 > 0 {
        match &job.pushes.1 {
            Some(Ok(moved)) => done(ui, moved),
            Some(Err(trouble)) => parts::trouble(ui, trouble),
            None => {}
        }
        let times = job.pushes.0;
        soft(ui, format!("pushed {times} time{} since it was begun", if times == 1 { "" } else { "s" }));
        return;
    }
    ui.horizontal(|ui| {
        ui.label(job.live.line());
        if let Some(share) = job.live.share() {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.label(RichText::new(format!("{:.0} %", (share * 100.0).floor())).strong().color(palette.text));
            });
        }
    });
    soft(ui, job.live.cost());
}

fn done(ui: &mut Ui, moved: &Moved) {
    ui.label(moved.line());
    soft(ui, moved.cost());
    for note in &moved.notes {
        soft(ui, note);
    }
}

fn buttons(ui: &mut Ui, job: &Job, name: &str, actions: &mut Vec<DeskAction>) {
    let id = job.id;
    let mut one = |ui: &mut Ui, text: &str, hint: String, action: DeskAction| {
        if button(ui, text, &hint, Kind::Quiet).clicked() {
            actions.push(action);
        }
    };
    // From right to left.
    match &job.state {
        state if state.has_ended() => {
            one(ui, "Clear", format!("Take {name} off the list"), DeskAction::Dismiss(id));
            let again = if matches!(state, JobState::Done(_)) { "Again" } else { "Retry" };
            one(ui, again, format!("{} {name} again", job.task.word()), DeskAction::Retry(id));
        }
        JobState::Cancelling => {}
        state => {
            one(ui, "Cancel", format!("End {name} for good"), DeskAction::Cancel(id));
            if job.task.is_watch() {
                let mut on = matches!(state, JobState::Running | JobState::Queued);
                if ui.checkbox(&mut on, "Watch").on_hover_text("Push whenever something changes").clicked() {
                    actions.push(if on { DeskAction::Resume(id) } else { DeskAction::Pause(id) });
                }
            } else if *state == JobState::Paused {
                one(ui, "Resume", format!("Go on with {name}"), DeskAction::Resume(id));
            } else if *state != JobState::Pausing {
                one(ui, "Pause", format!("Stop {name} and keep what has arrived"), DeskAction::Pause(id));
            }
        }
    }
}

fn word(job: &Job) -> &'static str {
    match &job.state {
        JobState::Done(Report::Differ(..)) => "Different",
        JobState::Done(Report::Same(..)) => "The same",
        JobState::Running if job.task.is_watch() => "Watching",
        state => state.word(),
    }
}

fn mark(task: &Task) -> Icon {
    match task {
        Task::Push { .. } => Icon::Up,
        Task::Pull { .. } => Icon::Down,
        Task::Verify { .. } => Icon::Check,
        Task::Watch { .. } => Icon::Eye,
    }
}

fn preposition(task: &Task) -> &'static str {
    if matches!(task, Task::Verify { .. }) { "with" } else { "to" }
}

fn source(task: &Task) -> String {
    match task {
        Task::Push { source: path, .. } | Task::Watch { source: path, .. } | Task::Verify { file: path, .. } => {
            crate::Shown::path(path).to_string()
        }
        Task::Pull { source, .. } => source.to_string(),
    }
}
