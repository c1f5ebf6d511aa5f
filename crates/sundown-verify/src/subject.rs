//! A target while it is stopped: how it is told, how its end is seen, what is done when it stays.
//!
//! The promise: a process that is not ours gets the signals that are ordered and no other; only our
//! own child and a unit of systemd are killed when they stay.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::attach::{self, AttachError, State, somebody_at, systemctl};
use crate::listeners::listens;
use crate::pidfd::Pidfd;
use crate::process::{Descendant, Ended, Process, ProcessError, SignalTo, Spawn};
use crate::service::{Running, Service, StartError, answers, ended_early};
use crate::target::{Attached, Look, Reached, Target, Unit};

/// How long systemctl may take to pass an order on.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

/// How long systemd may take to reap.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// How often a connect asks whether somebody listens.
const VISIT: Duration = Duration::from_millis(20);

/// Is a target that runs and is to be stopped.
#[derive(Debug)]
pub(crate) struct Subject {
    address: SocketAddr,
    kind: Kind,
    look: Look,
    visitor: Option<Visitor>,
}

#[derive(Debug)]
enum Kind {
    Child(Process),
    Attached(Attached),
    Unit {
        unit: Unit,
        pid: u32,
        fd: Pidfd,
    },
    Reached {
        reached: Reached,
        stop: Option<Process>,
    },
}

/// How a subject ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Its status, where it can be seen.
    pub(crate) status: Option<Ended>,
    /// Whether somebody else killed it, because it stayed.
    pub(crate) killed: bool,
}

