//! The stop: everything ends in its order, and whoever asks is told how far it is.

use super::Supervision;
use crate::control::{Answer, Verb};
use crate::drain::{self, Scope};
use crate::guard::Outcome;
use crate::output::say;
use crate::retiring::{CutOff, kill, retire, unserved};
use crate::status::Status;

impl Supervision {
    /// Lets everything end in its order; whatever is left when the time is over is killed, and named.
    pub(super) async fn stop(mut self) -> Outcome {
        let mut asked = Vec::new();
        if let Some(mut next) = self.next.take() {
            kill(&mut next.generation).await;
            self.part_with(next.generation);
            asked.append(&mut next.asked);
        }
        asked.extend(
            self.awaited
                .take()
                .into_iter()
                .flat_map(|awaited| awaited.asked),
        );
        for asked in asked {
            let _ = asked.send(Answer::Refused("the guard stops".to_owned()));
        }
        self.current.ends_with_us();
        for problem in drain::refuse_newcomers(self.current.listeners()) {
            self.say(&problem);
        }
        let Self {
            guard,
            mut orders,
            current,
            respawn_at,
            last_restart,
            shown,
            mut retiring,
            rest,
            ..
        } = self;
        if current.is_vacant() || respawn_at.is_some() {
            // Nobody will serve them.
            if let Some(cut) = unserved(&current) {
                orders.ctx.cut_off(cut.work, cut.name, cut.peer, cut.age);
            }
        } else {
            let scope = match retiring.is_empty() {
                true => Scope::alone(&current, rest),
                false => Scope::beside(&current, rest),
            };
            let (retiree, ctx) = (shown.retirees.add(&current), orders.ctx.clone());
            retiring.spawn(retire(guard.clone(), ctx, current, scope, None, retiree));
        }
        let status = || Status {
            name: guard.name.clone(),
            pid: std::process::id(),
            ready: *shown.ready.borrow(),
            stopping: true,
            generations: shown.retirees.status(),
            last_restart: last_restart.clone(),
            counts: *shown.counts.borrow(),
        };
        loop {
            tokio::select! {
                retired = retiring.join_next() => match retired {
                    Some(Ok(retired)) => {
                        for CutOff { work, name, peer, age } in retired.cut_off {
                            orders.ctx.cut_off(work, name, peer, age);
                        }
                    }
                    Some(Err(_)) => {}
                    None => return Outcome::Told,
                },
                Some(request) = orders.requests.recv() => {
                    let _ = request.answer.send(match request.verb {
                        Verb::Status => Answer::Status(Box::new(status())),
                        Verb::Stop => Answer::Done("stopping".to_owned()),
                        Verb::Restart { .. } => Answer::Refused("the guard stops".to_owned()),
                    });
                }
                Some(signal) = orders.signals.recv() => {
                    if signal == libc::SIGHUP {
                        say(&guard, "no restart: the guard stops");
                    }
                }
            }
        }
    }
}
