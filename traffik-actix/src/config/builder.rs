//! What a program adds to a file before it is loaded.

use std::path::PathBuf;
use std::sync::Arc;

use actix_web::HttpRequest;
use traffik_core::{Identity, Result};

use super::LimitsFile;
use super::document::{LimitsDocument, Mistake, Read};
use super::parts::Parts;
use crate::limits::Limits;
use crate::request::source::{IntoValue, Source};
use crate::throttle::backend::ThrottleBackend;

/// A [`LimitsFile`] before it is loaded: what the program adds to it, by names that the file may use.
///
/// ```no_run
/// use actix_web::HttpRequest;
/// use actix_web::error::ErrorUnauthorized;
/// use traffik_actix::{Identity, LimitsFile};
/// # struct Claims { sub: String, plan: String }
/// # fn claims(_: &HttpRequest) -> Option<Claims> { None }
///
/// let file = LimitsFile::at("limits.toml")
///     // `from = "function"`, `function = "account"`
///     .identity("account", |req: &HttpRequest| {
///         let claims = claims(req).ok_or_else(|| ErrorUnauthorized("a token is missing"))?;
///         Ok::<_, actix_web::Error>(Identity::of(format_args!("account:{}", claims.sub)))
///     })
///     // `tier = "plan"`
///     .tier("plan", |req| Some(claims(req)?.plan))
///     // `when = "beta"`
///     .predicate("beta", |req| req.headers().contains_key("x-beta"))
///     .load()?;
/// # let _ = file;
/// # Ok::<(), traffik_actix::Error>(())
/// ```
#[must_use]
pub struct LimitsFileBuilder {
    path: PathBuf,
    trial: Option<PathBuf>,
    format: Format,
    parts: Parts,
    limits: Limits,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;
type Reader = dyn Fn(&str) -> std::result::Result<LimitsDocument, Cause> + Send + Sync;

/// How the text of a file is read.
#[derive(Clone)]
pub(super) enum Format {
    Toml,
    Other(Arc<Reader>),
}

impl Format {
    pub(super) fn read(&self, text: &str) -> Read<LimitsDocument> {
        match self {
            Format::Toml => LimitsDocument::parse(text),
            Format::Other(read) => read(text).map_err(|error| Mistake::at(None, error)),
        }
    }
}

impl LimitsFileBuilder {
    pub(super) fn new(path: PathBuf) -> LimitsFileBuilder {
        LimitsFileBuilder {
            path,
            trial: None,
            format: Format::Toml,
            parts: Parts::default(),
            limits: Limits::new(),
        }
    }

    /// Registers a function that says who asks, such as by a claim of a token that it has verified, as
    /// [`HttpThrottleBuilder::identify`](crate::HttpThrottleBuilder::identify).
    pub fn identity<F, R>(mut self, name: impl Into<String>, identify: F) -> Self
    where
        F: Fn(&HttpRequest) -> R + Send + Sync + 'static,
        R: IntoValue<Identity>,
    {
        let source = Source::sync("identity", identify);
        self.parts.identities.insert(name.into(), source);
        self
    }

    /// Registers a function that says the tier of a client, if it has one.
    pub fn tier<F>(mut self, name: impl Into<String>, tier: F) -> Self
    where
        F: Fn(&HttpRequest) -> Option<String> + Send + Sync + 'static,
    {
        self.parts.tiers.insert(name.into(), Arc::new(tier));
        self
    }

    /// Registers a function that says whether a rule is for a request.
    pub fn predicate<F>(mut self, name: impl Into<String>, predicate: F) -> Self
    where
        F: Fn(&HttpRequest) -> bool + Send + Sync + 'static,
    {
        self.parts
            .predicates
            .insert(name.into(), Arc::new(predicate));
        self
    }

    /// Registers a backend, such as one that files cannot describe. The one called `default` is that of throttles that name none.
    pub fn backend(mut self, name: impl Into<String>, backend: impl Into<ThrottleBackend>) -> Self {
        self.parts.backends.insert(name.into(), backend.into());
        self
    }

    /// Adds the throttles of the file to a registry that is there already. Default: one of its own.
    pub fn limits(mut self, limits: &Limits) -> Self {
        self.limits = limits.clone();
        self
    }

    /// Tries another file in shadow, beside this one, whenever it is there: its throttles decide and count, and never deny. What
    /// they would have done is [told](LimitsFile::tried) for each. To put it in force, [promote](LimitsFile::promote) it, or
    /// `mv limits.next.toml limits.toml`: both are one change.
    pub fn try_beside(mut self, path: impl Into<PathBuf>) -> Self {
        self.trial = Some(path.into());
        self
    }

    /// Sets how the text is read, if it is no TOML: by any format of `serde`.
    ///
    /// ```
    /// use traffik_actix::LimitsFile;
    ///
    /// let name = format!("limits-of-an-example-{}.json", std::process::id());
    /// let path = std::env::temp_dir().join(name);
    /// std::fs::write(&path, r#"{"throttle": {"api": {"rate": "10/minute"}}, "rule": [{"throttle": "api"}]}"#)?;
    /// let file = LimitsFile::at(&path)
    ///     .format(|text| Ok(serde_json::from_str(text)?))
    ///     .load()?;
    /// assert_eq!(file.limits().list()[0].name, "api");
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Where a mistake is, other formats tell as far as the text is none of theirs; of others the message names rule, throttle and key.
    pub fn format<F>(mut self, read: F) -> Self
    where
        F: Fn(
                &str,
            )
                -> std::result::Result<LimitsDocument, Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        self.format = Format::Other(Arc::new(read));
        self
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is longer than [`LONGEST`](LimitsFile::LONGEST), or has a mistake, which is told with line and column, and what would be right: ``limits.toml:3:12: there is no
    /// method `PSOT`, did you mean `POST`?``. Passwords and what is in the environment are never in it.
    pub fn load(self) -> Result<LimitsFile> {
        LimitsFile::load(self.path, self.trial, self.format, self.parts, self.limits)
    }

    /// Reads the file for tools that are not the program: what the program would register is taken to be there, and so are variables
    /// of the environment. Nothing is connected to.
    ///
    /// # Errors
    ///
    /// As [`load`](LimitsFileBuilder::load).
    pub fn rehearse(mut self) -> Result<LimitsFile> {
        self.parts.is_rehearsal = true;
        self.load()
    }
}

impl std::fmt::Debug for LimitsFileBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitsFileBuilder")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
