//! The next generation: beside the current one until it is ready, or, where only one may run at a time, after
//! it, while who connects waits.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Supervision, note};
use crate::control::Answer;
use crate::drain::Scope;
use crate::generation::{Generation, News, Start};
use crate::keeper::exit_code;
use crate::listeners::Listener;
use crate::readiness::{Due, Question, Readiness};
use crate::retiring::{Retiring, ending, kill};
use crate::steering::connect_to;
use crate::{Mode, OnGuardDeath, Ready};

/// Who waits for what comes of a restart.
pub(super) type Asked = Vec<oneshot::Sender<Answer>>;

/// A generation that is to take over once it is ready.
pub(super) struct Next {
    pub(super) generation: Generation,
    pub(super) readiness: Readiness,
    pub(super) since: Instant,
    pub(super) until: Instant,
    pub(super) asked: Asked,
}

/// That the current generation is waited for, since there is no other.
pub(super) struct Awaited {
    pub(super) readiness: Readiness,
    /// When whoever asked for it is told that it takes too long.
    pub(super) until: Option<Instant>,
    pub(super) asked: Asked,
}

impl Supervision {
    /// Starts the next generation; while one starts, one more follows it, however often that is asked for: it may
    /// have read its settings before.
    pub(super) fn restart(&mut self, asked: Asked) {
        if self.next.is_some() {
            self.again.get_or_insert_default().extend(asked);
            return;
        }
        if self.current.is_vacant() {
            // The one that is yet to be started is as new as can be.
            if let Some(awaited) = &mut self.awaited {
                awaited.asked.extend(asked);
            }
            return;
        }
        let refused = if self.respawn_at.is_some() {
            Some("it is being started again as it is")
        } else if self.current.lasting_addresses().is_empty() {
            Some("no listener of the application is known (yet)")
        } else {
            None
        };
        if let Some(why) = refused {
            return self.refuse(asked, why);
        }
        let started = match self.guard.overlap {
            true => self.start_beside(),
            false => self.hold(),
        };
        match started {
            Ok(asking) => asking.extend(asked),
            Err(error) => self.refuse(asked, &error.to_string()),
        }
    }

    fn refuse(&mut self, asked: Asked, why: &str) {
        self.count(|counts| counts.failed_restarts += 1);
        self.say(&format!("no restart: {why}"));
        for asked in asked {
            let _ = asked.send(Answer::Refused(why.to_owned()));
        }
    }

    /// Starts it beside the current one; returns who is told what comes of it.
    fn start_beside(&mut self) -> io::Result<&mut Asked> {
        // Until it is ready nothing goes to it.
        self.can_be_steered()?;
        let number = self.latest + 1;
        let start = match self.guard.mode {
            Mode::ListenFds(_) => Start {
                shared: Vec::new(),
                listeners: self.open_beside(number)?,
            },
            Mode::Auto | Mode::Kernel => Start {
                shared: self.current.lasting_addresses(),
                listeners: Vec::new(),
            },
        };
        let inodes: Vec<u64> = start.listeners.iter().map(|own| own.inode).collect();
        self.latest = number;
        let generation = match Generation::start(&self.guard, number, start) {
            Ok(generation) => generation,
            Err(error) => {
                inodes
                    .into_iter()
                    .for_each(|inode| self.groups.leaves(inode));
                return Err(error);
            }
        };
        // Who lives on without the guard is the one that takes what connects, and nobody beside it.
        generation.outlives(OnGuardDeath::Stop);
        self.say(&format!("restart: generation {number} is started"));
        let since = Instant::now();
        let next = self.next.insert(Next {
            generation,
            readiness: Readiness::new(),
            since,
            until: since + self.guard.ready_within,
            asked: Vec::new(),
        });
        Ok(&mut next.asked)
    }

