//! The closures in a bundle: `create --closures` fetches and writes them, `inspect` shows what they are, and `verify` reads all of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use super::machines::{Machines, agents_of};
use super::view::View;
use crate::branch::VerifiedIndex;
use crate::cli::exit::{Code, Exit};
use crate::cli::output::{self, Spinner};
use crate::closures::{
    CarriedDeployment, CarriedPath, ClosureBundle, ClosureWriter, Manifest, Narinfo, Requirement, WriteError, Written,
    in_order_of_references,
};
use crate::git::{BundleFiles, BundleWriteError, CommitId};
use crate::model::{
    Deployment, DeploymentSpecification, Folder, Name, NarTemplateSpecification, StorePath, describe_error,
};
use crate::stick::left_out;
use crate::store::{self, CacheEntries, CacheKeys, Output, Store, StoreError};
use crate::trust::{Verified, pin_of};

/// The longest time that one step of Nix may take: 6 hours, for a whole fleet over a slow line.
const NIX_DEADLINE: Duration = Duration::from_hours(6);

/// What is written beside the branch.
pub(super) struct Request<'a> {
    /// The bundle.
    pub(super) file: &'a BundleFiles,
    /// The deployments; none for all of them.
    pub(super) names: &'a [Name],
    /// The store to fetch to; `None` for the machine's own.
    pub(super) store: Option<PathBuf>,
    /// What its readers have already.
    pub(super) readers: Readers,
}

/// What the readers of a new bundle have already.
pub(super) enum Readers {
    /// The store paths and the commit that earlier bundles brought.
    Have {
        /// The store paths.
        paths: BTreeSet<StorePath>,
        /// The commit.
        since: Option<CommitId>,
    },
    /// What the statuses of these machines say.
    Machines(Machines),
}

/// Writes the branch of the view, and the closures of its deployments.
pub(super) async fn create(view: &View, request: Request<'_>) -> Result<(), Exit> {
    let path = request.file.exact().ok_or_else(|| Exit::new(Code::Configuration, "name one file"))?;
    let deployments = chosen(view, request.names)?;
    let output = if std::io::stderr().is_terminal() { Output::Inherit } else { Output::Capture };
    let store = store::open(request.store, NIX_DEADLINE, output);
    // The GC roots that keep the paths until they are written.
    let folder = tempfile::tempdir().map_err(Exit::machine)?;
    let mut entries = realise(&*store, &deployments, folder.path()).await?;
    add_signatures(&*store, &deployments, &mut entries).await;
    let references = entries.iter().map(|(path, entry)| (path, entry.references())).collect();
    let ordered = in_order_of_references(&references).map_err(|error| Exit::new(Code::Machine, error))?;
    let (known, since) = match request.readers {
        Readers::Have { paths, since } => (paths, since),
        Readers::Machines(machines) => what_all_have(view, &machines, &deployments, &*store, &entries).await?,
    };
    let (assumed, new): (Vec<&StorePath>, Vec<&StorePath>) =
        ordered.into_iter().partition(|path| known.contains(*path));
    let mut assumed: Vec<StorePath> = assumed.into_iter().cloned().collect();
    assumed.sort();
    let carried = |path: &StorePath| {
        let content = entries.get(path)?.content();
        Some(CarriedPath { path: path.clone(), nar_hash: content.nar_hash, nar_size: content.nar_size })
    };
    let manifest = Manifest {
        assumed,
        branch: view.name().clone(),
        commit: view.snapshot.commit().to_string(),
        deployments: deployments.iter().map(|deployment| carried_deployment(deployment)).collect(),
        paths: new.iter().filter_map(|path| carried(path)).collect(),
    };
    let git = write_git_bundle(view, since, request.file)?;
    let written = write(path, &*store, &manifest, &entries, &git)
        .map_err(|error| Exit::new(Code::Machine, format!("{}: {}", request.file, describe_error(&error))))?;
    let resumed = match written.reused {
        0 => String::new(),
        reused => format!(", of which {} were there from a run that was ended", ByteSize(reused)),
    };
    let left_out = match manifest.assumed.len() {
        0 => String::new(),
        count => format!(", without {count} that its reader has"),
    };
    output::line(format_args!(
        "{}: branch {} at commit {}, {} deployments, {} store paths{left_out}, {}{resumed}",
        request.file,
        manifest.branch,
        manifest.commit,
        manifest.deployments.len(),
        manifest.paths.len(),
        ByteSize(written.bytes)
    ))
}

