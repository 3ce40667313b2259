//! `claveld evaluate`: prints the deployments of a flake, and publishes nothing.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::SystemTime;

use bytesize::ByteSize;

use super::print::{exit_of, print_differences, print_failures, print_warnings};
use super::progress::{Board, reasons};
use crate::claveld::Completeness;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::evaluate::{Budget, Drafts, EvalMode, Evaluation, Evaluator};
use crate::model::{
    FlakeReference, InputOrigin, InputPolicy, Isolation, Name, Pattern, Source, UnitSpecification, describe_error,
};
use crate::nix::Nix;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The flake, as Nix writes it, without `#`.
    flake: FlakeReference,
    /// Print one JSON document, with the documents as they would be on the branch, unsigned.
    #[arg(long)]
    json: bool,
    /// The longest time that one run of Nix may take.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: std::time::Duration,
    /// The longest time that the whole evaluation may take.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    source_timeout: std::time::Duration,
    /// The number of hosts to evaluate at the same time [default: the machine's processors].
    #[arg(long, value_name = "COUNT")]
    processes: Option<NonZeroUsize>,
    /// The most memory for all evaluations together, such as 4GiB [default: three quarters of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// `cage` keeps the flake from everything but the store; `none` is for a flake that you wrote yourself.
    #[arg(long, value_name = "KIND", default_value = "cage")]
    isolation: CageOrNone,
    /// Let inputs come from here: `https`, `path`, `https://git.lan`. May be given more than once [default: https, ssh, git, github,
    /// gitlab, sourcehut].
    #[arg(long = "input", value_name = "ORIGIN")]
    inputs: Vec<InputOrigin>,
    /// Take only deployments whose name matches: `web-*`, `homeConfigurations.*`. May be given more than once.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<Pattern>,
    /// Leave out deployments whose name matches. May be given more than once.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Pattern>,
    /// Keep records in this folder, and evaluate only what changed since the last time.
    #[arg(long, value_name = "FOLDER")]
    records: Option<PathBuf>,
    /// Evaluate everything, and compare the results with the records.
    #[arg(long, requires = "records")]
    full: bool,
}

/// The kinds of isolation, as an argument names them.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CageOrNone {
    Cage,
    None,
}

impl From<CageOrNone> for Isolation {
    fn from(kind: CageOrNone) -> Self {
        match kind {
            CageOrNone::Cage => Self::Cage,
            CageOrNone::None => Self::None,
        }
    }
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let evaluator = Evaluator {
        nix: Nix::new(arguments.timeout, arguments.isolation.into()),
        inputs: match &arguments.inputs[..] {
            [] => InputPolicy::default(),
            origins => origins.to_vec().into(),
        },
        budget: Budget::of_this_machine(arguments.processes, arguments.memory.map(|memory| memory.as_u64())),
        source_time: arguments.source_timeout,
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
    let Evaluation { drafts, warnings, work, .. } = &evaluation;
    if arguments.json {
        output::json(&evaluation)?;
    } else {
        print_drafts(drafts)?;
        print_warnings(warnings, &source);
        print_failures(drafts.failures.iter());
        reasons(work).into_iter().for_each(output::remark);
    }
    print_differences(work.differences.iter());
    if work.has_unlearnt {
        learn(&evaluator, &source).await;
    }
    exit_of(Completeness::of(&evaluation))
}

/// Learns what the recorded answers depend on, for the next time.
async fn learn(evaluator: &Evaluator, source: &Source) {
    let board = Board::live();
    let progress = |progress| board.advance(source, &progress);
    if let Err(error) = evaluator.learn(source, None, &source.flake, &progress).await {
        // Without the record the next evaluation takes longer. It costs nothing else.
        tracing::debug!(error = %describe_error(&error), "cannot learn what the answers depend on");
    }
}

fn print_drafts(drafts: &Drafts) -> Result<(), Exit> {
    let units: HashMap<&Name, _> = drafts.units.iter().map(|unit| (&unit.name, unit)).collect();
    let rows = drafts.deployments.iter().map(|deployment| {
        let specification = &deployment.specification;
        let unit = units.get(&specification.unit);
        let describe =
            |field: fn(&UnitSpecification) -> String| unit.map_or_else(|| "-".to_owned(), |u| field(&u.specification));
        vec![
            deployment.name.to_string(),
            specification.unit.to_string(),
            describe(|unit| unit.unit_type.to_string()),
            describe(|unit| unit.arch.to_string()),
            specification.template.nar_id.to_string(),
        ]
    });
    output::table(&["deployment", "unit", "type", "arch", "store path"], rows)
}