    /// Lets who connects wait while the current one ends; then the next is started, and serves who waits.
    fn hold(&mut self) -> io::Result<&mut Asked> {
        self.can_be_steered()?;
        let number = self.latest + 1;
        let listeners = self.open_beside(number)?;
        self.latest = number;
        let vacant = Generation::vacant(number, listeners);
        let old = self.make_current(vacant);
        self.steer_to_current();
        self.say(&format!(
            "restart: generation {} finishes what it has, and who connects waits for generation {number}",
            old.number()
        ));
        self.retire(old);
        // Who waits for the one before gets what comes of this one.
        let asked = self.awaited.take().map(|before| before.asked);
        let awaited = self.awaited.insert(Awaited {
            readiness: Readiness::new(),
            until: Some(Instant::now() + self.guard.drain + self.guard.ready_within),
            asked: asked.unwrap_or_default(),
        });
        Ok(&mut awaited.asked)
    }

    /// Lets what connects go to the current one whoever joins it.
    ///
    /// # Errors
    /// If that cannot be: some would go to one that is not ready.
    fn can_be_steered(&self) -> io::Result<()> {
        match self.steer_to_current().pop() {
            Some(problem) => Err(io::Error::other(problem)),
            None => Ok(()),
        }
    }

    /// Opens a listener at each of the current one's addresses, for this generation.
    fn open_beside(&mut self, number: u32) -> io::Result<Vec<Listener>> {
        let mut opened: Vec<Listener> = Vec::new();
        for own in self.current.lasting() {
            if opened.iter().all(|other| other.address != own.address) {
                opened.push(own.open_beside()?);
            }
        }
        for listener in &opened {
            self.groups.joins(listener.address, number, listener.inode);
        }
        Ok(opened)
    }

    pub(super) async fn hear_next(&mut self, news: News) {
        let Some(next) = &mut self.next else { return };
        match news {
            News::Failed(error) => {
                self.give_up(format!("it could not be started: {error}"))
                    .await;
            }
            News::Unheard(why) => {
                self.give_up(format!("its listeners cannot be followed ({why})"))
                    .await;
            }
            News::Gone => {
                let code = next.generation.status().map_or(1, exit_code);
                self.give_up(format!("it ended before it was ready ({code})"))
                    .await;
            }
            other => {
                note(
                    &self.guard,
                    &mut self.groups,
                    &mut next.generation,
                    &mut next.readiness,
                    other,
                );
            }
        }
    }

    /// Asks the next one whether it is ready, or lets it take over.
    pub(super) fn next_is_due(&mut self, due: Due) {
        if due == Due::Ready {
            return self.take_over();
        }
        let Some(mut next) = self.next.take() else {
            return;
        };
        let question = self.question(
            &next.generation,
            &next.readiness,
            &self.current.lasting_addresses(),
        );
        next.readiness.ask(question);
        self.next = Some(next);
    }

    /// The same of the current one, where it is waited for.
    pub(super) fn current_is_due(&mut self, due: Due) {
        let Some(mut awaited) = self.awaited.take() else {
            return;
        };
        if due == Due::Ready {
            self.shown.ready.send_replace(true);
            let number = self.current.number();
            if number > 1 {
                self.count(|counts| counts.restarts += 1);
                let told = format!("generation {number} takes what connects");
                self.restarted(awaited.asked, Answer::Done(told.clone()), &told);
            }
            return;
        }
        let question = self.question(&self.current, &awaited.readiness, &self.current.addresses());
        awaited.readiness.ask(question);
        self.awaited = Some(awaited);
    }

    /// Those who wait for the current one wait no longer; it is waited for all the same.
    pub(super) fn current_takes_long(&mut self) {
        let within = humantime::format_duration(self.guard.ready_within);
        if let Some(awaited) = &mut self.awaited {
            awaited.until = None;
            let told = format!("it is not ready within {within}");
            for asked in awaited.asked.drain(..) {
                let _ = asked.send(Answer::Refused(told.clone()));
            }
            self.say(&format!(
                "generation {} is not ready within {within}",
                self.current.number()
            ));
        }
    }