/// The store paths that each machine which needs them has, and the commit that all machines have which ask for these deployments.
async fn what_all_have(
    view: &View,
    machines: &Machines,
    deployments: &[Verified<Deployment>],
    store: &dyn Store,
    entries: &CacheEntries,
) -> Result<(BTreeSet<StorePath>, Option<CommitId>), Exit> {
    let asks_for = |asked: &[Name], deployment: &Deployment| asked.contains(&deployment.name);
    let mut agents = agents_of(view)?;
    agents.retain(|_, asked| deployments.iter().any(|deployment| asks_for(asked, deployment)));
    let names: BTreeSet<Name> = agents.keys().cloned().collect();
    let since = match machines.prerequisite(view, &names)? {
        // A git bundle cannot be empty. A machine that has a commit has the one before it.
        Some(tip) if tip == view.snapshot.commit() => {
            let failed = |error: BundleWriteError| Exit::new(Code::Repository, describe_error(&error));
            view.repository.parent_of(tip).map_err(failed)?
        }
        since => since,
    };
    let has = machines.paths(store, &names).await.map_err(|error| Exit::new(Code::Machine, error))?;
    let of_agents = agents.iter().map(|(agent, asked)| {
        let asked = deployments.iter().filter(|deployment| asks_for(asked, deployment));
        let needs = asked.flat_map(|deployment| closure_of(&deployment.specification.template.nar_id, entries));
        (needs.collect(), has.get(agent).into_iter().flatten().collect())
    });
    Ok((left_out(of_agents), since))
}

fn carried_deployment(deployment: &Deployment) -> CarriedDeployment {
    CarriedDeployment {
        name: deployment.name.clone(),
        nar_id: deployment.specification.template.nar_id.clone(),
        revision: deployment.revision,
        unit: deployment.specification.unit.clone(),
    }
}

/// The deployments of these names, verified; all of them without names.
fn chosen(view: &View, names: &[Name]) -> Result<Vec<Verified<Deployment>>, Exit> {
    let (branch, _) = view.verified()?;
    let mut index = branch.whole_index()?;
    let all = index.names(Folder::Deployments);
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        let why = format!("the branch has no deployment `{unknown}`; `clavel list` shows those that it has");
        return Err(Exit::new(Code::Configuration, why));
    }
    let mut wanted: Vec<&Name> = all.iter().filter(|name| names.is_empty() || names.contains(name)).collect();
    wanted.sort();
    wanted.into_iter().map(|name| Ok(branch.document::<DeploymentSpecification>(&mut index, name)?)).collect()
}

/// Fetches the closures as an agent does, and returns their entries in the store.
async fn realise(
    store: &dyn Store,
    deployments: &[Verified<Deployment>],
    gc_roots: &Path,
) -> Result<CacheEntries, Exit> {
    let failed = |error: StoreError| Exit::new(Code::Realise, error);
    let mut all = CacheEntries::new();
    for (number, deployment) in deployments.iter().enumerate() {
        let template = &deployment.specification.template;
        let name = &deployment.name;
        if std::io::stderr().is_terminal() {
            output::remark(format_args!("{name}: {} of {}", number + 1, deployments.len()));
        }
        store.fetch(template, &gc_roots.join(name.as_str())).await.map_err(failed)?;
        let entries = store.closures_here(std::slice::from_ref(&template.nar_id)).await.map_err(failed)?;
        check_pin(deployment, &entries)?;
        all.extend(entries);
    }
    Ok(all)
}