impl Subject {
    /// Starts the target if it does not run, and waits for an answer.
    pub(crate) async fn start(service: &Service) -> Result<Self, StartError> {
        let (address, kind, look) = match &service.target {
            Target::Command(_) => {
                let Running { process, address } = service.start().await?;
                (address, Kind::Child(process), Look::Table)
            }
            Target::Pid(attached) => {
                let pid = attached.pid;
                if attached.fd.has_ended() {
                    return Err(AttachError::NoProcess { pid }.into());
                }
                let (address, look) = (attached.address, attached.look);
                (address, Kind::Attached(attached.clone()), look)
            }
            Target::Unit(unit) => start_unit(unit, service.start_limit).await?,
            Target::Url(reached) => {
                start_reached(reached, service.start_limit).await?;
                let (address, reached, stop) = (reached.address, reached.clone(), None);
                let kind = Kind::Reached { reached, stop };
                (address, kind, Look::Connect)
            }
        };
        if !service.target.is_command() {
            let endpoint = service.endpoint(address);
            answers(endpoint, &service.offers, service.patience()).await?;
        }
        Ok(Self {
            address,
            kind,
            look,
            visitor: None,
        })
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whether we started it, and may end it whatever it was told.
    pub(crate) fn is_our_child(&self) -> bool {
        matches!(self.kind, Kind::Child(_))
    }

    /// Its process, if it is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Child(process) => Some(process.id()),
            Kind::Attached(attached) => Some(attached.pid),
            Kind::Unit { pid, .. } => Some(*pid),
            Kind::Reached { .. } => None,
        }
    }

    /// Names the child that listens, where the process that we started does not.
    pub(crate) fn wrapped(&self) -> Option<String> {
        match &self.kind {
            Kind::Child(process) => process.listening_child(self.address.port()),
            _ => None,
        }
    }

    /// Tells it to stop, in the way that it is usually told.
    pub(crate) async fn stop(&mut self, to: SignalTo, signal: i32) -> Result<(), StartError> {
        if let Kind::Unit { unit, .. } = &self.kind {
            let arguments = ["stop", "--no-block", "--", &unit.name];
            systemctl(&arguments, ORDER_LIMIT).await?;
            State::stopping(&unit.name, ORDER_LIMIT).await?;
            return Ok(());
        }
        if let Kind::Child(process) = &mut self.kind
            && process.has_ended()
        {
            return Err(ended_early(process, self.address.port()));
        }
        self.signal(to, signal).await
    }

    /// Sends it a signal. To what is known by its address only, any signal is the command that stops
    /// it, once.
    pub(crate) async fn signal(&mut self, to: SignalTo, signal: i32) -> Result<(), StartError> {
        match &mut self.kind {
            Kind::Child(process) => process.signal_to(to, signal)?,
            Kind::Attached(attached) => send(attached, to, signal)?,
            Kind::Unit { unit, .. } => {
                // `--kill-whom` since systemd 252; this name is understood before and after.
                let signal = format!("--signal={signal}");
                let arguments = ["kill", "--kill-who=main", &signal, "--", &unit.name];
                systemctl(&arguments, ORDER_LIMIT).await?;
            }
            Kind::Reached { reached, stop } => {
                if stop.is_none() {
                    *stop = Some(spawn(&reached.stop)?);
                }
            }
        }
        Ok(())
    }

    /// Tells whether a signal has arrived when it was sent. A command that stops something may take its
    /// time.
    pub(crate) fn tells_of_delivery(&self) -> bool {
        !matches!(self.kind, Kind::Reached { .. })
    }

    /// Waits until it has ended. What is known by its address only has when the command that stops it
    /// has ended and nobody listens.
    ///
    /// # Cancel safety
    /// Safe: call it again.
    pub(crate) async fn gone(&mut self) -> Result<(), StartError> {
        match &mut self.kind {
            Kind::Child(process) => drop(process.wait_exit(Duration::MAX).await?),
            Kind::Attached(attached) => attached.fd.ended().await.map_err(ProcessError::Observe)?,
            Kind::Unit { fd, .. } => fd.ended().await.map_err(ProcessError::Observe)?,
            Kind::Reached { stop, reached } => match stop {
                None => std::future::pending().await,
                Some(stop) => {
                    done(stop, &reached.stop, Duration::MAX).await?;
                    let visitor = self
                        .visitor
                        .get_or_insert_with(|| Visitor::of(self.address));
                    visitor.refused().await;
                }
            },
        }
        Ok(())
    }

    /// Tells how it ended, once it is gone.
    pub(crate) async fn departure(&mut self) -> Result<Departure, StartError> {
        let (status, killed) = match &mut self.kind {
            Kind::Child(process) => {
                let exit = process.wait_exit(REAP_LIMIT).await?;
                (Some(exit.ended), false)
            }
            Kind::Unit { unit, pid, .. } => State::end_of(&unit.name, *pid, REAP_LIMIT).await?,
            Kind::Attached(_) | Kind::Reached { .. } => (None, false),
        };
        Ok(Departure { status, killed })
    }

    /// Kills what may be killed. `None` means that it was left alone; otherwise tells whether it was
    /// still there.
    pub(crate) async fn kill(&mut self) -> Option<bool> {
        match &mut self.kind {
            Kind::Child(process) => Some(process.kill()),
            Kind::Unit { unit, .. } => {
                let arguments = ["kill", "--signal=KILL", "--", &unit.name];
                Some(systemctl(&arguments, ORDER_LIMIT).await.is_ok())
            }
            Kind::Attached(_) | Kind::Reached { .. } => None,
        }
    }

    /// Tells whether somebody listens, as it was seen last.
    pub(crate) fn somebody_listens(&mut self) -> io::Result<bool> {
        match self.look {
            Look::Table => listens(self.address),
            Look::Connect => {
                let visitor = self
                    .visitor
                    .get_or_insert_with(|| Visitor::of(self.address));
                Ok(*visitor.open.borrow())
            }
        }
    }

    /// Tells whether somebody listens after the end.
    pub(crate) async fn is_leaked(&self) -> io::Result<bool> {
        match self.look {
            Look::Table => listens(self.address),
            Look::Connect => Ok(somebody_at(self.address).await),
        }
    }

    /// Lists what our own child has started and left.
    pub(crate) fn orphans(&self) -> Vec<Descendant> {
        match &self.kind {
            Kind::Child(process) => process.descendants(),
            _ => Vec::new(),
        }
    }
}

