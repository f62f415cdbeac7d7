//! How a program is told to stop: first gently, then at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Finishing,
    Ended,
}

/// Tells a running server to stop.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<Stage>);

/// Hears when to stop. Without a [`Stopper`] left, that is never.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

impl Stopper {
    /// The first call asks to finish what runs, the second to end at once.
    pub fn stop(&self) {
        self.0.send_modify(|stage| {
            *stage = match stage {
                Stage::Serving => Stage::Finishing,
                Stage::Finishing | Stage::Ended => Stage::Ended,
            };
        });
    }
}

impl Shutdown {
    /// The two ends of a wire that has not been pulled.
    pub fn channel() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(Stage::Serving);
        (Stopper(sender), Self(receiver))
    }

    /// Stops at SIGTERM and Ctrl-C: the first one asks to finish, the second to end at once. To be called on a runtime.
    ///
    /// # Errors
    ///
    /// When the system does not take the signal handlers.
    pub fn on_signals() -> io::Result<Self> {
        let (stopper, shutdown) = Self::channel();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            loop {
                let caught = tokio::select! {
                    caught = terminate.recv() => caught,
                    caught = interrupt.recv() => caught,
                };
                if caught.is_none() {
                    return;
                }
                stopper.stop();
            }
        });
        Ok(shutdown)
    }

    /// Comes back when it is time to finish.
    pub async fn finishing(&mut self) {
        self.reached(Stage::Finishing).await;
    }

    /// Comes back when it is time to end at once.
    pub async fn ended(&mut self) {
        self.reached(Stage::Ended).await;
    }

    async fn reached(&mut self, stage: Stage) {
        if self.0.wait_for(|&now| now >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_first_stop_is_gentle_and_the_second_is_not() {
        let (stopper, mut shutdown) = Shutdown::channel();
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, shutdown.finishing()).await.is_err());
        stopper.stop();
        assert!(timeout(soon, shutdown.finishing()).await.is_ok());
        assert!(timeout(soon, shutdown.ended()).await.is_err());
        stopper.stop();
        stopper.stop();
        drop(stopper);
        assert!(timeout(soon, shutdown.ended()).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_to_stop_it_means_never() {
        let (stopper, mut shutdown) = Shutdown::channel();
        drop(stopper);
        assert!(timeout(Duration::from_millis(20), shutdown.finishing()).await.is_err());
    }
}