/// Refuses content that the deployment's agents would refuse.
fn check_pin(deployment: &Deployment, entries: &CacheEntries) -> Result<(), Exit> {
    let template = &deployment.specification.template;
    let refused = |why: String| Exit::new(Code::Realise, format!("`{}`: {why}", deployment.name));
    let pin = template.metadata.pin().map_err(|error| refused(describe_error(error)))?;
    let closure = entries.iter().map(|(path, entry)| (path.clone(), entry.content())).collect();
    match pin {
        Some(pin) if pin_of(&template.nar_id, &closure) != Some(*pin) => Err(refused(format!(
            "{} in this machine's store is not as it is pinned, so its agents would refuse it; delete it there, or put the pinned content \
             back into its caches",
            template.nar_id
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Adds the signatures that the caches have, to the paths that no key of their deployments signed: a machine that builds has no
/// signatures of what it built.
async fn add_signatures(store: &dyn Store, deployments: &[Verified<Deployment>], entries: &mut CacheEntries) {
    let mut unsigned = BTreeSet::new();
    for deployment in deployments {
        let NarTemplateSpecification { nar_id, substituters, substituters_public_keys, .. } =
            &deployment.specification.template;
        let keys = CacheKeys::of(substituters_public_keys);
        for cache in substituters.iter().filter(|cache| cache.serves_files()) {
            let lacking = unsigned_of(nar_id, entries, &keys);
            if lacking.is_empty() {
                break;
            }
            // A cache that is out of reach has no signatures to give, and what lacks some is told below.
            for (path, found) in store.look_up(cache, &lacking).await.unwrap_or_default() {
                if let Some(entry) = entries.get_mut(&path) {
                    entry.add_signatures_of(&found);
                }
            }
        }
        unsigned.extend(unsigned_of(nar_id, entries, &keys));
    }
    if let Some(first) = unsigned.first() {
        output::remark(format_args!(
            "warning: {} store paths have no signature of their deployments' keys, and agents refuse them from a bundle; the first is \
             {first}; copy them to the deployments' cache with its key, and make the bundle again",
            unsigned.len()
        ));
    }
}

/// The paths in the closure of `path` that none of the keys signed, and that do not follow from their content.
fn unsigned_of(path: &StorePath, entries: &CacheEntries, keys: &CacheKeys) -> Vec<StorePath> {
    let is_unsigned = |path: &&StorePath| {
        entries.get(path).is_some_and(|entry| entry.content_address().is_none() && !entry.is_signed_by(path, keys))
    };
    closure_of(path, entries).into_iter().filter(is_unsigned).cloned().collect()
}

/// The paths in the closure of `path` that have an entry.
fn closure_of<'a>(path: &StorePath, entries: &'a CacheEntries) -> BTreeSet<&'a StorePath> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![path]);
    while let Some(path) = open.pop() {
        if let Some((path, entry)) = entries.get_key_value(path)
            && seen.insert(path)
        {
            open.extend(entry.references());
        }
    }
    seen
}

/// The branch as a git bundle, in a file without a name.
fn write_git_bundle(view: &View, since: Option<CommitId>, file: &BundleFiles) -> Result<File, Exit> {
    let tip = view.snapshot.commit();
    let mut git = tempfile::tempfile().map_err(Exit::machine)?;
    // Other closures may be wanted of the same commit, and a git bundle cannot be empty.
    let since = since.filter(|since| *since != tip);
    let written = view.repository.write_bundle(view.name(), tip, since, &mut BufWriter::new(&mut git));
    written.map_err(|error| not_written(file, &error))?;
    Ok(git)
}

/// The failure to write a git bundle.
pub(super) fn not_written(file: &BundleFiles, error: &BundleWriteError) -> Exit {
    let code = match error {
        BundleWriteError::Write(_) => Code::Machine,
        BundleWriteError::NothingNew(_) | BundleWriteError::NotBefore { .. } => Code::Configuration,
        BundleWriteError::Shallow { .. } | BundleWriteError::Read(_) | BundleWriteError::Git(_) => Code::Repository,
    };
    Exit::new(code, format!("{file}: {}", describe_error(error)))
}

fn write(
    target: &Path,
    store: &dyn Store,
    manifest: &Manifest,
    entries: &CacheEntries,
    git: &File,
) -> Result<Written, WriteError> {
    let done = Arc::<AtomicU64>::default();
    let progress = progress("writing", &done, manifest.nar_bytes());
    let mut writer = ClosureWriter::open(target, Arc::clone(&done))?;
    writer.begin(manifest, git)?;
    for CarriedPath { path, .. } in &manifest.paths {
        let Some(entry) = entries.get(path) else { continue };
        let content = entry.content();
        let narinfo = Narinfo::new(path, content, entry.references(), entry.signatures(), entry.content_address());
        let narinfo =
            narinfo.map_err(|error| WriteError::Dump { path: path.clone(), source: std::io::Error::other(error) })?;
        writer.add_path(path, content, &narinfo, |output| store.dump(path, output))?;
    }
    let written = writer.finish();
    drop(progress);
    written
}

/// A line that shows how much is done.
fn progress(act: &'static str, done: &Arc<AtomicU64>, of: u64) -> Spinner {
    let done = Arc::clone(done);
    Spinner::new(move || format!("{act}: {} of {}", ByteSize(done.load(Ordering::Relaxed)), ByteSize(of)))
}

/// Opens a file; `None` if it is a git bundle without closures.
pub(super) fn open(files: &BundleFiles) -> Result<Option<ClosureBundle>, Exit> {
    let failed = |error: &dyn std::error::Error| {
        Exit::new(Code::Repository, format!("cannot read the bundle {files}: {}", describe_error(error)))
    };
    ClosureBundle::open(files.open().map_err(|error| failed(&error))?).map_err(|error| failed(&error))
}

/// The closures in a bundle, as its `bundle.json` says.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct CarriedClosures {
    /// The deployments whose closures it has, with revision, unit and store path.
    carried: Vec<CarriedDeployment>,
    /// How many store paths it has.
    paths: usize,
    /// The bytes of their NARs.
    nar_bytes: u64,
    /// How many store paths its reader is taken to have.
    assumed: usize,
}

impl CarriedClosures {
    pub(super) fn of(bundle: &ClosureBundle) -> Self {
        let manifest = bundle.manifest();
        Self {
            carried: manifest.deployments.clone(),
            paths: manifest.paths.len(),
            nar_bytes: manifest.nar_bytes(),
            assumed: manifest.assumed.len(),
        }
    }

    /// What a table says of it.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { carried, paths, nar_bytes, assumed } = self;
        let whom = |of: &CarriedDeployment| format!("{} revision {} for {}", of.name, of.revision, of.unit);
        let mut rows = vec![
            ("closures of", carried.iter().map(whom).collect::<Vec<_>>().join(", ")),
            ("store paths", format!("{paths}, {}", ByteSize(*nar_bytes))),
        ];
        if *assumed > 0 {
            rows.push(("left out", format!("{assumed} store paths that its reader is taken to have")));
        }
        rows
    }
}

/// Reads all closures in a bundle, and compares them with what the branch of the view says. Returns what is wrong.
pub(super) fn verify(bundle: &ClosureBundle, view: &View, index: &mut VerifiedIndex) -> Result<Vec<String>, Exit> {
    let (branch, _) = view.verified()?;
    let manifest = bundle.manifest();
    let mut errors = Vec::new();
    if manifest.commit != view.snapshot.commit().to_string() || manifest.branch != *view.name() {
        errors.push(format!(
            "bundle.json: it says that the branch is `{}` at {}, and deployments.bundle has `{}` at {}; make the bundle again",
            manifest.branch,
            manifest.commit,
            view.name(),
            view.snapshot.commit()
        ));
    }
    let mut required = Vec::new();
    for carried in &manifest.deployments {
        // A document that is refused is reported with the branch.
        let Ok(deployment) = branch.document::<DeploymentSpecification>(index, &carried.name) else { continue };
        if *carried != carried_deployment(&deployment) {
            errors.push(format!(
                "bundle.json: its entry of `{}` is not what the branch says; make the bundle again",
                carried.name
            ));
        }
        let template = &deployment.specification.template;
        required.push(Requirement {
            deployment: carried.name.clone(),
            nar_id: template.nar_id.clone(),
            keys: template.substituters_public_keys.to_vec(),
        });
    }
    let done = Arc::<AtomicU64>::default();
    let _progress = progress("reading", &done, manifest.nar_bytes());
    let check = bundle.check(&required, &|count| {
        done.fetch_add(count as u64, Ordering::Relaxed);
    });
    errors.extend(check.damaged.iter().map(|error| describe_error(error)));
    errors.extend(check.lacking);
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(references: &[&str]) -> store::CacheEntry {
        let nar_hash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        serde_json::from_value(serde_json::json!({ "narHash": nar_hash, "narSize": 1, "references": references }))
            .unwrap()
    }

    #[test]
    fn what_no_key_signed_is_found_in_one_closure_alone() {
        let [x, y, z] = ["x", "y", "z"].map(|name| format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}"));
        let entries: BTreeMap<StorePath, _> = [(&x, entry(&[&y, &x])), (&y, entry(&[])), (&z, entry(&[]))]
            .into_iter()
            .map(|(path, entry)| (path.parse().unwrap(), entry))
            .collect();
        let found = unsigned_of(&x.parse().unwrap(), &entries, &CacheKeys::of(&[]));
        assert_eq!(found, [x.parse().unwrap(), y.parse().unwrap()]);
    }
}