impl Service {
    /// Starts again what ran before we came, and was stopped. A command's process is gone with us.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn leave_running(&self) -> Result<(), StartError> {
        match &self.target {
            Target::Unit(unit) => start_unit(unit, self.start_limit).await.map(drop),
            Target::Url(reached) if reached.again.is_some() => {
                start_reached(reached, self.start_limit).await
            }
            _ => Ok(()),
        }
    }

    /// How long the first answer may take: of what runs already, no time.
    fn patience(&self) -> Duration {
        match &self.target {
            Target::Pid(_) => Duration::ZERO,
            _ => self.start_limit,
        }
    }
}

async fn start_unit(unit: &Unit, limit: Duration) -> Result<(SocketAddr, Kind, Look), StartError> {
    // Every stop of ours counts as a start; without this systemd refuses the sixth within ten seconds
    // (StartLimitBurst, systemd.unit(5)). A unit that has not failed needs no reset.
    let _ = systemctl(&["reset-failed", "--", &unit.name], ORDER_LIMIT).await;
    systemctl(&["start", "--", &unit.name], limit).await?;
    let pid = State::of(&unit.name).await?.main_process(&unit.name)?;
    let fd = attach::open(pid)?;
    let url = unit.given.then_some(unit.address);
    let (address, look) = attach::soon(pid, url, limit).await?;
    let unit = unit.clone();
    Ok((address, Kind::Unit { unit, pid, fd }, look))
}

/// Starts it unless somebody listens, which is so when it was not stopped.
async fn start_reached(reached: &Reached, limit: Duration) -> Result<(), StartError> {
    let address = reached.address;
    if somebody_at(address).await {
        return Ok(());
    }
    let Some(again) = &reached.again else {
        return Err(AttachError::Unreachable { address }.into());
    };
    done(&mut spawn(again)?, again, limit).await
}

fn send(attached: &Attached, to: SignalTo, signal: i32) -> Result<(), ProcessError> {
    let refused = |source| ProcessError::Signal { signal, source };
    if to == SignalTo::Leader {
        return attached.fd.signal(signal).map_err(refused);
    }
    // While the process is there its group's number is nobody else's.
    attached.fd.signal(0).map_err(refused)?;
    // SAFETY: kill(2) takes two numbers.
    match unsafe { libc::kill(-attached.group, signal) } {
        0 => Ok(()),
        _ => Err(refused(io::Error::last_os_error())),
    }
}

fn spawn(command: &[OsString]) -> Result<Process, StartError> {
    let (program, arguments) = command.split_first().ok_or(StartError::NoCommand)?;
    Ok(Spawn::new(program).args(arguments).start()?)
}

/// Waits until a command that stops or starts the target has done so.
async fn done(
    process: &mut Process,
    command: &[OsString],
    limit: Duration,
) -> Result<(), StartError> {
    let exit = process.wait_exit(limit).await?;
    if exit.ended == Ended::Code(0) {
        return Ok(());
    }
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let stderr = process.stderr();
    let said: Vec<&str> = stderr.lines().map(str::trim).collect();
    Err(StartError::Refused {
        command: words.join(" "),
        ended: exit.ended,
        said: said.join(" "),
    })
}

/// Connects again and again, until that is refused.
#[derive(Debug)]
struct Visitor {
    open: watch::Receiver<bool>,
    /// Ends with the visitor.
    _visits: JoinSet<()>,
}

impl Visitor {
    fn of(address: SocketAddr) -> Self {
        let (open, seen) = watch::channel(true);
        let mut visits = JoinSet::new();
        visits.spawn(async move {
            let mut next = interval(VISIT);
            while somebody_at(address).await {
                next.tick().await;
            }
            open.send_replace(false);
        });
        Self {
            open: seen,
            _visits: visits,
        }
    }

    async fn refused(&mut self) {
        // An error means that the visits are over, which they are when one was refused.
        let _ = self.open.wait_for(|open| !open).await;
    }
}
