//! Limits from a file, which change when it does.

mod backends;
mod builder;
pub(crate) mod document;
pub(crate) mod explain;
mod identities;
mod parts;
mod plan;
mod reader;
mod rules;
mod stores;
mod throttles;
mod trial;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::HttpRequest;
use traffik_core::{Error, Result};

pub use self::builder::LimitsFileBuilder;
pub use self::trial::{Tried, TriedOutcome};

use self::backends::Backends;
use self::builder::Format;
use self::explain::Explanation;
use self::parts::Parts;
use self::plan::Plan;
use crate::entry::middleware::ThrottleMiddleware;
use crate::limits::Limits;
use crate::limits::lists::{Listed, Replaced, Replacement};

/// Throttles, rules, identities and backends from a file, which are replaced while requests pass when the file changes.
///
/// ```toml
/// [backend.default]
/// type = "redis"
/// url_env = "REDIS_URL" # passwords stay in the environment
/// failover = "memory"
/// nodes = 3
///
/// [throttle.all]
/// rate = "1000/minute"
///
/// [throttle.writes]
/// rate = "60/minute"
/// strategy = "token_bucket"
/// burst = 20
///
/// [[rule]]
/// throttle = "all"
///
/// [[rule]]
/// throttle = "writes"
/// methods = ["POST", "PUT"]
/// path = "/api/"
/// ```
///
/// ```no_run
/// use actix_web::{App, HttpServer, web};
/// use std::time::Duration;
/// use traffik_actix::LimitsFile;
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Once, outside the closure: the closure runs once per worker.
/// let file = LimitsFile::at("limits.toml").load()?; // or the mistake, with line and column
/// file.watch(Duration::from_secs(1)); // and on SIGHUP
///
/// HttpServer::new(move || {
///     App::new()
///         .wrap(file.middleware())
///         .app_data(web::Data::new(file.limits().clone())) // for `#[throttle(limit = "writes")]`
/// })
/// .bind(("127.0.0.1", 8080))?
/// .run()
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// The page *Limits in a file* of the guide has every key. Clones are one file.
///
/// # What a change means
///
/// Throttles, rules and backends of a new file come into force **all at once**: a request is decided by one file, whole, even if
/// it has to wait. No request is disturbed, and no lock is on their way. Counts go on as [`Limits`] says: under another
/// rate nobody starts afresh. A throttle of which the file says what it said before is not touched, nor what was
/// changed by hand, [removed](Limits::remove) included; a backend of which the same is said goes on as it is, with its counts.
///
/// A file with a mistake changes nothing: what was in force stays so, and the log says what is wrong, and where.
#[derive(Clone)]
pub struct LimitsFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    trial: Option<PathBuf>,
    format: Format,
    parts: Parts,
    limits: Limits,
    /// Which list of the registry is this file's.
    list: usize,
    loaded: Mutex<Loaded>,
}

/// What is in force.
#[derive(Default)]
struct Loaded {
    /// How often somebody asked for what is on disk.
    readings: u64,
    /// What was read last, be it right or wrong.
    seen: Option<Texts>,
    /// What was said of each throttle.
    said: BTreeMap<String, String>,
    plan: Option<Plan>,
    trial: Option<Trial>,
}

/// A file that is tried.
struct Trial {
    plan: Plan,
    text: Vec<u8>,
}

/// A file, and the one that is tried beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Texts {
    file: Vec<u8>,
    trial: Option<Vec<u8>>,
}

/// What a [reload](LimitsFile::reload) has changed, by names of throttles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// New ones.
    pub added: Vec<String>,
    /// Those of which something else is said.
    pub changed: Vec<String>,
    /// Those that are there no more.
    pub removed: Vec<String>,
    /// How many rules there are.
    pub rules: usize,
}

impl LimitsFile {
    /// A file, to be [loaded](LimitsFileBuilder::load).
    pub fn at(path: impl Into<PathBuf>) -> LimitsFileBuilder {
        LimitsFileBuilder::new(path.into())
    }

    fn load(
        path: PathBuf,
        trial: Option<PathBuf>,
        format: Format,
        parts: Parts,
        limits: Limits,
    ) -> Result<LimitsFile> {
        let list = limits.registry().change(|state| Ok(state.add_list()))?;
        let file = LimitsFile(Arc::new(Inner {
            path,
            trial,
            format,
            parts,
            limits,
            list,
            loaded: Mutex::default(),
        }));
        file.reload()?;
        Ok(file)
    }

