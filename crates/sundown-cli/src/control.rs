//! `sundown status`, `restart` and `stop`: what a running guard is asked and told.

use std::process::ExitCode;

use sundown_guard::{Answer, Verb, ask};

/// Which guard is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Whom {
    /// The guard's name; not needed where one alone runs
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Start the next generation of a guarded service
#[derive(Debug, clap::Args)]
pub(crate) struct Restart {
    /// Wait until it is ready; the exit code is 1 if that does not come to pass
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    whom: Whom,
}

impl Whom {
    /// Asks; refusals are told on stderr.
    pub(crate) fn ask(&self, verb: Verb) -> ExitCode {
        match ask(self.name.as_deref(), verb) {
            Ok(answer) => self.show(&answer),
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        }
    }

    fn show(&self, answer: &Answer) -> ExitCode {
        if self.json {
            let text = serde_json::to_string(answer).expect("it is strings and numbers");
            println!("{text}");
        } else {
            match answer {
                Answer::Status(status) => println!("{status}"),
                Answer::Done(what) => println!("{what}"),
                Answer::Refused(why) => eprintln!("error: {why}"),
            }
        }
        match answer {
            Answer::Refused(_) => ExitCode::FAILURE,
            Answer::Status(_) | Answer::Done(_) => ExitCode::SUCCESS,
        }
    }
}

impl Restart {
    pub(crate) fn run(&self) -> ExitCode {
        self.whom.ask(Verb::Restart { wait: self.wait })
    }
}
