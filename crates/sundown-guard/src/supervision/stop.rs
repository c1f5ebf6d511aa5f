//! The stop: everything ends in its order, and whoever asks is told how far it is.

use super::{Supervision, pass_on};
use crate::control::{Answer, Verb};
use crate::drain::{self, Scope};
use crate::guard::{Outcome, stop};
use crate::output::say;
use crate::retiring::{CutOff, Retiring, kill, unserved};
use crate::status::Status;

impl Supervision {
    /// Lets everything end in its order; whatever is left when the time is over is killed, and named. Where the
    /// application has ended by itself, only those before it have anything to finish.
    pub(super) async fn stop(mut self, outcome: Outcome) -> Outcome {
        stop(&self.orders.handle, outcome);
        let mut asked = self.again.take().unwrap_or_default();
        if let Some(mut next) = self.next.take() {
            kill(&mut next.generation).await;
            self.part_with(next.generation);
            asked.append(&mut next.asked);
        }
        if let Some(awaited) = self.awaited.take() {
            asked.extend(awaited.asked);
        }
        for asked in asked {
            let _ = asked.send(Answer::Refused("the guard stops".to_owned()));
        }
        let Self {
            guard,
            mut orders,
            current,
            respawn_at,
            last_restart,
            mut last_report,
            shown,
            mut retiring,
            tell_moves,
            rest,
            ..
        } = self;
        let line = current.line();
        if outcome == Outcome::Told && !current.is_vacant() && respawn_at.is_none() {
            let scope = match retiring.is_empty() {
                true => Scope::alone(&current, rest),
                false => Scope::beside(&current, rest),
            };
            let last = Retiring {
                guard: guard.clone(),
                ctx: orders.ctx.clone(),
                retiree: shown.retirees.add(&current),
                generation: current,
                scope,
                moves: tell_moves,
            };
            retiring.spawn(last.retire(None));
        } else {
            for problem in drain::refuse_newcomers(current.listeners()) {
                say(&guard, &problem);
            }
            // Nobody will serve them.
            if let Some(cut) = unserved(&current) {
                orders.ctx.cut_off(cut.work, cut.name, cut.peer, cut.age);
            }
        }
        loop {
            tokio::select! {
                retired = retiring.join_next() => match retired {
                    Some(Ok(retired)) => {
                        let count = retired.cut_off.len() as u64;
                        shown.counts.send_modify(|counts| counts.cut_off += count);
                        last_report = Some(retired.report);
                        for CutOff { work, name, peer, age } in retired.cut_off {
                            orders.ctx.cut_off(work, name, peer, age);
                        }
                    }
                    Some(Err(_)) => {}
                    None => return outcome,
                },
                Some(request) = orders.requests.recv() => {
                    let _ = request.answer.send(match request.verb {
                        Verb::Status => Answer::Status(Box::new(Status {
                            name: guard.name.clone(),
                            pid: std::process::id(),
                            ready: *shown.ready.borrow(),
                            stopping: true,
                            generations: shown.retirees.status(),
                            last_restart: last_restart.clone(),
                            last_report: last_report.clone(),
                            counts: *shown.counts.borrow(),
                        })),
                        Verb::Stop => Answer::Done("stopping".to_owned()),
                        Verb::Restart { .. } => Answer::Refused("the guard stops".to_owned()),
                    });
                }
                Some(signal) = orders.signals.recv() => match signal {
                    libc::SIGHUP => say(&guard, "no restart: the guard stops"),
                    other => pass_on(line.as_ref(), other),
                },
            }
        }
    }
}