    /// The rules of the file, as they are at any time. Rules that are [added](ThrottleMiddleware::rule) are decided with them,
    /// and stay whatever the file says.
    pub fn middleware(&self) -> ThrottleMiddleware {
        ThrottleMiddleware::listed(Listed::new(self.0.limits.registry(), self.0.list))
    }

    /// The registry with the throttles of the file, to be asked by hand and by name, and to be switched off.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the file again, whether it has changed or not. It blocks while it is read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is longer than [`LONGEST`](LimitsFile::LONGEST), or has a mistake: `limits.toml:3:8: ..`, with line and column. Nothing has changed then. It does
    /// not say what is in force as well; [`watch`](LimitsFile::watch) does, in the log.
    pub fn reload(&self) -> Result<Reloaded> {
        let mut loaded = self.loaded();
        let texts = self.read()?;
        self.see(&mut loaded, texts)
    }

    /// The same with what was read after so many readings, unless it was read before as it is, be it right or wrong, or
    /// somebody has read since then: this may be what was there before.
    fn reload_if(&self, texts: Texts, readings: u64) -> Result<Option<Reloaded>> {
        let mut loaded = self.loaded();
        match loaded.readings != readings || loaded.seen.as_ref() == Some(&texts) {
            true => Ok(None),
            false => self.see(&mut loaded, texts).map(Some),
        }
    }

    /// Puts what was read in force, which is not read again for being wrong.
    fn see(&self, loaded: &mut Loaded, texts: Texts) -> Result<Reloaded> {
        loaded.readings += 1;
        loaded.seen = Some(texts.clone());
        self.apply(loaded, texts, || Ok(()))
    }

    /// Changes everything at once, unless what has to be done with it fails; then nothing has changed.
    fn apply(
        &self,
        loaded: &mut Loaded,
        texts: Texts,
        also: impl FnOnce() -> Result<()>,
    ) -> Result<Reloaded> {
        let (plan, trial) = self.plans(loaded, &texts)?;
        let mut replacement = Replacement::of(self.0.list);
        let mut said = BTreeMap::new();
        let plans = [
            Some((&plan, false)),
            trial.as_ref().map(|trial| (&trial.plan, true)),
        ];
        for (plan, is_trial) in plans.into_iter().flatten() {
            for one in &plan.throttles {
                let before = loaded.said.get(&one.known_as);
                replacement.throttles.push(Replaced {
                    name: &one.known_as,
                    recipe: &one.recipe,
                    is_enabled: one.is_enabled,
                    is_known: before.is_some(),
                    is_changed: before != Some(&one.said),
                    is_trial,
                });
                said.insert(one.known_as.clone(), one.said.clone());
            }
            for (one, conditions) in plan.conditions() {
                replacement.rules.push((&one.known_as, conditions));
            }
        }
        let gone = loaded.said.keys().filter(|name| !said.contains_key(*name));
        replacement.removed = gone.cloned().collect();
        let registry = self.0.limits.registry();
        registry.change(|state| {
            let replaced = state.replace(registry, &replacement);
            replaced.map_err(|error| error.within(self.name()))?;
            also()
        })?;
        let reloaded = Reloaded {
            added: replacement.added(),
            changed: replacement.changed(),
            removed: replacement.removed,
            rules: plan.rules.len(),
        };
        *loaded = Loaded {
            readings: loaded.readings,
            seen: Some(texts),
            said,
            plan: Some(plan),
            trial,
        };
        Ok(reloaded)
    }

    fn plans(&self, loaded: &Loaded, texts: &Texts) -> Result<(Plan, Option<Trial>)> {
        let nothing = Backends::default();
        let before = loaded.plan.as_ref().map_or(&nothing, |plan| &plan.backends);
        let plan = self.plan(&self.0.path, &texts.file, before, false)?;
        let trial = match (&self.0.trial, &texts.trial) {
            (Some(path), Some(text)) => Some(Trial {
                plan: self.plan(path, text, &plan.backends, true)?,
                text: text.clone(),
            }),
            _ => None,
        };
        Ok((plan, trial))
    }

