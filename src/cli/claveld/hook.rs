//! `claveld hook`: the git hooks `pre-receive`, which checks a push, and `post-receive`, which publishes it.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;

use super::ClaveldConfigArgument;
use super::print::{
    exit_of, postponed_lines, print_event, print_failures, print_mirrors, print_reasons, print_trouble, print_warnings,
    report_lines,
};
use super::progress::Board;
use crate::claveld;
use crate::claveld::{
    CheckedSource, Gate, IncomingPush, PushDecision, PushVerdict, PushedRef, PushedSource, RoundRunner, pushed_refs,
    pushed_sources,
};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::evaluate::{EvalMode, Failure};
use crate::model::{Source, describe_error};

/// The most bytes of input for one push: ten thousand refs are 1 MiB.
const MAX_PUSH_BYTES: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The hook of git that runs this command.
    hook: Hook,
    #[command(flatten)]
    config: ClaveldConfigArgument,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hook {
    /// Before git accepts a push: evaluate it, and refuse it if a host no longer evaluates.
    PreReceive,
    /// After git accepted a push: evaluate and publish it.
    PostReceive,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let started = Instant::now();
    let answer = run_hook(arguments).await;
    // The pusher waits for the answer, and not for the mirrors, or for what makes the next answer cheaper.
    if let Err(error) = claveld::start_learning(arguments.config.path(), started.elapsed()) {
        tracing::debug!(error = %describe_error(&error), "nothing is learnt or pushed on behind this push");
    }
    answer
}

async fn run_hook(arguments: &Arguments) -> Result<(), Exit> {
    match arguments.hook {
        Hook::PreReceive => check(&arguments.config).await.inspect_err(|exit| {
            if !exit.is_silent() {
                // The pusher reads about the push first; the error that follows is about claveld.
                output::remark("the push is refused, because it could not be evaluated");
            }
        }),
        Hook::PostReceive => publish(&arguments.config).await,
    }
}

async fn publish(config: &ClaveldConfigArgument) -> Result<(), Exit> {
    let config = config.read()?;
    let pushed = pushed_sources(&git_dir(), &pushed()?, &config.sources)?;
    if pushed.is_empty() {
        return Ok(());
    }
    let targets: Vec<_> = pushed.iter().map(PushedSource::target).collect();
    let runner = RoundRunner::new(&config, EvalMode::Changed)?;
    let board = Board::lines();
    let outcome = runner.run(&targets, &[], &|event| print_event(&board, &event)).await?;
    print_reasons(&outcome);
    for line in report_lines(&outcome.report).into_iter().chain(postponed_lines(&outcome.report)) {
        output::remark(line);
    }
    print_trouble(&outcome);
    // What is left behind pushes on.
    print_mirrors(&claveld::mirror_reports(&config));
    exit_of(outcome.completeness())
}

async fn check(config: &ClaveldConfigArgument) -> Result<(), Exit> {
    let config = config.read()?;
    let (git_dir, refs) = (git_dir(), pushed()?);
    // Git keeps the new objects here until this hook accepts the push (git-receive-pack(1), "Quarantine environment").
    let quarantine = std::env::var_os("GIT_QUARANTINE_PATH").map(PathBuf::from);
    let push = IncomingPush { git_dir: &git_dir, quarantine: quarantine.as_deref().map(Path::new), refs: &refs };
    let gate = Gate::new(&config);
    let board = Board::lines();
    let checked = gate.check(push, &|event| print_event(&board, &event)).await?;
    for CheckedSource { source, verdict, warnings } in &checked {
        print_warnings(warnings, source);
        print_verdict(source, verdict);
    }
    match PushDecision::of(checked.iter().map(|checked| &checked.verdict)) {
        PushDecision::Accept => Ok(()),
        PushDecision::Refuse => Err(Exit::silent(Code::Incomplete)),
    }
}

fn print_broken_before(failures: &[Failure]) {
    for failure in failures {
        output::remark(format_args!("broken before this push as well: {}", failure.part));
    }
}

fn print_verdict(source: &Source, verdict: &PushVerdict) {
    match verdict {
        PushVerdict::Passes { broken_before } => {
            print_broken_before(broken_before);
        }
        PushVerdict::Breaks { broken, broken_before, error_before } => {
            print_failures(broken.iter());
            print_broken_before(broken_before);
            if let Some(why) = error_before {
                output::remark(format_args!(
                    "\ncannot evaluate the revision before this push, so every broken host counts as newly broken:\n{}",
                    output::indent(why)
                ));
            }
            let names: Vec<String> = broken.iter().map(|failure| failure.part.to_string()).collect();
            output::error(format_args!("the push is refused: it breaks {} of {}", names.join(", "), source.flake));
        }
        PushVerdict::Withdraws(held) => {
            output::error(held);
            output::error(format_args!("the push is refused: it takes too much out of {}", source.flake));
        }
        PushVerdict::BreaksAll { error: why } => {
            output::remark(format_args!("\nbroken: {}\n{}", source.flake, output::indent(why)));
            output::error(format_args!("the push is refused: nothing of {} can be evaluated", source.flake));
        }
    }
}

/// The refs that the push moves, as git names them.
fn pushed() -> Result<Vec<PushedRef>, Exit> {
    let mut input = String::new();
    let read = std::io::stdin().take(MAX_PUSH_BYTES + 1).read_to_string(&mut input);
    read.map_err(|error| Exit::machine(format!("cannot read the input of git's hook: {error}")))?;
    // Refs beyond the limit would pass unchecked.
    if input.len() as u64 > MAX_PUSH_BYTES {
        let why = format!("this push moves so many refs that their list is longer than {MAX_PUSH_BYTES} bytes");
        return Err(Exit::machine(format!("cannot read the input of git's hook: {why}; push fewer at once")));
    }
    Ok(pushed_refs(&input)?)
}

/// The repository that was pushed to. Git sets this variable for its hooks.
fn git_dir() -> PathBuf {
    std::env::var_os("GIT_DIR").unwrap_or_else(|| OsString::from(".")).into()
}
