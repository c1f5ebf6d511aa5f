//! Opens a database, SQLite or Postgres as its URL says; from there on one code path serves both.
//!
//! What the engines differ in stays here: how to make a file, how many connections, and the type
//! of a numbered key.

use std::fmt;
use std::str::FromStr;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, AssertSqlSafe, Executor as _};
use thiserror::Error;

/// A URL whose engine we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatabaseUrl {
    url: String,
    engine: Engine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

/// Why a URL names no database.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("write sqlite:FILE or postgres://USER@HOST/NAME")]
pub struct DatabaseUrlError;

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let engine = match url.split_once(':') {
            Some(("sqlite", file)) if !file.trim_start_matches('/').is_empty() => Engine::Sqlite,
            Some(("postgres" | "postgresql", rest)) if rest.len() > 2 => Engine::Postgres,
            _ => return Err(DatabaseUrlError),
        };
        let url = url.to_owned();
        Ok(Self { url, engine })
    }
}

/// Without what stands before the host: that may hold a password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.engine, self.url.rsplit_once('@')) {
            (Engine::Postgres, Some((_, place))) => write!(f, "postgres://{place}"),
            _ => f.write_str(&self.url),
        }
    }
}

/// A database that could not be opened.
#[derive(Debug, Error)]
#[error("could not open {url}")]
pub(crate) struct OpenError {
    url: String,
    source: sqlx::Error,
}

/// Opens a database for its service, and makes the tables that are missing. In a schema
/// `NUMBERED_KEY` stands for a key that counts upwards.
///
/// # Errors
/// What the database says.
pub(crate) async fn open(url: &DatabaseUrl, schema: &str) -> Result<AnyPool, OpenError> {
    let failed = |source| OpenError {
        url: url.to_string(),
        source,
    };
    let pool = connect(url, "rwc").await.map_err(failed)?;
    let key = match url.engine {
        Engine::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
        Engine::Postgres => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    };
    let schema = schema.replace("NUMBERED_KEY", key);
    let made = sqlx::raw_sql(AssertSqlSafe(schema)).execute(&pool).await;
    made.map_err(failed)?;
    Ok(pool)
}

/// Opens a database that is there already.
///
/// # Errors
/// What the database says.
pub(crate) async fn look_into(url: &DatabaseUrl) -> Result<AnyPool, sqlx::Error> {
    connect(url, "rw").await
}

async fn connect(url: &DatabaseUrl, sqlite_mode: &str) -> Result<AnyPool, sqlx::Error> {
    sqlx::any::install_default_drivers();
    let options = AnyPoolOptions::new();
    match url.engine {
        Engine::Postgres => options.max_connections(8).connect(&url.url).await,
        Engine::Sqlite => {
            let separator = if url.url.contains('?') { '&' } else { '?' };
            let url = format!("{}{separator}mode={sqlite_mode}", url.url);
            // SQLite has one writer at a time. The pool's queue before it is fair; SQLite's own
            // way, trying again after a while, is not. `busy_timeout` is for other processes.
            //
            // NORMAL: in WAL mode a commit is in the page cache before it returns, and survives
            // the end of the process, SIGKILL included. Only FULL survives the end of the machine.
            let options = options.max_connections(1).after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("PRAGMA busy_timeout = 5000").await?;
                    connection.execute("PRAGMA journal_mode = WAL").await?;
                    connection.execute("PRAGMA synchronous = NORMAL").await?;
                    Ok(())
                })
            });
            options.connect(&url).await
        }
    }
}
