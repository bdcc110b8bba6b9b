//! A store in a SQLite file, which several processes of one machine may share.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};
use traffik_core::{Error, Result, Store};

/// Keys, locks, and when each expires: milliseconds since 1970, or null.
const TABLES: &str = "
    PRAGMA journal_mode = wal;
    PRAGMA synchronous = off;
    CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER);
    CREATE TABLE IF NOT EXISTS locks (name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires INTEGER NOT NULL);
";

/// Limits in a file: they survive restarts.
#[derive(Clone, Debug)]
pub struct Sqlite(Arc<Mutex<Connection>>);

impl Sqlite {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> rusqlite::Result<Sqlite> {
        let connection = Connection::open(path)?;
        // How long to wait while another process writes.
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.execute_batch(TABLES)?;
        Ok(Sqlite(Arc::new(Mutex::new(connection))))
    }

    /// SQLite blocks, so it works on a thread where that is allowed.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            work(&connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await
            .map_err(|error| Error::other("SQLite was interrupted").with_source(error))?
            .map_err(|error| Error::other("SQLite failed").with_source(error))
    }
}

impl Store for Sqlite {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = key.to_owned();
        self.run(move |sqlite| {
            let sql = "SELECT value FROM cells WHERE key = ?1 AND ifnull(expires > ?2, true)";
            let mut statement = sqlite.prepare_cached(sql)?;
            statement
                .query_row(params![key, now()], |row| row.get(0))
                .optional()
        })
        .await
    }

    async fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.run(move |sqlite| {
            // Without a time to live a key keeps the one it has, unless that is over.
            let sql = "INSERT INTO cells VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET
                value = ?2, expires = ifnull(?3, CASE WHEN expires > ?4 THEN expires END)";
            let mut statement = sqlite.prepare_cached(sql)?;
            statement
                .execute(params![key, value, ttl.map(after), now()])
                .map(drop)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.run(move |sqlite| {
            let sql = "DELETE FROM cells WHERE key = ?1 RETURNING ifnull(expires > ?2, true)";
            let mut statement = sqlite.prepare_cached(sql)?;
            let was_alive = statement.query_row(params![key, now()], |row| row.get(0));
            Ok(was_alive.optional()?.unwrap_or(false))
        })
        .await
    }

    async fn lock(&self, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.run(move |sqlite| {
            let sql = "INSERT INTO locks VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET
                owner = ?2, expires = ?3 WHERE expires <= ?4";
            let mut statement = sqlite.prepare_cached(sql)?;
            Ok(statement.execute(params![name, owner, after(ttl), now()])? == 1)
        })
        .await
    }

    async fn unlock(&self, name: &str, owner: &str) -> Result<()> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        self.run(move |sqlite| {
            let sql = "DELETE FROM locks WHERE name = ?1 AND owner = ?2";
            sqlite
                .prepare_cached(sql)?
                .execute(params![name, owner])
                .map(drop)
        })
        .await
    }

    async fn reset(&self) -> Result<()> {
        self.run(|sqlite| sqlite.execute("DELETE FROM cells", []).map(drop))
            .await
    }
}

impl Sqlite {
    /// Deletes what has expired, the locks of crashed holders included, and tells how much that
    /// was; call it now and then.
    ///
    /// # Errors
    ///
    /// If SQLite fails.
    pub async fn sweep(&self) -> Result<usize> {
        self.run(|sqlite| {
            let cells = sqlite.execute("DELETE FROM cells WHERE expires <= ?1", [now()])?;
            let locks = sqlite.execute("DELETE FROM locks WHERE expires <= ?1", [now()])?;
            Ok(cells + locks)
        })
        .await
    }
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// Rounded up: a key that dies early forgives a debt.
fn after(ttl: Duration) -> i64 {
    let millis = i64::try_from(ttl.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX);
    now().saturating_add(millis)
}
