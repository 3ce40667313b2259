//! The statuses that agents left on a stick: `clavel bundle status` shows them, and `clavel bundle create --for` makes a bundle of what
//! their machines lack.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::view::{View, bundle};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::closures::ClosureBundle;
use crate::git::{BundleFiles, BundleWriteError, CommitId};
use crate::model::{
    AgentSpecification, AgentStatus, FleetId, Folder, Name, StorePath, beginning, describe_error, printable_line,
};
use crate::stick::{self, FOLDER, Finding, SeenMachines};
use crate::store::{Store, StoreError};
use crate::trust::{Anchor, AnchorLocation};

/// The most bundles of a stick that are asked what the closure of a store path is.
const MAX_EARLIER: usize = 16;
/// The most characters of an error that a table shows.
const MAX_SHOWN: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct SeenArgument {
    /// The file in which the first key and the newest status of each machine are remembered. The default is clavel/machines.json below
    /// `XDG_STATE_HOME` or ~/.local/state.
    #[arg(long, value_name = "FILE", env = "CLAVEL_SEEN")]
    seen: Option<PathBuf>,
}

impl SeenArgument {
    fn path(&self) -> Result<PathBuf, Exit> {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let below_home = || Some(folder("HOME")?.join(".local/state"));
        let default = || Some(folder("XDG_STATE_HOME").or_else(below_home)?.join("clavel/machines.json"));
        let nowhere = || {
            let why =
                "nothing says where the machines' keys are remembered, since HOME is not set; name a file with --seen";
            Exit::new(Code::Configuration, why)
        };
        self.seen.clone().or_else(default).ok_or_else(nowhere)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    /// The folder of the bundles: the stick.
    #[arg(value_name = "STICK")]
    stick: PathBuf,
    /// The root of the fleet: a file with any of its roots, or the digest of the first. With it, a status of another fleet is told.
    #[arg(long, value_name = "FILE|DIGEST", env = "CLAVEL_ROOT")]
    root: Option<AnchorLocation>,
    #[command(flatten)]
    seen: SeenArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// The document that `clavel bundle status --json` prints.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct StickOutput {
    stick: String,
    /// The machines, sorted by the names of their files.
    machines: Vec<ShownMachine>,
}

/// A machine whose status is on a stick.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ShownMachine {
    /// The agent that the name of the file gives.
    agent: Name,
    /// Why the status does not count, or what is odd about it.
    problem: Option<String>,
    /// The status, if it counts.
    status: Option<AgentStatus>,
}

/// Prints the statuses on a stick. It remembers nothing.
pub(super) fn print_status(StatusArguments { stick, root, seen, json }: &StatusArguments) -> Result<(), Exit> {
    let fleet = root.as_ref().map(Anchor::read).transpose()?.map(|anchor| anchor.fleet());
    let machines = Machines::read(stick, fleet, &SeenMachines::read(&seen.path()?).map_err(Exit::machine)?)?;
    let shown = |(agent, finding): &(Name, Finding)| ShownMachine {
        agent: agent.clone(),
        problem: describe_problem(finding),
        status: finding.status().cloned(),
    };
    let output =
        StickOutput { stick: stick.display().to_string(), machines: machines.found.iter().map(shown).collect() };
    if *json { output::json(&output) } else { print_table(&output) }
}

