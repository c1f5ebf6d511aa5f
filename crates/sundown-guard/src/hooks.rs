//! Commands that are run when the service stops.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use sundown::{BoxError, Hook};
use tokio::process::{Child, Command};

use crate::settings::{CommandHook, HookWhen};

/// Makes hooks of commands; those of a kind run one after the other in their order. SUNDOWN_SERVICE tells them
/// the service's name.
pub(crate) fn hooks(commands: &[CommandHook], service: &str) -> Vec<Hook> {
    let name = |number: usize| format!("{} ({})", commands[number].run, number + 1);
    let make = |(number, command): (usize, &CommandHook)| {
        let (run, service) = (command.run.clone(), service.to_owned());
        let execute = move || execute(run, service);
        let hook = match command.when {
            HookWhen::PreShutdown => Hook::pre_shutdown(name(number), execute),
            HookWhen::PostCleanup => Hook::post_cleanup(name(number), execute),
        };
        let hook = hook.timeout(command.timeout);
        let before = commands[..number]
            .iter()
            .rposition(|other| other.when == command.when);
        match before {
            Some(before) => hook.after(name(before)),
            None => hook,
        }
    };
    commands.iter().enumerate().map(make).collect()
}

async fn execute(run: String, service: String) -> Result<(), BoxError> {
    let child = Command::new("/bin/sh")
        .args(["-c", &run])
        .env("SUNDOWN_SERVICE", service)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    let status = Group(child).0.wait().await?;
    match status.success() {
        true => Ok(()),
        false => Err(status.to_string().into()),
    }
}

/// A command and whatever it starts: where nobody waits for it any more, it is killed.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Not reaped yet, so that the number is its own.
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(group) = pid.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
