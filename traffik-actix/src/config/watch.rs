//! Files that change while they are in force.
//!
//! The file is read every second or so and compared. Times of change are coarse on some file systems, lie on others, and do not
//! move when a ConfigMap is swapped by a link; events of the kernel need a crate and miss network file systems. To read a few kilobytes
//! costs less than to explain any of this.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use actix_web::rt::task::JoinHandle;
use futures_util::future::{Either, select};
use traffik_core::Result;

use super::{LimitsFile, Reloaded, Texts};

impl LimitsFile {
    /// Looks at the file this often, and [reloads](LimitsFile::reload) it when it has changed and is the same at the next look, so that one
    /// that is being written is not read by halves; and at once on SIGHUP, where there is one. The log says at the level `info` what
    /// has changed, and at `error` what is wrong with a file that therefore changes nothing.
    ///
    /// It goes on until the runtime ends, or the task is aborted that is returned.
    ///
    /// # Panics
    ///
    /// Outside of an actix runtime, such as that of `#[actix_web::main]`.
    pub fn watch(&self, every: Duration) -> JoinHandle<()> {
        actix_web::rt::spawn(run(self.clone(), every.max(Duration::from_millis(1))))
    }

    /// Logs what became of a reload.
    fn tell(&self, reloaded: &Result<Reloaded>) {
        match reloaded {
            Ok(reloaded) => log::info!("{} is in force: {reloaded}", self.name()),
            Err(error) => {
                log::error!("{error}: nothing is changed, and what was in force stays so")
            }
        }
    }

    /// Looks at the file, and reloads it if it has settled.
    fn look(&self, before: &mut Option<Texts>) {
        // Without the lock, for which others would wait as long as a slow disk takes.
        let readings = self.loaded().readings;
        match self.read() {
            Ok(texts) if before.as_ref() == Some(&texts) => {
                if let Some(reloaded) = self.reload_if(texts, readings).transpose() {
                    self.tell(&reloaded);
                }
            }
            Ok(texts) => *before = Some(texts),
            // Said once: until it is there again there is nothing to compare.
            Err(error) => {
                if before.take().is_some() {
                    self.tell(&Err(error));
                }
            }
        }
    }
}

async fn run(file: LimitsFile, every: Duration) {
    let mut hangups = Hangups::new();
    // As it was loaded: it may be gone by now, and that is told.
    let mut before = file.loaded().seen.clone();
    loop {
        let wait = tokio::time::sleep(every);
        let is_asked = match select(pin!(wait), pin!(hangups.next())).await {
            Either::Left(_) => false,
            Either::Right(_) => true,
        };
        let (looking, mut seen) = (file.clone(), before.take());
        let looked = actix_web::rt::task::spawn_blocking(move || {
            match is_asked {
                true => looking.tell(&looking.reload()),
                false => looking.look(&mut seen),
            }
            seen
        });
        // What panicked in there has said so.
        before = looked.await.unwrap_or_else(|_| file.loaded().seen.clone());
    }
}

/// Signals to reload.
struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> Hangups {
        use tokio::signal::unix::{SignalKind, signal};
        let signals = signal(SignalKind::hangup());
        let signals = signals.inspect_err(|error| log::error!("SIGHUP reloads no limits: {error}"));
        Hangups {
            signals: signals.ok(),
        }
    }

    #[cfg(not(unix))]
    fn new() -> Hangups {
        Hangups {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        poll_fn(|_| std::task::Poll::<()>::Pending).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::throttle::HttpThrottle;

    /// Each look said so again, and built everything anew.
    #[test]
    fn a_file_that_could_not_come_into_force_was_tried_at_each_look() {
        let path = std::env::temp_dir().join(format!("traffik-watch-{}.toml", std::process::id()));
        let text = |name: &str| format!("[throttle.{name}]\nrate = \"1/s\"\n");
        std::fs::write(&path, text("api")).unwrap();
        let limits = Limits::new();
        let program = HttpThrottle::builder("jobs").rate("1/s");
        limits.add(program).unwrap();
        let file = LimitsFile::at(&path).limits(&limits).load().unwrap();
        std::fs::write(&path, text("jobs")).unwrap();
        let texts = file.read().unwrap();
        let reload_if = |texts| {
            let readings = file.loaded().readings;
            file.reload_if(texts, readings)
        };
        let first = reload_if(texts.clone()).unwrap_err().to_string();
        assert!(
            first.contains("the program has a throttle `jobs`"),
            "{first}"
        );
        assert_eq!(reload_if(texts).unwrap(), None);
        // Who asks for it is told again.
        assert!(file.reload().is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(limits.get("api").is_some());
    }

    /// It was read while the other one took its place.
    #[test]
    fn a_look_put_the_file_in_force_again_that_another_was_promoted_over() {
        let at = |name| {
            let name = format!("traffik-look-{name}-{}.toml", std::process::id());
            std::env::temp_dir().join(name)
        };
        let (path, next) = (at("now"), at("next"));
        let text = |rate: &str| format!("[throttle.api]\nrate = \"{rate}\"\n");
        std::fs::write(&path, text("1/s")).unwrap();
        std::fs::write(&next, text("2/s")).unwrap();
        let file = LimitsFile::at(&path).try_beside(&next).load().unwrap();
        let (readings, texts) = (file.loaded().readings, file.read().unwrap());
        file.promote().unwrap();
        assert_eq!(file.reload_if(texts, readings).unwrap(), None);
        let rate = file.limits().get("api").unwrap().rate().unwrap();
        assert_eq!(rate.to_string(), "2/second");
        std::fs::remove_file(&path).unwrap();
    }
}