    fn plan(&self, path: &Path, text: &[u8], before: &Backends, is_trial: bool) -> Result<Plan> {
        let name = path.display().to_string();
        let text = std::str::from_utf8(text).map_err(|error| {
            let line = text[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            Error::invalid(format!(
                "{name}: it is no text in UTF-8, from line {line} on"
            ))
        })?;
        let document = self
            .0
            .format
            .read(text)
            .map_err(|mistake| mistake.within(&name))?;
        let plan = Plan::read(&document, &self.0.parts, before, is_trial);
        plan.map_err(|mistakes| mistakes.within(&name))
    }

    fn read(&self) -> Result<Texts> {
        let trial = self.0.trial.as_deref().filter(|path| path.exists());
        let file = read(&self.0.path)?;
        let trial = match trial {
            None => None,
            Some(path) => match read(path) {
                // It was moved over the other one meanwhile.
                Err(_) if !path.exists() => None,
                trial => Some(trial?),
            },
        };
        Ok(Texts { file, trial })
    }

    /// The most bytes that a file may have: 1 MiB, some ten thousand throttles.
    pub const LONGEST: u64 = 1 << 20;

    /// Which rules of the file a request meets, in which order, and with what; nobody is charged, and no function asked but
    /// predicates.
    ///
    /// It says what the file does, not what was [changed by hand](Limits::update) since.
    ///
    /// ```no_run
    /// use actix_web::test::TestRequest;
    /// use traffik_actix::LimitsFile;
    ///
    /// let file = LimitsFile::at("limits.toml").load()?;
    /// let request = TestRequest::post().uri("/api/orders").to_http_request();
    /// println!("{}", file.explain(&request));
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn explain(&self, req: &HttpRequest) -> Explanation {
        let loaded = self.loaded();
        // It was loaded when it was made.
        let plan = loaded.plan.as_ref().expect("a file is loaded");
        plan.explain(&self.name(), req)
    }

    /// What people want to know of a file that has no mistake: how much is in it, what the program has to add, and what is
    /// in no rule.
    pub fn summary(&self) -> String {
        let loaded = self.loaded();
        let plan = loaded.plan.as_ref().expect("a file is loaded");
        let count = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let mut text = format!(
            "{}, {}, {}",
            count(plan.throttles.len(), "throttle"),
            count(plan.rules.len(), "rule"),
            count(plan.backends.len(), "backend"),
        );
        let needed = self
            .0
            .parts
            .needed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for what in needed.iter() {
            text.push_str(&format!("\n  it needs the {what}"));
        }
        for one in plan.unruled() {
            text.push_str(&format!(
                "\n  throttle `{}` is in no rule: it limits only where the program asks for it",
                one.name
            ));
        }
        text
    }

    fn name(&self) -> String {
        self.0.path.display().to_string()
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        // It is replaced as a whole.
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not a byte more than a file may have, and one: what is no file of limits may have no end.
fn read(path: &Path) -> Result<Vec<u8>> {
    const LONGEST: u64 = LimitsFile::LONGEST;
    let name = path.display();
    let unreadable = |error| Error::invalid(format!("{name}: it cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut text = Vec::new();
    let taken = file.take(LONGEST + 1).read_to_end(&mut text);
    taken.map_err(unreadable)?;
    if text.len() as u64 <= LONGEST {
        return Ok(text);
    }
    let size = match size > LONGEST {
        true => format!("{size} bytes"),
        // What is no file, or grows, does not say.
        false => format!("more than {LONGEST} bytes"),
    };
    Err(Error::invalid(format!(
        "{name}: it has {size}, and a file of limits has {LONGEST} at most (1 MiB)"
    )))
}

impl fmt::Debug for LimitsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.loaded().said.keys().cloned().collect();
        f.debug_struct("LimitsFile")
            .field("path", &self.0.path)
            .field("throttles", &names)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("added", &self.added),
            ("changed", &self.changed),
            ("removed", &self.removed),
        ];
        for (what, names) in all.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "{what} {}; ", names.join(", "))?;
        }
        match self.rules {
            1 => write!(f, "1 rule"),
            rules => write!(f, "{rules} rules"),
        }
    }
}