fn print_table(shown: &StickOutput) -> Result<(), Exit> {
    let row = |cells: [String; 7]| cells.to_vec();
    let none = || "-".to_owned();
    let mut rows = Vec::new();
    for ShownMachine { agent, problem, status } in &shown.machines {
        let problem = problem.as_ref().map(|problem| printable_line(problem, MAX_SHOWN));
        let Some(status) = status else {
            rows.push(row([agent.to_string(), none(), none(), none(), none(), none(), problem.unwrap_or_else(none)]));
            continue;
        };
        let at = status.at.to_string();
        let error = |error: &Option<String>| {
            let all = problem.iter().chain(error).map(|text| printable_line(text, MAX_SHOWN));
            let all = all.collect::<Vec<_>>().join("; ");
            if all.is_empty() { none() } else { all }
        };
        if status.deployments.is_empty() {
            rows.push(row([agent.to_string(), none(), none(), none(), none(), at, error(&status.error)]));
            continue;
        }
        for deployment in status.deployments.iter() {
            let text = |value: Option<String>| value.unwrap_or_else(none);
            rows.push(row([
                agent.to_string(),
                deployment.name.to_string(),
                text(deployment.revision.map(|revision| revision.to_string())),
                // It is from anybody.
                printable_line(&deployment.state, 20),
                text(deployment.since.map(|since| since.to_string())),
                at.clone(),
                error(&deployment.error.clone().or_else(|| status.error.clone())),
            ]));
        }
    }
    if rows.is_empty() {
        output::remark(format_args!(
            "no agent has left a status in {}",
            Path::new(&shown.stick).join(FOLDER).display()
        ));
    }
    output::table(&["machine", "deployment", "revision", "state", "since", "written", "problem"], rows)
}

fn describe_problem(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Good(_) | Finding::First(_) => None,
        Finding::WentBack(_, (_, version)) => {
            Some(format!("the machine believed index version {version} before: it was restored from a backup"))
        }
        Finding::Rejected(rejection) => Some(beginning(&describe_error(rejection), 1000)),
    }
}

/// The machines whose statuses are on a stick.
pub(super) struct Machines {
    stick: PathBuf,
    found: Vec<(Name, Finding)>,
}

impl Machines {
    fn read(stick: &Path, fleet: Option<FleetId>, seen: &SeenMachines) -> Result<Self, Exit> {
        let failed = |error: std::io::Error| {
            Exit::new(Code::Machine, format!("cannot read the statuses in {}: {error}", stick.join(FOLDER).display()))
        };
        let files = stick::read_all(stick).map_err(failed)?;
        let judged = files.into_iter().map(|file| {
            let finding = stick::judge(&file.agent, file.bytes, fleet, seen);
            (file.agent, finding)
        });
        Ok(Self { stick: stick.to_owned(), found: judged.collect() })
    }

    /// Reads the statuses on a stick for the next bundle of a fleet, tells what is wrong with them, and remembers those that count.
    pub(super) fn for_bundle(stick: &Path, fleet: FleetId, seen: &SeenArgument) -> Result<Self, Exit> {
        let path = seen.path()?;
        let mut seen = SeenMachines::read(&path).map_err(Exit::machine)?;
        let machines = Self::read(stick, Some(fleet), &seen)?;
        for (agent, finding) in &machines.found {
            if let Some(problem) = describe_problem(finding) {
                let problem = printable_line(&problem, 1000);
                output::remark(format_args!("warning: {FOLDER}/{agent}.json: {problem}"));
            }
            if let Finding::First(status) = finding {
                output::remark(format_args!("{agent}: its first status, signed with the key {}", status.key));
            }
            seen.note(finding);
        }
        seen.write(&path).map_err(Exit::machine)?;
        Ok(machines)
    }

    /// The names of the statuses, also of those that do not count.
    pub(super) fn names(&self) -> BTreeSet<Name> {
        self.found.iter().map(|(agent, _)| agent.clone()).collect()
    }

    /// The status of a machine, if it counts.
    fn status(&self, agent: &Name) -> Option<&AgentStatus> {
        self.found.iter().find(|(name, _)| name == agent)?.1.status()
    }

