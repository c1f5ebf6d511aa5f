//! The socket by which a guard is asked and told: `sundown status`, `restart`, `stop`.
//!
//! One line of JSON each way. The folder is its owner's alone, and whoever connects is looked at all the same.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Client;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::Guard;
use crate::status::Status;

/// The longest request, in bytes.
const LONGEST: u64 = 1024;

/// How many are answered at a time.
const AT_A_TIME: usize = 16;

/// What a guard can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// How it is.
    Status,
    /// Start the next generation.
    Restart {
        /// Whether the answer comes only once that is ready, or will not be.
        wait: bool,
    },
    /// Stop, as SIGTERM does; the answer comes at once.
    Stop,
}

/// What a guard answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// It is done, or begun.
    Done(String),
    /// It is not done, and why.
    Refused(String),
}

/// A verb, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Why a guard could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// None of this name runs.
    #[error("no guard named {name} runs{}", others(.running))]
    NotRunning {
        /// The name.
        name: String,
        /// Those that do.
        running: Vec<String>,
    },
    /// There is more than one, or none, and no name was given.
    #[error("{}", which(.running))]
    Which {
        /// Those that run.
        running: Vec<String>,
    },
    /// It did not answer.
    #[error("the guard {name} does not answer: {source}")]
    Silent {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

fn others(running: &[String]) -> String {
    match running.is_empty() {
        true => String::new(),
        false => format!("; there are {}", running.join(", ")),
    }
}

fn which(running: &[String]) -> String {
    match running.is_empty() {
        true => "no guard runs here: start one by `sundown run -- COMMAND`".to_owned(),
        false => format!("say which by --name: {}", running.join(", ")),
    }
}

/// Whether this can be a guard's name: 1 to 40 of a to z, 0 to 9 and `-`.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&name.len()) && name.bytes().all(allowed)
}

/// Makes a guard's name of a program's.
pub fn name_of(program: &str) -> String {
    let allowed = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '-',
    };
    let name: String = program.chars().take(40).map(allowed).collect();
    match name.is_empty() {
        true => "application".to_owned(),
        false => name,
    }
}

/// Asks a guard of this user; without a name the only one there is.
///
/// # Errors
/// [`AskError`].
pub fn ask(name: Option<&str>, verb: Verb) -> Result<Answer, AskError> {
    let folder = folder();
    let running = running(&folder);
    let name = match (name, &running[..]) {
        (Some(name), _) => name.to_owned(),
        (None, [only]) => only.clone(),
        (None, _) => return Err(AskError::Which { running }),
    };
    let Ok(client) = Client::connect(path(&folder, &name)) else {
        return Err(AskError::NotRunning { name, running });
    };
    converse(client, verb).map_err(|source| AskError::Silent { name, source })
}

fn converse(mut client: Client, verb: Verb) -> io::Result<Answer> {
    client.write_all(&line(&verb)?)?;
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}

fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The guards that answer.
fn running(folder: &Path) -> Vec<String> {
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let name = |file: fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        let name = name.strip_suffix(".sock")?.to_owned();
        Client::connect(file.path()).is_ok().then_some(name)
    };
    let mut names: Vec<_> = files.flatten().filter_map(name).collect();
    names.sort_unstable();
    names
}

/// Where the sockets of this user's guards are.
fn folder() -> PathBuf {
    if let Some(given) = std::env::var_os("SUNDOWN_RUN_DIR") {
        return given.into();
    }
    let user = rustix::process::geteuid().as_raw();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(own) => PathBuf::from(own).join("sundown"),
        None if user == 0 => "/run/sundown".into(),
        None => std::env::temp_dir().join(format!("sundown-{user}")),
    }
}

/// The same, which is made if it is not there, and is nobody else's.
///
/// # Errors
/// `PermissionDenied` if it is.
pub(crate) fn private_folder() -> io::Result<PathBuf> {
    let folder = folder();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let found = fs::symlink_metadata(&folder)?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if !ours || !found.is_dir() || found.mode() & 0o077 != 0 {
        let text = format!(
            "{} is not a folder of this user's alone (mode 0700)",
            folder.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(folder)
}

/// Keeps others from opening sockets in a folder for as long as it is open.
fn lock(folder: &Path) -> io::Result<fs::File> {
    let folder = fs::File::open(folder)?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

/// Removes the socket of a guard that was killed.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("sock")
}

/// A guard's socket, whose file goes with it.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens a guard's socket; the guard gets another name where that may be and its own is taken.
    ///
    /// # Errors
    /// `AddrInUse` if a guard of this name runs; `PermissionDenied` if the folder is somebody else's.
    pub(crate) fn open(guard: &mut Guard) -> io::Result<Self> {
        let folder = private_folder()?;
        // Of two that begin at once one comes after the other.
        let _locked = lock(&folder)?;
        let mut path = path(&folder, &guard.name);
        if Client::connect(&path).is_ok() {
            if guard.name_is_given {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let short = &guard.name[..guard.name.len().min(30)];
            guard.name = format!("{short}-{}", std::process::id());
            path = self::path(&folder, &guard.name);
            if Client::connect(&path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
        }
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers whoever asks, as long as somebody takes the requests.
    pub(crate) async fn serve(self, requests: mpsc::Sender<Request>) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
        while !requests.is_closed() {
            let place = places.clone().acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                continue;
            };
            let requests = requests.clone();
            tokio::spawn(async move {
                let _place = place;
                // Whoever goes away is not waited for.
                let _ = attend(stream, requests).await;
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn attend(stream: UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let theirs = stream.peer_cred()?.uid();
    if theirs != user && theirs != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (read, mut write) = stream.into_split();
    let mut text = String::new();
    let mut lines = tokio::io::BufReader::new(read.take(LONGEST));
    lines.read_line(&mut text).await?;
    let verb = serde_json::from_str(&text)?;
    let (answer, answered) = oneshot::channel();
    let stops = Answer::Refused("the guard stops".to_owned());
    let answer = match requests.send(Request { verb, answer }).await {
        Ok(()) => answered.await.unwrap_or(stops),
        Err(_) => stops,
    };
    write.write_all(&line(&answer)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_programs() {
        for (program, name) in [
            ("gunicorn", "gunicorn"),
            ("My_App.bin", "my-app-bin"),
            ("", "application"),
            (&"x".repeat(60), &*"x".repeat(40)),
        ] {
            assert_eq!(name_of(program), name);
            assert!(is_name(name));
        }
        for bad in ["", "A", "a/b", "..", "ü", &*"x".repeat(41)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
