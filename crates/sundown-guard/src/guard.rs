//! The guard itself: a [`sundown::App`] whose one worker is the application.

use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sundown::{App, BoxError, Context, Handle, OnDeath, Worker};

use crate::Guard;
use crate::drain::{self, Held, Open};
use crate::generation::{Generation, News};
use crate::keeper::exit_code;
use crate::letters::To;

/// Beyond the drain, for what is killed to be gone.
const KILLING: Duration = Duration::from_millis(500);

/// How the application has ended, if it did so by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// As it was told to, or not yet.
    Told,
    /// It could not be started.
    NotStarted(u8),
    Ended(u8),
}

pub(crate) fn run(guard: Guard) -> ExitCode {
    let outcome = Arc::new(Mutex::new(Outcome::Told));
    let report = served(guard, &outcome);
    let told = *outcome.lock().unwrap_or_else(PoisonError::into_inner);
    match (told, report) {
        (Outcome::NotStarted(code) | Outcome::Ended(code), _) => ExitCode::from(code),
        (Outcome::Told, Ok(code)) => ExitCode::from(code),
        (Outcome::Told, Err(problem)) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn served(guard: Guard, outcome: &Arc<Mutex<Outcome>>) -> Result<u8, BoxError> {
    // Whom a keeper leaves behind would be nobody's otherwise.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let app = App::new(guard.name.clone())
        .without_environment()
        .restart_signal(None)
        .grace(guard.drain + KILLING)
        .mercy(KILLING)
        .linger(Duration::ZERO)
        .release_share(Duration::ZERO);
    let handle = app.handle();
    let outcome = outcome.clone();
    let mut application = Some(guard);
    let worker = Worker::new("application", move |ctx| {
        let guard = application.take().expect("it is started once");
        let (handle, outcome) = (handle.clone(), outcome.clone());
        async move {
            let ended = Supervision::start(guard, ctx)?.run().await;
            handle_end(&handle, &outcome, ended)
        }
    });
    let app = app.add_worker(worker.on_death(OnDeath::StopService));
    Ok(runtime.block_on(app.serve())?.exit_code)
}

fn handle_end(handle: &Handle, outcome: &Mutex<Outcome>, ended: Outcome) -> Result<(), BoxError> {
    *outcome.lock().unwrap_or_else(PoisonError::into_inner) = ended;
    match ended {
        Outcome::Told => {}
        Outcome::NotStarted(_) => handle.shutdown("the command could not be started"),
        Outcome::Ended(code) => handle.shutdown(format!("the application has ended ({code})")),
    }
    Ok(())
}

/// The application from its start to its end.
struct Supervision {
    guard: Guard,
    ctx: Context,
    generation: Generation,
}

impl Supervision {
    fn start(guard: Guard, ctx: Context) -> io::Result<Self> {
        let generation = Generation::start(&guard)?;
        Ok(Self {
            guard,
            ctx,
            generation,
        })
    }

    async fn run(mut self) -> Outcome {
        let ctx = self.ctx.clone();
        loop {
            let news = tokio::select! {
                news = self.generation.news() => news,
                () = ctx.draining() => {
                    self.stop().await;
                    return Outcome::Told;
                }
            };
            match news {
                News::Failed(error) => return self.not_started(&error),
                News::Gone => return Outcome::Ended(self.generation.status().map_or(1, exit_code)),
                News::Ended(status) => self.say(&format!(
                    "the command has ended ({}); whom it has left is guarded on",
                    exit_code(status)
                )),
                other => self.tell(other),
            }
        }
    }

    fn not_started(&self, error: &io::Error) -> Outcome {
        let program = self.guard.command[0].to_string_lossy();
        let missing = error.kind() == io::ErrorKind::NotFound;
        let help = match missing {
            true => "; is it installed, and on the PATH?",
            false => "",
        };
        eprintln!("error: {program} cannot be started: {error}{help}");
        // As shells do.
        Outcome::NotStarted(if missing { 127 } else { 126 })
    }

    /// Lets everything end in its order; whatever is left when the time is over is killed, and named.
    async fn stop(&mut self) {
        let ctx = self.ctx.clone();
        for problem in drain::refuse_newcomers(self.generation.listeners()) {
            self.say(&problem);
        }
        let mut held = None;
        let quiet = self.guard.quiet;
        let ports = drain::ports(self.generation.listeners());
        let quiesced = {
            let rests = drain::quiesce(ports, quiet, |now| held = Some(now));
            tokio::pin!(rests);
            loop {
                tokio::select! {
                    rests = &mut rests => break Some(rests),
                    news = self.generation.news() => match news {
                        News::Gone => return,
                        other => self.tell(other),
                    },
                    _ = ctx.cancelled() => break None,
                }
            }
        };
        match quiesced {
            Some(Ok(())) => self.end(Vec::new()).await,
            Some(Err(error)) => {
                self.say(&format!(
                    "what is under way cannot be seen ({error}): the application is told at once"
                ));
                self.end(Vec::new()).await;
            }
            None => self.kill(names(held)).await,
        }
    }

    /// Tells the application to stop, and waits until it has.
    async fn end(&mut self, mut held: Vec<String>) {
        let ctx = self.ctx.clone();
        self.generation.signal(self.guard.stop_signal, To::Leader);
        loop {
            tokio::select! {
                news = self.generation.news() => match news {
                    News::Gone => return,
                    // A shell ends and passes nothing on.
                    News::Ended(_) => self.generation.signal(self.guard.stop_signal, To::Leader),
                    other => self.tell(other),
                },
                _ = ctx.cancelled() => break,
            }
        }
        held.push("application (told to stop, did not end)".to_owned());
        self.kill(held).await;
    }

    /// Kills what is left, and waits until it is gone; what was under way is cut off by name.
    async fn kill(&mut self, held: Vec<String>) {
        for name in held {
            // It never ends in order, and so is in the report.
            std::mem::forget(self.ctx.guard(name));
        }
        loop {
            self.generation.signal(libc::SIGKILL, To::All);
            if let News::Gone = self.generation.news().await {
                return;
            }
        }
    }

    fn tell(&self, news: News) {
        match news {
            News::Started { pid, unheard } => {
                self.say(&format!("the application is PID {pid}"));
                if let Some(why) = unheard {
                    self.say(&format!(
                        "its listeners cannot be guarded ({why}): a stop can only signal it"
                    ));
                }
            }
            News::Listens(address) => self.say(&format!("the application listens on {address}")),
            News::Note(text) => self.say(&text),
            News::Failed(_) | News::Ended(_) | News::Gone => {}
        }
    }

    fn say(&self, text: &str) {
        eprintln!("{}: {text}", self.guard.name);
        tracing::info!(target: "sundown", service = %self.guard.name, "{text}");
    }
}

/// What was under way, for the report.
fn names(held: Option<Held>) -> Vec<String> {
    match held {
        Some(Held::Queue(count)) => vec![format!("{count} connections that nobody accepted")],
        Some(Held::Connections(open)) => open
            .iter()
            .map(|Open { local, peer }| format!("connection from {peer} to {local}"))
            .collect(),
        None => Vec::new(),
    }
}
