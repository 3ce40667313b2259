//! `claveld hook pre-receive` and `claveld hook post-receive`

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::ConfigArgument;
use super::evaluate::failures;
use super::once::{announced, report, told_reasons, trouble, verdict};
use super::progress::Board;
use crate::claveld::{Gate, Judgement, Push, PushedRef, PushedSource, Round, pushed_refs, pushed_sources};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::evaluate::EvalMode;
use crate::model::Source;

/// The most that git may say of one push: ten thousand refs are 1 MiB.
const LARGEST_PUSH: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which of git's hooks this is.
    hook: Hook,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hook {
    /// Before a push comes in: evaluate it, and refuse it where a host does not evaluate any more.
    PreReceive,
    /// After a push came in: evaluate and publish it.
    PostReceive,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    match arguments.hook {
        Hook::PreReceive => judge(&arguments.config).await.inspect_err(|exit| {
            if !exit.is_silent() {
                // Told first, since the error that follows is about claveld, and the pusher wants to know about the push.
                output::remark("the push is refused, since it could not be evaluated");
            }
        }),
        Hook::PostReceive => publish(&arguments.config).await,
    }
}

async fn publish(config: &ConfigArgument) -> Result<(), Exit> {
    let config = config.read()?;
    let pushed = pushed_sources(&git_dir(), &pushed()?, &config.sources)?;
    if pushed.is_empty() {
        return Ok(());
    }
    let targets: Vec<_> = pushed.iter().map(PushedSource::target).collect();
    let round = Round::new(&config, EvalMode::Changed)?;
    let board = Board::lines();
    let outcome = round.run(&targets, &|announcement| announced(&board, &announcement)).await?;
    told_reasons(&outcome);
    for line in report(&outcome.report) {
        output::remark(line);
    }
    trouble(&outcome);
    round.look_again(&targets, &|announcement| announced(&board, &announcement)).await;
    verdict(&outcome)
}

async fn judge(config: &ConfigArgument) -> Result<(), Exit> {
    let config = config.read()?;
    let (git_dir, refs) = (git_dir(), pushed()?);
    // Where git keeps what a push brings until this hook says yes (git-receive-pack(1), "Quarantine environment").
    let quarantine = std::env::var_os("GIT_QUARANTINE_PATH").map(PathBuf::from);
    let push = Push { git_dir: &git_dir, quarantine: quarantine.as_deref().map(Path::new), refs: &refs };
    let gate = Gate::new(&config);
    let board = Board::lines();
    let judgements = gate.judge(push, &|announcement| announced(&board, &announcement)).await?;
    let refused = judgements.iter().filter(|(source, judgement)| tell(source, judgement) == Told::Refused).count();
    if refused == 0 { Ok(()) } else { Err(Exit::silent(Code::Incomplete)) }
}

/// What a pusher was told of a source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Passed,
    Refused,
}

fn tell(source: &Source, judgement: &Judgement) -> Told {
    match judgement {
        Judgement::Passes { broken_before } => {
            for failure in broken_before {
                output::remark(format_args!("broken before this push as well: {}", failure.attribute));
            }
            Told::Passed
        }
        Judgement::Breaks { broken, broken_before, untold } => {
            failures(broken.iter());
            for failure in broken_before {
                output::remark(format_args!("broken before this push as well: {}", failure.attribute));
            }
            if let Some(why) = untold {
                output::remark(format_args!(
                    "\nwhat was broken before this push cannot be told:\n{}",
                    output::indented(why)
                ));
            }
            let names: Vec<&str> = broken.iter().map(|failure| failure.attribute.as_str()).collect();
            output::error(format_args!("the push is refused: it breaks {} of {}", names.join(", "), source.flake));
            Told::Refused
        }
        Judgement::BreaksAll { why } => {
            output::remark(format_args!("\nbroken: {}\n{}", source.flake, output::indented(why)));
            output::error(format_args!("the push is refused: nothing of {} can be evaluated", source.flake));
            Told::Refused
        }
    }
}

/// The refs that git says a push moves.
fn pushed() -> Result<Vec<PushedRef>, Exit> {
    let mut input = String::new();
    let read = std::io::stdin().take(LARGEST_PUSH + 1).read_to_string(&mut input);
    read.map_err(|error| Exit::machine(&format!("cannot read what git gives its hook: {error}")))?;
    // What is not read is not judged.
    if input.len() as u64 > LARGEST_PUSH {
        let why = format!("this push moves so many refs that git tells of them in more than {LARGEST_PUSH} bytes");
        return Err(Exit::machine(&format!("cannot read what git gives its hook: {why}; push fewer at once")));
    }
    Ok(pushed_refs(&input)?)
}

/// The repository that was pushed to: git tells its hooks where they are.
fn git_dir() -> PathBuf {
    std::env::var_os("GIT_DIR").unwrap_or_else(|| OsString::from(".")).into()
}