    /// What shows whether a generation can take what connects at these addresses.
    fn question(
        &self,
        asked: &Generation,
        readiness: &Readiness,
        addresses: &[SocketAddr],
    ) -> Question {
        if asked.is_unheard() {
            return self.question_unheard();
        }
        if addresses.is_empty() || !asked.listens_on(addresses) {
            return Question::Answered(false);
        }
        let passed = matches!(self.guard.mode, Mode::ListenFds(_));
        let connect =
            |address: &SocketAddr| connect_to(asked, &self.current, *address, &self.groups);
        let asking = match &self.guard.ready {
            Ready::Listen if !passed => return Question::Answered(true),
            Ready::Notify => return Question::HasSaid,
            Ready::Url(url) => {
                let own = asked.addresses();
                let address = own.iter().find(|address| address.port() == url.port);
                let address = address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into());
                address
                    .and_then(connect)
                    .map(|one| Question::Get(one, url.clone()))
            }
            Ready::Listen | Ready::Tcp if readiness.waits() => {
                return Question::Answered(asked.queues_are_empty());
            }
            Ready::Listen | Ready::Tcp => {
                let connections: io::Result<_> = asked.addresses().iter().map(connect).collect();
                connections.map(Question::Accepts)
            }
        };
        asking.unwrap_or(Question::Answered(false))
    }

    /// The same where nothing is known of its listeners: then it is ready once it runs, unless it can be asked.
    fn question_unheard(&self) -> Question {
        match &self.guard.ready {
            Ready::Listen | Ready::Tcp => Question::Answered(true),
            Ready::Notify => Question::HasSaid,
            Ready::Url(url) => {
                let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let own = hosts.map(|host| SocketAddr::new(host, url.port));
                // Within the host this is over at once.
                let connected = std::net::TcpStream::connect(&own[..]);
                let ready = connected.and_then(|one| one.set_nonblocking(true).map(|()| one));
                ready.map_or(Question::Answered(false), |one| {
                    Question::Get(one, url.clone())
                })
            }
        }
    }

    /// The next generation is ready.
    fn take_over(&mut self) {
        let Some(next) = self.next.take() else { return };
        let (new, old) = (next.generation.number(), self.current.number());
        let old_one = self.make_current(next.generation);
        self.count(|counts| counts.restarts += 1);
        self.steer_to_current();
        self.current.outlives(self.guard.on_guard_death);
        if self.respawn_at.take().is_some() {
            self.part_with(old_one);
        } else {
            self.retire(old_one);
        }
        // What was waited for is here, though it is another one.
        self.awaited = None;
        self.shown.ready.send_replace(true);
        self.restarted(
            next.asked,
            Answer::Done(format!("generation {new} takes what connects")),
            &format!("generation {new} takes what connects; generation {old} finishes what it has"),
        );
    }

    /// Lets a generation finish what it has, beside another.
    fn retire(&mut self, old: Generation) {
        old.outlives(OnGuardDeath::Stop);
        let retiree = self.shown.retirees.add(&old);
        let scope = Scope::beside(&old, self.rest.clone());
        let drain = self.guard.drain;
        let until = Instant::now() + drain - ending(drain);
        let retiring = Retiring {
            guard: self.guard.clone(),
            ctx: self.orders.ctx.clone(),
            generation: old,
            scope,
            retiree,
            moves: self.tell_moves.clone(),
        };
        self.retiring.spawn(retiring.retire(Some(until)));
    }

    /// The next generation is of no use.
    pub(super) async fn give_up(&mut self, problem: String) {
        let Some(mut next) = self.next.take() else {
            return;
        };
        kill(&mut next.generation).await;
        self.part_with(next.generation);
        self.count(|counts| counts.failed_restarts += 1);
        let serves = format!("generation {} serves on", self.current.number());
        let told = format!("restart failed: {problem}; {serves}");
        self.restarted(next.asked, Answer::Refused(problem), &told);
    }

    fn restarted(&mut self, asked: Asked, answer: Answer, told: &str) {
        self.say(told);
        self.last_restart = Some(told.to_owned());
        for asked in asked {
            let _ = asked.send(answer.clone());
        }
        if let Some(asked) = self.again.take() {
            self.restart(asked);
        }
    }
}
