//! `claveld evaluate FLAKE`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::SystemTime;

use bytesize::ByteSize;

use super::progress::{Board, reasons};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::evaluate::{Budget, Drafts, EvalMode, Evaluation, Evaluator, Failure};
use crate::model::{FlakeReference, Pattern, Source, UnitSpecification};
use crate::nix::Nix;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The flake, as Nix writes it, without `#`.
    flake: FlakeReference,
    /// Print one JSON document in the branch's own shapes, unsigned.
    #[arg(long)]
    json: bool,
    /// How long one run of Nix may take.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: std::time::Duration,
    /// How many hosts are evaluated at once [default: the machine's processors].
    #[arg(long, value_name = "COUNT")]
    processes: Option<NonZeroUsize>,
    /// How much memory all evaluations may take together, such as 4GiB [default: three quarters of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Take the deployments alone whose name is like this: `web-*`, `homeConfigurations.*`. May stand more than once.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<Pattern>,
    /// Leave out the deployments whose name is like this. May stand more than once.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Pattern>,
    /// Remember in this folder what was read, and evaluate only what changed since the last time.
    #[arg(long, value_name = "FOLDER")]
    records: Option<PathBuf>,
    /// Evaluate everything, and compare it with what is remembered.
    #[arg(long, requires = "records")]
    full: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let evaluator = Evaluator {
        nix: Nix::new(arguments.timeout),
        budget: Budget::of_this_machine(arguments.processes, arguments.memory.map(|memory| memory.as_u64())),
        records: arguments.records.clone(),
        mode: if arguments.full { EvalMode::Everything } else { EvalMode::Changed },
    };
    let (include, exclude) = (arguments.include.clone(), arguments.exclude.clone());
    let source = Source { include, exclude, ..Source::bare(arguments.flake.clone()) };
    let evaluation = {
        let board = Board::live();
        let progress = |progress| board.advance(&source, &progress);
        evaluator.evaluate(&source, None, &source.flake, SystemTime::now().into(), &progress).await?
    };
    let Evaluation { drafts, work, .. } = &evaluation;
    if arguments.json {
        output::json(&evaluation)?;
    } else {
        show(drafts)?;
        failures(drafts.failures.iter());
        reasons(work).into_iter().for_each(output::remark);
    }
    differences(work.differences.iter().map(String::as_str));
    look_again(&evaluator, &source).await;
    let is_whole = drafts.failures.is_empty() && work.differences.is_empty();
    if is_whole { Ok(()) } else { Err(Exit::silent(Code::Incomplete)) }
}

/// Finds out what of the answers depends on where the source is.
async fn look_again(evaluator: &Evaluator, source: &Source) {
    let board = Board::live();
    let progress = |progress| board.advance(source, &progress);
    if let Err(error) = evaluator.check_relocation(source, None, &source.flake, &progress).await {
        // It costs time at the next change.
        tracing::debug!(%error, "cannot look again");
    }
}

/// Tells what Clavel got wrong the last time.
pub(super) fn differences<'a>(differences: impl Iterator<Item = &'a str>) {
    for attribute in differences {
        output::error(format_args!(
            "{attribute} came out differently than was remembered, though nothing that it comes from changed; this is an \
             error of Clavel, please report it. What was evaluated just now counts"
        ));
    }
}

fn show(drafts: &Drafts) -> Result<(), Exit> {
    let unit = |name| drafts.units.iter().find(|unit| unit.name == name);
    let rows = drafts.deployments.iter().map(|deployment| {
        let specification = &deployment.specification;
        let unit = unit(specification.unit.clone());
        let told =
            |tell: fn(&UnitSpecification) -> String| unit.map_or_else(|| "-".to_owned(), |u| tell(&u.specification));
        vec![
            deployment.name.to_string(),
            specification.unit.to_string(),
            told(|unit| unit.unit_type.to_string()),
            told(|unit| unit.arch.to_string()),
            specification.template.nar_id.to_string(),
        ]
    });
    output::table(&["deployment", "unit", "type", "arch", "store path"], rows)
}

/// Tells what is broken, with Nix's own words.
pub(super) fn failures<'a>(failures: impl Iterator<Item = &'a Failure>) {
    for failure in failures {
        output::remark(format_args!("\nbroken: {}\n{}", failure.attribute, output::indented(&failure.error)));
    }
}
