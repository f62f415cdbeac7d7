//! What is seen of a verb while it runs: a bar on a terminal, else a line now and then about why it waits.
//!
//! Thin: what to say is decided by [`Bars`] and [`Waits`], and printed here twice a second at most, or when something was
//! lost and is tried again.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::run::say;
use crate::shown::{Span, Tries};
use crate::{Bars, Update, Waits};

/// How far apart looks at the clock are.
const TICK: Duration = Duration::from_millis(500);

/// Draws one verb.
pub(crate) struct Face {
    begun: Instant,
    /// Drawn from the stream of updates, and while that is silent.
    state: RefCell<(Waits, Look)>,
}

/// How a verb is drawn.
pub(crate) enum Look {
    /// On a terminal.
    Bars(Box<Bars>),
    /// Line by line.
    Lines,
    /// Not at all.
    Nothing,
}

impl Face {
    pub(crate) fn new(look: Look) -> Self {
        Self { begun: Instant::now(), state: RefCell::new((Waits::default(), look)) }
    }

    /// Begins anew, as another look, with nothing to wait for.
    pub(crate) fn change(&self, look: Look) {
        let before = self.state.replace((Waits::default(), look));
        if let (_, Look::Bars(bars)) = before {
            bars.clear();
        }
    }

    /// Takes in one update.
    pub(crate) fn update(&self, update: &Update) {
        let (waits, look) = &mut *self.state.borrow_mut();
        waits.update(self.begun.elapsed(), update);
        let line = match update {
            Update::Retrying(retry) => {
                let (after, tries) = (Span(retry.after), Tries(retry.number, retry.of));
                Some(format!("{}; trying again in {after} ({tries})", retry.why))
            }
            _ => None,
        };
        match look {
            Look::Bars(bars) => {
                if let Some(line) = line {
                    bars.aside(|| say(&line));
                }
                bars.update(update);
            }
            Look::Lines => line.into_iter().for_each(|line| say(&line)),
            Look::Nothing => {}
        }
    }

    /// Carries out `work` and draws also while it tells nothing; the drawing is gone at the end.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick() => self.tick(),
            }
        };
        if let (_, Look::Bars(bars)) = &*self.state.borrow() {
            bars.clear();
        }
        result
    }

    fn tick(&self) {
        let (waits, look) = &mut *self.state.borrow_mut();
        let now = self.begun.elapsed();
        match look {
            Look::Bars(bars) => bars.wait(waits.at(now)),
            Look::Lines => waits.line(now).into_iter().for_each(|line| say(&line)),
            Look::Nothing => {}
        }
    }
}
