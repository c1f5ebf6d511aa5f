//! The shop's own binary; `sundown demo` starts the same [`shop::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    shop::run(std::env::args_os())
}