    /// The commit that all of these agents have; `None` where one of them may have none. It tells why.
    pub(super) fn prerequisite(&self, view: &View, agents: &BTreeSet<Name>) -> Result<Option<CommitId>, Exit> {
        let mut commits = Vec::new();
        for agent in agents {
            let commit = self.status(agent).and_then(|status| status.commit.as_ref()?.parse::<CommitId>().ok());
            let Some(commit) = commit else {
                let why = if self.status(agent).is_some() {
                    "says that it has no commit"
                } else {
                    "has no status that counts"
                };
                output::remark(format_args!("{agent} {why} on the stick, so the bundle has the whole branch"));
                return Ok(None);
            };
            commits.push(commit);
        }
        let tip = view.snapshot.commit();
        let failed = |error: BundleWriteError| Exit::new(Code::Repository, describe_error(&error));
        let common = view.repository.common_prerequisite(tip, &commits).map_err(failed)?;
        if common.is_none() && !commits.is_empty() {
            output::remark(
                "the machines have commits that are not in the branch's history, so the bundle has the whole branch",
            );
        }
        Ok(common)
    }

    /// The store paths of which each agent has all that they need, as the store or an earlier bundle on the stick knows it.
    pub(super) async fn paths(
        &self,
        store: &dyn Store,
        agents: &BTreeSet<Name>,
    ) -> Result<BTreeMap<Name, BTreeSet<StorePath>>, StoreError> {
        let mut closures: BTreeMap<StorePath, BTreeSet<StorePath>> = BTreeMap::new();
        let mut earlier = None;
        let mut all = BTreeMap::new();
        for agent in agents {
            let mut of_agent = BTreeSet::new();
            for path in self.status(agent).into_iter().flat_map(AgentStatus::whole_paths) {
                if !closures.contains_key(path) {
                    let here = store.closures_here(std::slice::from_ref(path)).await?;
                    let mut closure: BTreeSet<StorePath> = here.into_keys().collect();
                    if !closure.contains(path) {
                        let bundles = earlier.get_or_insert_with(|| self.earlier_bundles());
                        closure = bundles.iter().find_map(|bundle| closure_in(bundle, path)).unwrap_or_default();
                    }
                    if closure.is_empty() {
                        output::remark(format_args!(
                            "{agent} has {path}, and neither the store nor a bundle on the stick knows what that needs, so the \
                             bundle has all that {agent} needs now"
                        ));
                    }
                    closures.insert(path.clone(), closure);
                }
                of_agent.extend(closures.get(path).into_iter().flatten().cloned());
            }
            all.insert(agent.clone(), of_agent);
        }
        Ok(all)
    }

    /// The bundles with closures that are on the stick. One that cannot be read is of no use here.
    fn earlier_bundles(&self) -> Vec<ClosureBundle> {
        let pattern = self.stick.join("*.bundle");
        let found = pattern.to_str().and_then(|text| bundle(text).ok()).and_then(|pattern| pattern.find().ok());
        let open = |files: BundleFiles| ClosureBundle::open(files.open().ok()?).ok().flatten();
        found.into_iter().flatten().take(MAX_EARLIER).filter_map(open).collect()
    }
}

/// The closure of a path, as far as a bundle has it; `None` where it does not have the path.
fn closure_in(bundle: &ClosureBundle, path: &StorePath) -> Option<BTreeSet<StorePath>> {
    let manifest = bundle.manifest();
    let places: BTreeMap<&StorePath, usize> =
        manifest.paths.iter().enumerate().map(|(place, carried)| (&carried.path, place)).collect();
    places.get(path)?;
    let (mut seen, mut open) = (BTreeSet::new(), vec![path.clone()]);
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        if let Some(place) = places.get(&path) {
            open.extend(bundle.narinfo(*place).ok()?.references().iter().cloned());
        }
    }
    Some(seen)
}

/// The agents of a branch, each with the deployments that it may ask for.
pub(super) fn agents_of(view: &View) -> Result<BTreeMap<Name, Vec<Name>>, Exit> {
    let (branch, _) = view.verified()?;
    let mut index = branch.whole_index()?;
    let mut agents = BTreeMap::new();
    for name in index.names(Folder::Agents) {
        let agent = branch.document::<AgentSpecification>(&mut index, &name)?;
        agents.insert(name, agent.specification.deployments.to_vec());
    }
    Ok(agents)
}
