//! Limits from a file, over requests.

mod mistakes;
mod reloads;
mod rules;
mod trials;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use traffik_actix::{Identity, LimitsFile, LimitsFileBuilder, MemoryBackend};

/// A file of its own for a test, which is gone with it.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> File {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let at = FILES.fetch_add(1, Ordering::Relaxed);
        let name = format!("traffik-config-{}-{at}.toml", std::process::id());
        let file = File(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// What a program that registers something makes of it, where time stands still.
    fn builder(&self, backend: &MemoryBackend) -> LimitsFileBuilder {
        LimitsFile::at(&self.0)
            .backend("default", backend.clone())
            .identity("account", |req: &actix_web::HttpRequest| {
                let account = req.headers().get("x-account").ok_or("no account")?;
                Ok::<_, &str>(Identity::of(format_args!("{account:?}")))
            })
            .tier("plan", |req| {
                Some(
                    req.headers()
                        .get("x-verified-plan")?
                        .to_str()
                        .ok()?
                        .to_owned(),
                )
            })
            .predicate("beta", |req| req.headers().contains_key("x-beta"))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
