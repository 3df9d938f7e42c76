//! `holdfast`: the agent and its command line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match agent::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}
